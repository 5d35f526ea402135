//! The bounded queue between threads: many senders, one receiver that takes all items at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// A queue whose receiver is a thread ([`Mailbox::wait`]) or a task ([`Mailbox::receive`]), never both. Taking all
/// items at once costs one lock and one wake-up, whatever their number.
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
    /// Set to have the receiver return without an item.
    interrupted: bool,
    /// Whether the receiver has not been woken yet for an item.
    unannounced: bool,
    /// Whether the receiver is a sleeping thread, and how many senders sleep: waking a thread that is awake costs a system
    /// call, too.
    receiver_sleeps: bool,
    senders_asleep: usize,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// A queue that is never full, for items that are bounded elsewhere.
    pub fn unbounded() -> Self {
        Self::new(usize::MAX)
    }

    /// A queue that is full at `capacity` items.
    pub fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                interrupted: false,
                unannounced: false,
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
        // No code that holds the lock can panic half way, so a poisoned state is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, mut state: MutexGuard<'_, State<T>>, item: T) {
        if state.closed {
            // The queue is closed: a caller that waits for the result sees the item dropped.
            return;
        }
        let is_news = state.items.is_empty() || std::mem::take(&mut state.unannounced);
        state.items.push_back(item);
        if is_news {
            self.wake_receiver(state);
        }
    }

    fn wake_receiver(&self, state: MutexGuard<'_, State<T>>) {
        let receiver_sleeps = state.receiver_sleeps;
        drop(state);
        if receiver_sleeps {
            self.filled.notify_one();
        }
        self.notify.notify_one();
    }

    /// Queues an item even over the bound, for items that must not be lost and are bounded elsewhere. A sender that can
    /// wait calls [`Mailbox::wait_for_space`] first.
    pub fn push(&self, item: T) {
        self.put(self.lock(), item);
    }

    /// As [`Mailbox::push`], but lets the receiver sleep. Returns whether the caller must soon wake the receiver
    /// ([`Mailbox::wake`]). A sender of several items saves wake-ups, each of which may preempt the sender.
    #[must_use]
    pub fn push_quietly(&self, item: T) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.unannounced |= state.items.is_empty();
        state.items.push_back(item);
        state.unannounced
    }

    /// Wakes the receiver for items that were pushed quietly, unless they have been taken already.
    pub fn wake(&self) {
        let mut state = self.lock();
        if std::mem::take(&mut state.unannounced) {
            self.wake_receiver(state);
        }
    }

    /// Waits, as a thread, until the queue is under its bound. Returns at once when it is closed.
    pub fn wait_for_space(&self) {
        let mut state = self.lock();
        while state.items.len() >= self.capacity && !state.closed {
            if std::mem::take(&mut state.unannounced) {
                // Otherwise sender and receiver would wait for each other.
                self.wake_receiver(state);
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

    /// Has the receiver return, even without an item.
    pub fn interrupt(&self) {
        let mut state = self.lock();
        state.interrupted = true;
        self.wake_receiver(state);
    }

    /// Closes the queue after its receiver has ended: all items, present and future, are dropped.
    pub fn close(&self) {
        let items = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.items)
        };
        self.emptied.notify_all();
        // Outside of the lock, because dropping an item may wake other threads.
        drop(items);
    }

    fn take(&self, state: &mut State<T>, into: &mut VecDeque<T>) -> bool {
        let interrupted = std::mem::take(&mut state.interrupted);
        if state.items.is_empty() {
            return interrupted;
        }
        std::mem::swap(&mut state.items, into);
        state.unannounced = false;
        if state.senders_asleep > 0 {
            self.emptied.notify_all();
        }
        true
    }

    /// Takes all items into `into`, which must be empty. Waits, as a thread, for at most `timeout`, or without end.
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

    /// Takes all items into `into`, which must be empty. Waits, as a task, without end. Cancel-safe.
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
    fn push_succeeds_over_the_bound() {
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
    fn quiet_push_wakes_with_next_push_or_wake() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let is_woken = |mailbox: &Mailbox<u32>| {
            use std::future::Future as _;
            let woken = std::pin::pin!(mailbox.notify.notified());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let _runtime = runtime.enter();
            woken.poll(&mut context).is_ready()
        };
        let mailbox = Mailbox::new(8);
        assert!(mailbox.push_quietly(1) && mailbox.push_quietly(2), "whichever thread pushed it");
        assert!(!is_woken(&mailbox));
        mailbox.wake();
        assert!(is_woken(&mailbox));
        mailbox.wake();
        assert!(!is_woken(&mailbox), "it was woken already");
        let mut taken = VecDeque::new();
        mailbox.wait(&mut taken, Some(Duration::ZERO));
        assert_eq!(taken, [1, 2]);
        taken.clear();
        assert!(mailbox.push_quietly(3));
        mailbox.push(4);
        assert!(is_woken(&mailbox), "a push wakes for both");
        assert!(!mailbox.push_quietly(5));
        mailbox.wait(&mut taken, Some(Duration::ZERO));
        mailbox.wake();
        assert!(!is_woken(&mailbox), "there is no item to wake it for");
    }

    #[test]
    fn wait_for_space_ends_when_the_receiver_takes() {
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
