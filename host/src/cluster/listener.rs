//! What a node does with the news of its cluster.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::command::Command;
use super::nodes::View;
use super::ops::{Committed, EventId, Snapshot};
use super::partition::Partition;
use crate::model::NodeId;

/// The time after which Redis counts as away: no command takes longer, and events that need it are refused.
pub const AWAY_AFTER: Duration = Duration::from_secs(1);

/// What a node does with the news of its cluster. Called on the cluster's thread, which must not wait.
pub trait Listener: Send + Sync {
    /// A partition was taken: this node owns it from now on.
    fn taken(&self, snapshot: Snapshot);
    /// A commit, or the heal that stands for commits up to its number, was answered.
    fn committed(&self, partition: Partition, epoch: u64, sequence: u64, answer: Committed);
    /// Another node forwarded an event to a partition of this node: each once, and in the order of its origin.
    fn event(&self, partition: Partition, id: EventId, event: Bytes);
    /// An owner's commit has this for the node: each once, and in the order of the owner's commits.
    fn output(&self, partition: Partition, output: Bytes);
    /// Redis has lost events that this node forwarded to a partition: those after this number are to be forwarded again.
    fn missing(&self, partition: Partition, after: u64);
    /// These nodes live. Also called where nothing has changed.
    fn nodes(&self, view: &Arc<View>);
    /// The cluster's plugins have this revision: see [`super::Registry`]. Also called where nothing has changed.
    fn plugins(&self, revision: u64);
    /// Redis is away, or is back.
    fn reachable(&self, is_up: bool);
    /// The others gave this node up, so its connections are gone for them: it goes on as another node, of this number.
    fn reborn(&self, number: NodeId);
    /// Another node asks.
    fn ask(&self, question: &[u8], responder: Responder);
}

/// The way of an answer to the node that has asked.
#[derive(Debug)]
pub struct Responder {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) node: NodeId,
    pub(super) id: u64,
}

impl Responder {
    /// The node that has asked.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Answers.
    pub fn answer(self, answer: Vec<u8>) {
        // The link ends only with the host.
        let _ = self.commands.send(Command::Answer { id: self.id, node: self.node, answer: answer.into() });
    }
}
