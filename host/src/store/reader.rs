//! The thread that reads from the database.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::StoreFailure;
use super::backend::{Backend, BackendError};

/// Reads that wait, at most. Each takes some ten microseconds.
const MAX_WAITING: usize = 10_000;

/// Something to be read, and what is done with it.
pub(super) type Read = Box<dyn FnOnce(Result<&mut dyn Backend, StoreFailure>) + Send>;

/// What waits to be read.
#[derive(Default)]
pub(super) struct Reader {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    reads: Reads,
    is_stopping: bool,
}

/// Reads by the principals that they are for, who take turns: one who reads much waits for itself.
#[derive(Default)]
struct Reads {
    /// None of them is empty.
    queues: HashMap<Option<Arc<str>>, VecDeque<Read>>,
    /// Whose turn it is, each once.
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

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("waiting", &self.state().reads.n_reads).finish()
    }
}

impl Reader {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a read for a principal, or for the host. One too many is told so at once.
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

    /// Reads until it is stopped.
    pub(super) fn run(&self, mut backend: Box<dyn Backend>) {
        loop {
            let mut state = self.state();
            let read = loop {
                if state.is_stopping {
                    return;
                }
                if let Some(read) = state.reads.pop() {
                    break read;
                }
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            read(Ok(&mut *backend));
        }
    }
}

impl From<BackendError> for StoreFailure {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Refused(why) => Self::refused(why),
            BackendError::Unavailable(why) => Self::unavailable(format!("the store cannot be read: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn principals_take_turns() {
        let (told, order) = mpsc::channel();
        let mut reads = Reads::default();
        for (principal, n) in [("ana", 3), ("ben", 1), ("", 2)] {
            for n in 0..n {
                let told = told.clone();
                let read = Box::new(move |_: Result<&mut dyn Backend, StoreFailure>| {
                    told.send(format!("{principal}{n}")).unwrap();
                });
                reads.push((!principal.is_empty()).then(|| principal.into()), read);
            }
        }
        while let Some(read) = reads.pop() {
            read(Err(StoreFailure::unavailable("nobody reads")));
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["ana0", "ben0", "0", "ana1", "1", "ana2"]);
        assert!(reads.queues.is_empty() && reads.turns.is_empty());
        assert_eq!(reads.n_reads, 0);
    }
}
