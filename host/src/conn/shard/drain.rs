//! Draining: before the host ends, connections are closed one after another, so that their clients do not all connect to
//! the other hosts in the same instant.

use std::convert::Infallible;
use std::ops::Range;
use std::rc::Rc;

use tokio::sync::mpsc;

use super::parts::{RESTART_REASON, Shard};
use super::timers::Timer;
use crate::conn::state::transport::TransportId;
use crate::model::{CloseCode, ConnId};

/// Connections that are closed in a row, after which others have their turn.
const CLOSED_IN_A_ROW: usize = 256;

/// Things that are to be dealt with evenly over a time, in milliseconds of uptime.
#[derive(Debug)]
struct Pace<T> {
    since: u64,
    until: u64,
    total: usize,
    rest: Vec<T>,
}

impl<T> Pace<T> {
    fn new(rest: Vec<T>, since: u64, until: u64) -> Self {
        Self { since, until, total: rest.len(), rest }
    }

    /// Those whose time has come, and no more at once than others can wait for.
    fn take_due(&mut self, now: u64) -> Vec<T> {
        let time = self.until.saturating_sub(self.since);
        let gone = now.saturating_sub(self.since).min(time);
        // How many should be left: rounded up, so that nothing is due before its time.
        let left = if time == 0 { 0 } else { (self.total as u64 * (time - gone)).div_ceil(time) as usize };
        let n_due = self.rest.len().saturating_sub(left).min(CLOSED_IN_A_ROW);
        self.rest.split_off(self.rest.len() - n_due)
    }

    /// When the next is due; none where nothing is left.
    fn next(&self, now: u64) -> Option<u64> {
        if self.rest.is_empty() {
            return None;
        }
        let done = (self.total - self.rest.len()) as u64;
        let time = self.until.saturating_sub(self.since);
        let next = self.since + ((done + 1) * time).div_ceil(self.total as u64);
        Some(next.max(now + 1))
    }
}

/// A shard that drains.
#[derive(Debug)]
pub(in crate::conn) struct Drain {
    until: u64,
    transports: Pace<TransportId>,
    /// Connections whose clients are away: features are told of their ends, which costs time as well.
    away: Pace<ConnId>,
    /// Dropped when there is nothing left to close.
    working: Option<mpsc::Sender<Infallible>>,
}

impl Shard {
    /// Begins to close connections, evenly over this time, in milliseconds of uptime. `working` is dropped when all are
    /// closed.
    pub(in crate::conn) fn drain(self: &Rc<Self>, over: Range<u64>, working: mpsc::Sender<Infallible>) {
        let Range { start, end: until } = over;
        let away = self.detached.borrow().iter().map(|(_, id)| *id).collect();
        let away = Pace::new(away, start, until);
        let transports = Pace::new(self.transports_up(), start, until);
        *self.draining.borrow_mut() = Some(Drain { until, transports, away, working: Some(working) });
        self.drain_some(self.shared.clock.uptime_ms());
    }

    /// Whether connections are being closed one after another.
    pub(in crate::conn) fn is_draining(&self) -> bool {
        self.draining.borrow().is_some()
    }

    fn transports_up(&self) -> Vec<TransportId> {
        self.transports
            .borrow()
            .iter()
            .filter(|(_, transport)| transport.is_up())
            .map(|(_, transport)| transport.id)
            .collect()
    }

    /// Closes the connections whose turn it is, and notes when the next have theirs.
    pub(in crate::conn) fn drain_some(self: &Rc<Self>, now: u64) {
        // What is closed looks at the shard, so that nothing may be borrowed meanwhile.
        let due =
            self.draining.borrow_mut().as_mut().map(|drain| (drain.transports.take_due(now), drain.away.take_due(now)));
        let Some((transports, away)) = due else { return };
        for transport in transports.into_iter().filter_map(|id| self.find_transport(id)) {
            self.close(&transport, CloseCode::Restart, RESTART_REASON);
        }
        for id in away {
            self.drop_detached(id, None);
        }
        let next = {
            let mut draining = self.draining.borrow_mut();
            let Some(drain) = draining.as_mut() else { return };
            if drain.transports.rest.is_empty() {
                // Some came meanwhile: from another shard, or by an upgrade from polling.
                drain.transports = Pace::new(self.transports_up(), now, drain.until);
            }
            let next = [drain.transports.next(now), drain.away.next(now)].into_iter().flatten().min();
            if next.is_none() {
                drain.working = None;
            }
            next
        };
        if let Some(next) = next {
            self.schedule(next, Timer::Drain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments at which something is due, and how much.
    fn schedule(n: usize, time: u64) -> Vec<(u64, usize)> {
        let mut pace = Pace::new(vec![(); n], 1000, 1000 + time);
        let (mut now, mut moments) = (1000, Vec::new());
        loop {
            let n = pace.take_due(now).len();
            if n > 0 {
                moments.push((now - 1000, n));
            }
            match pace.next(now) {
                Some(next) => now = next,
                None => return moments,
            }
        }
    }

    #[test]
    fn closes_are_spread_evenly_over_the_time() {
        assert_eq!(schedule(0, 1000), []);
        assert_eq!(schedule(4, 1000), [(250, 1), (500, 1), (750, 1), (1000, 1)]);
        assert_eq!(schedule(3, 1000), [(334, 1), (667, 1), (1000, 1)]);
        assert_eq!(schedule(1000, 100), (1..=100).map(|ms| (ms, 10)).collect::<Vec<_>>());
    }

    #[test]
    fn batches_are_bounded_where_there_is_no_time() {
        assert_eq!(schedule(600, 0), [(0, 256), (1, 256), (2, 88)]);
        let moments = schedule(100_000, 100);
        assert!(moments.iter().all(|(_, n)| *n <= CLOSED_IN_A_ROW), "{moments:?}");
        assert_eq!(moments.iter().map(|(_, n)| n).sum::<usize>(), 100_000);
    }
}
