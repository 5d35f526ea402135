//! What links hold of messages that are not whole, and links on which nobody is signed in: within the budget, and for a time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use super::link::{Link, LinkId, Phase, Role, Wire};
use super::shard::Shard;
use crate::hub::{Hub, ShardCommand};
use crate::model::{Clock, CloseCode};
use crate::net::Budget;

/// What a link takes on which nobody is signed in, in bytes: itself, and its place in the tables.
const STRANGER_BYTES: usize = 2048;

/// Time for a client to take a close of a link that is not read any more.
const MUTED_TIMEOUT: Duration = Duration::from_secs(2);

/// A budget of which the links of all shards have parts.
pub fn budget_of_links(bound: usize, clock: Clock, held: IntGauge, evicted: IntCounter, hub: Arc<Hub>) -> Budget {
    let end_link = move |(shard, link): (usize, u64)| {
        if let Some(shard) = hub.shards().get(shard) {
            shard.push(ShardCommand::Evict { link });
        }
    };
    Budget::with_links(bound, clock, held, evicted, Box::new(end_link))
}

impl Shard {
    /// Reckons with what a link holds that is not whole, after so many bytes have come. `is_begun` says that a message was
    /// whole meanwhile, so that what is incomplete now was begun behind it.
    pub(super) fn reckon(&self, link: &Link, came: usize, is_begun: bool) {
        let (bytes, attachments) = held_by(link);
        let mut holding = link.holding.borrow_mut();
        match &*holding {
            _ if bytes == 0 => drop(holding.take()),
            // A packet that waits for attachments is not whole, though messages are.
            Some(holding) if is_begun && attachments == 0 => holding.begin(bytes),
            Some(holding) => holding.grow(bytes, came),
            None => {
                let part = self.shared.unfinished.part_of_link((self.index, link.id.token().0 as u64));
                part.begin(bytes);
                *holding = Some(part);
            }
        }
        drop(holding);
        self.arm(link, unfinished_deadline(link));
    }

    /// Ends a link that has to make room for others.
    pub(super) fn evict(self: &Rc<Self>, link: u64) {
        let Some(link) = self.find_link(LinkId::of_token(mio::Token(link as usize))) else { return };
        // What it held may have been finished meanwhile.
        if link.holding.take().is_none() {
            return;
        }
        tracing::debug!(peer = %link.peer, "a client's unfinished message had to make room for others");
        self.hang_up(&link, CloseCode::TryAgainLater, "the host holds too much that is unfinished: try again", true);
        if let Some(socket) = link.socket() {
            socket.decoder.take();
        }
        if let Some(engine) = link.engine() {
            engine.decoder.take();
        }
        self.mute(&link);
    }

    /// Reads nothing of a link any more that is being closed: its kernel stops the client, and that costs nothing.
    pub(super) fn mute(&self, link: &Link) {
        if let Wire::Socket(_) = &link.wire
            && link.phase.get() == Phase::Closing
        {
            link.muted.set(true);
            let limit = self.shared.clock.uptime_ms() + MUTED_TIMEOUT.as_millis() as u64;
            link.times.limit.set(limit);
            self.arm(link, limit);
        }
    }
}

/// The bytes that a link holds, and those of them that wait for attachments.
fn held_by(link: &Link) -> (usize, usize) {
    let (attachments, credentials) = match &*link.role.borrow() {
        Role::Engine(engine) => {
            let shown = || engine.credentials.shown.iter().map(|shown| shown.token.len()).sum();
            (engine.decoder.borrow().buffered(), if link.phase.get() == Phase::Open { 0 } else { shown() })
        }
        _ => (0, 0),
    };
    let stranger = match link.phase.get() {
        Phase::Authenticating => STRANGER_BYTES + credentials,
        Phase::Open => 0,
        // What it held is let go of.
        Phase::Closing | Phase::Ended => return (0, 0),
    };
    let frames = link.socket().map_or(0, |socket| socket.decoder.borrow().buffered());
    (stranger + attachments + frames, attachments)
}

/// When a message of a link must be whole, in milliseconds of uptime. Before somebody is signed in there is another limit.
pub(super) fn unfinished_deadline(link: &Link) -> u64 {
    match &*link.holding.borrow() {
        Some(holding) if link.phase.get() == Phase::Open => holding.deadline(),
        _ => u64::MAX,
    }
}
