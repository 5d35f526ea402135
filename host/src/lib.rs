//! Roundhouse: a realtime host.
pub mod auth;
pub mod cli;
pub mod config;
pub mod conn;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod model;
pub mod plugin;
pub mod protocol;
pub mod server;
