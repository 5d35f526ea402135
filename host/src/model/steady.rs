//! A clock that follows the system's clock, but never goes back or jumps.

/// The clock may run slower or faster by one part in this many until it agrees with the system's clock. A twelfth,
/// chrony's default: an hour is made up for in half a day, and times that a feature measures (ten seconds of typing,
/// half an hour without activity) are right to within a twelfth.
const SLEW: u64 = 12;

/// The interval of reading the system's clock, in milliseconds: short enough to follow it closely, and long enough that
/// reads cost next to nothing per event.
const LOOK_MS: u64 = 1000;

/// The least gap between the two clocks that counts as a suspend, in milliseconds. A smaller one is the time between the
/// two reads.
const LEAST_SLEEP_MS: u64 = 100;

/// The least offset from the system's clock that is logged, in milliseconds.
const NOTABLE_MS: u64 = 60_000;

/// A reading of the system's clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// The system's clock, in milliseconds since 1970.
    pub(super) wall: u64,
    /// How long the machine was suspended since the host's start, in milliseconds.
    pub(super) asleep: u64,
}

/// The state of the clock at the last reading of the system's clocks.
#[derive(Debug)]
pub(super) struct Steady {
    /// Time of the reading, in milliseconds of uptime.
    at: u64,
    /// The time that this clock showed then, in milliseconds since 1970.
    now: u64,
    /// The offset from the system's clock then, in milliseconds.
    offset: i64,
    asleep: u64,
}

impl Steady {
    /// A clock that starts at the system's time.
    pub(super) fn new(wall: u64) -> Self {
        Self { at: 0, now: wall, offset: 0, asleep: 0 }
    }

    /// The time at `uptime`, which must not be earlier than in the last call.
    pub(super) fn now(&mut self, uptime: u64, look: impl FnOnce() -> Look) -> u64 {
        let since = uptime.saturating_sub(self.at);
        let correction = (since / SLEW).min(self.offset.unsigned_abs()) as i64 * self.offset.signum();
        let now = (self.now + since).saturating_add_signed(correction);
        if since < LOOK_MS {
            return now;
        }
        let Look { wall, asleep } = look();
        let slept = asleep.saturating_sub(self.asleep);
        if slept >= LEAST_SLEEP_MS {
            self.asleep = asleep;
        }
        self.now = now + if slept >= LEAST_SLEEP_MS { slept } else { 0 };
        self.at = uptime;
        let offset = i64::try_from(i128::from(wall) - i128::from(self.now)).unwrap_or(i64::MAX);
        let was_notable = std::mem::replace(&mut self.offset, offset).unsigned_abs() >= NOTABLE_MS;
        if offset.unsigned_abs() >= NOTABLE_MS && !was_notable {
            let (by_s, way) = (offset.unsigned_abs() / 1000, if offset < 0 { "back" } else { "ahead" });
            tracing::warn!(
                "the system's clock was put {way} by {by_s} s: tokens expire by it at once; the time that features see, and \
                 dates, follow within about {} s, or at once when the host is restarted",
                by_s * SLEW
            );
        }
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const START: u64 = 1_800_000_000_000;

    /// Reads a clock on a machine whose clock is off by `off`, and that has slept for `asleep`, in milliseconds.
    fn read(steady: &mut Steady, uptime: u64, off: i64, asleep: u64) -> u64 {
        steady.now(uptime, || Look { wall: (START + uptime + asleep).saturating_add_signed(off), asleep })
    }

    #[test]
    fn steady_system_clock_is_followed_exactly() {
        let mut steady = Steady::new(START);
        for uptime in [0, 1, 999, 1000, 1001, HOUR, 24 * HOUR] {
            assert_eq!(read(&mut steady, uptime, 0, 0), START + uptime);
        }
    }

    #[test]
    fn adjusted_system_clock_is_followed_slowly() {
        for off in [-(HOUR as i64), HOUR as i64] {
            let mut steady = Steady::new(START);
            let mut before = read(&mut steady, 2000, 0, 0);
            for uptime in (2000..HOUR).step_by(250) {
                let now = read(&mut steady, uptime, off, 0);
                let passed = if uptime == 2000 { 0 } else { 250 };
                let most = passed / SLEW + 1;
                assert!(now >= before && (passed - most.min(passed)..=passed + most).contains(&(now - before)));
                before = now;
            }
            // The clock agrees again after half a day, and stays so.
            let wall = (START + 13 * HOUR).saturating_add_signed(off);
            assert_eq!(read(&mut steady, 13 * HOUR, off, 0), wall);
            assert_eq!(read(&mut steady, 13 * HOUR + 500, off, 0), wall + 500);
        }
    }

    #[test]
    fn seldom_read_clock_does_not_jump() {
        let mut steady = Steady::new(START);
        assert_eq!(read(&mut steady, HOUR, HOUR as i64, 0), START + HOUR);
        assert_eq!(read(&mut steady, HOUR + 12, HOUR as i64, 0), START + HOUR + 13);
    }

    #[test]
    fn suspended_time_counts_once() {
        let mut steady = Steady::new(START);
        assert_eq!(read(&mut steady, 5000, 0, 0), START + 5000);
        assert_eq!(read(&mut steady, 7000, 0, HOUR), START + 7000 + HOUR);
        assert_eq!(read(&mut steady, 9000, 0, HOUR), START + 9000 + HOUR, "once");
        // The two clocks are not read at the same moment.
        assert_eq!(read(&mut steady, 11_000, 0, HOUR + 1), START + 11_000 + HOUR);
    }

    #[test]
    fn system_clock_before_1970_is_followed() {
        let mut steady = Steady::new(0);
        assert_eq!(steady.now(1000, || Look { wall: 0, asleep: 0 }), 1000);
        assert_eq!(steady.now(2200, || Look { wall: 0, asleep: 0 }), 2100);
        assert!(steady.now(4000, || Look { wall: u64::MAX, asleep: 0 }) >= 2100);
        assert!(steady.now(8000, || Look { wall: u64::MAX, asleep: 0 }) >= 2100);
    }
}
