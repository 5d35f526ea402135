//! Threads without which the host cannot continue.

use std::cell::Cell;
use std::io;
use std::thread::{self, JoinHandle};

thread_local! {
    /// The panic hook runs on the panicking thread and gets no other context, so the mark is thread-local.
    static IS_ESSENTIAL: Cell<bool> = const { Cell::new(false) };
}

/// Starts a thread without which the host cannot continue: the process ends when the thread panics.
///
/// # Errors
/// Where the thread cannot be created.
pub fn spawn_essential<T: Send + 'static>(
    thread: thread::Builder,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread.spawn(move || {
        IS_ESSENTIAL.set(true);
        work()
    })
}

/// Whether the current thread was started by [`spawn_essential`].
pub fn is_essential() -> bool {
    IS_ESSENTIAL.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_threads_are_essential() {
        let (send, marks) = std::sync::mpsc::channel();
        let unmarked = send.clone();
        spawn_essential(thread::Builder::new(), move || send.send(is_essential()).unwrap()).unwrap().join().unwrap();
        thread::spawn(move || unmarked.send(is_essential()).unwrap()).join().unwrap();
        assert_eq!(marks.iter().collect::<Vec<_>>(), [true, false]);
    }
}
