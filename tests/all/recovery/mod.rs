//! How a client goes on after it lost its transport.

mod handoff;
mod plain;
mod presence;
pub(crate) mod socketio;
