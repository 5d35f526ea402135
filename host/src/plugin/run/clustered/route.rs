//! The way of an event: it is handled here, forwarded, or waits.

use std::collections::VecDeque;

use super::later::moved_outcome;
use super::node::moved;
use super::partitions::Phase;
use super::wire::{WireEnvelope, WireEvent, encode};
use crate::cluster::Partition;
use crate::plugin::event::{Event, ReplyTo, Stage};
use crate::plugin::run::deadlines::Due;
use crate::plugin::run::envelope::Envelope;
use crate::plugin::run::shared::unavailable;
use crate::plugin::run::state::ThreadState;

/// The time after which events are refused that wait for a Redis that is away, in milliseconds.
const AWAY_MS: u64 = 1000;

impl ThreadState {
    /// Finds out where an event is handled. Returns it if that is here and now; else it was forwarded, or waits.
    pub(in crate::plugin::run) fn route(&mut self, envelope: Envelope) -> Option<Envelope> {
        // Answers gathered from all scopes are of no scope.
        if self.partitions.is_none() || envelope.address.key.is_empty() {
            return Some(envelope);
        }
        let partition = Partition::of(&envelope.address.key);
        let now = self.shared.clock.uptime_ms();
        let partitions = self.partitions.as_mut()?;
        let is_up = partitions.is_up;
        let slot = partitions.slot(partition);
        let is_ready = slot.waiting.is_empty() && is_up;
        match &slot.phase {
            Phase::Owned(owned) if is_ready && owned.is_ready() => return Some(envelope),
            Phase::Foreign if is_ready => self.forward(partition, envelope),
            _ => {
                slot.waiting.push_back((now, envelope));
                self.limit_wait();
            }
        }
        None
    }

    /// Whether events of a scope can be handled now, if they are this node's.
    pub(in crate::plugin::run) fn is_ready(&mut self, key: &str) -> bool {
        let Some(partitions) = &mut self.partitions else { return true };
        let is_up = partitions.is_up;
        let slot = partitions.slot(Partition::of(key));
        match &slot.phase {
            Phase::Owned(owned) => is_up && slot.waiting.is_empty() && owned.is_ready(),
            _ => true,
        }
    }

    /// Hands an event to the owner of its scope.
    pub(super) fn forward(&mut self, partition: Partition, envelope: Envelope) {
        let Some(node) = self.partitions.as_ref().map(|partitions| partitions.node.clone()) else { return };
        let Envelope { plugin, address, event, reply } = envelope;
        match reply {
            ReplyTo::Node { id, stage: Stage::Fetched } => {
                return self.pass_late(partition, id, moved_outcome());
            }
            // It is in Redis, for the next owner.
            ReplyTo::Node { .. } => return,
            _ => {}
        }
        let Some(wire) = WireEvent::of(&event) else {
            if matches!(event, Event::Fetched { .. }) {
                self.shared.answer(event.name(), reply, Err(moved()), &self.wakes);
            }
            // Others are the owner's: a timer is in Redis, for the next.
            return;
        };
        let bytes =
            encode(&WireEnvelope { plugin: plugin.name.as_str().into(), scope: (*address.key).into(), event: wire });
        node.forwarding.forward(&node.cluster, partition, bytes.into(), event, reply);
    }

    /// Handles or forwards the events that wait, as far as is possible now.
    pub(super) fn handle_waiting(&mut self, partition: Partition) {
        loop {
            let Some(partitions) = &mut self.partitions else { return };
            let is_up = partitions.is_up;
            let slot = partitions.slot(partition);
            let is_here = match &slot.phase {
                Phase::Owned(owned) => owned.is_ready(),
                Phase::Foreign => true,
                Phase::Taking => false,
            };
            if !is_up || !is_here {
                return;
            }
            let is_owned = matches!(slot.phase, Phase::Owned(_));
            let Some((_, envelope)) = slot.waiting.pop_front() else { return };
            match is_owned {
                true => self.handle_here(envelope),
                false => self.forward(partition, envelope),
            }
            self.flush_if_full(partition);
        }
    }

    /// Sees to it that no event waits for long for a Redis that is away.
    fn limit_wait(&mut self) {
        let at = self.shared.clock.uptime_ms() + AWAY_MS;
        if let Some(partitions) = &mut self.partitions
            && !std::mem::replace(&mut partitions.has_deadline, true)
        {
            self.deadlines.push(at, Due::Waiting);
        }
    }

    /// Refuses the events that have waited for too long while Redis is away. Guaranteed events go on waiting, because they have no
    /// sender that could repeat them.
    pub(in crate::plugin::run) fn refuse_waiting(&mut self) {
        let now = self.shared.clock.uptime_ms();
        let Some(partitions) = &mut self.partitions else { return };
        partitions.has_deadline = false;
        let (mut refused, mut is_anything_left) = (Vec::new(), false);
        for slot in partitions.slots.values_mut() {
            let is_over = |since: u64| !partitions.is_up && now >= since + AWAY_MS;
            let (over, left): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut slot.waiting)
                .into_iter()
                .partition(|(since, envelope)| is_over(*since) && envelope.can_be_refused());
            is_anything_left |= !left.is_empty();
            slot.waiting = left;
            refused.extend(over);
        }
        if is_anything_left {
            self.limit_wait();
        }
        for (_, envelope) in refused {
            let failure = unavailable("this host does not reach its cluster at the moment: try again soon".to_owned());
            self.shared.answer(envelope.event.name(), envelope.reply, Err(failure), &self.wakes);
        }
    }
}

impl Envelope {
    /// Whether its sender is of this node, and can be refused.
    fn can_be_refused(&self) -> bool {
        !self.event.is_guaranteed() && !matches!(self.reply, ReplyTo::Node { .. })
    }
}
