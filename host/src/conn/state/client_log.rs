//! Log lines about clients' violations, bounded in rate so that no client can fill a disk.

use std::cell::Cell;
use std::num::NonZeroU32;

use governor::Quota;

use super::rate::Limiter;
use crate::model::Clock;

/// Lines about violations of one shard: per second in the long run, and in a burst.
const VIOLATIONS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
const VIOLATIONS_BURST: NonZeroU32 = NonZeroU32::new(20).expect("not zero");

/// Time between two lines of one shard about messages that are too large, in milliseconds.
const OVERSIZE_INTERVAL_MS: u64 = 1000;

#[derive(Debug)]
pub(crate) struct ClientLog {
    violations: Limiter,
    /// Violations since the last logged one.
    n_violations: Cell<u64>,
    /// When a message that was too large was last logged, in milliseconds of uptime.
    oversize_at: Cell<Option<u64>>,
    /// Messages that were too large since the last logged one.
    n_oversize: Cell<u64>,
}

impl ClientLog {
    pub(crate) fn new(clock: &Clock) -> Self {
        let quota = Quota::per_second(VIOLATIONS_PER_SECOND).allow_burst(VIOLATIONS_BURST);
        let (n_violations, oversize_at, n_oversize) = Default::default();
        Self { violations: Limiter::new(quota, clock), n_violations, oversize_at, n_oversize }
    }

    /// Asks for a line about a violation. Returns the number of lines suppressed since the last; `None` where this one
    /// is suppressed.
    pub(crate) fn ask_violation(&self) -> Option<u64> {
        if self.violations.allows() {
            return Some(self.n_violations.take());
        }
        self.n_violations.set(self.n_violations.get() + 1);
        None
    }

    /// Asks for a line about a message that is too large. Returns the number of lines suppressed since the last; `None`
    /// where this one is suppressed.
    pub(crate) fn ask_oversize(&self, now: u64) -> Option<u64> {
        if self.oversize_at.get().is_some_and(|last| now < last.saturating_add(OVERSIZE_INTERVAL_MS)) {
            self.n_oversize.set(self.n_oversize.get() + 1);
            return None;
        }
        self.oversize_at.set(Some(now));
        Some(self.n_oversize.take())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_over_the_bound_are_counted() {
        let clock = Clock::manual(0);
        let log = ClientLog::new(&clock);
        let n_logged = (0..30).filter(|_| log.ask_violation().is_some()).count();
        assert_eq!(n_logged, 20);
        clock.advance(Duration::from_secs(1));
        assert_eq!(log.ask_violation(), Some(10));
        assert_eq!([0, 999, 1000].map(|now| log.ask_oversize(now)), [Some(0), None, Some(1)]);
    }
}
