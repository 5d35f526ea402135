//! The output gate: what events change and send is kept until Redis has taken their batch, and what their senders hear, too.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::batch::{Batch, Fetching, InFlight, Later, Outstanding, Step};
use super::later::moved_outcome;
use super::node::not_known;
use super::output::Output;
use super::partitions::{Owned, Phase};
use super::records::plugins_record;
use super::wire::{WireOutput, decode, encode, outcome_to_wire};
use crate::cluster::{Commit, Committed, EventId, Heal, Partition};
use crate::model::{Failure, NodeId, Payload};
use crate::plugin::event::{ReplyTo, Stage};
use crate::plugin::run::durable_change::DurableChange;
use crate::plugin::run::effect::Fetch;
use crate::plugin::run::job::Envelope;
use crate::plugin::run::state::ThreadState;

/// The most events of a batch: enough that the script's own cost is shared by many.
const MAX_STEPS: usize = 256;

impl ThreadState {
    /// The open batch of a scope's partition. None where the host is alone or the partition is not its own.
    pub(in crate::plugin::run) fn batch_of(&mut self, key: &str) -> Option<&mut Batch> {
        self.partitions.as_mut()?.batch(Partition::of(key))
    }

    /// Is done with an event. Without an outcome its sender hears nothing.
    pub(in crate::plugin::run) fn settle(&mut self, envelope: Envelope, outcome: Option<Result<Payload, Failure>>) {
        if self.partitions.is_some() {
            self.mark_told(&envelope);
        }
        let Some(batch) = self.batch_of(&envelope.address.key) else {
            let Envelope { address, event, reply, .. } = envelope;
            return match (reply, outcome) {
                (ReplyTo::Node { id, stage: Stage::Fetched }, _) => {
                    self.pass_late(Partition::of(&address.key), id, moved_outcome());
                }
                // An event of another node is in Redis, for the owner of its scope.
                (ReplyTo::Node { .. }, _) | (_, None) => {}
                (reply, Some(outcome)) => self.shared.answer(event.name(), reply, outcome, &self.wakes),
            };
        };
        let ReplyTo::Node { id, stage } = envelope.reply else {
            return batch.steps.push(Step::Done(Box::new(envelope), outcome));
        };
        let (key, outcome) = (&envelope.address.key, outcome.as_ref().map(outcome_to_wire));
        match stage {
            Stage::Waiting => {
                self.done_with(Partition::of(key), id);
                self.output(key, [id.origin], Output::Answer { number: id.number, outcome });
            }
            Stage::Fetched => self.late_or(key, id, outcome, moved_outcome()),
        }
    }

    /// Is done with a forwarded event, which needs not be kept from then on when its batch is committed.
    fn done_with(&mut self, partition: Partition, id: EventId) {
        let Some(partitions) = &mut self.partitions else { return };
        if let Some(batch) = partitions.batch(partition) {
            batch.handled.push(id);
        }
        if let Some(owned) = partitions.owned(partition) {
            owned.unhandled.remove(&id);
        }
    }

    /// Is done with a forwarded event that is answered later.
    fn owe_answer(&mut self, key: &str, id: EventId) {
        self.done_with(Partition::of(key), id);
        self.output(key, [id.origin], Output::Underway { number: id.number, owner: self.shared.hub.node() });
    }

    /// Is done with an event whose sender is answered later.
    pub(super) fn settle_later(&mut self, envelope: Envelope, later: Later) {
        self.settle_by(envelope, |envelope, outstanding| Step::Later(Box::new(envelope), Box::new(later), outstanding));
    }

    /// Is done with an event whose sender is answered when documents were fetched.
    pub(in crate::plugin::run) fn settle_fetching(
        &mut self,
        envelope: Envelope,
        fetch: Fetch,
        change: Option<DurableChange>,
    ) {
        self.settle_by(envelope, |envelope, outstanding| {
            Step::Fetch(Box::new(Fetching { envelope, fetch, change, outstanding }))
        });
    }

    /// Is done with an event that is answered after this step, when its batch is committed.
    fn settle_by(&mut self, envelope: Envelope, step: impl FnOnce(Envelope, Outstanding) -> Step) {
        self.mark_told(&envelope);
        let Some(outstanding) = self.shared.node.as_ref().map(|node| node.outstanding.clone()) else { return };
        let key = envelope.address.key.clone();
        if let ReplyTo::Node { id, stage: Stage::Waiting } = envelope.reply {
            self.owe_answer(&key, id);
        }
        let Some(batch) = self.batch_of(&key) else { return };
        batch.steps.push(step(envelope, outstanding));
    }

