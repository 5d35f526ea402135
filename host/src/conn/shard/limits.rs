//! Limits on clients' input: length of messages, rate of messages, time and memory of incomplete messages. Also the
//! closing of clients that violate their protocol.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use super::parts::Shard;
use crate::conn::state::{Io, Phase, Session, Transport, TransportId, Verdict};
use crate::hub::{Hub, ShardCommand};
use crate::metrics::Limit;
use crate::model::{Clock, CloseCode, ErrorCode, Failure};
use crate::net::Budget;
use crate::protocol::{engineio, plain, socketio};

/// The longest message from an unauthenticated client, in bytes: a token, and room around it.
const MAX_UNAUTHENTICATED_BYTES: usize = 16 * 1024;

/// The longest message of an echo session, which conformance suites of WebSocket use, in bytes.
const MAX_ECHO_BYTES: usize = 64 * 1024 * 1024;

/// The memory of an unauthenticated transport, in bytes: the transport, and its slots in the tables.
const UNAUTHENTICATED_BYTES: usize = 2048;

/// Time for a client to read the close of a muted transport.
const MUTED_TIMEOUT: Duration = Duration::from_secs(2);

const CUT_OFF_REASON: &str = "the client went on sending over its rate";

/// The budget for incomplete messages, shared by the transports of all shards.
pub fn incomplete_budget(bound: usize, clock: Clock, held: IntGauge, evicted: IntCounter, hub: Arc<Hub>) -> Budget {
    let evict = move |(shard, transport): (usize, u64)| {
        if let Some(shard) = hub.shards().get(shard) {
            shard.push(ShardCommand::Evict { transport });
        }
    };
    Budget::with_transports(bound, clock, held, evicted, Box::new(evict))
}

/// The failure of a message over its client's rate.
pub(super) fn rate_limited() -> Failure {
    let message = "too many messages from this connection: send fewer, or send them later";
    Failure::new(ErrorCode::RateLimited, message)
}

impl Shard {
    /// The longest frame that is accepted from a transport, in bytes. A binary message may arrive as base64 in a text
    /// frame.
    pub(super) fn longest_frame(&self, transport: &Transport) -> usize {
        let longest = self.longest_message(transport);
        match &*transport.session.borrow() {
            Session::Eio(eio) if !eio.echoes => engineio::longest_body(longest),
            _ => longest,
        }
    }

    /// The longest message that is accepted from a transport, in bytes.
    pub(super) fn longest_message(&self, transport: &Transport) -> usize {
        let longest = self.config().message_bytes;
        match &*transport.session.borrow() {
            Session::Echo => MAX_ECHO_BYTES,
            Session::Eio(eio) if eio.echoes => longest,
            _ if transport.connections.borrow().is_empty() => longest.min(MAX_UNAUTHENTICATED_BYTES),
            _ => longest,
        }
    }

    /// Logs a message over the limit of its transport.
    pub(super) fn log_oversize(&self, transport: &Transport) {
        let user = self.first_connection(transport).map(|connection| connection.identity.borrow().user.to_string());
        self.log_oversize_from(transport.peer, user.as_deref(), self.longest_message(transport));
    }

    /// As [`Shard::log_oversize`], for a request without a transport.
    pub(in crate::conn) fn log_oversize_from(&self, peer: SocketAddr, user: Option<&str>, limit: usize) {
        self.metrics().limited(Limit::MessageBytes);
        if let Some(unlogged) = self.client_log().ask_oversize(self.now()) {
            let is_early = limit < self.config().message_bytes;
            let which = if is_early { "before it signed in" } else { "limits.message_bytes" };
            tracing::info!(%peer, user, limit, which, unlogged, "a client's message was too large, and it was told so");
        }
    }

    /// Closes a transport over a message that is too long. Without a reason: Socket.IO's client passes a reason to its
    /// user, and expects none here.
    pub(super) fn close_oversize(self: &Rc<Self>, transport: &Rc<Transport>) {
        self.close(transport, CloseCode::TooLarge, "");
    }

    /// Counts a message against its client's rate, before the message is parsed. A client that stays over its rate is
    /// cut off.
    pub(super) fn meter(self: &Rc<Self>, transport: &Rc<Transport>, bytes: usize) -> Verdict {
        let verdict = match &mut *transport.rate.borrow_mut() {
            Some(rate) => rate.judge(bytes, self.now()),
            None => Verdict::Take,
        };
        if verdict == Verdict::Take {
            return verdict;
        }
        self.metrics().limited(Limit::EventsPerSecond);
        match verdict {
            Verdict::Take | Verdict::Refuse => {}
            Verdict::Drop => self.metrics().events_refused.inc(),
            Verdict::CutOff => self.cut_off(transport),
        }
        verdict
    }

