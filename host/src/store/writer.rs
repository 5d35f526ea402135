//! The thread that writes to the database: in the order in which it was asked to, in batches, until it is done.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::backend::{Backend, BackendError, ScopeRecord, Write};
use super::journal::Journal;
use super::{Listener, Outcome, Promise, StoreFailure};
use crate::metrics::Metrics;
use crate::model::{Clock, Failure};

/// Documents that wait to be stored, at most: a minute of what a busy host is sent while its database restarts.
const MAX_WAITING: usize = 100_000;

/// Bytes of documents that wait to be stored, at most.
const MAX_WAITING_BYTES: usize = 256 * 1024 * 1024;

/// Documents, and scopes, in one batch at most: what is lost to one that fails half way is little, and a commit's cost is
/// shared by enough.
const BATCH: usize = 1000;

/// The pause after the first failure, in milliseconds. Each that follows is twice as long.
const FIRST_PAUSE_MS: u64 = 20;

/// The longest pause, in milliseconds: what a database that is back is waited for in vain.
const LONGEST_PAUSE_MS: u64 = 1000;

/// Outcomes that features have been told of and not settled, before the writer gives them time: when a database is back,
/// what had waited must not stand before everything that happens now. Some ten milliseconds of work.
const MAX_UNSETTLED: usize = 256;

/// How long it gives them: a feature that is paused settles nothing for minutes.
const SETTLING_TIME: Duration = Duration::from_millis(50);

/// Attempts at writing when the host ends, before all that waits is left to the journal.
const LAST_ATTEMPTS: u32 = 3;

/// Something to be done about a promise.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) promise: Arc<Promise>,
    pub(super) action: Action,
    /// When it was queued, in milliseconds of uptime.
    pub(super) since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Store it.
    Insert,
    /// It was given up: see to it that it is not stored. `is_told`: its feature knows.
    Withdraw { is_told: bool },
}

/// Is called when a scope's change is on disk, or will not be.
pub type Acknowledge = Box<dyn FnOnce(Result<(), StoreFailure>) + Send>;

/// What becomes of a scope.
#[derive(Debug)]
pub(super) enum Change {
    Put(ScopeRecord),
    Drop,
}

type ScopeId = (String, String);

/// What waits to be written.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something came in, or the clock was moved.
    filled: Condvar,
    /// Scopes were written.
    written: Condvar,
    /// Outcomes were settled.
    settled: Condvar,
    clock: Clock,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    /// Documents that wait, with those that are being written.
    n_waiting: usize,
    bytes_waiting: usize,
    scopes: HashMap<ScopeId, (Arc<Change>, Vec<Acknowledge>)>,
    /// Scopes that are being written.
    writing: HashMap<ScopeId, Arc<Change>>,
    /// Outcomes that were told, and are not settled and have not had their time.
    n_unsettled: usize,
    /// Promises that were given up. Each is settled when its feature knows of it and it has been withdrawn: whether one of
    /// the two has come about.
    withdrawing: HashMap<u64, bool>,
    /// Whether clients are on their way out: what they are told now may not reach them.
    is_ending: bool,
    is_stopping: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("n_waiting", &self.n_waiting).finish_non_exhaustive()
    }
}

impl State {
    /// Notes that a feature knows of an outcome, or that a promise has been withdrawn. Says whether that settles it.
    fn is_settled_by_this(&mut self, number: u64) -> bool {
        let Some(is_half_settled) = self.withdrawing.get_mut(&number) else { return true };
        if !std::mem::replace(is_half_settled, true) {
            return false;
        }
        self.withdrawing.remove(&number);
        true
    }
}

/// What is written at once.
#[derive(Default)]
struct Batch {
    tasks: Vec<Task>,
    scopes: Vec<(ScopeId, Arc<Change>, Vec<Acknowledge>)>,
}

