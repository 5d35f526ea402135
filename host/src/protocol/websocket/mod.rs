//! WebSocket frames (RFC 6455), the server's side, without a socket.
//!
//! A connection keeps bytes only while a frame or a fragmented message is incomplete: a frame that arrives complete is decoded
//! in place, in the buffer that its shard shares among all of its connections. Outgoing frames are not masked, so that one
//! encoded frame serves every connection.

mod decode;
mod encode;
mod utf8;

pub use decode::{Decoder, Message, Violation};
pub use encode::{Content, binary_frame, close_frame, contents, message_frames, ping_frame, pong_frame, text_frame};

const OP_CONTINUATION: u8 = 0x0;
const OP_TEXT: u8 = 0x1;
const OP_BINARY: u8 = 0x2;
const OP_CLOSE: u8 = 0x8;
const OP_PING: u8 = 0x9;
const OP_PONG: u8 = 0xa;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// The longest payload of a control frame, in bytes (RFC 6455, section 5.5).
const MAX_CONTROL_BYTES: usize = 125;

/// The payload's length in a frame, and the end of the length field; `None` if the field is incomplete.
fn parse_length(frame: &[u8]) -> Option<(u64, usize)> {
    match frame.get(1)? & !MASKED {
        126 => frame.get(2..4)?.try_into().ok().map(|length| (u64::from(u16::from_be_bytes(length)), 4)),
        127 => frame.get(2..10)?.try_into().ok().map(|length| (u64::from_be_bytes(length), 10)),
        length => Some((length.into(), 2)),
    }
}
