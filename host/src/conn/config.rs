//! Limits and times of connections.

use std::time::Duration;

use serde::Deserialize;

use crate::model::TrustedProxies;

/// Limits and times of connections.
#[derive(Debug, Clone)]
pub struct ConnConfig {
    /// The longest message from a client, in bytes.
    pub message_bytes: usize,
    /// The bytes that may wait to be written to one client. One that is further behind is disconnected.
    pub outbox_bytes: usize,
    /// Connections of the whole host; 0 is no limit.
    pub connections: usize,
    /// Connections of one user; 0 is no limit.
    pub connections_per_user: usize,
    /// What happens to one more of a user.
    pub user_overflow: UserOverflow,
    /// Connections from one address; 0 is no limit.
    pub connections_per_ip: usize,
    /// Whether clients need not sign in, so that those of one address share a user's limits.
    pub counts_anonymous: bool,
    /// Events that a connection may send, per second in the long run; 0 is no limit.
    pub events_per_second: u32,
    /// Events that it may send in a burst.
    pub event_burst: u32,
    /// Time between pings.
    pub heartbeat_interval: Duration,
    /// Time without a sign of life after which a client is gone.
    pub heartbeat_timeout: Duration,
    /// Time to authenticate by a first message.
    pub auth_grace: Duration,
    /// Time to enter a first Socket.IO namespace.
    pub connect_timeout: Duration,
    /// Socket.IO namespaces besides `/` and those of features.
    pub namespaces: Vec<String>,
    /// Time for a client that lost its transport to resume its connection; zero is no recovery.
    pub recovery_window: Duration,
    /// The memory of the replay buffers of the whole host, in bytes.
    pub recovery_bytes: usize,
    /// Proxies that name the clients for which they connect.
    pub trusted_proxies: TrustedProxies,
    /// The memory of incomplete messages and requests, and of clients that are not signed in, in bytes.
    pub unfinished_bytes: usize,
    /// How long an HTTP connection may be idle.
    pub keep_alive: Duration,
    /// Time for clients to answer the close that ends the host.
    pub shutdown_timeout: Duration,
}

/// What happens when a user opens one connection more than `limits.connections_per_user`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserOverflow {
    /// It is refused for now, and the others are probed: one that was lost gives its place free within seconds.
    #[default]
    Reject,
    /// The user's oldest connection is closed (4009).
    ReplaceOldest,
}
