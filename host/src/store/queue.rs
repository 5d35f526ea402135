//! What waits to be written, and what was told of it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::backend::{AnsweredCall, ScopeRecord};
use super::{Promise, StoreFailure};
use crate::ledger::Charge;
use crate::metrics::Metrics;
use crate::model::{Clock, Failure};

/// Documents that wait to be stored, at most: a minute of what a busy host is sent while its database restarts.
const MAX_WAITING: usize = 100_000;

/// Bytes of documents that wait to be stored, at most.
const MAX_WAITING_BYTES: usize = 256 * 1024 * 1024;

/// Documents, and scopes, in one batch at most: what is lost to one that fails half way is little, and a commit's cost is
/// shared by enough.
const BATCH: usize = 1000;

/// Outcomes that features have been told of and not settled, before the writer gives them time: when a database is back,
/// what had waited must not stand before everything that happens now. Some ten milliseconds of work.
const MAX_UNSETTLED: usize = 256;

/// How long it gives them: a feature that is paused settles nothing for minutes.
const SETTLING_TIME: Duration = Duration::from_millis(50);

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
    /// It is written, and is in somebody's account until it has been, or a later one takes its place.
    Put {
        record: ScopeRecord,
        _charge: Charge,
    },
    Drop,
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Put { record, .. } => {
                let before = record.before.as_ref().map_or(0, |(_, state)| state.len());
                record.state.as_ref().map_or(0, Vec::len) + before
            }
            Self::Drop => 0,
        }
    }
}

/// A plugin's name and the key of one of its scopes.
pub(super) type ScopeId = (String, String);

/// A scope that waits to be written.
pub(super) struct Waiting {
    pub(super) id: ScopeId,
    pub(super) change: Arc<Change>,
    pub(super) callers: Callers,
}

/// Those whose calls led to a change, which is written once for all of them.
#[derive(Default)]
pub(super) struct Callers {
    pub(super) acknowledge: Vec<Acknowledge>,
    pub(super) answered: Vec<AnsweredCall>,
}

impl Callers {
    fn bytes(&self) -> usize {
        self.answered.iter().map(|call| call.answer.len()).sum()
    }
}

