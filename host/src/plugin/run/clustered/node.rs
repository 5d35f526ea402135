//! This host as a node of a cluster: what its threads share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::operators::{Blocking, Builds};
use super::pending::{Asks, Forwarding};
use super::transfers::Transfers;
use crate::cluster::{Cluster, Partition};
use crate::model::{ErrorCode, Failure, NodeId};
use crate::protocol::Outgoing;

/// How often a node is asked that does not answer, though it lives.
const MAX_QUESTIONS: usize = 30;

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
    is_leaving: AtomicBool,
    /// Cloned for each event that is done with and not answered.
    pub(super) outstanding: Arc<()>,
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
            is_leaving: AtomicBool::new(false),
            outstanding: Arc::default(),
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

    /// The name of the node that is to own a scope.
    pub(crate) fn owner_of(&self, key: &str) -> Option<String> {
        let view = self.cluster.view();
        let owner = Partition::of(key).owner(&view)?;
        Some(view.nodes.get(&owner)?.name.clone())
    }

    /// Whether this node owes an answer to an event that is done with, or waits for one.
    pub(crate) fn has_outstanding_answers(&self) -> bool {
        Arc::strong_count(&self.outstanding) > 1 || self.forwarding.awaits_answers()
    }

    /// From now on events of other nodes are left to the next owners of their scopes.
    pub(crate) fn begin_to_leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// Asks a node until it has answered or gone. Only for what may be done twice.
    pub(super) fn insist(&self, to: NodeId, question: Vec<u8>, within: Duration) {
        let cluster = self.cluster.clone();
        self.cluster.spawn(async move {
            let mut attempts = 0;
            while attempts < MAX_QUESTIONS {
                // A question is lost while Redis is away.
                attempts += usize::from(cluster.is_up());
                let answers = cluster.ask(vec![to], question.clone(), within).await;
                if answers.iter().any(|(_, answer)| answer.is_some()) || !cluster.view().nodes.contains_key(&to) {
                    return;
                }
            }
            tracing::warn!(node = to.0, "a node that lives does not hear what became of its event");
        });
    }

    /// The number of partitions that this node owns.
    pub(crate) fn n_owned(&self) -> usize {
        self.owned.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }
}

/// The failure of an event that was committed here, and whose documents come when another node owns its scope.
pub(super) fn moved() -> Failure {
    let message =
        "it was handled, but its scope has moved to another node before the answer: look before you try again";
    Failure::new(ErrorCode::FeatureUnavailable, message)
}

/// The failure of an event whose owner died between its commit and its late reply.
pub(super) fn no_answer() -> Failure {
    let message = "it was handled, but the node that was to answer has gone: look before you try again";
    Failure::new(ErrorCode::FeatureUnavailable, message)
}

/// The failure of an event of which it is not known whether it was handled.
pub(super) fn not_known() -> Failure {
    let message = "this node had lost its cluster, and it is not known whether it was done: look, or try again";
    Failure::new(ErrorCode::FeatureUnavailable, message)
}
