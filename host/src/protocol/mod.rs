//! Codecs: bytes to the model and back. They are synchronous and know nothing of sockets, rooms or plugins.

mod outgoing;
pub mod plain;
pub mod websocket;

pub use outgoing::{Outgoing, Protocol};

/// Events that mean something to the protocols themselves: nobody else may route or emit them.
pub const RESERVED_EVENTS: [&str; 9] = [
    "authenticate",
    "connected",
    "resume",
    "error",
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
];