/// What waits to be written.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something came in, or the clock was moved.
    filled: Condvar,
    /// Documents or scopes were written.
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
    /// Those of them that were promised before the host was started.
    n_restored: usize,
    scopes: HashMap<ScopeId, (Arc<Change>, Callers)>,
    /// The same, in the order in which they began to wait.
    order: VecDeque<ScopeId>,
    /// Bytes of states and answers that wait, and callers who wait to be acknowledged, with those that are being written.
    bytes_changed: usize,
    n_acknowledging: usize,
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
pub(super) struct Batch {
    pub(super) tasks: Vec<Task>,
    pub(super) scopes: Vec<Waiting>,
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
            state.n_restored += usize::from(task.promise.restored);
            state.tasks.push_back(task);
        }
        self.metrics.documents_waiting.set(state.n_waiting as i64);
        drop(state);
        self.filled.notify_all();
    }

    /// Whether a scope may be changed.
    ///
    /// # Errors
    /// Where too much waits already.
    pub(super) fn has_room_for_change(&self) -> Result<(), Failure> {
        let state = self.state();
        if state.scopes.len() >= MAX_WAITING
            || state.n_acknowledging >= MAX_WAITING
            || state.bytes_changed >= MAX_WAITING_BYTES
        {
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
        let id = (plugin, key);
        let mut guard = self.state();
        let state = &mut *guard;
        state.bytes_changed += change.bytes() + answered.as_ref().map_or(0, |call| call.answer.len());
        state.n_acknowledging += usize::from(acknowledge.is_some());
        match state.scopes.entry(id) {
            Entry::Occupied(mut waiting) => {
                let (current, callers) = waiting.get_mut();
                state.bytes_changed -= current.bytes();
                *current = Arc::new(change);
                callers.acknowledge.extend(acknowledge);
                callers.answered.extend(answered);
            }
            Entry::Vacant(free) => {
                state.order.push_back(free.key().clone());
                let callers = Callers { acknowledge: Vec::from_iter(acknowledge), answered: Vec::from_iter(answered) };
                free.insert((Arc::new(change), callers));
            }
        }
        drop(guard);
        self.filled.notify_all();
    }

    /// What a scope is to become, if that is not on disk yet.
    pub(super) fn pending(&self, plugin: &str, key: &str) -> Option<Option<ScopeRecord>> {
        let id = (plugin.to_owned(), key.to_owned());
        let state = self.state();
        let change = state.scopes.get(&id).map(|(change, _)| change).or_else(|| state.writing.get(&id))?;
        Some(match &**change {
            Change::Put { record, .. } => Some(record.clone()),
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
    pub(super) fn wait_to_tell(&self) {
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

    /// The next batch, when there is one; an empty one if there is none for so long. `None` at the end.
    pub(super) fn take(&self, idle_after: Option<Duration>) -> Option<Batch> {
        let is_idle = |state: &mut State| state.tasks.is_empty() && state.scopes.is_empty() && !state.is_stopping;
        let mut state = match idle_after {
            None => self.filled.wait_while(self.state(), is_idle).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.filled.wait_timeout_while(self.state(), timeout, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if state.tasks.is_empty() && state.scopes.is_empty() && state.is_stopping {
            return None;
        }
        let state = &mut *state;
        let n_tasks = state.tasks.len().min(BATCH);
        let tasks = state.tasks.drain(..n_tasks).collect();
        let n_scopes = state.order.len().min(BATCH);
        let mut scopes = Vec::with_capacity(n_scopes);
        for id in state.order.drain(..n_scopes) {
            if let Some((change, callers)) = state.scopes.remove(&id) {
                state.writing.insert(id.clone(), change.clone());
                scopes.push(Waiting { id, change, callers });
            }
        }
        Some(Batch { tasks, scopes })
    }

    /// Waits for so long, or until the host ends. Says whether it does.
    pub(super) fn pause(&self, pause_ms: u64) -> bool {
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
    pub(super) fn is_done_with(&self, tasks: &[Task]) -> Vec<u64> {
        let mut settled = Vec::new();
        let mut state = self.state();
        for task in tasks {
            state.n_waiting -= 1;
            state.bytes_waiting -= task.promise.document.len();
            state.n_restored -= usize::from(task.promise.restored);
            let is_told = task.action == (Action::Withdraw { is_told: true });
            if is_told && state.is_settled_by_this(task.promise.number) {
                settled.push(task.promise.number);
            }
        }
        self.metrics.documents_waiting.set(state.n_waiting as i64);
        drop(state);
        self.written.notify_all();
        settled
    }

    /// Waits until what was promised before the host was started is written, or `timeout` has passed. Says how much is not.
    pub(super) fn wait_until_restored(&self, timeout: Duration) -> usize {
        let waited = self.written.wait_timeout_while(self.state(), timeout, |state| state.n_restored > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.n_restored
    }

    /// Notes that nothing is left to be done about scopes, and gives whom to tell.
    pub(super) fn are_written(&self, scopes: Vec<Waiting>) -> Vec<Acknowledge> {
        let mut acknowledging = Vec::new();
        let mut state = self.state();
        for Waiting { id, change, callers } in scopes {
            state.writing.remove(&id);
            state.bytes_changed -= change.bytes() + callers.bytes();
            state.n_acknowledging -= callers.acknowledge.len();
            acknowledging.extend(callers.acknowledge);
        }
        drop(state);
        self.written.notify_all();
        acknowledging
    }

    /// Documents among these, and among what waits, that nobody could store for so long.
    pub(super) fn overdue(&self, in_hand: &[Task], give_up: Duration) -> Vec<Arc<Promise>> {
        let (now, give_up_ms) = (self.clock.uptime_ms(), give_up.as_millis() as u64);
        // One of an earlier process may have been stored and told, just before that ended: it is not given up.
        let is_overdue =
            |task: &&Task| task.action == Action::Insert && !task.promise.restored && now >= task.since + give_up_ms;
        let state = self.state();
        in_hand.iter().chain(&state.tasks).filter(is_overdue).map(|task| task.promise.clone()).collect()
    }

    /// From now on these promises are to be withdrawn.
    pub(super) fn withdraw(&self, in_hand: &mut [Task], numbers: Vec<u64>) {
        let numbers: HashSet<u64> = numbers.into_iter().collect();
        let state = &mut *self.state();
        state.withdrawing.extend(numbers.iter().map(|number| (*number, false)));
        for task in in_hand.iter_mut().chain(&mut state.tasks) {
            // One that waits to be withdrawn already may not have been told.
            if task.action == Action::Insert && numbers.contains(&task.promise.number) {
                task.action = Action::Withdraw { is_told: true };
            }
        }
    }

    /// Documents and scopes that are not written, beside a batch that is in hand.
    pub(super) fn left(&self) -> (usize, usize) {
        let state = self.state();
        (state.n_waiting, state.scopes.len())
    }
}
