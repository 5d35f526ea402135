//! This host as a node of a cluster: what its threads share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::operators::{Blocking, Builds};
use super::pending::{Asks, Forwarding};
use super::transfers::Transfers;
use crate::cluster::Cluster;
use crate::model::{ErrorCode, Failure, NodeId};
use crate::protocol::Outgoing;

/// This host as a node of a cluster.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) cluster: Arc<Cluster>,
    pub(super) forwarding: Forwarding,
    pub(super) asks: Asks,
    pub(crate) transfers: Transfers,
    /// How many partitions each plugin thread owns.
    owned: Vec<AtomicUsize>,
    pub(crate) revisions: Revisions,
    builds: OnceLock<Box<dyn Builds>>,
    blocking: OnceLock<Box<dyn Blocking>>,
}

/// How far this node has followed the changes of the cluster's plugins: see [`crate::cluster::Registry`].
#[derive(Debug, Default)]
pub(crate) struct Revisions {
    /// What this node commits may be of builds up to this one.
    used: AtomicU64,
    /// All changes up to this one are made here.
    made: AtomicU64,
}

impl Revisions {
    /// To be called before a build of this revision gets its first event.
    pub(crate) fn use_up_to(&self, revision: u64) {
        self.used.fetch_max(revision, Ordering::SeqCst);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    pub(crate) fn set_made(&self, revision: u64) {
        self.made.fetch_max(revision, Ordering::SeqCst);
    }

    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }
}

impl Node {
    pub(crate) fn new(cluster: Arc<Cluster>, n_threads: usize) -> Self {
        let owned = (0..n_threads).map(|_| AtomicUsize::new(0)).collect();
        Self {
            cluster,
            forwarding: Forwarding::default(),
            asks: Asks::default(),
            transfers: Transfers::default(),
            owned,
            revisions: Revisions::default(),
            builds: OnceLock::new(),
            blocking: OnceLock::new(),
        }
    }

    /// Begins the numbers that this node gives, which no other may give.
    pub(crate) fn count_as(&self, number: NodeId) {
        Outgoing::count_as(number);
        self.asks.count_as(number);
    }

    /// Sets what makes the cluster's changes of plugins on this node.
    pub(crate) fn set_builds(&self, builds: Box<dyn Builds>) {
        // A node is made with its host, once.
        let _ = self.builds.set(builds);
    }

    pub(super) fn builds(&self) -> Option<&dyn Builds> {
        self.builds.get().map(|builds| &**builds)
    }

    /// Sets what puts blocks of other nodes in force.
    pub(crate) fn set_blocking(&self, blocking: Box<dyn Blocking>) {
        // The API is made once.
        let _ = self.blocking.set(blocking);
    }

    pub(super) fn blocking(&self) -> Option<&dyn Blocking> {
        self.blocking.get().map(|blocking| &**blocking)
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
