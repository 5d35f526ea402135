//! This host as a node of a cluster: what its threads share, and the way of the cluster's news to them.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::pending::{Asks, Forwarding};
use crate::cluster::{Cluster, Committed, EventId, Listener, Partition, Responder, Snapshot, View};
use crate::hub::WakeBatch;
use crate::model::{CloseCode, ErrorCode, Failure, NodeId, Payload};
use crate::plugin::run::job::{Envelope, Job};
use crate::plugin::run::shared::Shared;

/// This host as a node of a cluster.
pub(crate) struct Node {
    pub(crate) cluster: Arc<Cluster>,
    pub(super) forwarding: Forwarding,
    pub(super) asks: Asks,
    /// How many partitions each plugin thread owns.
    owned: Vec<AtomicUsize>,
    /// Answers the questions that are for a module above.
    pub(super) above: OnceLock<AnswerOthers>,
}

/// Answers questions of other nodes.
type AnswerOthers = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn new(cluster: Arc<Cluster>, n_threads: usize) -> Self {
        let owned = (0..n_threads).map(|_| AtomicUsize::new(0)).collect();
        Self { cluster, forwarding: Forwarding::default(), asks: Asks::default(), owned, above: OnceLock::new() }
    }

    /// Sets what answers the questions of other nodes that are for a module above.
    pub(crate) fn answer_others(&self, answer: AnswerOthers) {
        // It is set once, at the start.
        let _ = self.above.set(answer);
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

/// The failure of an event of which it is not known whether it was handled.
pub(super) fn not_known() -> Failure {
    let message = "this node had lost its cluster, and it is not known whether it was done: look, or try again";
    Failure::new(ErrorCode::FeatureUnavailable, message)
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
        self.tell(partition, News::Output { partition, output });
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
        let wakes = WakeBatch::default();
        for forwarded in self.node.forwarding.take_all() {
            self.shared.answer(forwarded.event.name(), forwarded.reply, Err(not_known()), &wakes);
        }
        self.tell_all(|| News::Reborn);
        self.shared.hub.close_all(CloseCode::Restart, "this node had lost its cluster: connect again");
    }

    fn ask(&self, question: &[u8], responder: Responder) {
        super::questions::answer(&self.shared, &self.node, question, responder);
    }
}
