//! What transports hold of messages that are not whole, and transports on which nobody is signed in: within the budget, and for a time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use super::parts::Shard;
use crate::conn::state::transport::{Io, Phase, Session, Transport, TransportId};
use crate::hub::{Hub, ShardCommand};
use crate::model::{Clock, CloseCode};
use crate::net::Budget;

/// What a transport takes on which nobody is signed in, in bytes: itself, and its place in the tables.
const STRANGER_BYTES: usize = 2048;

/// Time for a client to take a close of a transport that is not read any more.
const MUTED_TIMEOUT: Duration = Duration::from_secs(2);

/// A budget of which the transports of all shards have parts.
pub fn incomplete_budget(bound: usize, clock: Clock, held: IntGauge, evicted: IntCounter, hub: Arc<Hub>) -> Budget {
    let shutdown_transport = move |(shard, transport): (usize, u64)| {
        if let Some(shard) = hub.shards().get(shard) {
            shard.push(ShardCommand::Evict { transport });
        }
    };
    Budget::with_links(bound, clock, held, evicted, Box::new(shutdown_transport))
}

impl Shard {
    /// Reckons with what a transport holds that is not whole, after so many bytes have come. `is_begun` says that a message was
    /// whole meanwhile, so that what is incomplete now was begun behind it.
    pub(in crate::conn) fn account_incomplete(&self, transport: &Transport, came: usize, is_begun: bool) {
        let (bytes, attachments) = held_by(transport);
        let mut holding = transport.holding.borrow_mut();
        match &*holding {
            _ if bytes == 0 => drop(holding.take()),
            // A packet that waits for attachments is not whole, though messages are.
            Some(holding) if is_begun && attachments == 0 => holding.begin(bytes),
            Some(holding) => holding.grow(bytes, came),
            None => {
                let part = self.shared.unfinished.part_of_link((self.index, transport.id.token().0 as u64));
                part.begin(bytes);
                *holding = Some(part);
            }
        }
        drop(holding);
        self.arm(transport, incomplete_deadline(transport));
    }

    /// Ends a transport that has to make room for others.
    pub(in crate::conn) fn evict(self: &Rc<Self>, transport: u64) {
        let Some(transport) = self.find_transport(TransportId::of_token(mio::Token(transport as usize))) else {
            return;
        };
        // What it held may have been finished meanwhile.
        if transport.holding.take().is_none() {
            return;
        }
        tracing::debug!(peer = %transport.peer, "a client's unfinished message had to make room for others");
        self.close_with(
            &transport,
            CloseCode::TryAgainLater,
            "the host holds too much that is unfinished: try again",
            true,
        );
        if let Some(socket) = transport.socket() {
            socket.decoder.take();
        }
        if let Some(eio) = transport.eio() {
            eio.decoder.take();
        }
        self.mute(&transport);
    }

    /// Reads nothing of a transport any more that is being closed: its kernel stops the client, and that costs nothing.
    pub(in crate::conn) fn mute(&self, transport: &Transport) {
        if let Io::Socket(_) = &transport.io
            && transport.phase.get() == Phase::Closing
        {
            transport.muted.set(true);
            let limit = self.shared.clock.uptime_ms() + MUTED_TIMEOUT.as_millis() as u64;
            transport.times.limit.set(limit);
            self.arm(transport, limit);
        }
    }
}

/// The bytes that a transport holds, and those of them that wait for attachments.
fn held_by(transport: &Transport) -> (usize, usize) {
    let (attachments, credentials) = match &*transport.session.borrow() {
        Session::Eio(eio) => {
            let shown = || eio.credentials.shown.iter().map(|shown| shown.token.len()).sum();
            (eio.decoder.borrow().buffered(), if transport.phase.get() == Phase::Open { 0 } else { shown() })
        }
        _ => (0, 0),
    };
    let stranger = match transport.phase.get() {
        Phase::Authenticating => STRANGER_BYTES + credentials,
        Phase::Open => 0,
        // What it held is let go of.
        Phase::Closing | Phase::Ended => return (0, 0),
    };
    let frames = transport.socket().map_or(0, |socket| socket.decoder.borrow().buffered());
    (stranger + attachments + frames, attachments)
}

/// When a message of a transport must be whole, in milliseconds of uptime. Before somebody is signed in there is another limit.
pub(in crate::conn) fn incomplete_deadline(transport: &Transport) -> u64 {
    match &*transport.holding.borrow() {
        Some(holding) if transport.phase.get() == Phase::Open => holding.deadline(),
        _ => u64::MAX,
    }
}
