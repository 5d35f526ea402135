//! Refusals by the limits of the configuration.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// A limit in `[limits]`, of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `connections`.
    Connections,
    /// `connections_per_user`.
    ConnectionsPerUser,
    /// `connections_per_ip`.
    ConnectionsPerIp,
    /// `http_connections_per_ip`.
    HttpConnectionsPerIp,
    /// `requests_per_second_per_ip`.
    RequestsPerIp,
    /// `handshake`.
    Handshake,
    /// `header_bytes`.
    HeaderBytes,
    /// `message_bytes`.
    MessageBytes,
    /// `events_per_second`.
    EventsPerSecond,
    /// `events_per_second_per_user`.
    EventsPerUser,
    /// `outbox_bytes`.
    OutboxBytes,
    /// `rooms_per_connection`.
    RoomsPerConnection,
    /// `unfinished_bytes`.
    UnfinishedBytes,
}

impl Limit {
    /// All limits, in the order of their declaration.
    pub const ALL: [Self; 13] = [
        Self::Connections,
        Self::ConnectionsPerUser,
        Self::ConnectionsPerIp,
        Self::HttpConnectionsPerIp,
        Self::RequestsPerIp,
        Self::Handshake,
        Self::HeaderBytes,
        Self::MessageBytes,
        Self::EventsPerSecond,
        Self::EventsPerUser,
        Self::OutboxBytes,
        Self::RoomsPerConnection,
        Self::UnfinishedBytes,
    ];

    /// The limit's key within `[limits]`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerUser => "connections_per_user",
            Self::ConnectionsPerIp => "connections_per_ip",
            Self::HttpConnectionsPerIp => "http_connections_per_ip",
            Self::RequestsPerIp => "requests_per_second_per_ip",
            Self::Handshake => "handshake",
            Self::HeaderBytes => "header_bytes",
            Self::MessageBytes => "message_bytes",
            Self::EventsPerSecond => "events_per_second",
            Self::EventsPerUser => "events_per_second_per_user",
            Self::OutboxBytes => "outbox_bytes",
            Self::RoomsPerConnection => "rooms_per_connection",
            Self::UnfinishedBytes => "unfinished_bytes",
        }
    }
}

/// Counters of refusals, found without a search: refusals must stay cheap in a flood.
#[derive(Debug, Clone)]
pub(super) struct Limited {
    by_limit: [IntCounter; Limit::ALL.len()],
    family: IntCounterVec,
}

impl Limited {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Connections, requests and messages refused or ended by a limit, by the limit's key";
        let family = IntCounterVec::new(Opts::new("limited_total", help), &["limit"])?;
        registry.register(Box::new(family.clone()))?;
        Ok(Self { by_limit: Limit::ALL.map(|limit| family.with_label_values(&[limit.key()])), family })
    }

    pub(super) fn counter(&self, limit: Limit) -> &IntCounter {
        &self.by_limit[limit as usize]
    }

    /// The counter of a limit that has no place of its own, as that of one event name.
    pub(super) fn named(&self, key: &str) -> IntCounter {
        self.family.with_label_values(&[key])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_its_own_counter() {
        let limited = Limited::new(&Registry::new()).unwrap();
        for limit in Limit::ALL {
            limited.counter(limit).inc();
            assert_eq!(limited.named(limit.key()).get(), 1, "{limit:?}");
        }
    }
}
