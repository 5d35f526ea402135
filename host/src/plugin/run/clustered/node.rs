//! This host as a node of a cluster: what its threads share.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::pending::{Asks, Forwarding};
use crate::cluster::Cluster;
use crate::model::{ErrorCode, Failure};

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

/// The failure of an event of which it is not known whether it was handled.
pub(super) fn not_known() -> Failure {
    let message = "this node had lost its cluster, and it is not known whether it was done: look, or try again";
    Failure::new(ErrorCode::FeatureUnavailable, message)
}