impl Queue {
    pub(super) fn new(clock: Clock, metrics: Metrics) -> Arc<Self> {
        let queue = Arc::new(Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            settled: Condvar::new(),
            clock: clock.clone(),
            metrics,
        });
        let weak = Arc::downgrade(&queue);
        clock.on_move(move || {
            if let Some(queue) = weak.upgrade() {
                // Taken and given back, so that nobody is between looking at the clock and waiting.
                drop(queue.state());
                queue.filled.notify_all();
            }
        });
        queue
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many documents of so many bytes may come in.
    ///
    /// # Errors
    /// Where too much waits already.
    pub(super) fn has_room_for(&self, n: usize, bytes: usize) -> Result<(), Failure> {
        let state = self.state();
        if state.n_waiting + n > MAX_WAITING || state.bytes_waiting + bytes > MAX_WAITING_BYTES {
            return Err(StoreFailure::unavailable("the document store does not keep up: try again later").into());
        }
        Ok(())
    }

    pub(super) fn push(&self, tasks: impl IntoIterator<Item = Task>) {
        let mut state = self.state();
        for task in tasks {
            state.n_waiting += 1;
            state.bytes_waiting += task.promise.document.len();
            state.tasks.push_back(task);
        }
        self.metrics.documents_waiting.set(state.n_waiting as i64);
        drop(state);
        self.filled.notify_all();
    }

    pub(super) fn change(&self, plugin: String, key: String, change: Change, acknowledge: Option<Acknowledge>) {
        let mut state = self.state();
        let (current, waiting) =
            state.scopes.entry((plugin, key)).or_insert_with(|| (Arc::new(Change::Drop), Vec::new()));
        *current = Arc::new(change);
        waiting.extend(acknowledge);
        drop(state);
        self.filled.notify_all();
    }

    /// What a scope is to become, if that is not on disk yet.
    pub(super) fn pending(&self, plugin: &str, key: &str) -> Option<Option<ScopeRecord>> {
        let id = (plugin.to_owned(), key.to_owned());
        let state = self.state();
        let change = state.scopes.get(&id).map(|(change, _)| change).or_else(|| state.writing.get(&id))?;
        Some(match &**change {
            Change::Put(record) => Some(record.clone()),
            Change::Drop => None,
        })
    }

    /// Waits until no change of this plugin's scopes is pending, or `timeout` has passed. Says which.
    pub(super) fn wait_until_written(&self, plugin: &str, timeout: Duration) -> bool {
        let is_pending = |state: &mut State| {
            state.scopes.keys().chain(state.writing.keys()).any(|(of_plugin, _)| of_plugin == plugin)
        };
        let waited = self.written.wait_timeout_while(self.state(), timeout, is_pending);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Notes that a feature knows of an outcome. Says whether the promise is settled by that: one that was given up has to
    /// be withdrawn too.
    pub(super) fn settle(&self, number: u64) -> bool {
        let mut state = self.state();
        state.n_unsettled = state.n_unsettled.saturating_sub(1);
        let is_settled = !state.is_ending && state.is_settled_by_this(number);
        drop(state);
        self.settled.notify_all();
        is_settled
    }

    /// Counts an outcome that is about to be told, when there are few enough, or they have had their time.
    fn wait_to_tell(&self) {
        let state = self.state();
        let are_many = |state: &mut State| state.n_unsettled >= MAX_UNSETTLED && !state.is_stopping;
        let waited = self.settled.wait_timeout_while(state, SETTLING_TIME, are_many);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            // A feature that is paused must not slow down what is stored for the others.
            state.n_unsettled = 0;
        }
        state.n_unsettled += 1;
    }

    pub(super) fn begin_to_end(&self) {
        self.state().is_ending = true;
    }

    pub(super) fn stop(&self) {
        self.state().is_stopping = true;
        self.filled.notify_all();
    }

    /// The next batch, when there is one. `None` at the end.
    fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        loop {
            if !(state.tasks.is_empty() && state.scopes.is_empty()) {
                break;
            }
            if state.is_stopping {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let n_tasks = state.tasks.len().min(BATCH);
        let tasks = state.tasks.drain(..n_tasks).collect();
        let ids: Vec<_> = state.scopes.keys().take(BATCH).cloned().collect();
        let mut scopes = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some((change, waiting)) = state.scopes.remove(&id) {
                state.writing.insert(id.clone(), change.clone());
                scopes.push((id, change, waiting));
            }
        }
        Some(Batch { tasks, scopes })
    }

