//! Connections: a few shard threads, each of which owns its share of the sockets.
//!
//! A **connection** is a client in a namespace, a **transport** the way to the client: a WebSocket, or a polling
//! session. A connection may outlive its transport. Only the thread of their shard accesses connections and transports,
//! so both need no lock; other threads send the shard commands.
//!
//! # Layout
//! - `accept`: new sockets; `overload`: sockets for which no regular file descriptor is left; `admission`: limits of
//!   the whole host; `request_rates`: requests from one address
//! - `http`: requests on a new socket, up to a WebSocket or a polling session
//! - `state`: the state of shards, transports and connections, in types that know no shard
//! - `shard`: the thread, and its work on the state
//! - `config`, `shared`: parameters of a shard

mod accept;
mod admission;
mod config;
mod http;
mod overload;
mod request_rates;
mod shard;
mod shared;
mod state;

pub use accept::Acceptor;
pub use admission::Admission;
pub use config::{ConnConfig, EventLimits, UserOverflow};
pub use http::{AllowedOrigin, ClientBundle, ClientConfig};
pub use overload::OverloadAnswers;
pub use shard::{ShardThread, incomplete_budget};
pub use shared::Shared;
pub use state::EioSessions;
