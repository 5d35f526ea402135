//! How much a client may send, and what comes of one that goes on over it: it is told for a while, then it is not answered any
//! more, and in the end it is cut off.

use std::num::NonZeroU32;
use std::rc::Rc;

use governor::Quota;

use super::parts::Shard;
use super::socketio::rate_limited;
use crate::conn::state::transport::{Limiter, Transport};
use crate::model::{Clock, CloseCode};
use crate::protocol::{plain, socketio};

/// Bursts that a client may send over its rate before it is cut off. A page that comes back and sends what piled up is done
/// long before.
const BURSTS_OVER: u32 = 5;

/// Messages that it may send over its rate at least, of which so many are answered at least: also where bursts are small, what
/// is sent by hand is answered.
const LEAST_OVER: u32 = 1000;
const LEAST_ANSWERED: u32 = 200;

/// Of its rate, the part at which what it sent over the rate is forgiven: whoever stays a little over it is refused, and
/// whoever goes on with a multiple is cut off.
const FORGIVEN_PART: u32 = 5;

/// Bytes of a message over the rate that count as one message more: to read and refuse it costs that much.
const BYTES_PER_MESSAGE: usize = 4096;

const CUT_OFF_REASON: &str = "the client went on sending over its rate";

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::conn) enum Verdict {
    /// It is dealt with.
    Take,
    /// It is over the rate, and that is answered.
    Refuse,
    /// It is over the rate, and goes unread.
    Drop,
    /// It is one too many.
    CutOff,
}

/// How much a client may still send.
#[derive(Debug)]
pub(in crate::conn) struct Rate {
    limiter: Limiter,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    /// What was sent over the rate and is not forgiven yet, in messages, and when that was reckoned, in milliseconds of uptime.
    over: u32,
    reckoned: u64,
}

impl Rate {
    pub(in crate::conn) fn new(per_second: NonZeroU32, burst: NonZeroU32, clock: &Clock) -> Self {
        let limiter = Limiter::new(Quota::per_second(per_second).allow_burst(burst), clock);
        Self { limiter, per_second, burst, over: 0, reckoned: 0 }
    }

    /// Judges a message of so many bytes, at a time in milliseconds of uptime.
    fn judge(&mut self, bytes: usize, now: u64) -> Verdict {
        if self.limiter.allows() {
            return Verdict::Take;
        }
        let forgiven_per_second = u64::from(self.per_second.get().div_ceil(FORGIVEN_PART));
        let forgiven = now.saturating_sub(self.reckoned) * forgiven_per_second / 1000;
        if forgiven > 0 {
            // What is less than a whole message goes on being reckoned.
            self.over = self.over.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
            self.reckoned = if self.over == 0 { now } else { self.reckoned + forgiven * 1000 / forgiven_per_second };
        }
        let weight = 1 + u32::try_from(bytes / BYTES_PER_MESSAGE).unwrap_or(u32::MAX - 1);
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

impl Shard {
    /// Counts a message of a client, and says what becomes of it. One too many over the rate ends the transport.
    pub(in crate::conn) fn meter(self: &Rc<Self>, transport: &Rc<Transport>, bytes: usize) -> Verdict {
        let verdict = match &mut *transport.rate.borrow_mut() {
            Some(rate) => rate.judge(bytes, self.shared.clock.uptime_ms()),
            None => Verdict::Take,
        };
        match verdict {
            Verdict::Take | Verdict::Refuse => {}
            Verdict::Drop => self.shared.metrics.events_refused.inc(),
            Verdict::CutOff => self.cut_off(transport),
        }
        verdict
    }

    /// Ends a transport whose client sends and sends. Nothing of it is read any more.
    fn cut_off(self: &Rc<Self>, transport: &Rc<Transport>) {
        if !transport.is_up() {
            return;
        }
        self.shared.metrics.cut_off.inc();
        self.violations.log(transport, CUT_OFF_REASON);
        if transport.eio().is_some() {
            // Socket.IO's client does not show the reason of a close.
            let why = plain::error_data(&rate_limited(), None);
            for connection in &*transport.connections.borrow() {
                self.enqueue(transport, socketio::event_frames(connection.namespace(), "error", &why, None, None));
            }
        }
        self.close_with(transport, CloseCode::PolicyViolation, CUT_OFF_REASON, false);
        self.mute(transport);
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

    /// How many messages of so many bytes at once are taken, refused and dropped, until one is cut off.
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
    fn floods_are_answered_then_dropped_then_cut_off() {
        assert_eq!(flood(&mut rate(50, 200).0, 10, 0), [200, 200, 800]);
        assert_eq!(flood(&mut rate(1, 5).0, 10, 0), [5, 200, 800]);
        assert_eq!(flood(&mut rate(500, 1000).0, 10, 0), [1000, 1000, 4000]);
        // A megabyte weighs more.
        assert_eq!(flood(&mut rate(50, 200).0, 1_000_000, 0), [200, 0, 4]);
    }

    #[test]
    fn brief_bursts_are_forgiven() {
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
    fn multiples_of_the_rate_are_cut_off() {
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
