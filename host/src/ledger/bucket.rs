//! A rate in bytes, with a burst: a bucket that drains by itself.

use std::sync::atomic::{AtomicU64, Ordering};

use super::allowance::Pace;

/// What was poured in and has not drained yet, as the time at which it will have: one number, so that threads need no lock
/// (the generic cell rate algorithm, ITU-T I.371).
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// In microseconds of uptime.
    empty_at: AtomicU64,
}

impl Bucket {
    /// Pours so many bytes in, if there is room for them. What is larger than the bucket goes into an empty one.
    ///
    /// # Errors
    /// With the milliseconds after which there will be room.
    pub(super) fn take(&self, pace: Pace, now_ms: u64, bytes: usize) -> Result<(), u64> {
        let (now, Some((cost, depth))) = (now_ms * 1000, pace.micros(bytes)) else { return Ok(()) };
        let pour = |empty_at: u64| {
            let full_at = empty_at.max(now).saturating_add(cost);
            (empty_at <= now || full_at <= now.saturating_add(depth)).then_some(full_at)
        };
        let poured = self.empty_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pour);
        poured.map(drop).map_err(|empty_at| {
            // It need not be emptier than empty.
            let over = empty_at.saturating_add(cost).saturating_sub(now.saturating_add(depth));
            over.min(empty_at.saturating_sub(now)).div_ceil(1000)
        })
    }

    /// Pours so many bytes in, also over its rim.
    pub(super) fn owe(&self, pace: Pace, now_ms: u64, bytes: usize) {
        let (now, Some((cost, _))) = (now_ms * 1000, pace.micros(bytes)) else { return };
        let pour = |empty_at: u64| Some(empty_at.max(now).saturating_add(cost));
        // It is never refused.
        let _ = self.empty_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pour);
    }

    /// The milliseconds after which it is no longer full, if it is.
    pub(super) fn debt_ms(&self, pace: Pace, now_ms: u64) -> Option<u64> {
        let (_, depth) = pace.micros(0)?;
        let full_until = self.empty_at.load(Ordering::Relaxed).saturating_sub(depth);
        let over = full_until.saturating_sub(now_ms * 1000);
        (over > 0).then(|| over.div_ceil(1000))
    }

    pub(super) fn is_paid(&self, now_ms: u64) -> bool {
        self.empty_at.load(Ordering::Relaxed) <= now_ms * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { per_second: 1000, burst: 5000 };

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let bucket = Bucket::default();
        assert_eq!(bucket.take(PACE, 0, 4000), Ok(()));
        assert_eq!(bucket.take(PACE, 0, 1000), Ok(()));
        assert_eq!(bucket.take(PACE, 0, 1000), Err(1000));
        assert_eq!(bucket.take(PACE, 999, 1000), Err(1));
        assert_eq!(bucket.take(PACE, 1000, 1000), Ok(()));
        assert!(!bucket.is_paid(5999) && bucket.is_paid(6000));
    }

    #[test]
    fn what_is_larger_than_the_bucket_waits_until_it_is_empty() {
        let bucket = Bucket::default();
        assert_eq!(bucket.take(PACE, 0, 10_000), Ok(()));
        assert_eq!(bucket.take(PACE, 0, 10_000), Err(10_000));
        assert_eq!(bucket.take(PACE, 10_000, 10_000), Ok(()));
    }

    #[test]
    fn debts_are_paid_before_more_is_owed() {
        let bucket = Bucket::default();
        assert_eq!(bucket.debt_ms(PACE, 0), None);
        bucket.owe(PACE, 0, 5000);
        assert_eq!(bucket.debt_ms(PACE, 0), None, "it is full, and not over its rim");
        bucket.owe(PACE, 0, 2000);
        assert_eq!(bucket.debt_ms(PACE, 0), Some(2000));
        assert_eq!(bucket.debt_ms(PACE, 2000), None);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let bucket = Bucket::default();
        assert_eq!(bucket.take(Pace::NONE, 0, usize::MAX), Ok(()));
        bucket.owe(Pace::NONE, 0, usize::MAX);
        assert_eq!((bucket.debt_ms(Pace::NONE, 0), bucket.is_paid(0)), (None, true));
    }
}
