//! The thread that reads from the database.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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
    reads: VecDeque<Read>,
    is_stopping: bool,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("waiting", &self.state().reads.len()).finish()
    }
}

impl Reader {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a read. One too many is told so at once.
    pub(super) fn push(&self, read: Read) {
        let mut state = self.state();
        if state.is_stopping {
            drop(state);
            return read(Err(StoreFailure::unavailable("the host is shutting down")));
        }
        if state.reads.len() >= MAX_WAITING {
            drop(state);
            return read(Err(StoreFailure::unavailable("the store has more to read than it can: try again later")));
        }
        state.reads.push_back(read);
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
        for read in left {
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
                if let Some(read) = state.reads.pop_front() {
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
