//! Codecs: bytes to the model and back. They are synchronous and know nothing of sockets, rooms or plugins.

mod outgoing;
pub mod plain;
pub mod websocket;

pub use outgoing::{Outgoing, Protocol};
