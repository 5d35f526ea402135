//! The queue of reads from the database.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::backend::Backend;
use super::failure::StoreFailure;
use crate::model::Failure;

/// The most queued reads. Each takes some ten microseconds.
const MAX_WAITING: usize = 10_000;

/// A read, including the use of its result.
pub(super) type Read = Box<dyn FnOnce(Result<&mut dyn Backend, StoreFailure>) + Send>;

/// Receives the result of a read, on the reading thread.
pub type Then<T> = Box<dyn FnOnce(Result<T, StoreFailure>) + Send>;

/// The principal of a read. Principals take turns; the host's own reads count as those of one principal.
#[derive(Default)]
pub struct Turn {
    /// The principal; `None` for the host.
    pub principal: Option<Arc<str>>,
    /// Called when the turn comes, to refuse a principal that has exceeded its rate meanwhile.
    pub admit: Option<Box<dyn FnOnce() -> Result<(), Failure> + Send>>,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// The reads that wait.
#[derive(Default)]
pub(super) struct ReadQueue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    reads: Reads,
    is_stopping: bool,
}

/// Reads by principal. Principals take turns, so that one with many reads delays only itself.
#[derive(Default)]
struct Reads {
    /// No queue in the map is empty.
    queues: HashMap<Option<Arc<str>>, VecDeque<Read>>,
    /// The principals in the order of their turns, each once.
    turns: VecDeque<Option<Arc<str>>>,
    n_reads: usize,
}

impl Reads {
    fn push(&mut self, principal: Option<Arc<str>>, read: Read) {
        let queue = self.queues.entry(principal.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(principal);
        }
        queue.push_back(read);
        self.n_reads += 1;
    }

    fn pop(&mut self) -> Option<Read> {
        let principal = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&principal)?;
        let read = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&principal);
        } else {
            self.turns.push_back(principal);
        }
        self.n_reads -= 1;
        read
    }
}

impl fmt::Debug for ReadQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadQueue").field("waiting", &self.state().reads.n_reads).finish()
    }
}

impl ReadQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a read for a principal, or for the host (`None`). A read over the bound fails at once.
    pub(super) fn push(&self, principal: Option<Arc<str>>, read: Read) {
        let mut state = self.state();
        if state.is_stopping {
            drop(state);
            return read(Err(StoreFailure::unavailable("the host is shutting down")));
        }
        if state.reads.n_reads >= MAX_WAITING {
            drop(state);
            return read(Err(StoreFailure::unavailable("the store has more to read than it can: try again later")));
        }
        state.reads.push(principal, read);
        drop(state);
        self.filled.notify_one();
    }

    /// Waits for the next read. `None` after [`ReadQueue::stop`].
    pub(super) fn pop(&self) -> Option<Read> {
        let mut state = self.state();
        loop {
            if state.is_stopping {
                return None;
            }
            if let Some(read) = state.reads.pop() {
                return Some(read);
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Fails all queued and future reads.
    pub(super) fn stop(&self) {
        let left = {
            let mut state = self.state();
            state.is_stopping = true;
            std::mem::take(&mut state.reads)
        };
        self.filled.notify_one();
        for read in left.queues.into_values().flatten() {
            read(Err(StoreFailure::unavailable("the host is shutting down")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn reads_alternate_between_principals() {
        let (sent, order) = mpsc::channel();
        let mut reads = Reads::default();
        for (principal, n) in [("ana", 3), ("ben", 1), ("", 2)] {
            for n in 0..n {
                let sent = sent.clone();
                let read = Box::new(move |_: Result<&mut dyn Backend, StoreFailure>| {
                    sent.send(format!("{principal}{n}")).unwrap();
                });
                reads.push((!principal.is_empty()).then(|| principal.into()), read);
            }
        }
        while let Some(read) = reads.pop() {
            read(Err(StoreFailure::unavailable("there is no database")));
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["ana0", "ben0", "0", "ana1", "1", "ana2"]);
        assert!(reads.queues.is_empty() && reads.turns.is_empty());
        assert_eq!(reads.n_reads, 0);
    }
}
