//! News of the cluster for a plugin thread.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::transfers::WireFound;
use crate::cluster::{Committed, EventId, Partition, Snapshot, View};
use crate::model::{ConnId, Failure, NodeId, Payload};
use crate::plugin::run::envelope::Envelope;

/// News of the cluster for a plugin thread.
#[derive(Debug)]
pub(crate) enum News {
    Taken(Box<Snapshot>),
    Committed {
        partition: Partition,
        epoch: u64,
        sequence: u64,
        answer: Committed,
    },
    Event {
        partition: Partition,
        id: EventId,
        event: Bytes,
    },
    /// An owner's commit has this for the node. It has its place behind what this node still has to do as the owner before.
    Output {
        partition: Partition,
        output: Bytes,
    },
    /// An event is refused that had been put aside.
    Settle(Box<Envelope>, Failure),
    View(Arc<View>),
    /// The answer to a committed event of another node.
    Late {
        key: Arc<str>,
        id: EventId,
        outcome: Result<Payload, Failure>,
    },
    Reachable(bool),
    /// The changes of plugins that partitions wait for are made here.
    PluginsChanged,
    /// Tells the scopes that have a connection of this user as a member whose nodes have all gone, `gone` among them. `None`
    /// where that node's partitions are still being taken.
    Find {
        connection: ConnId,
        user: Arc<str>,
        gone: NodeId,
        found: oneshot::Sender<Option<Vec<WireFound>>>,
    },
    /// Tells that all news before this one were taken in.
    Passed(oneshot::Sender<()>),
    /// A plugin was unloaded, whichever nodes it ran on.
    Unloaded(Arc<str>),
    /// The others gave this node up.
    Reborn,
}
