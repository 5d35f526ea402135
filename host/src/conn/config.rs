//! Limits and times of connections.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::model::TrustedProxies;

/// The rates of single event names: events per second in the long run, and in a burst.
pub type EventLimits = HashMap<Box<str>, (NonZeroU32, NonZeroU32)>;

/// Limits and times of connections.
#[derive(Debug, Clone)]
pub struct ConnConfig {
    /// The longest message from a client, in bytes.
    pub message_bytes: usize,
    /// The bound of a transport's outbox, in bytes. A client that is further behind is disconnected.
    pub outbox_bytes: usize,
    /// Connections of the whole host; 0 is no limit.
    pub connections: usize,
    /// Connections of one user; 0 is no limit.
    pub connections_per_user: usize,
    /// The policy for a connection over `connections_per_user`.
    pub user_overflow: UserOverflow,
    /// Connections from one address; 0 is no limit.
    pub connections_per_ip: usize,
    /// HTTP connections from one address, before their upgrade to a WebSocket or beside it; 0 is no limit.
    pub http_connections_per_ip: usize,
    /// Requests from one address, per second in the long run; 0 is no limit.
    pub requests_per_second_per_ip: u32,
    /// Requests from one address in a burst.
    pub request_burst_per_ip: u32,
    /// Whether clients may be anonymous, in which case the anonymous clients of one address share a user's limits.
    pub counts_anonymous: bool,
    /// Events that a connection may send, per second in the long run; 0 is no limit.
    pub events_per_second: u32,
    /// Events that a connection may send in a burst.
    pub event_burst: u32,
    /// The limits of single event names, for each connection; `None` without any.
    pub event_limits: Option<Arc<EventLimits>>,
    /// Time between pings.
    pub heartbeat_interval: Duration,
    /// Time without input from a client after which its transport is closed as lost.
    pub heartbeat_timeout: Duration,
    /// Time for a client without a valid token in its handshake to send `authenticate`.
    pub auth_grace: Duration,
    /// Time to enter a first Socket.IO namespace.
    pub connect_timeout: Duration,
    /// Socket.IO namespaces besides `/` and those of features.
    pub namespaces: Vec<String>,
    /// How long a detached connection can be resumed; zero turns recovery off.
    pub recovery_window: Duration,
    /// The memory of the replay buffers of the whole host, in bytes.
    pub recovery_bytes: usize,
    /// Proxies whose report of the client's address is trusted.
    pub trusted_proxies: TrustedProxies,
    /// The budget for incomplete messages and requests and for unauthenticated transports, in bytes.
    pub unfinished_bytes: usize,
    /// Time for the head of a request, and before it for the PROXY protocol's.
    pub handshake: Duration,
    /// The longest head of a request, in bytes.
    pub header_bytes: usize,
    /// How long an HTTP connection may be idle.
    pub keep_alive: Duration,
    /// Time for clients to answer the close at shutdown.
    pub shutdown_timeout: Duration,
}

/// The policy for a connection over `limits.connections_per_user`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserOverflow {
    /// The new connection is refused, and the others are probed, so that a lost one frees its place within seconds.
    #[default]
    Reject,
    /// The user's oldest connection is closed (4009).
    ReplaceOldest,
}