    /// Waits for so long, or until the host ends. Says whether it does.
    fn pause(&self, pause_ms: u64) -> bool {
        let until = self.clock.uptime_ms() + pause_ms;
        let mut state = self.state();
        while !state.is_stopping && self.clock.uptime_ms() < until {
            state = match self.clock.wait_for(until) {
                Some(timeout) => self.filled.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0,
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.is_stopping
    }

    /// Notes that nothing is left to be done. Gives the promises that are settled by that.
    fn is_done_with(&self, tasks: &[Task]) -> Vec<u64> {
        let mut settled = Vec::new();
        let mut state = self.state();
        for task in tasks {
            state.n_waiting -= 1;
            state.bytes_waiting -= task.promise.document.len();
            let is_told = task.action == (Action::Withdraw { is_told: true });
            if is_told && state.is_settled_by_this(task.promise.number) {
                settled.push(task.promise.number);
            }
        }
        self.metrics.documents_waiting.set(state.n_waiting as i64);
        settled
    }

    fn are_written(&self, scopes: &[ScopeId]) {
        let mut state = self.state();
        for id in scopes {
            state.writing.remove(id);
        }
        drop(state);
        self.written.notify_all();
    }
}

/// The writing thread's own.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) backend: Box<dyn Backend>,
    pub(super) journal: Arc<Journal>,
    pub(super) listener: Listener,
    pub(super) give_up: Duration,
    pub(super) is_failing: bool,
    pub(super) last_attempts: u32,
}

impl Writer {
    /// Writes until the host ends and nothing is left to be written.
    pub(super) fn run(mut self) {
        while self.last_attempts < LAST_ATTEMPTS
            && let Some(batch) = self.queue.take()
        {
            self.write(batch);
        }
        if let Err(error) = self.journal.sync() {
            tracing::error!(%error, "the journal cannot be forced to disk");
        }
    }

    fn write(&mut self, mut batch: Batch) {
        let mut pause_ms = FIRST_PAUSE_MS;
        while !(batch.tasks.is_empty() && batch.scopes.is_empty()) {
            match self.backend.write(&writes_of(&batch)) {
                Ok(ids) => {
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!("the store can be written again");
                    }
                    return self.is_written(batch, ids);
                }
                Err(BackendError::Refused(why)) if batch.tasks.len() + batch.scopes.len() == 1 => {
                    return self.is_refused(batch, &why);
                }
                Err(BackendError::Refused(_)) => {
                    // Which of them it was shows when each is written by itself.
                    for task in batch.tasks {
                        self.write(Batch { tasks: vec![task], ..Batch::default() });
                    }
                    for scope in batch.scopes {
                        self.write(Batch { scopes: vec![scope], ..Batch::default() });
                    }
                    return;
                }
                Err(BackendError::Unavailable(why)) => {
                    self.note_failure(&why);
                    self.give_up_old(&mut batch, &why);
                    if self.queue.pause(pause_ms) {
                        self.last_attempts += 1;
                        if self.last_attempts >= LAST_ATTEMPTS {
                            return self.abandon(&batch);
                        }
                        std::thread::sleep(Duration::from_millis(pause_ms));
                    }
                    pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
                }
            }
        }
    }

    /// The host ends, and the store cannot be written. Documents are in the journal; states are not.
    fn abandon(&self, batch: &Batch) {
        let state = self.queue.state();
        tracing::error!(
            documents = state.n_waiting,
            scopes = batch.scopes.len() + state.scopes.len(),
            "the host ends while the store cannot be written: the documents are stored when it starts again, \
             the last changes of the scopes are lost"
        );
    }

