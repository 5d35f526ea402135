//! Connections: a few shard threads, each of which owns its share of the sockets.
//!
//! A **connection** is a client in a namespace, a **transport** the way to the client: a WebSocket, or a polling session.
//! A connection may outlive its transport. Both are touched by their shard's thread alone and need no lock; other threads
//! send the shard commands.
//!
//! # Layout
//! - `accept`, `overload`: new sockets, and those for which no file descriptor is left; `admission`: limits of the whole host
//! - `http`: requests on a new socket, up to a WebSocket or a polling session
//! - `state`: the state of shards, transports and connections, in types that know no shard
//! - `shard`: the thread, and the work that it does on that state
//! - `config`, `shared`: what a shard is started with

mod accept;
mod admission;
mod config;
mod http;
mod overload;
mod shard;
mod shared;
mod state;

pub use accept::Acceptor;
pub use admission::Admission;
pub use config::{ConnConfig, UserOverflow};
pub use http::{AllowedOrigin, ClientBundle, ClientConfig};
pub use shard::{ShardThread, incomplete_budget};
pub use shared::Shared;
pub use state::EioSessions;
