//! Connections: a few shard threads, each of which owns its share of the sockets.
//!
//! A connection lives and dies on its shard, so its state needs no lock. Other threads reach it through the shard's
//! queue. A `connection` is somebody who takes part, a `transport` the way to its client: a WebSocket, or a polling session.
//!
//! # Layout
//! - `accept`, `admission`: where new sockets come from, and how many there may be; `overload`: what a client gets for
//!   which there is no file descriptor
//! - `http`: HTTP before a WebSocket, and polling
//! - `shard`: the thread and its loop; `sockets`: which of its sockets are ready; `timers`, `wall`: what is due;
//!   `drain`: the closes before the end
//! - `transport`, `outbox`: one way to a client; `flush`: how what waits is written, and how a transport ends
//! - `session`, `oversize`: what is the same on every protocol; `plain`, and `eio`, `polling`, `socketio`: what is not
//! - `violation`: what a client is told that breaks its protocol, and the log; `rate`: how much it may send
//! - `incomplete`: what is held of that which is not whole
//! - `connection`, `members`: who takes part, and in which room; `fanout`: how an event gets to them; `prefetch`: memory that is needed soon
//! - `user_limit`: how many connections a user may have; `pending_resumes`: plain ones that may be but the way back to another
//! - `recovery`, `replay`, `handoff`: how a client goes on after its transport was lost, over another and from another shard

mod accept;
mod admission;
mod http;
mod overload;
mod shard;
mod state;

use std::sync::Arc;
use std::time::Duration;

pub use accept::Acceptor;
pub use admission::Admission;
pub use http::{AllowedOrigin, ClientBundle, ClientConfig};
pub use shard::eio::EioSessions;
pub use shard::incomplete::incomplete_budget;
pub use shard::parts::ShardThread;
pub use shard::user_limit::UserOverflow;

use crate::auth::Authenticator;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::model::{Clock, TrustedProxies};
use crate::net::Budget;
use crate::plugin::Runtime;

/// What connections may do, and for how long.
#[derive(Debug, Clone)]
pub struct ConnConfig {
    /// The longest message from a client, in bytes.
    pub message_bytes: usize,
    /// What may wait to be written to one connection, in bytes. A client that is further behind is disconnected.
    pub outbox_bytes: usize,
    /// Connections of the whole host; 0 is no limit.
    pub connections: usize,
    /// Connections of one user; 0 is no limit.
    pub connections_per_user: usize,
    /// What happens to one more.
    pub user_overflow: UserOverflow,
    /// Connections from one address; 0 is no limit.
    pub connections_per_ip: usize,
    /// Whether clients need not sign in, so that those of one address share what a user may have.
    pub counts_anonymous: bool,
    /// Events that a connection may send, per second in the long run; 0 is no limit.
    pub events_per_second: u32,
    /// Events that it may send at once.
    pub event_burst: u32,
    /// Time between pings.
    pub heartbeat_interval: Duration,
    /// A connection that has not been heard of for so long is gone.
    pub heartbeat_timeout: Duration,
    /// Time to authenticate by a first message.
    pub auth_grace: Duration,
    /// Time to enter a first Socket.IO namespace.
    pub connect_timeout: Duration,
    /// Socket.IO namespaces that there are besides `/` and those of features.
    pub namespaces: Vec<String>,
    /// How long a client that lost its connection may take to come back and go on; zero is not at all.
    pub recovery_window: Duration,
    /// What may be kept for such clients, of the whole host, in bytes.
    pub recovery_bytes: usize,
    /// Proxies that say on whose behalf they connect.
    pub trusted_proxies: TrustedProxies,
    /// What may be held of messages and requests that are not whole, and of clients that are not signed in, in bytes.
    pub unfinished_bytes: usize,
    /// How long an HTTP connection may be idle.
    pub keep_alive: Duration,
    /// Time for clients to answer the close that ends the host.
    pub shutdown_timeout: Duration,
}

/// What all shards share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Limits and times.
    pub config: Arc<ConnConfig>,
    /// How clients may connect.
    pub client: Arc<ClientConfig>,
    /// The directory of connections and rooms.
    pub hub: Arc<Hub>,
    /// Who may connect.
    pub auth: Arc<Authenticator>,
    /// What becomes of events.
    pub plugins: Runtime,
    /// How many connections there are, and may be.
    pub admission: Arc<Admission>,
    /// What is held that is not whole.
    pub unfinished: Budget,
    /// The polling sessions.
    pub eio_sessions: Arc<EioSessions>,
    /// The time.
    pub clock: Clock,
    /// The host's figures.
    pub metrics: Metrics,
}
