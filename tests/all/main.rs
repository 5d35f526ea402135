//! End-to-end tests: the real host, real sockets.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod api;
mod api_directory;
mod api_emit;
mod api_idempotency;
mod clients;
mod command_line;
mod connections;
mod doors;
mod events;
mod hostile;
mod limits;
mod shutdown;
mod store;
mod swap;
mod ticket_collision;
mod time;
mod tutorial;
