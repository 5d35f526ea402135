//! The queue of documents to be stored or retracted.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::limits::{BATCH, MAX_WAITING, MAX_WAITING_BYTES};
use crate::store::promise::Promise;

/// A queued action for a promise.
#[derive(Debug)]
pub(in crate::store) struct Task {
    pub(in crate::store) promise: Arc<Promise>,
    pub(in crate::store) action: Action,
    /// When it was queued, in milliseconds of uptime.
    pub(in crate::store) since: u64,
}

impl Task {
    /// A task for a promise of an earlier process, or for one whose outcome could not be sent to its feature.
    pub(in crate::store) fn again(promise: Promise, is_expired: bool, since: u64) -> Self {
        let action = if is_expired { Action::Retract { is_told: false } } else { Action::Insert };
        Self { promise: Arc::new(Promise { restored: true, ..promise }), action, since }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Action {
    /// Store the document.
    Insert,
    /// The promise has expired: ensure that the document is not stored. `is_told`: whether the failure was sent to its
    /// feature.
    Retract { is_told: bool },
}

/// The queue of documents.
#[derive(Debug, Default)]
pub(super) struct Documents {
    tasks: VecDeque<Task>,
    /// Tasks of features that are not loaded.
    suspended: Vec<Task>,
    /// Documents that are queued or being written.
    n_waiting: usize,
    bytes_waiting: usize,
    /// How many of the waiting documents an earlier process promised.
    n_restored: usize,
}

impl Documents {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn n_waiting(&self) -> usize {
        self.n_waiting
    }

    pub(super) fn n_restored(&self) -> usize {
        self.n_restored
    }

    pub(super) fn has_room_for(&self, n: usize, bytes: usize) -> bool {
        self.n_waiting + n <= MAX_WAITING && self.bytes_waiting + bytes <= MAX_WAITING_BYTES
    }

    pub(super) fn push(&mut self, task: Task) {
        self.n_waiting += 1;
        self.bytes_waiting += task.promise.document.len();
        self.n_restored += usize::from(task.promise.restored);
        self.tasks.push_back(task);
    }

    pub(super) fn suspend(&mut self, tasks: impl IntoIterator<Item = Task>) {
        self.suspended.extend(tasks);
    }

    /// Queues the suspended promises of a plugin, with waiting time counted from `now`. Returns their number.
    pub(super) fn resume(&mut self, plugin: &str, now: u64) -> usize {
        let resumed: Vec<_> = self.suspended.extract_if(.., |task| task.promise.plugin == plugin).collect();
        let n_resumed = resumed.len();
        resumed.into_iter().for_each(|task| self.push(Task { since: now, ..task }));
        n_resumed
    }

    /// Takes the tasks of a batch, which count as waiting until they are finished.
    pub(super) fn take(&mut self) -> Vec<Task> {
        let n_tasks = self.tasks.len().min(BATCH);
        self.tasks.drain(..n_tasks).collect()
    }

    pub(super) fn finish(&mut self, tasks: &[Task]) {
        for task in tasks {
            self.n_waiting -= 1;
            self.bytes_waiting -= task.promise.document.len();
            self.n_restored -= usize::from(task.promise.restored);
        }
    }

    /// The promises in the current batch and the queue whose documents have waited for `limit_ms`.
    pub(super) fn overdue(&self, in_hand: &[Task], now: u64, limit_ms: u64) -> Vec<Arc<Promise>> {
        // A restored promise cannot expire: the earlier process may have sent its outcome just before it ended.
        let is_overdue =
            |task: &&Task| task.action == Action::Insert && !task.promise.restored && now >= task.since + limit_ms;
        in_hand.iter().chain(&self.tasks).filter(is_overdue).map(|task| task.promise.clone()).collect()
    }

    /// Turns these promises' tasks into retractions, for promises whose failure is sent to their features.
    pub(super) fn retract(&mut self, in_hand: &mut [Task], numbers: &[u64]) {
        let numbers: HashSet<u64> = numbers.iter().copied().collect();
        for task in in_hand.iter_mut().chain(&mut self.tasks) {
            // A task that is a retraction already keeps its `is_told`.
            if task.action == Action::Insert && numbers.contains(&task.promise.number) {
                task.action = Action::Retract { is_told: true };
            }
        }
    }
}
