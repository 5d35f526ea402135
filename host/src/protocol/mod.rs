//! Codecs: bytes to the model and back. Codecs are synchronous and independent of sockets, rooms and plugins.

pub mod engineio;
mod outgoing;
pub mod plain;
pub mod socketio;
pub mod websocket;

pub use outgoing::{Outgoing, Protocol};
pub use roundhouse_contract::RESERVED_EVENTS;

/// A packet that violates its protocol, and whose connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Malformed {
    /// The rule that was broken.
    pub reason: &'static str,
}

const fn malformed<T>(reason: &'static str) -> Result<T, Malformed> {
    Err(Malformed { reason })
}

/// JSON text of a string.
fn quoted(text: &str) -> String {
    // A string always has a JSON form.
    serde_json::to_string(text).unwrap_or_default()
}
