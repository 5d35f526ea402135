//! The limits of connections, of the whole host and from one address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;

use super::config::ConnConfig;
use super::request_rates::RequestRates;
use crate::model::{CloseCode, network_of};

/// Minimum time between two probes by address, in milliseconds: each probe walks all transports of the host.
const PROBE_INTERVAL_MS: u64 = 1000;

/// The count of admitted connections, of the host and by address.
#[derive(Debug, Default)]
pub struct Admission {
    /// Set when shutdown begins.
    closed: AtomicBool,
    /// Whether the warning that the limit per address may count a proxy was logged.
    has_warned: AtomicBool,
    total: AtomicUsize,
    /// Connections by address or IPv6 network; counted only where `limits.connections_per_ip` is set.
    by_address: DashMap<IpAddr, usize>,
    /// HTTP connections by address or IPv6 network; counted only where `limits.http_connections_per_ip` is set.
    http_by_address: Arc<DashMap<IpAddr, usize>>,
    requests: RequestRates,
    /// Time of the last probe by address, in milliseconds of uptime.
    probed: AtomicU64,
}

impl Admission {
    /// Refuses all further clients.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Counts a connection from `peer`.
    ///
    /// # Errors
    /// The close code and reason for the client, where a limit is reached. Nothing is counted then.
    pub(super) fn enter(&self, peer: SocketAddr, config: &ConnConfig) -> Result<(), (CloseCode, &'static str)> {
        if self.total.fetch_add(1, Ordering::Relaxed) >= config.connections && config.connections > 0 {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err((CloseCode::TryAgainLater, "the host has as many connections as it may have"));
        }
        if config.connections_per_ip > 0 {
            let mut count = self.by_address.entry(network_of(peer.ip())).or_default();
            if *count >= config.connections_per_ip {
                drop(count);
                self.total.fetch_sub(1, Ordering::Relaxed);
                if config.trusted_proxies.is_empty() && self.by_address.len() == 1 {
                    self.warn_of_proxy(peer, config, "all clients come from one address");
                }
                return Err((
                    CloseCode::TooManyConnections,
                    "there are too many connections from this address: try again in some seconds",
                ));
            }
            *count += 1;
        }
        Ok(())
    }

    /// Counts an HTTP connection from `peer` until the returned place is dropped. `None` where there are as many as there
    /// may be.
    pub(super) fn enter_http(&self, peer: SocketAddr, config: &ConnConfig) -> Option<HttpPlace> {
        if config.http_connections_per_ip == 0 {
            return Some(HttpPlace(None));
        }
        let network = network_of(peer.ip());
        let mut count = self.http_by_address.entry(network).or_default();
        if *count >= config.http_connections_per_ip {
            return None;
        }
        *count += 1;
        Some(HttpPlace(Some((self.http_by_address.clone(), network))))
    }

    /// Whether an address may have another request answered. `now` is in milliseconds of uptime.
    pub(super) fn allows_request(&self, address: IpAddr, config: &ConnConfig, now: u64) -> bool {
        let (per_second, burst) = (config.requests_per_second_per_ip, config.request_burst_per_ip);
        per_second == 0 || self.requests.allows(network_of(address), per_second, burst, now)
    }

    /// Notes that an untrusted address sends headers of proxies.
    pub(super) fn suspect_proxy(&self, peer: SocketAddr, config: &ConnConfig) {
        if config.connections_per_ip > 0 || config.counts_anonymous {
            self.warn_of_proxy(peer, config, "an address that is not trusted sends X-Forwarded-For or Forwarded");
        }
    }

    /// Warns once that the limit per address may count a proxy, and so all of its clients.
    fn warn_of_proxy(&self, peer: SocketAddr, config: &ConnConfig, why: &str) {
        if !config.trusted_proxies.contains(peer.ip()) && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                address = %peer.ip(),
                "{why}: if that is a proxy, limits.connections_per_ip and what anonymous clients may have count the proxy, \
                 and its address belongs in trusted_proxies"
            );
        }
    }

    /// Whether a refusal may probe the connections of its address: once a second for the whole host, since every shard
    /// walks all of its transports.
    pub(super) fn may_probe(&self, now: u64) -> bool {
        let last = self.probed.load(Ordering::Relaxed);
        let is_due = last == 0 || last + PROBE_INTERVAL_MS <= now;
        // Of concurrent callers exactly one gets `true`.
        is_due && self.probed.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Removes a counted connection from the counts.
    pub(super) fn leave(&self, peer: SocketAddr, config: &ConnConfig) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        if config.connections_per_ip > 0 {
            self.by_address.remove_if_mut(&network_of(peer.ip()), |_, count| {
                *count = count.saturating_sub(1);
                *count == 0
            });
        }
    }
}

/// The place of an HTTP connection in the count of its address.
#[derive(Debug)]
pub(super) struct HttpPlace(Option<(Arc<DashMap<IpAddr, usize>>, IpAddr)>);

impl Drop for HttpPlace {
    fn drop(&mut self) {
        if let Some((counts, network)) = &self.0 {
            counts.remove_if_mut(network, |_, count| {
                *count = count.saturating_sub(1);
                *count == 0
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_probed_once_a_second() {
        let admission = Admission::default();
        let probes: Vec<_> =
            [0, 1, 999, 1001, 1002, 2001].into_iter().filter(|now| admission.may_probe(*now)).collect();
        assert_eq!(probes, [0, 1001, 2001]);
    }
}
