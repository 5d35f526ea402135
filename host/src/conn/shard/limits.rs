//! What a client may send: how long messages may be, how many of them, and how long incomplete ones may take. And what
//! happens to a client that breaks its protocol.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use super::parts::Shard;
use crate::conn::state::{Io, Phase, Session, Transport, TransportId, Verdict};
use crate::hub::{Hub, ShardCommand};
use crate::model::{Clock, CloseCode, ErrorCode, Failure};
use crate::net::Budget;
use crate::protocol::{engineio, plain, socketio};

/// The longest message from a client that has not signed in, in bytes: a token, and room around it.
const MAX_UNAUTHENTICATED_BYTES: usize = 16 * 1024;

/// The longest message that is sent back to a suite that tests WebSocket, in bytes.
const MAX_ECHO_BYTES: usize = 64 * 1024 * 1024;

/// The memory of a transport on which no client is signed in, in bytes: itself, and its slots in the tables.
const UNAUTHENTICATED_BYTES: usize = 2048;

/// Time for a client to take the close of a transport that is not read any more.
const MUTED_TIMEOUT: Duration = Duration::from_secs(2);

const CUT_OFF_REASON: &str = "the client went on sending over its rate";

/// A budget for incomplete messages, of which the transports of all shards have shares.
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
    /// The longest frame that is read from a transport, in bytes. A binary message may come as base64 in a text frame.
    pub(super) fn longest_frame(&self, transport: &Transport) -> usize {
        let longest = self.longest_message(transport);
        match &*transport.session.borrow() {
            Session::Eio(eio) if !eio.echoes => engineio::longest_body(longest),
            _ => longest,
        }
    }

    /// The longest message that a client may send, in bytes.
    pub(super) fn longest_message(&self, transport: &Transport) -> usize {
        let longest = self.config().message_bytes;
        match &*transport.session.borrow() {
            Session::Echo => MAX_ECHO_BYTES,
            Session::Eio(eio) if eio.echoes => longest,
            _ if transport.connections.borrow().is_empty() => longest.min(MAX_UNAUTHENTICATED_BYTES),
            _ => longest,
        }
    }

    /// Logs that a message was longer than its transport's may be.
    pub(super) fn log_oversize(&self, transport: &Transport) {
        let user = self.first_connection(transport).map(|connection| connection.identity.borrow().user.to_string());
        self.log_oversize_from(transport.peer, user.as_deref(), self.longest_message(transport));
    }

    /// As [`Shard::log_oversize`], of a request that belongs to no transport.
    pub(in crate::conn) fn log_oversize_from(&self, peer: SocketAddr, user: Option<&str>, limit: usize) {
        if let Some(unlogged) = self.client_log().ask_oversize(self.now()) {
            let is_early = limit < self.config().message_bytes;
            let which = if is_early { "before it signed in" } else { "limits.message_bytes" };
            tracing::info!(%peer, user, limit, which, unlogged, "a client's message was too large, and it was told so");
        }
    }

    /// Closes a transport whose client sent a message that is too long. Socket.IO's client shows its user the reason of a
    /// close, and expects none here.
    pub(super) fn close_oversize(self: &Rc<Self>, transport: &Rc<Transport>) {
        self.close(transport, CloseCode::TooLarge, "");
    }

    /// Counts a message of a client, before it is read. One too many over the rate closes the transport.
    pub(super) fn meter(self: &Rc<Self>, transport: &Rc<Transport>, bytes: usize) -> Verdict {
        let verdict = match &mut *transport.rate.borrow_mut() {
            Some(rate) => rate.judge(bytes, self.now()),
            None => Verdict::Take,
        };
        match verdict {
            Verdict::Take | Verdict::Refuse => {}
            Verdict::Drop => self.metrics().events_refused.inc(),
            Verdict::CutOff => self.cut_off(transport),
        }
        verdict
    }

    /// Closes a transport whose client goes on over its rate, and reads it no more.
    fn cut_off(self: &Rc<Self>, transport: &Rc<Transport>) {
        if !transport.is_up() {
            return;
        }
        self.metrics().cut_off.inc();
        self.log_violation(transport, CUT_OFF_REASON);
        if transport.is_eio() {
            // Socket.IO's client does not show the reason of a close.
            let why = plain::error_data(&rate_limited(), None);
            for connection in self.connections_of(transport) {
                self.enqueue(transport, socketio::event_frames(connection.namespace(), "error", &why, None, None));
            }
        }
        self.close_with(transport, CloseCode::PolicyViolation, CUT_OFF_REASON, false);
        self.mute(transport);
    }

    /// Reads a transport no more that is being closed: its kernel stops the client, which costs nothing.
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

    /// Closes a transport whose client broke the protocol.
    pub(super) fn close_for_violation(self: &Rc<Self>, transport: &Rc<Transport>, reason: &str) {
        self.report_violation(transport, reason);
        self.close(transport, CloseCode::ProtocolError, reason);
    }

    /// Reports a violation before its transport is closed: to the log, and by an event to a Socket.IO client, which does not
    /// show the reason of a close.
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

    /// Accounts for the incomplete messages of a transport, after so many bytes have come. `is_begun` says that a message was
    /// complete meanwhile, so that an incomplete one began behind it.
    pub(super) fn account_incomplete(&self, transport: &Transport, came: usize, is_begun: bool) {
        let (bytes, attachments) = incomplete_bytes(transport);
        let mut holding = transport.holding.borrow_mut();
        match &*holding {
            _ if bytes == 0 => drop(holding.take()),
            // A packet that waits for attachments is incomplete, though messages are complete.
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

    /// Closes a transport whose incomplete messages must make room for others.
    pub(super) fn evict(self: &Rc<Self>, transport: u64) {
        let Some(transport) = self.transport(TransportId::from_bits(transport)) else { return };
        // They may be complete by now.
        if transport.holding.take().is_none() {
            return;
        }
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

/// The bytes of a transport's incomplete messages, and those of them that wait for attachments.
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
        // Its messages are dropped.
        Phase::Closing | Phase::Ended => return (0, 0),
    };
    let frames = transport.socket().map_or(0, |socket| socket.decoder.borrow().buffered());
    (unauthenticated + attachments + frames, attachments)
}
