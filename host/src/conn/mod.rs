//! Connections: a few shard threads, each of which owns its share of the sockets.
//!
//! A connection lives and dies on its shard, so its state needs no lock. Other threads reach it through the shard's
//! queue. `shard` is the thread and its loop, `connection` one socket with its outbox, `session` what the messages on
//! it mean, `members` which of the shard's connections are in which room, `accept` where new ones come from,
//! `admission` how many there may be.

mod accept;
mod admission;
mod connection;
mod members;
mod session;
mod shard;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};

pub use accept::Acceptor;
pub use admission::Admission;
pub use shard::{Shard, ShardThread};

use crate::auth::Authenticator;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::model::Clock;
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
    /// Connections from one address; 0 is no limit.
    pub connections_per_ip: usize,
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
}

/// What all shards share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Limits and times.
    pub config: Arc<ConnConfig>,
    /// The directory of connections and rooms.
    pub hub: Arc<Hub>,
    /// Who may connect.
    pub auth: Arc<Authenticator>,
    /// What becomes of events.
    pub plugins: Runtime,
    /// How many connections there are, and may be.
    pub admission: Arc<Admission>,
    /// The time.
    pub clock: Clock,
    /// The host's figures.
    pub metrics: Metrics,
}

/// What answers a client's HTTP requests before its connection becomes a WebSocket. Implemented further up.
pub trait HttpService {
    /// Answers a request that came in on `shard`.
    fn call(&self, shard: &Rc<Shard>, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>>;
}

/// Makes the HTTP service of each shard, on the shard's own thread.
pub type MakeHttpService = Arc<dyn Fn() -> Rc<dyn HttpService> + Send + Sync>;