    /// Closes a transport whose client keeps sending over its rate, and stops reading it.
    pub(super) fn cut_off(self: &Rc<Self>, transport: &Rc<Transport>) {
        if !transport.is_up() {
            return;
        }
        self.metrics().cut_off.inc();
        self.log_violation(transport, CUT_OFF_REASON);
        if transport.is_eio() {
            // Socket.IO's client does not expose the reason of a close.
            let why = plain::error_data(&rate_limited(), None);
            for connection in self.connections_of(transport) {
                self.enqueue(transport, socketio::event_frames(connection.namespace(), "error", &why, None, None));
            }
        }
        self.close_with(transport, CloseCode::PolicyViolation, CUT_OFF_REASON, false);
        self.mute(transport);
    }

    /// Stops reading a closing transport: TCP's flow control then stops the client, at no cost to the shard.
    fn mute(&self, transport: &Transport) {
        if let Io::Socket(_) = &transport.io
            && transport.phase.get() == Phase::Closing
        {
            transport.muted.set(true);
            self.set_limit(transport, MUTED_TIMEOUT);
        }
    }

    pub(super) fn log_violation(&self, transport: &Transport, reason: &str) {
        if let Some(not_logged) = self.client_log().ask_violation() {
            let connection = self.first_connection(transport);
            let user = connection.map(|connection| connection.identity.borrow().user.clone()).unwrap_or_default();
            tracing::info!(peer = %transport.peer, %user, not_logged, "a client broke the protocol: {reason}");
        }
    }

    /// Closes a transport whose client violated the protocol.
    pub(super) fn close_for_violation(self: &Rc<Self>, transport: &Rc<Transport>, reason: &str) {
        self.report_violation(transport, reason);
        self.close(transport, CloseCode::ProtocolError, reason);
    }

    /// Reports a violation before its transport is closed: to the log, and by an event to a Socket.IO client, which
    /// does not expose the reason of a close.
    pub(super) fn report_violation(self: &Rc<Self>, transport: &Rc<Transport>, reason: &str) {
        if !transport.is_up() {
            return;
        }
        self.log_violation(transport, reason);
        if transport.is_eio()
            && let Some(connection) = self.first_connection(transport)
        {
            let why = plain::error_data(&Failure::new(ErrorCode::BadRequest, reason), None);
            self.enqueue(transport, socketio::event_frames(connection.namespace(), "error", &why, None, None));
        }
    }

    /// Updates a transport's share of the budget for incomplete messages after `came` bytes were read. `is_begun` says
    /// that a message was completed by them, so that any incomplete message began behind it.
    pub(super) fn account_incomplete(&self, transport: &Transport, came: usize, is_begun: bool) {
        let (bytes, attachments) = incomplete_bytes(transport);
        let mut holding = transport.holding.borrow_mut();
        match &*holding {
            _ if bytes == 0 => drop(holding.take()),
            // A packet that waits for attachments is incomplete, even though its messages are complete.
            Some(holding) if is_begun && attachments == 0 => holding.begin(bytes),
            Some(holding) => holding.grow(bytes, came),
            None => {
                let share = self.shared().unfinished.holding_of_transport((self.index(), transport.id.to_bits()));
                share.begin(bytes);
                *holding = Some(share);
            }
        }
        drop(holding);
        self.arm(transport, transport.incomplete_deadline());
    }

    /// Closes a transport whose incomplete messages were evicted from the budget.
    pub(super) fn evict(self: &Rc<Self>, transport: u64) {
        let Some(transport) = self.transport(TransportId::from_bits(transport)) else { return };
        // The messages may be complete by now.
        if transport.holding.take().is_none() {
            return;
        }
        self.metrics().limited(Limit::UnfinishedBytes);
        tracing::debug!(peer = %transport.peer, "a client's unfinished message had to make room for others");
        let reason = "the host holds too much that is unfinished: try again";
        self.close_with(&transport, CloseCode::TryAgainLater, reason, true);
        if let Some(socket) = transport.socket() {
            socket.decoder.take();
        }
        if let Some(eio) = transport.eio() {
            eio.decoder.take();
        }
        self.mute(&transport);
    }
}

/// The bytes of a transport's incomplete messages, and the part of a packet that waits for attachments.
fn incomplete_bytes(transport: &Transport) -> (usize, usize) {
    let is_open = transport.phase.get() == Phase::Open;
    let (attachments, credentials) = match &*transport.session.borrow() {
        Session::Eio(eio) => {
            let shown = || eio.credentials.tokens.iter().map(|shown| shown.token.len()).sum();
            (eio.decoder.borrow().buffered(), if is_open { 0 } else { shown() })
        }
        _ => (0, 0),
    };
    let unauthenticated = match transport.phase.get() {
        Phase::Authenticating => UNAUTHENTICATED_BYTES + credentials,
        Phase::Open => 0,
        // Input of a closing transport is dropped.
        Phase::Closing | Phase::Ended => return (0, 0),
    };
    let frames = transport.socket().map_or(0, |socket| socket.decoder.borrow().buffered() + socket.incomplete_tls());
    (unauthenticated + attachments + frames, attachments)
}
