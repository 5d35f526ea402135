//! The rate of a client's messages. Messages over the rate are first refused with an answer, then dropped unparsed, and
//! finally the client is cut off.

use std::num::NonZeroU32;

use governor::clock::{Clock as _, ReasonablyRealtime};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::model::Clock;

/// Messages over the rate that cut a client off, in bursts. A page that reconnects and sends its backlog stays far
/// below.
const BURSTS_OVER: u32 = 5;

/// Lower bounds of the messages over the rate that cut a client off, and of those that are answered before: messages
/// typed by hand are answered even where bursts are small.
const LEAST_OVER: u32 = 1000;
const LEAST_ANSWERED: u32 = 200;

/// Messages over the rate are forgiven at the rate divided by this: a client slightly over its rate is only refused, a
/// client at a multiple of its rate is cut off.
const FORGIVEN_PART: u32 = 5;

/// Bytes of a message over the rate that count as one more message, because they cost as much to read.
const BYTES_PER_MESSAGE: usize = 4096;

/// A rate limiter on the host's clock.
#[derive(Debug)]
pub(crate) struct Limiter(
    Box<RateLimiter<NotKeyed, InMemoryState, Uptime, governor::middleware::NoOpMiddleware<Nanos>>>,
);

impl Limiter {
    pub(crate) fn new(quota: Quota, clock: &Clock) -> Self {
        Self(Box::new(RateLimiter::direct_with_clock(quota, Uptime(clock.clone()))))
    }

    /// Takes one token from the bucket. Returns whether one was left.
    pub(crate) fn allows(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// The treatment of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Handle it.
    Take,
    /// Refuse it with an answer.
    Refuse,
    /// Drop it unparsed.
    Drop,
    /// Cut the client off.
    CutOff,
}

/// A client's rate limiter, and its messages over the rate.
#[derive(Debug)]
pub(crate) struct Rate {
    limiter: Limiter,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    /// Messages over the rate that are not forgiven yet, and the time up to which forgiveness was applied, in
    /// milliseconds of uptime.
    over: u32,
    counted_at: u64,
}

impl Rate {
    pub(crate) fn new(per_second: NonZeroU32, burst: NonZeroU32, clock: &Clock) -> Self {
        let limiter = Limiter::new(Quota::per_second(per_second).allow_burst(burst), clock);
        Self { limiter, per_second, burst, over: 0, counted_at: 0 }
    }

    /// Judges a message of `bytes`. `now` is in milliseconds of uptime.
    pub(crate) fn judge(&mut self, bytes: usize, now: u64) -> Verdict {
        if self.limiter.allows() {
            return Verdict::Take;
        }
        self.judge_excess(1 + u32::try_from(bytes / BYTES_PER_MESSAGE).unwrap_or(u32::MAX - 1), now)
    }

    /// Judges a message that another limit of its client has refused: a client that stays over any limit is cut off.
    pub(crate) fn judge_refused(&mut self, now: u64) -> Verdict {
        self.judge_excess(1, now)
    }

    /// Counts further messages for one that cost more than others. Those over the rate count as none.
    pub(crate) fn charge(&self, messages: u32) {
        for _ in 0..messages.min(self.burst.get()) {
            if !self.limiter.allows() {
                return;
            }
        }
    }

    fn judge_excess(&mut self, weight: u32, now: u64) -> Verdict {
        let forgiven_per_second = u64::from(self.per_second.get().div_ceil(FORGIVEN_PART));
        let forgiven = now.saturating_sub(self.counted_at) * forgiven_per_second / 1000;
        if forgiven > 0 {
            // The fraction of a message is carried over.
            self.over = self.over.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
            self.counted_at =
                if self.over == 0 { now } else { self.counted_at + forgiven * 1000 / forgiven_per_second };
        }
        self.over = self.over.saturating_add(weight);
        let burst = self.burst.get();
        if self.over > burst.saturating_mul(BURSTS_OVER).max(LEAST_OVER) {
            Verdict::CutOff
        } else if self.over > burst.max(LEAST_ANSWERED) {
            Verdict::Drop
        } else {
            Verdict::Refuse
        }
    }
}

/// The host's clock, as the rate limiter reads it.
#[derive(Debug, Clone)]
struct Uptime(Clock);

impl governor::clock::Clock for Uptime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(std::time::Duration::from_millis(self.0.uptime_ms()))
    }
}

impl ReasonablyRealtime for Uptime {
    fn reference_point(&self) -> Nanos {
        self.now()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> (Rate, Clock) {
        let clock = Clock::manual(0);
        let number = |n| NonZeroU32::new(n).unwrap();
        (Rate::new(number(per_second), number(burst), &clock), clock)
    }

    /// How many messages of `bytes` are taken, refused and dropped until the client is cut off.
    fn flood(rate: &mut Rate, bytes: usize, now: u64) -> [usize; 3] {
        let mut counts = [0; 3];
        loop {
            match rate.judge(bytes, now) {
                Verdict::Take => counts[0] += 1,
                Verdict::Refuse => counts[1] += 1,
                Verdict::Drop => counts[2] += 1,
                Verdict::CutOff => return counts,
            }
        }
    }

    #[test]
    fn charged_messages_are_taken_from_the_burst() {
        let (mut rate, clock) = rate(10, 100);
        rate.charge(95);
        assert_eq!(flood(&mut rate, 10, 0), [5, 200, 800]);
        rate.charge(u32::MAX);
        clock.advance(Duration::from_secs(1));
        assert_eq!(flood(&mut rate, 10, 1000)[0], 10, "a charge beyond the burst is no debt");
    }

    #[test]
    fn floods_are_refused_then_dropped_then_cut_off() {
        assert_eq!(flood(&mut rate(50, 200).0, 10, 0), [200, 200, 800]);
        assert_eq!(flood(&mut rate(1, 5).0, 10, 0), [5, 200, 800]);
        assert_eq!(flood(&mut rate(500, 1000).0, 10, 0), [1000, 1000, 4000]);
        // A megabyte counts as many messages.
        assert_eq!(flood(&mut rate(50, 200).0, 1_000_000, 0), [200, 0, 4]);
    }

    #[test]
    fn brief_bursts_are_refused_without_cutoff() {
        let (mut rate, clock) = rate(50, 200);
        for n in 0..50 {
            let now = clock.uptime_ms();
            let verdicts: Vec<_> = (0..1000).map(|_| rate.judge(10, now)).collect();
            assert!(!verdicts.contains(&Verdict::CutOff), "burst {n}");
            assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Take).count(), 200, "burst {n}");
            clock.advance(Duration::from_secs(100));
        }
    }

    #[test]
    fn sustained_multiples_of_the_rate_are_cut_off() {
        let seconds_at = |per_second: usize| {
            let (mut rate, clock) = rate(50, 200);
            (0..1000).find(|_| {
                clock.advance(Duration::from_secs(1));
                (0..per_second).any(|_| rate.judge(10, clock.uptime_ms()) == Verdict::CutOff)
            })
        };
        assert_eq!(seconds_at(60), None, "a little over the rate is refused, and no more");
        let seconds = seconds_at(150).unwrap();
        assert!((5..30).contains(&seconds), "{seconds}");
    }
}
