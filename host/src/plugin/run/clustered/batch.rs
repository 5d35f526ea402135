//! The events of a partition that are committed together, with all that they change and send.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use roundhouse_contract::Counted;

use super::output::Output;
use super::questions::Question;
use super::wire::{WireOutcome, WireOutput, encode};
use crate::cluster::{self, EventId};
use crate::model::{ConnId, Failure, NodeId, Payload};
use crate::plugin::run::durable_change::DurableChange;
use crate::plugin::run::effect::Fetch;
use crate::plugin::run::envelope::Envelope;
use crate::store::Promise;

/// A scope: the number of its plugin, and its key.
pub(super) type ScopeId = (u32, Arc<str>);

/// The events of a partition that are committed together.
#[derive(Debug, Default)]
pub(in crate::plugin::run) struct Batch {
    /// What has changed, to be looked up when the batch is closed.
    pub(super) changed: Changed,
    /// What this node does when the batch is committed, in order.
    pub(super) steps: Vec<Step>,
    /// What the other nodes do.
    remote: BTreeMap<NodeId, Vec<WireOutput>>,
    /// The forwarded events that are done with.
    pub(super) handled: Vec<EventId>,
}

#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) states: HashSet<ScopeId>,
    pub(super) members: HashSet<(ScopeId, ConnId)>,
    pub(super) timers: HashSet<(ScopeId, Box<str>)>,
    pub(super) asks: HashSet<(ScopeId, u64)>,
    pub(super) documents: HashSet<(ScopeId, String)>,
    /// Fields of records to remove.
    pub(super) removed: Vec<Vec<u8>>,
}

/// What this node does when a batch is committed.
#[derive(Debug)]
pub(super) enum Step {
    Output(Output),
    /// An event is done with, which is kept until then: another owner handles it if the batch is refused.
    Done(Box<Envelope>, Option<Result<Payload, Failure>>),
    /// A document is stored.
    Save(Box<Promise>),
    /// An event is done with, and its answer comes later.
    Later(Box<Envelope>, Box<Later>, Outstanding),
    /// An event is done with, and gets its answer from the event with the documents that are fetched now.
    Fetch(Box<Fetching>),
    /// The late reply to a forwarded event, and the one that is given should the batch be refused: the next owner does not know
    /// the event.
    Late(EventId, Option<WireOutcome>),
}

/// Held until an event is answered that is done with.
pub(super) type Outstanding = Arc<()>;

/// What is done when a batch is committed, before the sender of an event is answered.
#[derive(Debug)]
pub(super) enum Later {
    /// Counts the recipients of the event's emits on all nodes, for this field of the answer.
    /// A durable scope is written meanwhile.
    Count { field: Box<str>, of: Counted, question: Question, change: Option<DurableChange> },
    /// Writes a durable scope.
    Write { change: DurableChange, answer: Payload },
}

/// An event whose answer comes with documents. They are fetched when it is committed: it is handled again if it is not.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) envelope: Envelope,
    pub(super) fetch: Fetch,
    pub(super) change: Option<DurableChange>,
    pub(super) outstanding: Outstanding,
}

/// A batch that waits for Redis.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) sequence: u64,
    pub(super) steps: Vec<Step>,
    pub(super) outputs: Vec<cluster::Output>,
    pub(super) handled: Vec<EventId>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        let Changed { states, members, timers, asks, documents, removed } = &self.changed;
        self.steps.is_empty()
            && self.remote.is_empty()
            && self.handled.is_empty()
            && states.is_empty()
            && members.is_empty()
            && timers.is_empty()
            && asks.is_empty()
            && documents.is_empty()
            && removed.is_empty()
    }

    /// Has other nodes do something.
    pub(super) fn send(&mut self, node: NodeId, output: WireOutput) {
        self.remote.entry(node).or_default().push(output);
    }

    /// Closes the batch under its number.
    pub(super) fn close(self, sequence: u64) -> InFlight {
        let outputs = self.remote.into_iter().map(|(node, outputs)| (node, encode(&outputs).into())).collect();
        InFlight { sequence, steps: self.steps, outputs, handled: self.handled }
    }
}