    fn note_failure(&mut self, why: &str) {
        self.queue.metrics.store_failures.inc();
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!("the store cannot be written, and it is tried again until it can: {why}");
        }
        // Until then the journal is all there is.
        if let Err(error) = self.journal.sync() {
            tracing::error!(%error, "the journal cannot be forced to disk");
        }
    }

    /// Tells the features of what has waited for too long, in this batch or behind it. It is withdrawn when the store is
    /// back, for an attempt that seemed to fail may have gone well.
    fn give_up_old(&mut self, batch: &mut Batch, why: &str) {
        let (now, give_up_ms) = (self.queue.clock.uptime_ms(), self.give_up.as_millis() as u64);
        let is_old = |task: &&Task| task.action == Action::Insert && now >= task.since + give_up_ms;
        let old: Vec<Arc<Promise>> = {
            let state = self.queue.state();
            batch.tasks.iter().chain(&state.tasks).filter(is_old).map(|task| task.promise.clone()).collect()
        };
        if old.is_empty() {
            return;
        }
        let numbers: Vec<u64> = old.iter().map(|promise| promise.number).collect();
        // The next process must not store what features were told has failed. Until that is certain, nobody is told.
        if let Err(error) = self.journal.give_up(numbers.clone()).and_then(|()| self.journal.sync()) {
            return tracing::error!(%error, "the journal cannot be written, and documents cannot be given up");
        }
        tracing::error!(documents = old.len(), "documents were not stored in {give_up_ms} ms and are given up");
        {
            let state = &mut *self.queue.state();
            state.withdrawing.extend(numbers.into_iter().map(|number| (number, false)));
            for task in batch.tasks.iter_mut().chain(&mut state.tasks) {
                if state.withdrawing.contains_key(&task.promise.number) {
                    task.action = Action::Withdraw { is_told: true };
                }
            }
        }
        self.queue.metrics.documents_failed.inc_by(old.len() as u64);
        for promise in old {
            let failure = StoreFailure::unavailable(format!("the store could not be written: {why}"));
            self.tell(promise, Outcome::Failed(failure));
        }
    }

    fn settle(&self, done: &[Task]) {
        let settled = self.queue.is_done_with(done);
        if !settled.is_empty() {
            self.journal.settle_or_log(settled);
        }
    }

    fn tell(&self, promise: Arc<Promise>, outcome: Outcome) {
        self.queue.wait_to_tell();
        (self.listener)(promise, outcome);
    }

    fn is_written(&self, batch: Batch, ids: Vec<Option<String>>) {
        let written: Vec<_> = batch.scopes.iter().map(|(id, ..)| id.clone()).collect();
        self.queue.are_written(&written);
        for acknowledge in batch.scopes.into_iter().flat_map(|(_, _, waiting)| waiting) {
            acknowledge(Ok(()));
        }
        self.settle(&batch.tasks);
        for (task, id) in batch.tasks.into_iter().zip(ids) {
            match (task.action, id) {
                (Action::Insert, Some(id)) => {
                    self.queue.metrics.documents_stored.inc();
                    self.tell(task.promise, Outcome::Stored(id));
                }
                (Action::Withdraw { is_told: true }, _) => {}
                _ => {
                    let failure = StoreFailure::unavailable("the document was given up before the host restarted");
                    self.tell(task.promise, Outcome::Failed(failure));
                }
            }
        }
    }

    fn is_refused(&self, batch: Batch, why: &str) {
        self.settle(&batch.tasks);
        for task in batch.tasks {
            self.queue.metrics.documents_failed.inc();
            tracing::error!(
                plugin = %task.promise.plugin, scope = %task.promise.scope, "the store refuses a document: {why}"
            );
            self.tell(task.promise, Outcome::Failed(StoreFailure::refused(why)));
        }
        for (id, _, waiting) in batch.scopes {
            tracing::error!(plugin = %id.0, scope = %id.1, "the store refuses a state: {why}");
            self.queue.are_written(std::slice::from_ref(&id));
            for acknowledge in waiting {
                acknowledge(Err(StoreFailure::refused(why)));
            }
        }
    }
}

fn writes_of(batch: &Batch) -> Vec<Write<'_>> {
    let tasks = batch.tasks.iter().map(|task| match task.action {
        Action::Insert => Write::Insert(&task.promise),
        Action::Withdraw { .. } => Write::Withdraw(&task.promise),
    });
    let scopes = batch.scopes.iter().map(|((plugin, key), change, _)| match &**change {
        Change::Put(record) => Write::PutScope(record),
        Change::Drop => Write::DropScope { plugin, key },
    });
    tasks.chain(scopes).collect()
}
