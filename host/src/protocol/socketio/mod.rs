//! Socket.IO, protocol 5: events, acknowledgements and namespaces, in the messages of an Engine.IO connection.
//!
//! A packet is text: a digit for its type; for a binary packet the number of attachments and `-`; the namespace and
//! `,`, unless it is `/`; the id of an acknowledgement; JSON. The binary messages that follow are the attachments,
//! which have placeholders in the JSON.

mod decode;
mod encode;
mod msgpack;

pub use decode::{Decoder, Packet};
pub use encode::{ack_frames, connect_error_frame, connect_frame, disconnect_frame, event_frames};
pub use msgpack::{is_msgpack, msgpack_error_frame};

/// The main namespace, which needs no name on the wire.
pub const MAIN_NAMESPACE: &str = "/";

/// Reserved event names, which clients and servers of this protocol use for the lifecycle of a connection.
pub const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];
