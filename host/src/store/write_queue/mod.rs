//! The queue of writes to the database.

mod documents;
mod limits;
mod scope_changes;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use self::documents::Documents;
pub(super) use self::documents::{Action, Task};
pub use self::scope_changes::Acknowledge;
use self::scope_changes::ScopeChanges;
pub(super) use self::scope_changes::{Change, PendingScope};
use super::backend::{AnsweredCall, ScopeRecord};
use super::failure::StoreFailure;
use super::promise::Promise;
use super::receipt::Signal;
use crate::metrics::Metrics;
use crate::model::Failure;

/// The queue: plugin threads fill it, the writer empties it.
#[derive(Debug)]
pub(super) struct WriteQueue {
    state: Mutex<State>,
    /// Notified when documents or scopes were written.
    written: Condvar,
    /// Wakes the writer.
    writer: mpsc::Sender<Signal>,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    documents: Documents,
    scopes: ScopeChanges,
    is_stopping: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("documents", &self.documents.n_waiting()).finish_non_exhaustive()
    }
}

/// The writes of one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) tasks: Vec<Task>,
    pub(super) scopes: Vec<PendingScope>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.scopes.is_empty()
    }
}

impl WriteQueue {
    /// An empty queue, whose writer is woken by [`Signal::Wake`].
    pub(super) fn new(writer: mpsc::Sender<Signal>, metrics: Metrics) -> Self {
        Self { state: Mutex::default(), written: Condvar::new(), writer, metrics }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, and wakes the writer.
    fn fill<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        // Where the queue was not empty, the writer has a signal pending, or is about to take a batch.
        let was_empty = state.documents.is_empty() && state.scopes.is_empty();
        let changed = change(&mut state);
        self.metrics.documents_waiting.set(state.documents.n_waiting() as i64);
        let is_stopping = state.is_stopping;
        drop(state);
        if was_empty || is_stopping {
            // An error means that the writer has ended.
            let _ = self.writer.send(Signal::Wake);
        }
        changed
    }

    /// Whether `n` documents of `bytes` together may be queued.
    ///
    /// # Errors
    /// Where too much waits already.
    pub(super) fn has_room_for(&self, n: usize, bytes: usize) -> Result<(), Failure> {
        if !self.state().documents.has_room_for(n, bytes) {
            return Err(StoreFailure::unavailable("the document store does not keep up: try again later").into());
        }
        Ok(())
    }

    pub(super) fn push(&self, tasks: impl IntoIterator<Item = Task>) {
        self.fill(|state| tasks.into_iter().for_each(|task| state.documents.push(task)));
    }

    /// Keeps promises until their features are loaded.
    pub(super) fn suspend(&self, tasks: impl IntoIterator<Item = Task>) {
        self.state().documents.suspend(tasks);
    }

    /// Queues the suspended promises of a plugin, with waiting time counted from `now`. Returns their number.
    pub(super) fn resume(&self, plugin: &str, now: u64) -> usize {
        self.fill(|state| state.documents.resume(plugin, now))
    }

    /// Whether a scope may be changed.
    ///
    /// # Errors
    /// Where too much waits already.
    pub(super) fn has_room_for_change(&self) -> Result<(), Failure> {
        if self.state().scopes.is_full() {
            return Err(StoreFailure::unavailable("the store does not keep up: try again later").into());
        }
        Ok(())
    }

    pub(super) fn change(
        &self,
        plugin: String,
        key: String,
        change: Change,
        acknowledge: Option<Acknowledge>,
        answered: Option<AnsweredCall>,
    ) {
        self.fill(|state| state.scopes.push((plugin, key), change, acknowledge, answered));
    }

    /// The pending change of a scope, if one is not on disk yet; the inner `None` is a deletion.
    pub(super) fn pending(&self, plugin: &str, key: &str) -> Option<Option<ScopeRecord>> {
        let state = self.state();
        Some(match state.scopes.pending(&(plugin.to_owned(), key.to_owned()))? {
            Change::Put { record, .. } => Some(record.clone()),
            Change::Drop { .. } => None,
        })
    }

    /// Waits until no change of this plugin's scopes is pending. Returns `false` if `timeout` passes first.
    pub(super) fn wait_until_written(&self, plugin: &str, timeout: Duration) -> bool {
        let is_pending = |state: &mut State| state.scopes.is_any_pending_of(plugin);
        let waited = self.written.wait_timeout_while(self.state(), timeout, is_pending);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits until the documents that earlier processes promised are written, or until `timeout` has passed. Returns
    /// how many are not written.
    pub(super) fn wait_until_restored(&self, timeout: Duration) -> usize {
        let waited = self.written.wait_timeout_while(self.state(), timeout, |state| state.documents.n_restored() > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.documents.n_restored()
    }

    /// Ends the writer when the queue is empty.
    pub(super) fn stop(&self) {
        self.fill(|state| state.is_stopping = true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().is_stopping
    }

    /// The next batch, which may be empty.
    pub(super) fn take(&self) -> Batch {
        let mut state = self.state();
        Batch { tasks: state.documents.take(), scopes: state.scopes.take() }
    }

    /// Removes finished tasks from the counts.
    pub(super) fn finish(&self, tasks: &[Task]) {
        let mut state = self.state();
        state.documents.finish(tasks);
        self.metrics.documents_waiting.set(state.documents.n_waiting() as i64);
        drop(state);
        self.written.notify_all();
    }

    /// Removes finished scopes from the queue. Returns the callers to acknowledge.
    pub(super) fn finish_scopes(&self, scopes: Vec<PendingScope>) -> Vec<Acknowledge> {
        let acknowledging = self.state().scopes.finish(scopes);
        self.written.notify_all();
        acknowledging
    }

    /// The promises in the current batch and the queue whose documents have waited for `limit`.
    pub(super) fn overdue(&self, in_hand: &[Task], now: u64, limit: Duration) -> Vec<Arc<Promise>> {
        self.state().documents.overdue(in_hand, now, limit.as_millis() as u64)
    }

    /// Turns these promises' tasks into retractions.
    pub(super) fn retract(&self, in_hand: &mut [Task], numbers: &[u64]) {
        self.state().documents.retract(in_hand, numbers);
    }

    /// The numbers of documents and scopes that are not written, without the scopes of the current batch.
    pub(super) fn left(&self) -> (usize, usize) {
        let state = self.state();
        (state.documents.n_waiting(), state.scopes.len())
    }
}
