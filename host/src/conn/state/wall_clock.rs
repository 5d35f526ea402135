//! Tokens expire by the system's clock, timers fire by uptime: after the system's clock was set back or ahead, or the
//! machine slept, the timers of tokens must be reset.

use std::cell::Cell;

use crate::model::Clock;

/// Corrections by NTP are smaller than this between two checks, in milliseconds.
const JUMP_MS: i64 = 500;

/// The system's clock minus uptime at the last check, in milliseconds; `None` while no token expires.
#[derive(Debug, Default)]
pub(crate) struct WallClock(Cell<Option<i64>>);

impl WallClock {
    /// Begins to watch the system's clock. Returns whether it was not watched before.
    pub(crate) fn start(&self, clock: &Clock) -> bool {
        let is_new = self.0.get().is_none();
        if is_new {
            self.0.set(Some(ahead_of_uptime(clock)));
        }
        is_new
    }

    pub(crate) fn stop(&self) {
        self.0.set(None);
    }

    /// The jump of the system's clock since the last check, in milliseconds; 0 where it went on steadily, `None` where
    /// it is not watched.
    pub(crate) fn take_jump(&self, clock: &Clock) -> Option<i64> {
        let offset = ahead_of_uptime(clock);
        let moved = offset - self.0.replace(Some(offset))?;
        Some(if moved.abs() > JUMP_MS { moved } else { 0 })
    }
}

fn ahead_of_uptime(clock: &Clock) -> i64 {
    clock.wall_ms().cast_signed() - clock.uptime_ms().cast_signed()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn advancing_time_is_not_a_jump() {
        let (wall, clock) = (WallClock::default(), Clock::manual(1_000_000));
        assert!(wall.start(&clock) && !wall.start(&clock));
        clock.advance(Duration::from_secs(5));
        assert_eq!(wall.take_jump(&clock), Some(0));
    }
}
