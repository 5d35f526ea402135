//! The threads that operators' requests run on.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The most requests that run at once: each may hold a component and a thread.
const MAX_REQUESTS: usize = 64;

/// The niceness of operators' requests (nice(2)), which make way for the threads that serve: a scope waits for a swap as little as
/// can be.
const NICENESS: i32 = 5;

/// The stack of each thread, in bytes: as large as that of a plugin thread, because guests run here too.
const STACK_BYTES: usize = 4 * 1024 * 1024;

/// The threads that run requests, until the host ends.
#[derive(Debug, Default)]
pub(crate) struct LifecycleThreads {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    threads: Vec<JoinHandle<()>>,
    is_stopping: bool,
}

impl LifecycleThreads {
    /// Runs an operator's request on a thread of its own. Fails if too many run, the host is stopping, or no thread can
    /// be started.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<(), &'static str> {
        self.spawn_within(MAX_REQUESTS, move || {
            // Without the niceness, the thread does its work all the same.
            let _ = rustix::process::nice(NICENESS);
            work();
        })
    }

    /// Runs work of the host itself, which no number of requests holds up. At most one such thread runs for a plugin.
    pub(super) fn spawn_own(&self, work: impl FnOnce() + Send + 'static) -> Result<(), &'static str> {
        self.spawn_within(usize::MAX, work)
    }

    fn spawn_within(&self, most: usize, work: impl FnOnce() + Send + 'static) -> Result<(), &'static str> {
        let mut state = lock(&self.state);
        if state.is_stopping {
            return Err("the host is shutting down");
        }
        state.threads.retain(|thread| !thread.is_finished());
        if state.threads.len() >= most {
            return Err("too many plugins are being loaded: try again later");
        }
        let thread = thread::Builder::new().name("plugin-load".to_owned()).stack_size(STACK_BYTES).spawn(work);
        state.threads.push(thread.map_err(|_| "the host cannot start a thread for it: try again later")?);
        Ok(())
    }

    /// Waits for `pause`. Returns `false` if the host ends meanwhile.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        let mut state = lock(&self.state);
        while !state.is_stopping {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.stopped.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Ends all threads, and refuses new requests.
    pub(crate) fn stop(&self) {
        let threads = {
            let mut state = lock(&self.state);
            state.is_stopping = true;
            std::mem::take(&mut state.threads)
        };
        self.stopped.notify_all();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that loads plugins panicked");
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
