//! The timers of a shard.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::sync::Notify;

use super::ids::TransportId;
use crate::model::{Clock, ConnId};

/// The subject of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Check a transport: heartbeat, time limits, token expiry.
    Transport(TransportId),
    /// The time to answer a probe has passed.
    Probe(TransportId),
    /// A detached connection expires.
    Detached,
    /// The next closes of a drain are due.
    Drain,
    /// The time for the features' answers about a new connection has passed.
    Admission(ConnId),
    /// Check whether the system's clock was set back or ahead.
    WallClock,
}

/// The timers of a shard, in milliseconds of uptime.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: RefCell<BinaryHeap<Reverse<(u64, Timer)>>>,
    /// Notified when a new timer becomes the first.
    earlier: Notify,
}

impl Timers {
    pub(crate) fn schedule(&self, deadline: u64, timer: Timer) {
        let mut heap = self.heap.borrow_mut();
        let is_first = heap.peek().is_none_or(|Reverse((first, _))| deadline < *first);
        heap.push(Reverse((deadline, timer)));
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// When the first timer is due.
    fn first(&self) -> Option<u64> {
        self.heap.borrow().peek().map(|Reverse((deadline, _))| *deadline)
    }

    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.first().is_some_and(|deadline| deadline <= now)
    }

    /// Takes a timer that is due, with its deadline.
    pub(crate) fn pop_due(&self, now: u64) -> Option<(u64, Timer)> {
        if !self.is_due(now) {
            return None;
        }
        self.heap.borrow_mut().pop().map(|Reverse(timer)| timer)
    }

    /// Waits until a timer is due. Cancel-safe.
    pub(crate) async fn due(&self, clock: &Clock) {
        loop {
            match self.first() {
                Some(deadline) => tokio::select! {
                    () = clock.sleep_until(deadline) => return,
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn pop_due_gives_timers_by_deadline() {
        let timers = Timers::default();
        timers.schedule(30, Timer::Drain);
        timers.schedule(10, Timer::WallClock);
        timers.schedule(20, Timer::Detached);
        assert_eq!((timers.is_due(9), timers.pop_due(9)), (false, None));
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(20)).collect();
        assert_eq!(due, [(10, Timer::WallClock), (20, Timer::Detached)]);
    }

    #[tokio::test]
    async fn due_notices_an_earlier_timer() {
        let (timers, clock) = (Timers::default(), Clock::manual(0));
        timers.schedule(1000, Timer::Drain);
        let due = async {
            timers.due(&clock).await;
            clock.uptime_ms()
        };
        let advance = async {
            tokio::task::yield_now().await;
            timers.schedule(10, Timer::Detached);
            tokio::task::yield_now().await;
            clock.advance(Duration::from_millis(10));
        };
        assert_eq!(tokio::join!(due, advance).0, 10);
    }
}
