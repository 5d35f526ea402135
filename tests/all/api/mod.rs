//! The HTTP API.

mod directory;
mod emit;
mod idempotency;
mod requests;
