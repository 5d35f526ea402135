//! End-to-end tests: the real host, real sockets.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod access;
mod api;
mod cluster;
mod docs;
mod features;
mod isolation;
mod operations;
mod plugins;
mod protocol;
mod recovery;
mod socketio;
mod store;
