//! The error for a client with the MessagePack parser, which this host does not support. The error is in that parser's
//! encoding, because the client can decode no other. (socket.io-msgpack-parser 3 sends each packet as one binary
//! message, a map of `type`, `nsp` and `data`.)

use bytes::Bytes;

use crate::protocol::websocket;

/// Whether an unexpected binary message is a packet of the MessagePack parser.
pub fn is_msgpack(message: &[u8]) -> bool {
    matches!(message, [0x80..=0x8f, ..]) && message.windows(5).any(|key| key == b"\xa4type")
}

/// A connect error of the main namespace. `message` has 255 bytes at most.
pub fn msgpack_error_frame(message: &str) -> Bytes {
    let mut packet = b"\x83\xa4type\x04\xa3nsp\xa1/\xa4data\x81\xa7message\xd9".to_vec();
    packet.push(message.len() as u8);
    packet.extend_from_slice(message.as_bytes());
    websocket::binary_frame(&packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msgpack_packets_are_recognised() {
        // A connect by its encoder: {"type":0,"data":{},"options":…,"nsp":"/"}.
        assert!(is_msgpack(b"\x83\xa4type\x00\xa4data\x80\xa3nsp\xa1/"));
        for other in [&b""[..], b"\x83", b"\x01\xa4type", b"\x83type"] {
            assert!(!is_msgpack(other), "{other:?}");
        }
    }

    #[test]
    fn error_is_encoded_as_msgpack_connect_error() {
        let frame = msgpack_error_frame("no");
        assert_eq!(&frame[2..], b"\x83\xa4type\x04\xa3nsp\xa1/\xa4data\x81\xa7message\xd9\x02no");
    }
}
