//! The sections of the configuration: each is a type that holds the section's defaults, checks itself, and converts itself to
//! what the rest of the host takes.

pub(super) mod api_keys;
pub(super) mod auth;
pub(super) mod budget;
pub(super) mod cors;
pub(super) mod heartbeat;
pub(super) mod limits;
pub(super) mod plugins;
pub(super) mod recovery;
pub(super) mod shutdown;
pub(super) mod socketio;
pub(super) mod store;
