//! Roundhouse: a realtime host whose features are WebAssembly components.
//!
//! # Layout, from top to bottom: each module imports only those below it
//! - [`cli`]: the command line, which is all that the binary is
//! - [`server`]: how a host is wired, started and ended
//! - [`config`]: what it was configured to do
//! - [`api`]: calls of operators and services; [`conn`]: clients and their connections, on shard threads
//! - [`plugin`]: features, on plugin threads
//! - [`hub`]: who is connected, in which room, and the way to all of them
//! - [`protocol`], [`store`], [`auth`]: bytes to words and back; what outlives the process; tokens to people;
//!   [`net`]: HTTP on sockets, which the API and clients have in common
//! - [`ledger`]: what each of them makes the host hold, and how much that may be
//! - [`metrics`] counts what happens
//! - [`model`]: the words that all of them share
//!
//! `ARCHITECTURE.md` has the picture and the invariants.

pub mod api;
pub mod auth;
pub mod cli;
pub mod config;
pub mod conn;
pub mod hub;
pub mod ledger;
pub mod metrics;
pub mod model;
pub mod net;
pub mod plugin;
pub mod protocol;
pub mod server;
pub mod store;