    /// Is done with a forwarded event that cannot be handled.
    pub(super) fn refuse_forwarded(&mut self, partition: Partition, id: EventId, failure: &Failure) {
        self.done_with(partition, id);
        let Some(batch) = self.partitions.as_mut().and_then(|partitions| partitions.batch(partition)) else { return };
        let outcome = Some(Err(failure.into()));
        batch.send(id.origin, WireOutput::Answer { number: id.number, outcome });
    }

    /// Has nodes do something when the open batch is committed.
    pub(super) fn output(&mut self, key: &str, nodes: impl IntoIterator<Item = NodeId>, output: Output) {
        let me = self.shared.hub.node();
        let Some(partitions) = &self.partitions else { return };
        let is_there = |node: &NodeId| !partitions.gone.contains(node);
        let nodes: BTreeSet<NodeId> = nodes.into_iter().filter(is_there).collect();
        let Some(batch) = self.batch_of(key) else { return };
        for node in nodes.iter().filter(|node| **node != me) {
            batch.send(*node, output.to_wire());
        }
        if nodes.contains(&me) {
            batch.steps.push(Step::Output(output));
        }
    }

    /// Commits all open batches.
    pub(in crate::plugin::run) fn flush(&mut self) {
        let Some(partitions) = &mut self.partitions else { return };
        for partition in mem::take(&mut partitions.open) {
            self.close_batch(partition);
        }
    }

    pub(super) fn flush_if_full(&mut self, partition: Partition) {
        let batch = self.partitions.as_mut().and_then(|partitions| partitions.batch(partition));
        if batch.is_some_and(|batch| batch.steps.len() + batch.handled.len() >= MAX_STEPS) {
            self.close_batch(partition);
        }
    }

    fn close_batch(&mut self, partition: Partition) {
        let Some(owned) = self.partitions.as_mut().and_then(|partitions| partitions.owned(partition)) else { return };
        if owned.batch.is_empty() {
            return;
        }
        let mut batch = mem::take(&mut owned.batch);
        let changed = mem::take(&mut batch.changed);
        let mut records = self.records(&changed);
        let Some(partitions) = &mut self.partitions else { return };
        let used = partitions.node.revisions.used();
        let Some(owned) = partitions.owned(partition) else { return };
        owned.sequence += 1;
        if used > owned.plugins {
            owned.plugins = used;
            records.push(plugins_record(used));
        }
        let in_flight = batch.close(owned.sequence);
        let commit = Commit {
            partition,
            epoch: owned.epoch,
            sequence: owned.sequence,
            records,
            handled: in_flight.handled.clone(),
            outputs: in_flight.outputs.clone(),
        };
        owned.in_flight.push_back(in_flight);
        partitions.node.cluster.commit(self.shared.hub.node(), commit);
    }

    pub(super) fn committed(&mut self, partition: Partition, epoch: u64, sequence: u64, answer: Committed) {
        if self.held_answered(partition, epoch, answer) {
            return;
        }
        let Some(owned) = self.partitions.as_mut().and_then(|partitions| partitions.owned(partition)) else { return };
        if owned.epoch != epoch {
            return;
        }
        match answer {
            Committed::Done => {
                let done: Vec<_> = owned.take_until(sequence).collect();
                owned.healing.take_if(|until| sequence >= *until);
                done.into_iter().for_each(|batch| self.release(partition, batch));
                self.handle_waiting(partition);
            }
            Committed::Fenced { last } => self.lose(partition, last),
            Committed::Lost if owned.healing.is_none() => self.heal(partition),
            Committed::Lost => {}
        }
    }

    /// Does what a committed batch has this node do.
    fn release(&mut self, partition: Partition, batch: InFlight) {
        let Some(partitions) = &mut self.partitions else { return };
        let node = partitions.node.clone();
        for step in batch.steps {
            match step {
                Step::Output(output) => self.shared.perform_output(&node, partition, output, &self.wakes),
                Step::Done(envelope, Some(outcome)) => {
                    let Envelope { event, reply, .. } = *envelope;
                    self.shared.answer(event.name(), reply, outcome, &self.wakes);
                }
                Step::Save(promise) => {
                    if let Some(store) = &self.shared.store {
                        store.save(vec![*promise]);
                    }
                }
                Step::Later(envelope, later, outstanding) => {
                    self.shared.begin_later(&node, *envelope, *later, outstanding);
                }
                Step::Fetch(fetching) => self.begin_fetch(*fetching),
                Step::Done(_, None) | Step::Late(..) => {}
            }
        }
    }

