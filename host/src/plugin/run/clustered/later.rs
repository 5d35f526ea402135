//! Late replies, which come after the commit of their event: when all nodes have counted, or when a durable scope is on disk.

use std::collections::HashSet;
use std::sync::Arc;

use roundhouse_contract::Counted;
use serde_json::json;

use super::batch::{Fetching, Later, Outstanding, Step};
use super::news::News;
use super::node::{Node, moved};
use super::output::Output;
use super::questions::{ANSWER_WITHIN, Question, Reply};
use super::wire::{WireOutcome, encode, wire_audiences};
use crate::cluster::{EventId, Partition};
use crate::hub::WakeBatch;
use crate::model::{Failure, Payload};
use crate::plugin::event::{ReplyTo, Stage};
use crate::plugin::run::commit::Reached;
use crate::plugin::run::durable_change::DurableChange;
use crate::plugin::run::job::{Envelope, Job};
use crate::plugin::run::shared::Shared;
use crate::plugin::run::state::ThreadState;

impl Shared {
    /// Begins what an event's answer waits for. The event is committed.
    pub(super) fn begin_later(
        self: &Arc<Self>,
        node: &Arc<Node>,
        envelope: Envelope,
        later: Later,
        outstanding: Outstanding,
    ) {
        match later {
            Later::Count { field, of, question, change } => {
                let (shared, counting) = (self.clone(), node.clone());
                // At once: the changes of a scope are written in their order.
                let writing = change.map(|change| change.begin(self));
                node.cluster.spawn(async move {
                    let counted = shared.ask_all(&counting, question).await;
                    let written = match writing {
                        Some(writing) => writing.await,
                        None => Ok(()),
                    };
                    let outcome = written.and(counted);
                    let outcome = outcome.map(|replies| Payload::of_json(&json!({ &*field: total(&replies, of) })));
                    shared.answer_late(envelope, outcome);
                    drop(outstanding);
                });
            }
            Later::Write { change, answer } => {
                let shared = self.clone();
                change.write(self, envelope, answer, move |envelope, outcome| {
                    shared.answer_late(envelope, outcome);
                    drop(outstanding);
                });
            }
        }
    }

    /// Answers a committed event.
    fn answer_late(&self, envelope: Envelope, outcome: Result<Payload, Failure>) {
        let Envelope { address, event, reply, .. } = envelope;
        match reply {
            ReplyTo::Node { id, .. } => {
                let inbox = self.inboxes.of(&address.key);
                inbox.push(Job::News(News::Late { key: address.key.clone(), id, outcome }));
            }
            reply => self.answer(event.name(), reply, outcome, &WakeBatch::default()),
        }
    }
}

impl ThreadState {
    /// Fetches the documents from which a committed event gets its answer.
    pub(super) fn begin_fetch(&self, fetching: Fetching) {
        let Fetching { envelope, fetch, change, outstanding } = fetching;
        let Envelope { plugin, address, event, mut reply } = envelope;
        if let Some(change) = change {
            change.hand_over(&self.shared, None, None);
        }
        if let ReplyTo::Node { stage, .. } = &mut reply {
            *stage = Stage::Fetched;
        }
        self.fetch(&plugin, &address, &event, fetch, reply, Some(outstanding));
    }

    /// Answers a forwarded event that was done with before, whatever becomes of this batch.
    pub(super) fn late(&mut self, key: &str, id: EventId, outcome: Option<WireOutcome>) {
        self.late_or(key, id, outcome.clone(), outcome);
    }

    /// Answers a forwarded event that was done with before. `otherwise` is what it hears if this batch is refused.
    pub(super) fn late_or(
        &mut self,
        key: &str,
        id: EventId,
        outcome: Option<WireOutcome>,
        otherwise: Option<WireOutcome>,
    ) {
        if self.batch_of(key).is_none() {
            return self.pass_late(Partition::of(key), id, otherwise);
        }
        self.output(key, [id.origin], Output::Answer { number: id.number, outcome });
        if let Some(batch) = self.batch_of(key) {
            batch.steps.push(Step::Late(id, otherwise));
        }
    }

    /// Answers a forwarded event of a partition that has another owner by now, which does not know the event.
    pub(super) fn pass_late(&self, partition: Partition, id: EventId, outcome: Option<WireOutcome>) {
        let Some(node) = &self.shared.node else { return };
        let answer = Output::Answer { number: id.number, outcome };
        if id.origin == self.shared.hub.node() {
            self.shared.perform_output(node, partition, answer, &self.wakes);
        } else {
            let question = Question::Perform(partition.0, answer.to_wire());
            node.insist(id.origin, encode(&question), ANSWER_WITHIN);
        }
    }

    /// Is done with an event in a cluster: the answer comes when its batch is committed, and after that of a durable scope when
    /// the scope is on disk.
    pub(in crate::plugin::run) fn finish_clustered(
        &mut self,
        envelope: Envelope,
        answer: Payload,
        reached: Option<Reached>,
        change: Option<DurableChange>,
    ) {
        match (reached, change) {
            (Some(Reached { field, of, publications }), change) => {
                let emits = publications.iter().map(|(to, except)| wire_audiences(to, except)).collect();
                self.settle_later(envelope, Later::Count { field, of, question: Question::Count(emits), change });
            }
            (None, Some(change)) => self.settle_later(envelope, Later::Write { change, answer }),
            (None, None) => self.settle(envelope, Some(Ok(answer))),
        }
    }
}

/// The outcome of an event that [`moved`].
pub(super) fn moved_outcome() -> Option<WireOutcome> {
    Some(Err((&moved()).into()))
}

/// What all nodes have counted.
fn total(replies: &[Reply], of: Counted) -> usize {
    match of {
        Counted::Connections => replies.iter().map(|reply| reply.connections).sum(),
        Counted::Users => replies.iter().flat_map(|reply| &reply.users).collect::<HashSet<_>>().len(),
    }
}
