//! The inboxes of the plugin threads.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use super::job::Job;
use crate::cluster::Partition;
use crate::model::Mailbox;

/// One inbox for each plugin thread. Clones share the inboxes.
#[derive(Debug, Clone)]
pub(crate) struct Inboxes {
    inboxes: Vec<Arc<Mailbox<Job>>>,
    hasher: RandomState,
    /// Whether each partition of the cluster has one thread.
    is_clustered: bool,
}

impl Inboxes {
    pub(crate) fn new(threads: usize, is_clustered: bool) -> Self {
        let inboxes = (0..threads).map(|_| Arc::new(Mailbox::unbounded())).collect();
        Self { inboxes, hasher: RandomState::new(), is_clustered }
    }

    /// The inbox of a scope's thread: always the same, so that the scope's events stay in order.
    pub(crate) fn of(&self, key: &str) -> &Arc<Mailbox<Job>> {
        match self.is_clustered {
            true => self.of_number(Partition::of(key).0.into()),
            false => self.of_number(self.hasher.hash_one(key)),
        }
    }

    /// The inbox of the thread that gave this number to an acknowledgement.
    pub(crate) fn of_number(&self, number: u64) -> &Arc<Mailbox<Job>> {
        &self.inboxes[(number % self.inboxes.len() as u64) as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Mailbox<Job>>> {
        self.inboxes.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.inboxes.len()
    }
}
