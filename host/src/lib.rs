//! Roundhouse: a realtime host whose features are WebAssembly components.
//!
//! # Layout, from top to bottom: each module imports only those below it
//! - [`cli`]: the command line, the binary's entry point
//! - [`server`]: the wiring, start and end of a host
//! - [`config`]: the configuration
//! - [`api`]: calls of operators and services; [`conn`]: clients and their connections, on shard threads
//! - [`plugin`]: features, on plugin threads
//! - [`hub`]: the directory of connections and rooms, and the queues of the shards
//! - [`protocol`]: codecs; [`store`]: persistence; [`auth`]: verification of tokens; [`net`]: HTTP on sockets, for the
//!   API and clients
//! - [`outbound`]: calls to other HTTP services
//! - [`policy`]: which users may use which rooms
//! - [`ledger`]: the resources that the host holds for each principal, and their limits
//! - [`metrics`]: counters, gauges and histograms
//! - [`model`]: the vocabulary that all modules share
//!
//! `ARCHITECTURE.md` has the picture and the invariants.

pub mod api;
pub mod auth;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod conn;
pub mod hub;
pub mod ledger;
pub mod metrics;
pub mod model;
pub mod net;
pub mod outbound;
pub mod plugin;
pub mod policy;
pub mod protocol;
pub mod server;
pub mod store;
