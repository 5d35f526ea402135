//! The end of a shard: connections are first closed one after another, so that clients do not all reconnect to other
//! hosts at the same instant, and then all that are left.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::ops::Range;

use tokio::sync::{mpsc, watch};

use super::ids::TransportId;
use crate::model::ConnId;

/// The most connections that are closed in one turn.
const CLOSED_IN_A_ROW: usize = 256;

/// The time between two checks of whether all clients have gone on elsewhere, in milliseconds.
const AWAITED_CHECK_MS: u64 = 50;

/// Items whose due times are spread evenly over a range, in milliseconds of uptime.
#[derive(Debug)]
struct Schedule<T> {
    since: u64,
    until: u64,
    total: usize,
    rest: Vec<T>,
}

impl<T> Schedule<T> {
    fn new(rest: Vec<T>, since: u64, until: u64) -> Self {
        Self { since, until, total: rest.len(), rest }
    }

    /// The items that are due, [`CLOSED_IN_A_ROW`] at most.
    fn take_due(&mut self, now: u64) -> Vec<T> {
        let time = self.until.saturating_sub(self.since);
        let gone = now.saturating_sub(self.since).min(time);
        // The number of items that should be left, rounded up so that none is due early.
        let left = if time == 0 { 0 } else { (self.total as u64 * (time - gone)).div_ceil(time) as usize };
        let n_due = self.rest.len().saturating_sub(left).min(CLOSED_IN_A_ROW);
        self.rest.split_off(self.rest.len() - n_due)
    }

    /// When the next item is due, in milliseconds of uptime; `None` where none is left.
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

/// The closes of a shard that drains.
#[derive(Debug)]
struct Drain {
    until: u64,
    transports: Schedule<TransportId>,
    /// Detached connections: features are notified of their ends, which takes time as well.
    detached: Schedule<ConnId>,
    /// Dropped when all are closed.
    working: Option<mpsc::Sender<Infallible>>,
}

/// Whether a shard drains or stops, and its open HTTP connections.
#[derive(Debug)]
pub(crate) struct Shutdown {
    stopping: watch::Sender<bool>,
    drain: RefCell<Option<Drain>>,
    http_connections: Cell<usize>,
}

impl Shutdown {
    pub(crate) fn new() -> Self {
        let (drain, http_connections) = (RefCell::default(), Cell::default());
        Self { stopping: watch::Sender::new(false), drain, http_connections }
    }

    /// Whether the stop has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Begins the stop. Returns whether this is the first call.
    pub(crate) fn stop(&self) -> bool {
        !self.stopping.send_replace(true)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.borrow().is_some()
    }

    /// Begins a drain, spread evenly over a range of time in milliseconds of uptime. `working` is dropped when all are
    /// closed.
    pub(crate) fn begin_drain(
        &self,
        over: Range<u64>,
        transports: Vec<TransportId>,
        detached: Vec<ConnId>,
        working: mpsc::Sender<Infallible>,
    ) {
        let Range { start, end: until } = over;
        let (transports, detached) = (Schedule::new(transports, start, until), Schedule::new(detached, start, until));
        *self.drain.borrow_mut() = Some(Drain { until, transports, detached, working: Some(working) });
    }

    /// The transports and detached connections that are to be closed now.
    pub(crate) fn take_due(&self, now: u64) -> Option<(Vec<TransportId>, Vec<ConnId>)> {
        let mut drain = self.drain.borrow_mut();
        drain.as_mut().map(|drain| (drain.transports.take_due(now), drain.detached.take_due(now)))
    }

    /// When the next closes are due, in milliseconds of uptime; `None` where all are closed. `transports_up` returns
    /// transports that were opened meanwhile, by a handoff or an upgrade. `is_awaited`: clients may yet go on elsewhere with
    /// connections that are detached here.
    pub(crate) fn next_due(
        &self,
        now: u64,
        is_awaited: bool,
        transports_up: impl FnOnce() -> Vec<TransportId>,
    ) -> Option<u64> {
        let mut drain = self.drain.borrow_mut();
        let drain = drain.as_mut()?;
        if drain.transports.rest.is_empty() {
            drain.transports = Schedule::new(transports_up(), now, drain.until);
        }
        let awaited = is_awaited.then_some(now + AWAITED_CHECK_MS);
        let next = [drain.transports.next(now), drain.detached.next(now)].into_iter().flatten().min().or(awaited);
        if next.is_none() {
            drain.working = None;
        }
        next
    }

    pub(crate) fn open_http(&self) {
        self.http_connections.set(self.http_connections.get() + 1);
    }

    pub(crate) fn close_http(&self) {
        self.http_connections.set(self.http_connections.get() - 1);
    }

    pub(crate) fn has_http(&self) -> bool {
        self.http_connections.get() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments at which items are due, and their numbers.
    fn schedule(n: usize, time: u64) -> Vec<(u64, usize)> {
        let mut items = Schedule::new(vec![(); n], 1000, 1000 + time);
        let (mut now, mut moments) = (1000, Vec::new());
        loop {
            let n = items.take_due(now).len();
            if n > 0 {
                moments.push((now - 1000, n));
            }
            match items.next(now) {
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
    fn close_batches_are_bounded() {
        assert_eq!(schedule(600, 0), [(0, 256), (1, 256), (2, 88)]);
        let moments = schedule(100_000, 100);
        assert!(moments.iter().all(|(_, n)| *n <= CLOSED_IN_A_ROW), "{moments:?}");
        assert_eq!(moments.iter().map(|(_, n)| n).sum::<usize>(), 100_000);
    }
}
