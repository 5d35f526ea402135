//! The sections of the configuration: each is a type that has the section's defaults, validates its values, and
//! converts them to the settings of a part of the host.

pub(super) mod api_keys;
pub(super) mod auth;
pub(super) mod auth_session;
pub(super) mod budget;
pub(super) mod cluster;
pub(super) mod cors;
pub(super) mod heartbeat;
pub(super) mod limits;
pub(super) mod plugins;
pub(super) mod recovery;
pub(super) mod rooms;
pub(super) mod shutdown;
pub(super) mod socketio;
pub(super) mod store;
pub(super) mod tls;
