//! Fan-out: delivery of an event to the members of a room, role or user on this shard.

use std::collections::VecDeque;
use std::rc::Rc;

use smallvec::{SmallVec, smallvec};

use super::parts::Shard;
use crate::conn::state::{Entry, FrameRef, Writes};
use crate::hub::{Delivery, ShardCommand};
use crate::protocol::Protocol;

/// The most bytes in one run of deliveries: a single run must not make a client count as too slow.
const RUN_BYTES: usize = 64 * 1024;

/// Takes a run: a delivery and the deliveries directly behind it with the same recipients, which are walked once for
/// the whole run.
fn take_run(first: Delivery, commands: &mut VecDeque<ShardCommand>) -> SmallVec<[Delivery; 1]> {
    let mut bytes = first.outgoing.bytes();
    let mut run: SmallVec<[Delivery; 1]> = smallvec![first];
    loop {
        let next = commands.pop_front_if(|next| match next {
            ShardCommand::Deliver(next) => {
                bytes += next.outgoing.bytes();
                bytes <= RUN_BYTES && run[0].goes_where(next)
            }
            _ => false,
        });
        match next {
            Some(ShardCommand::Deliver(next)) => run.push(next),
            _ => return run,
        }
    }
}

/// The queued frames of a run, encoded once for each protocol among its recipients.
#[derive(Default)]
struct Encoded(SmallVec<[(Protocol, Vec<FrameRef>); 1]>);

impl Encoded {
    fn frames(&mut self, run: &[Delivery], protocol: &Protocol, writes: &Writes) -> &[FrameRef] {
        let at = self.0.iter().position(|(other, _)| other == protocol).unwrap_or_else(|| {
            let frames = run.iter().map(|delivery| writes.push(delivery.outgoing.frames(protocol)));
            self.0.push((protocol.clone(), frames.collect()));
            self.0.len() - 1
        });
        &self.0[at].1
    }
}

impl Shard {
    /// Queues a delivery for its recipients, together with the deliveries `behind` it that have the same recipients.
    /// Where no further command waits, the frames are written at once, which visits each transport once instead of
    /// twice.
    pub(super) fn deliver(self: &Rc<Self>, first: Delivery, behind: &mut VecDeque<ShardCommand>) {
        let run = take_run(first, behind);
        let is_last = behind.is_empty();
        let is_volatile = run[0].volatile;
        let mut encoded = Encoded::default();
        let (targets, writes) = ((&run[0].to[..], &run[0].except[..]), self.writes());
        self.members().each(targets, self.connections(), self.transports(), |connection, transport| {
            if is_volatile && transport.is_none_or(|transport| transport.is_blocked()) {
                return self.metrics().frames_dropped.inc_by(run.len() as u64);
            }
            let frames = encoded.frames(&run, &connection.protocol, writes);
            if connection.is_recoverable() {
                let events = run.iter().map(|delivery| delivery.outgoing.clone());
                let entries = events.zip(frames).map(|(event, frame)| Entry::event(event, frame.length()));
                self.record(connection, entries);
            }
            match transport {
                Some(transport) if is_last => writes.write_shared(transport, frames),
                Some(transport) => writes.enqueue_shared(transport, frames),
                None => {}
            }
        });
        for mut delivery in run {
            writes.hold(delivery.receipt.take());
            self.members().note_delivery(delivery);
        }
        self.close_slow_readers();
    }
}
