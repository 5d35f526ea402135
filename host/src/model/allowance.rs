//! Rates with bursts for costs that are known only afterwards.

use std::sync::atomic::{AtomicU64, Ordering};

const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A rate and a burst. The unit is the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The rate in the long run. 0 is no limit.
    pub per_second: u64,
    /// The burst after a long time without use.
    pub burst: u64,
}

/// The use of a quota: the generic cell rate algorithm (ITU-T I.371), charged afterwards, because the cost of a call is
/// known when the call is over. The usual limiters charge in advance.
#[derive(Debug, Default)]
pub struct Allowance {
    /// When all use is paid for, in nanoseconds of uptime.
    paid_at: AtomicU64,
}

impl Quota {
    fn nanos(self, amount: u64) -> u64 {
        let per_second = self.per_second.max(1);
        // The 64-bit product usually fits, and is many times faster.
        amount.checked_mul(NANOS_PER_SECOND).map_or_else(
            || {
                let nanos = u128::from(amount) * u128::from(NANOS_PER_SECOND) / u128::from(per_second);
                nanos.try_into().unwrap_or(u64::MAX)
            },
            |nanos| nanos / per_second,
        )
    }
}

impl Allowance {
    /// Charges for `amount` of use, at `now_ms` of uptime.
    pub fn charge(&self, quota: Quota, now_ms: u64, amount: u64) {
        if quota.per_second == 0 || amount == 0 {
            return;
        }
        let (now, cost) = (now_ms.saturating_mul(NANOS_PER_MS), quota.nanos(amount));
        let charged = |paid_at: u64| Some(paid_at.max(now).saturating_add(cost));
        // `fetch_update` cannot fail: the closure always returns a value.
        let _ = self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged);
    }

    /// The time until more may be used, in milliseconds. `None`: more may be used now.
    pub fn wait_ms(&self, quota: Quota, now_ms: u64) -> Option<u64> {
        let owed = self.paid_at.load(Ordering::Relaxed).saturating_sub(now_ms.saturating_mul(NANOS_PER_MS));
        if quota.per_second == 0 || owed == 0 {
            return None;
        }
        let excess = owed.checked_sub(quota.nanos(quota.burst))?;
        Some(excess.div_ceil(NANOS_PER_MS).max(1))
    }

    /// Whether all use is paid for, so that this allowance equals a new one.
    pub fn is_clear(&self, now_ms: u64) -> bool {
        self.paid_at.load(Ordering::Relaxed) <= now_ms.saturating_mul(NANOS_PER_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_A_SECOND: Quota = Quota { per_second: 10, burst: 20 };

    #[test]
    fn burst_is_allowed_then_the_rate() {
        let allowance = Allowance::default();
        let mut n_allowed = 0;
        for now in (0..10_000).step_by(10) {
            if allowance.wait_ms(TEN_A_SECOND, now).is_none() {
                allowance.charge(TEN_A_SECOND, now, 1);
                n_allowed += 1;
            }
        }
        assert_eq!(n_allowed, 120, "20 at once, and 10 in each of 10 seconds");
        assert!(!allowance.is_clear(10_000) && allowance.is_clear(12_000));
    }

    #[test]
    fn wait_lasts_until_the_debt_is_repaid() {
        let allowance = Allowance::default();
        allowance.charge(TEN_A_SECOND, 1000, 50);
        assert_eq!(allowance.wait_ms(TEN_A_SECOND, 1000), Some(3000));
        assert_eq!(allowance.wait_ms(TEN_A_SECOND, 3999), Some(1));
        assert_eq!(allowance.wait_ms(TEN_A_SECOND, 4001), None);
    }

    #[test]
    fn zero_rate_is_unbounded() {
        let (allowance, unbounded) = (Allowance::default(), Quota { per_second: 0, burst: 0 });
        allowance.charge(unbounded, 0, u64::MAX);
        assert_eq!(allowance.wait_ms(unbounded, 0), None);
    }
}
