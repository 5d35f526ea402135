//! A rate limit for log lines of one kind.

use std::time::{Duration, Instant};

/// Time between two lines of one kind.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Admits one line of a kind in ten seconds, and counts the suppressed ones.
#[derive(Debug, Default)]
pub struct LogLimit {
    last: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// Asks for a line. Returns the number of lines suppressed since the last; `None` where this one is suppressed.
    pub fn ask(&mut self) -> Option<u64> {
        self.ask_at(Instant::now())
    }

    fn ask_at(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < LINE_EVERY) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_counted() {
        let (mut limit, start) = (LogLimit::default(), Instant::now());
        assert_eq!(limit.ask_at(start), Some(0));
        for ms in 1..=100 {
            assert_eq!(limit.ask_at(start + Duration::from_millis(ms)), None);
        }
        assert_eq!(limit.ask_at(start + LINE_EVERY), Some(100));
        assert_eq!(limit.ask_at(start + 2 * LINE_EVERY), Some(0));
    }
}
