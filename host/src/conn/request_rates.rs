//! The rate of HTTP requests from one address.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

/// Addresses that are remembered before those that have been quiet for long enough are swept for the first time.
const SWEPT_AT: usize = 4096;

/// The requests of each address or IPv6 network, as the generic cell rate algorithm counts them: of an address only the
/// time is kept at which all of its requests so far would have been due at the steady rate.
#[derive(Debug)]
pub(super) struct RequestRates {
    /// In microseconds of uptime.
    due: DashMap<IpAddr, u64>,
    /// The number of addresses at which the next sweep is made: twice as many as the last left.
    sweep_at: AtomicUsize,
}

impl Default for RequestRates {
    fn default() -> Self {
        Self { due: DashMap::new(), sweep_at: AtomicUsize::new(SWEPT_AT) }
    }
}

impl RequestRates {
    /// Counts a request, if its address is within the rate. `now` is in milliseconds of uptime.
    pub(super) fn allows(&self, network: IpAddr, per_second: u32, burst: u32, now: u64) -> bool {
        let now = now * 1000;
        let interval = 1_000_000 / u64::from(per_second.max(1));
        let is_allowed = {
            let mut due = self.due.entry(network).or_insert(now);
            let next = now.max(*due) + interval;
            let is_allowed = next <= now + interval * u64::from(burst);
            if is_allowed {
                *due = next;
            }
            is_allowed
        };
        if self.due.len() > self.sweep_at.load(Ordering::Relaxed) {
            self.due.retain(|_, due| *due > now);
            self.sweep_at.store((2 * self.due.len()).max(SWEPT_AT), Ordering::Relaxed);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ANA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    #[test]
    fn rate_and_burst_bound_each_address_alone() {
        let rates = RequestRates::default();
        let allowed = |address, now, n| (0..n).filter(|_| rates.allows(address, 10, 5, now)).count();
        assert_eq!(allowed(ANA, 1000, 20), 5);
        assert_eq!(allowed(Ipv4Addr::LOCALHOST.into(), 1000, 20), 5);
        assert_eq!(allowed(ANA, 1100, 20), 1);
        assert_eq!(allowed(ANA, 1500, 20), 4);
        assert_eq!(allowed(ANA, 60_000, 20), 5);
    }

    #[test]
    fn quiet_addresses_are_forgotten() {
        let rates = RequestRates::default();
        for n in 0..100_000_u32 {
            rates.allows(Ipv4Addr::from_bits(n).into(), 10, 5, 1000 + u64::from(n));
        }
        assert!(rates.due.len() <= SWEPT_AT + 1, "{}", rates.due.len());
    }
}
