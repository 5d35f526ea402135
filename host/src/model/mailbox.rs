//! The bounded queue between threads: many senders, one receiver that takes all there is at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// A queue whose receiver is a thread ([`Mailbox::wait`]) or a task ([`Mailbox::receive`]), never both.
/// Taking everything in one go costs one lock and one wake-up for however much has piled up.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    filled: Condvar,
    emptied: Condvar,
    notify: Notify,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// Set to have the receiver come back though there is nothing for it.
    interrupted: bool,
    /// Whether there is something of which the receiver has not been told yet.
    unheard: bool,
    /// Whether the receiver is a thread that sleeps, and senders that do: to wake who is awake costs a system call, too.
    receiver_sleeps: bool,
    senders_asleep: usize,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// A queue that is never full, for what is bounded before it comes here.
    pub fn unbounded() -> Self {
        Self::new(usize::MAX)
    }

    /// A queue that is full at `capacity` items.
    pub fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                interrupted: false,
                unheard: false,
                receiver_sleeps: false,
                senders_asleep: 0,
                closed: false,
            }),
            capacity,
            filled: Condvar::new(),
            emptied: Condvar::new(),
            notify: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that holds the lock can panic half way, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, mut state: MutexGuard<'_, State<T>>, item: T) {
        if state.closed {
            // Nobody will take it: whoever waits for what comes of it sees it dropped.
            return;
        }
        let is_news = state.items.is_empty() || std::mem::take(&mut state.unheard);
        state.items.push_back(item);
        if is_news {
            self.tell_receiver(state);
        }
    }

    fn tell_receiver(&self, state: MutexGuard<'_, State<T>>) {
        let receiver_sleeps = state.receiver_sleeps;
        drop(state);
        if receiver_sleeps {
            self.filled.notify_one();
        }
        self.notify.notify_one();
    }

    /// Puts `item` in even over the bound: for what must not be lost and is itself bounded elsewhere.
    /// A sender that can wait does so beforehand, in [`Mailbox::wait_for_space`].
    pub fn push(&self, item: T) {
        self.put(self.lock(), item);
    }

    /// As [`Mailbox::push`], but lets the receiver sleep. Says whether it has to be woken ([`Mailbox::wake`]), soon: a sender
    /// that has more to send spares wake-ups so, each of which may take the processor from it.
    #[must_use]
    pub fn push_quietly(&self, item: T) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.unheard |= state.items.is_empty();
        state.items.push_back(item);
        state.unheard
    }

    /// Wakes the receiver for what was put in quietly, unless it has that already.
    pub fn wake(&self) {
        let mut state = self.lock();
        if std::mem::take(&mut state.unheard) {
            self.tell_receiver(state);
        }
    }

    /// Waits, as a thread, until the queue is under its bound. Returns at once when it is closed.
    pub fn wait_for_space(&self) {
        let mut state = self.lock();
        while state.items.len() >= self.capacity && !state.closed {
            if std::mem::take(&mut state.unheard) {
                // Or both would wait for one another.
                self.tell_receiver(state);
                state = self.lock();
                continue;
            }
            state.senders_asleep += 1;
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.senders_asleep -= 1;
        }
    }

    /// Whether the queue is at its bound. Never so when it is closed.
    pub fn is_full(&self) -> bool {
        let state = self.lock();
        state.items.len() >= self.capacity && !state.closed
    }

    /// Has the receiver come back, though there may be nothing for it.
    pub fn interrupt(&self) {
        let mut state = self.lock();
        state.interrupted = true;
        self.tell_receiver(state);
    }

    /// Ends the queue, whose receiver is gone: what is in it is dropped, and what is put in from now on too.
    pub fn close(&self) {
        let items = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.items)
        };
        self.emptied.notify_all();
        // Outside of the lock, for dropping an item may wake others.
        drop(items);
    }

    fn take(&self, state: &mut State<T>, into: &mut VecDeque<T>) -> bool {
        let interrupted = std::mem::take(&mut state.interrupted);
        if state.items.is_empty() {
            return interrupted;
        }
        std::mem::swap(&mut state.items, into);
        state.unheard = false;
        if state.senders_asleep > 0 {
            self.emptied.notify_all();
        }
        true
    }

    /// Takes everything into `into`, which must be empty. Waits, as a thread, for at most `timeout`; with none at all, not.
    pub fn wait(&self, into: &mut VecDeque<T>, timeout: Option<Duration>) {
        let mut state = self.lock();
        if self.take(&mut state, into) || timeout == Some(Duration::ZERO) {
            return;
        }
        state.receiver_sleeps = true;
        state = match timeout {
            Some(timeout) => self.filled.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0,
            None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.receiver_sleeps = false;
        self.take(&mut state, into);
    }

    /// Takes everything into `into`, which must be empty. Waits, as a task, for as long as it takes; may be cancelled.
    pub async fn receive(&self, into: &mut VecDeque<T>) {
        loop {
            if self.take(&mut self.lock(), into) {
                return;
            }
            self.notify.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_goes_in_over_the_bound() {
        let mailbox = Mailbox::new(1);
        mailbox.push(1);
        assert!(mailbox.is_full());
        mailbox.push(3);
        let mut taken = VecDeque::new();
        mailbox.wait(&mut taken, Some(Duration::ZERO));
        assert_eq!(taken, [1, 3]);
        assert!(!mailbox.is_full());
    }

    #[test]
    fn what_is_put_in_quietly_is_told_with_the_next_thing_or_by_a_wake_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let is_told = |mailbox: &Mailbox<u32>| {
            use std::future::Future as _;
            let told = std::pin::pin!(mailbox.notify.notified());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let _runtime = runtime.enter();
            told.poll(&mut context).is_ready()
        };
        let mailbox = Mailbox::new(8);
        assert!(mailbox.push_quietly(1) && mailbox.push_quietly(2), "whichever thread put it in");
        assert!(!is_told(&mailbox));
        mailbox.wake();
        assert!(is_told(&mailbox));
        mailbox.wake();
        assert!(!is_told(&mailbox), "it was told already");
        let mut taken = VecDeque::new();
        mailbox.wait(&mut taken, Some(Duration::ZERO));
        assert_eq!(taken, [1, 2]);
        taken.clear();
        assert!(mailbox.push_quietly(3));
        mailbox.push(4);
        assert!(is_told(&mailbox), "who sends aloud speaks for both");
        assert!(!mailbox.push_quietly(5));
        mailbox.wait(&mut taken, Some(Duration::ZERO));
        mailbox.wake();
        assert!(!is_told(&mailbox), "there is nothing to tell of");
    }

    #[test]
    fn a_sender_waits_until_the_receiver_has_taken_what_there_was() {
        let mailbox = Mailbox::new(1);
        mailbox.push(1);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                mailbox.wait_for_space();
                mailbox.push(2);
            });
            let mut seen = Vec::new();
            let mut taken = VecDeque::new();
            while seen.len() < 2 {
                mailbox.wait(&mut taken, Some(Duration::from_secs(10)));
                assert!(!taken.is_empty(), "nothing came in time");
                seen.extend(taken.drain(..));
            }
            assert_eq!(seen, [1, 2]);
        });
    }
}