    /// Puts all of a partition again, of which Redis has lost something. It stands for the batches in flight, too.
    fn heal(&mut self, partition: Partition) {
        self.close_batch(partition);
        let mut records = self.all_records(partition);
        let Some(partitions) = &mut self.partitions else { return };
        let node = partitions.node.clone();
        let Some(owned) = partitions.owned(partition) else { return };
        tracing::warn!(partition = partition.0, "Redis has lost something of a partition, which is put again");
        records.push(plugins_record(owned.plugins));
        records.extend(owned.orphans.iter().map(|(field, value)| (field.clone(), Some(value.clone()))));
        owned.sequence += 1;
        owned.healing = Some(owned.sequence);
        let heal = Heal {
            waiting: owned.unhandled.iter().map(|(id, event)| (*id, event.clone())).collect(),
            forwarded: owned.forwarded.clone(),
            taken_at: owned.taken_at,
            commit: Commit {
                partition,
                epoch: owned.epoch,
                sequence: owned.sequence,
                records,
                handled: Vec::new(),
                outputs: owned.outputs_in_flight(),
            },
        };
        node.cluster.heal(self.shared.hub.node(), heal);
    }

    /// Gives a partition up that another node has taken. The batches up to `last` were committed before; the events of the
    /// others are handed on. If it is not known which were, their senders hear that.
    fn lose(&mut self, partition: Partition, last: Option<u64>) {
        let Some(partitions) = &mut self.partitions else { return };
        let Phase::Owned(mut owned) = mem::take(&mut partitions.slot(partition).phase) else { return };
        partitions.open.retain(|open| *open != partition);
        tracing::debug!(partition = partition.0, epoch = owned.epoch, "another node has taken a partition");
        let committed: Vec<_> = owned.take_until(last.unwrap_or(0)).collect();
        committed.into_iter().for_each(|batch| self.release(partition, batch));
        let in_flight = mem::take(&mut owned.in_flight).into_iter().flat_map(|batch| batch.steps);
        let mut handed_on = self.events_of(partition, in_flight);
        if last.is_none() {
            // Other nodes hear by themselves that this one has gone, if their events were committed.
            for Envelope { event, reply, .. } in mem::take(&mut handed_on) {
                self.shared.answer(event.name(), reply, Err(not_known()), &self.wakes);
            }
        }
        handed_on.extend(self.events_of(partition, mem::take(&mut owned.batch).steps));
        handed_on.extend(self.drop_partition(partition));
        handed_on.into_iter().for_each(|envelope| self.forward(partition, envelope));
        self.handle_waiting(partition);
        self.count_owned();
    }

    /// The events of steps that are not done. Answers to events that were done with before are given by another way.
    fn events_of(&self, partition: Partition, steps: impl IntoIterator<Item = Step>) -> Vec<Envelope> {
        let event = |step| match step {
            Step::Done(envelope, _) | Step::Later(envelope, ..) => Some(*envelope),
            Step::Fetch(fetching) => Some(fetching.envelope),
            Step::Late(id, otherwise) => {
                self.pass_late(partition, id, otherwise);
                None
            }
            Step::Output(_) | Step::Save(_) => None,
        };
        steps.into_iter().filter_map(event).collect()
    }

    /// Gives all partitions up: this node is another now.
    pub(super) fn lose_all(&mut self) {
        let Some(partitions) = &mut self.partitions else { return };
        partitions.slots.values_mut().for_each(|slot| slot.held = None);
        for partition in partitions.all() {
            self.lose(partition, None);
            // Of one that was being taken, too.
            self.handle_waiting(partition);
        }
    }
}

impl Owned {
    /// Takes the batches up to this number.
    fn take_until(&mut self, sequence: u64) -> impl Iterator<Item = InFlight> {
        let n = self.in_flight.iter().take_while(|batch| batch.sequence <= sequence).count();
        self.in_flight.drain(..n)
    }

    /// What the batches in flight have for other nodes, as one message for each.
    fn outputs_in_flight(&self) -> Vec<crate::cluster::Output> {
        let mut merged: BTreeMap<NodeId, Vec<WireOutput>> = BTreeMap::new();
        for (node, message) in self.in_flight.iter().flat_map(|batch| &batch.outputs) {
            // This host has encoded them.
            let outputs: Vec<WireOutput> = decode(message).unwrap_or_default();
            merged.entry(*node).or_default().extend(outputs);
        }
        merged.into_iter().map(|(node, outputs)| (node, encode(&outputs).into())).collect()
    }
}
