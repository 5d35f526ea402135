//! This host as a node of a cluster: what its threads share, and the way of the cluster's news to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::output::Output;
use super::pending::{Asks, Forwarding};
use super::wire::{WireOutput, decode};
use crate::cluster::{Cluster, Committed, EventId, Listener, Partition, Snapshot, View};
use crate::hub::WakeBatch;
use crate::model::{CloseCode, ErrorCode, Failure, NodeId};
use crate::plugin::run::job::Job;
use crate::plugin::run::shared::Shared;

/// This host as a node of a cluster.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) cluster: Arc<Cluster>,
    pub(super) forwarding: Forwarding,
    pub(super) asks: Asks,
    /// How many partitions each plugin thread owns.
    owned: Vec<AtomicUsize>,
}

impl Node {
    pub(crate) fn new(cluster: Arc<Cluster>, n_threads: usize) -> Self {
        let owned = (0..n_threads).map(|_| AtomicUsize::new(0)).collect();
        Self { cluster, forwarding: Forwarding::default(), asks: Asks::default(), owned }
    }

    pub(super) fn count_owned(&self, thread: usize, n: usize) {
        self.owned[thread].store(n, Ordering::Relaxed);
    }

    /// The number of partitions that this node owns.
    pub(crate) fn n_owned(&self) -> usize {
        self.owned.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }
}

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
    View(Arc<View>),
    Reachable(bool),
    /// The others gave this node up.
    Reborn,
}

/// Hands the cluster's news to the plugin threads, and does what commits of other nodes have this node do.
pub(crate) struct Hands {
    shared: Arc<Shared>,
    node: Arc<Node>,
}

impl Hands {
    /// The listener of a node. Without a cluster there is none.
    pub(crate) fn new(shared: &Arc<Shared>) -> Option<Self> {
        Some(Self { shared: shared.clone(), node: shared.node.clone()? })
    }

    fn tell(&self, partition: Partition, news: News) {
        self.shared.inboxes.of_number(partition.0.into()).push(Job::News(news));
    }

    fn tell_all(&self, news: impl Fn() -> News) {
        self.shared.submit_to_all(|| Job::News(news()));
    }
}

impl Listener for Hands {
    fn taken(&self, snapshot: Snapshot) {
        self.tell(snapshot.partition, News::Taken(Box::new(snapshot)));
    }

    fn committed(&self, partition: Partition, epoch: u64, sequence: u64, answer: Committed) {
        self.tell(partition, News::Committed { partition, epoch, sequence, answer });
    }

    fn event(&self, partition: Partition, id: EventId, event: Bytes) {
        self.tell(partition, News::Event { partition, id, event });
    }

    fn output(&self, partition: Partition, output: Bytes) {
        let wakes = WakeBatch::default();
        let outputs = match decode::<Vec<WireOutput>>(&output) {
            Ok(outputs) => outputs,
            Err(error) => return tracing::error!(partition = partition.0, %error, "an owner's output is dropped"),
        };
        for output in outputs {
            match Output::of_wire(output) {
                Ok(output) => self.shared.perform_output(&self.node, partition, output, &wakes),
                Err(error) => tracing::error!(partition = partition.0, %error, "an owner's output is dropped"),
            }
        }
    }

    fn missing(&self, partition: Partition, after: u64) {
        self.node.forwarding.forward_again(&self.node.cluster, partition, after);
    }

    fn nodes(&self, view: &Arc<View>) {
        self.tell_all(|| News::View(view.clone()));
    }

    fn reachable(&self, is_up: bool) {
        self.tell_all(|| News::Reachable(is_up));
    }

    fn reborn(&self, number: NodeId) {
        // New connections belong to the new node; those of the old one are gone for all others.
        self.shared.hub.set_node(number);
        self.tell_all(|| News::Reborn);
        let wakes = WakeBatch::default();
        for forwarded in self.node.forwarding.take_all() {
            let message = "this node had lost its cluster, and it is not known whether it was done: look, or try again";
            let failure = Failure::new(ErrorCode::FeatureUnavailable, message);
            self.shared.answer(forwarded.event.name(), forwarded.reply, Err(failure), &wakes);
        }
        self.shared.hub.close_all(CloseCode::Restart, "this node had lost its cluster: connect again");
    }

    fn ask(&self, request: &[u8]) -> Vec<u8> {
        super::questions::answer(&self.shared, request)
    }
}
