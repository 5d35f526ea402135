//! A circuit breaker: an endpoint that fails again and again is left alone for a while.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Failures in a row after which the circuit opens.
const FAILURES: u32 = 5;

/// The first pause. Each further failure doubles it, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Failures since the last success.
    failures: u32,
    /// The end of the pause, in milliseconds of uptime.
    opens_until: u64,
    /// Whether a probe is in flight, whose failure counts.
    is_probing: bool,
}

impl Breaker {
    /// Asks for a call at a time in milliseconds of uptime.
    ///
    /// After a pause one call is let through to probe the endpoint, and the next pause begins with it.
    ///
    /// # Errors
    /// The rest of the pause.
    pub(super) fn admit(&self, now: u64) -> Result<(), Duration> {
        let state = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now < state.opens_until {
            return Err(Duration::from_millis(state.opens_until - now));
        }
        if state.failures >= FAILURES {
            state.is_probing = true;
            state.opens_until = now + pause(state.failures).as_millis() as u64;
        }
        Ok(())
    }

    pub(super) fn succeeded(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// Notes a failure at a time in milliseconds of uptime. Returns whether the circuit has just opened.
    pub(super) fn failed(&self, now: u64) -> bool {
        let state = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failures >= FAILURES && !state.is_probing {
            // A call that was in flight when the circuit opened says nothing new.
            return false;
        }
        state.is_probing = false;
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            state.opens_until = now + pause(state.failures).as_millis() as u64;
        }
        state.failures == FAILURES
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << (failures - FAILURES).min(5)).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuit_opens_after_failures_and_probes_with_growing_pauses() {
        let breaker = Breaker::default();
        for failure in 1..FAILURES {
            assert!(!breaker.failed(0), "{failure}");
            assert!(breaker.admit(0).is_ok());
        }
        assert!(breaker.failed(0), "it opens");
        assert_eq!(breaker.admit(400), Err(Duration::from_millis(600)));
        assert!(breaker.admit(1000).is_ok(), "one probe");
        assert_eq!(breaker.admit(1000), Err(FIRST_PAUSE), "and no second one");
        assert!(!breaker.failed(1100), "it was open already");
        assert_eq!(breaker.admit(1100), Err(FIRST_PAUSE * 2));
        for call in 0..20 {
            assert!(!breaker.failed(1100), "{call} was in flight");
        }
        assert_eq!(breaker.admit(3100), Ok(()), "and lengthens no pause");
        let mut now = 3100;
        for _ in 0..20 {
            breaker.failed(now);
            now += MAX_PAUSE.as_millis() as u64;
            assert!(breaker.admit(now).is_ok(), "the longest pause");
        }
    }

    #[test]
    fn success_closes_the_circuit() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES {
            breaker.failed(0);
        }
        breaker.succeeded();
        assert!(breaker.admit(0).is_ok());
        assert!(!breaker.failed(0), "the count begins again");
    }
}
