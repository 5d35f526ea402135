//! What other threads ask of the link.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::ops::{Commit, Heal};
use super::partition::Partition;
use crate::model::NodeId;

/// What other threads ask of the link.
#[derive(Debug)]
pub(super) enum Command {
    /// By the node of this number, which this one may not be any more.
    Lasting(NodeId, Lasting),
    Ask {
        id: u64,
        nodes: Vec<NodeId>,
        request: Bytes,
    },
    Answer {
        id: u64,
        node: NodeId,
        answer: Bytes,
    },
    Run(Task),
    Leave,
}

/// A command that is asked again until it is answered.
#[derive(Debug)]
pub(super) enum Lasting {
    Take(Partition),
    Commit(Box<Commit>),
    Heal(Box<Heal>),
    Forward { partition: Partition, number: u64, before: u64, event: Bytes },
}

/// A task that another thread wants run.
pub(super) struct Task(pub(super) BoxFuture<'static, ()>);

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}
