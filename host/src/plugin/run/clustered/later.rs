//! Answers that come after the commit of their event: when all nodes have counted, or when a durable scope is on disk.

use std::collections::HashSet;
use std::sync::Arc;

use roundhouse_contract::Counted;
use serde_json::json;

use super::batch::Later;
use super::news::News;
use super::node::Node;
use super::output::Output;
use super::questions::{Question, Reply};
use super::wire::{outcome_to_wire, wire_audiences};
use crate::cluster::{EventId, Partition};
use crate::hub::WakeBatch;
use crate::model::{Failure, Payload};
use crate::plugin::event::ReplyTo;
use crate::plugin::run::commit::Reached;
use crate::plugin::run::durable_change::DurableChange;
use crate::plugin::run::job::{Envelope, Job};
use crate::plugin::run::shared::Shared;
use crate::plugin::run::state::ThreadState;

impl Shared {
    /// Begins what an event's answer waits for. The event is committed.
    pub(super) fn begin_later(self: &Arc<Self>, node: &Arc<Node>, envelope: Envelope, later: Later) {
        match later {
            Later::Count { field, of, question } => {
                let (shared, counting) = (self.clone(), node.clone());
                node.cluster.spawn(async move {
                    let outcome = shared.ask_all(&counting, question).await;
                    let outcome = outcome.map(|replies| Payload::of_json(&json!({ &*field: total(&replies, of) })));
                    shared.answer_late(envelope, outcome);
                });
            }
            Later::Write { change, answer } => {
                let shared = self.clone();
                change.write(self, envelope, answer, move |envelope, outcome| shared.answer_late(envelope, outcome));
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
    /// Answers a committed event of another node.
    pub(super) fn late(&mut self, key: &str, id: EventId, outcome: &Result<Payload, Failure>) {
        let answer = Output::Answer { number: id.number, outcome: Some(outcome_to_wire(outcome)) };
        self.output(key, [id.origin], answer);
        self.flush_if_full(Partition::of(key));
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
            (Some(Reached { field, of, publications }), _) => {
                let emits = publications.iter().map(|(to, except)| wire_audiences(to, except)).collect();
                self.settle_later(envelope, Later::Count { field, of, question: Question::Count(emits) });
            }
            (None, Some(change)) => self.settle_later(envelope, Later::Write { change, answer }),
            (None, None) => self.settle(envelope, Some(Ok(answer))),
        }
    }
}

/// What all nodes have counted.
fn total(replies: &[Reply], of: Counted) -> usize {
    match of {
        Counted::Connections => replies.iter().map(|reply| reply.connections).sum(),
        Counted::Users => replies.iter().flat_map(|reply| &reply.users).collect::<HashSet<_>>().len(),
    }
}
