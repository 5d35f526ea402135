//! How an event gets to those members of a room, a role or a user who are on a shard.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use smallvec::{SmallVec, smallvec};

use super::parts::Shard;
use crate::conn::state::outbox::{Place, Queue};
use crate::conn::state::replay::Entry;
use crate::hub::{Delivery, ShardCommand};
use crate::protocol::Protocol;

/// What a run of deliveries may weigh, in bytes: a client must not be taken for a slow one because of a single run.
const RUN_BYTES: usize = 64 * 1024;

/// A delivery, and those right behind it that go to the very same members: they are walked through once for all.
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

/// Where the events of a run are in a shard's queue, in the frames of each protocol that somebody has needed them in.
#[derive(Default)]
struct Encoded(SmallVec<[(Protocol, Vec<Place>); 1]>);

impl Encoded {
    fn places(&mut self, run: &[Delivery], protocol: &Protocol, queue: &RefCell<Queue>) -> &[Place] {
        let at = self.0.iter().position(|(other, _)| other == protocol).unwrap_or_else(|| {
            let mut queue = queue.borrow_mut();
            let places = run.iter().map(|delivery| queue.push(delivery.outgoing.frames(protocol)));
            self.0.push((protocol.clone(), places.collect()));
            self.0.len() - 1
        });
        &self.0[at].1
    }
}

impl Shard {
    /// Hands a delivery to its members, with those `behind` it that go there, too. Where nothing is left to follow, it is
    /// written at once: each transport is then looked at once, not twice.
    pub(in crate::conn) fn deliver(self: &Rc<Self>, first: Delivery, behind: &mut VecDeque<ShardCommand>) {
        let run = take_run(first, behind);
        let is_last = behind.is_empty();
        let is_volatile = run[0].volatile;
        let mut encoded = Encoded::default();
        self.members.each(
            &run[0].to,
            &run[0].except,
            |id| self.find(id),
            |connection| {
                let transport = connection.transport.borrow();
                if is_volatile && transport.as_ref().is_none_or(|transport| transport.is_blocked()) {
                    return self.shared.metrics.frames_dropped.inc_by(run.len() as u64);
                }
                let places = encoded.places(&run, &connection.protocol, &self.queue);
                if connection.replay.borrow().is_some() {
                    let events = run.iter().map(|delivery| delivery.outgoing.clone());
                    let entries = events.zip(places).map(|(event, place)| Entry::event(event, place.length()));
                    self.record(connection, entries);
                }
                match &*transport {
                    Some(transport) if is_last => self.write_shared(transport, places),
                    Some(transport) => self.enqueue_shared(transport, places),
                    None => {}
                }
            },
        );
        self.receipts.borrow_mut().extend(run.into_iter().filter_map(|delivery| delivery.receipt));
        self.close_slow_readers();
    }
}
