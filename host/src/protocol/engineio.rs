//! Engine.IO, protocol 4: packets of a session over WebSocket frames or HTTP requests (polling).
//!
//! Over WebSocket a packet is a text frame: a digit for its type, then its data. A binary frame is a binary message. Over
//! polling a body is a payload: packets with a separator between them, and binary messages as base64. Outgoing packets are
//! kept as WebSocket frames for either transport: [`take_payload`] makes a body of them.

use std::borrow::Cow;
use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;

use super::websocket::{self, Content};
use super::{Malformed, malformed};
use crate::model::Payload;

/// The separator of the packets in a payload.
const SEPARATOR: char = '\x1e';

/// The mark before a binary message in a payload.
const BINARY: char = 'b';

/// A ping.
pub const PING: &str = "2";
/// The answer to the client's `2probe`: this WebSocket works, the session may be upgraded to it.
pub const PONG_PROBE: &str = "3probe";
/// A noop: it answers a waiting polling request, so that the session can be upgraded.
pub const NOOP: &str = "6";
/// A close.
pub const CLOSE: &str = "1";

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The handshake. Only the host may send it.
    Open,
    /// The end of the session.
    Close,
    /// Ping, with data to echo.
    Ping(&'a str),
    /// Pong, with the data of the ping.
    Pong(&'a str),
    /// A text message.
    Message(&'a str),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// The session is upgraded to the WebSocket that carries this packet.
    Upgrade,
    /// No content.
    Noop,
}

/// Reads one packet: the content of a WebSocket text frame, or one of a payload.
///
/// # Errors
/// Where the packet's type is unknown, or must not have data.
pub fn decode(text: &str) -> Result<Packet<'_>, Malformed> {
    let mut characters = text.chars();
    let packet_type = characters.next();
    let data = characters.as_str();
    match packet_type {
        Some('2') => Ok(Packet::Ping(data)),
        Some('3') => Ok(Packet::Pong(data)),
        Some('4') => Ok(Packet::Message(data)),
        Some('0' | '1' | '5' | '6') if !data.is_empty() => malformed("a packet of this type has no data"),
        Some('0') => Ok(Packet::Open),
        Some('1') => Ok(Packet::Close),
        Some('5') => Ok(Packet::Upgrade),
        Some('6') => Ok(Packet::Noop),
        // Over WebSocket from clients that cannot send binary frames, or are configured not to.
        Some(BINARY) => match STANDARD.decode(data) {
            Ok(bytes) => Ok(Packet::Binary(bytes.into())),
            Err(_) => malformed("a binary message is base64 with padding"),
        },
        Some(_) => malformed("a packet's type is a digit from 0 to 6"),
        None => malformed("the packet is empty"),
    }
}

/// Reads the packets of a polling request's body, one by one. An error is the last item.
pub fn decode_payload(body: &str) -> impl Iterator<Item = Result<Packet<'_>, Malformed>> {
    let mut is_broken = false;
    body.split(SEPARATOR).map_while(move |packet| {
        if is_broken {
            return None;
        }
        let packet = decode(packet);
        is_broken = packet.is_err();
        Some(packet)
    })
}

/// The bytes of the packets in a polling request's body and of their separators. Binary messages count by their decoded
/// size.
pub fn weight(body: &str) -> usize {
    let of_packet = |packet: &str| match packet.strip_prefix(BINARY) {
        Some(base64) => base64.trim_end_matches('=').len() * 3 / 4,
        None => packet.len(),
    };
    body.split(SEPARATOR).map(|packet| of_packet(packet) + 1).sum::<usize>() - 1
}

/// The longest body with packets of this many bytes: base64 makes four bytes of three, and each binary message has a mark,
/// padding and a separator.
pub fn longest_body(max_weight: usize) -> usize {
    max_weight.div_ceil(3) * 4 + 8 * Payload::MAX_ATTACHMENTS
}

/// The handshake of a session.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Handshake<'a> {
    /// The session's id, a secret of this client: it authorises each request of the session.
    pub sid: &'a str,
    /// The transports that the session may be upgraded to.
    pub upgrades: &'a [&'a str],
    /// The interval of pings, in milliseconds.
    #[serde(rename = "pingInterval")]
    pub ping_interval_ms: u64,
    /// How long the host waits for the pong, in milliseconds.
    #[serde(rename = "pingTimeout")]
    pub ping_timeout_ms: u64,
    /// The longest message, and the longest payload, that the client may send, in bytes.
    pub max_payload: usize,
}

impl Handshake<'_> {
    /// The open packet.
    pub fn packet(&self) -> String {
        // Strings and numbers always have a JSON form.
        format!("0{}", serde_json::to_string(self).unwrap_or_default())
    }
}

/// A text message over WebSocket.
pub fn message_frame(text: &str) -> Bytes {
    websocket::message_frames(&["4", text], &[])
}

/// [`PING`] over WebSocket.
pub fn ping_frame() -> Bytes {
    Bytes::from_static(b"\x81\x012")
}

/// [`PONG_PROBE`] over WebSocket.
pub fn pong_probe_frame() -> Bytes {
    Bytes::from_static(b"\x81\x063probe")
}

/// [`CLOSE`] over WebSocket.
pub fn close_frame() -> Bytes {
    Bytes::from_static(b"\x81\x011")
}

/// Takes frames from the front of a queue and encodes them as the body of an answer: as many as fit into `max_bytes`
/// and `max_packets`, but at least one `Bytes`. The frames in one `Bytes` (an event and its attachments) stay together.
/// Control frames (ping, pong, close) are dropped: the body is empty if the queue has no others, and an empty body is
/// not a valid payload (the caller then sends [`NOOP`]).
pub fn take_payload(queue: &mut VecDeque<Bytes>, max_bytes: usize, max_packets: usize) -> Bytes {
    let (mut taken, mut length, mut n_packets) = (0, 0, 0);
    for frames in queue.iter() {
        // Each packet counts a separator; the last one has none.
        let longer: usize =
            length + websocket::contents(frames).map(|content| packet_bytes(content) + 1).sum::<usize>();
        n_packets += websocket::contents(frames).count();
        if taken > 0 && (longer > max_bytes.saturating_add(1) || n_packets > max_packets) {
            break;
        }
        length = longer;
        taken += 1;
    }
    let mut payload = Vec::with_capacity(length);
    for frames in queue.drain(..taken) {
        websocket::contents(&frames).for_each(|content| push_packet(&mut payload, content));
    }
    payload.pop();
    payload.into()
}

/// The length of a message in a payload.
fn packet_bytes(content: Content<'_>) -> usize {
    match content {
        Content::Text(text) => text.len(),
        Content::Binary(bytes) => 1 + bytes.len().div_ceil(3) * 4,
    }
}

/// Appends a message and a separator.
fn push_packet(payload: &mut Vec<u8>, content: Content<'_>) {
    let start = payload.len();
    match content {
        Content::Text(text) => payload.extend_from_slice(text),
        Content::Binary(bytes) => {
            payload.push(BINARY as u8);
            payload.resize(start + packet_bytes(content), 0);
            // The buffer has exactly the encoded length, so this cannot fail.
            let _ = STANDARD.encode_slice(bytes, &mut payload[start + 1..]);
        }
    }
    payload.push(SEPARATOR as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_is_a_digit_and_data() {
        for (text, packet) in [
            ("0", Packet::Open),
            ("1", Packet::Close),
            ("2", Packet::Ping("")),
            ("2probe", Packet::Ping("probe")),
            ("3", Packet::Pong("")),
            ("3probe", Packet::Pong("probe")),
            ("4", Packet::Message("")),
            ("4héllo", Packet::Message("héllo")),
            ("5", Packet::Upgrade),
            ("6", Packet::Noop),
            ("bAQID", Packet::Binary(vec![1, 2, 3].into())),
        ] {
            assert_eq!(decode(text), Ok(packet), "{text}");
        }
    }

    #[test]
    fn malformed_packet_is_refused() {
        for (text, reason) in [
            ("", "is empty"),
            ("7", "a digit from 0 to 6"),
            ("abc", "a digit from 0 to 6"),
            ("é", "a digit from 0 to 6"),
            ("bAQI", "base64 with padding"),
            ("0{}", "has no data"),
            ("1x", "has no data"),
            ("5x", "has no data"),
            ("6x", "has no data"),
        ] {
            let error = decode(text).expect_err(text);
            assert!(error.reason.contains(reason), "{text}: {error}");
        }
    }

    fn packets(body: &str) -> Vec<Result<Packet<'_>, Malformed>> {
        decode_payload(body).collect()
    }

    #[test]
    fn payload_separates_packets() {
        assert_eq!(
            packets("4hello\x1e2\x1e4€\x1ebAQIDBA==\x1eb"),
            [
                Ok(Packet::Message("hello")),
                Ok(Packet::Ping("")),
                Ok(Packet::Message("€")),
                Ok(Packet::Binary(vec![1, 2, 3, 4].into())),
                Ok(Packet::Binary(vec![].into())),
            ]
        );
    }

    #[test]
    fn payload_decoding_stops_at_a_malformed_packet() {
        for (body, good) in [
            ("", 0),
            ("\x1e4a", 0),
            ("4a\x1e", 1),
            ("4a\x1e\x1e4b", 1),
            ("4a\x1e4b\x1eabc\x1e4c", 2),
            ("bAQIDBA\x1e4a", 0),
            ("b_-8=", 0),
            ("bAQ=", 0),
            ("bAQI=BA==", 0),
            ("b AQID", 0),
        ] {
            let packets = packets(body);
            assert_eq!(packets.len(), good + 1, "{body:?}");
            assert!(packets[..good].iter().all(Result::is_ok) && packets[good].is_err(), "{body:?}");
        }
    }

    #[test]
    fn handshake_is_encoded_as_open_packet() {
        let handshake = Handshake {
            sid: "lv_VI97HAXpY6yYWAAAC",
            upgrades: &["websocket"],
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            max_payload: 1_000_000,
        };
        assert_eq!(
            handshake.packet(),
            concat!(
                r#"0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"pingInterval":25000,"#,
                r#""pingTimeout":20000,"maxPayload":1000000}"#
            )
        );
    }

    #[test]
    fn prebuilt_frames_equal_encoded_packets() {
        for (frame, text) in
            [(ping_frame(), PING), (pong_probe_frame(), PONG_PROBE), (close_frame(), CLOSE), (message_frame("x"), "4x")]
        {
            assert_eq!(frame, websocket::text_frame(text), "{text}");
        }
    }

    /// An event with an attachment, a ping, a message, and a control frame.
    fn queue() -> VecDeque<Bytes> {
        let event = websocket::message_frames(&["451-", "[]"], &[Bytes::from_static(&[1, 2, 3, 4])]);
        [event, ping_frame(), websocket::pong_frame(b"x"), message_frame("é")].into()
    }

    #[test]
    fn a_queue_becomes_one_payload() {
        let mut queue = queue();
        let payload = take_payload(&mut queue, usize::MAX, usize::MAX);
        assert_eq!(payload, "451-[]\x1ebAQIDBA==\x1e2\x1e4é");
        assert!(queue.is_empty());
        assert_eq!(take_payload(&mut queue, 100, usize::MAX), "");
    }

    #[test]
    fn take_payload_keeps_an_events_packets_together() {
        for (max_bytes, payload, left) in [
            (0, "451-[]\x1ebAQIDBA==", 3),
            (17, "451-[]\x1ebAQIDBA==", 3),
            (18, "451-[]\x1ebAQIDBA==\x1e2", 1),
            (21, "451-[]\x1ebAQIDBA==\x1e2", 1),
            (22, "451-[]\x1ebAQIDBA==\x1e2\x1e4é", 0),
        ] {
            let mut queue = queue();
            assert_eq!(take_payload(&mut queue, max_bytes, usize::MAX), payload, "{max_bytes}");
            assert_eq!(queue.len(), left, "{max_bytes}");
        }
    }

    #[test]
    fn take_payload_respects_max_packets() {
        for (max_packets, n_packets, left) in [(0, 2, 3), (2, 2, 3), (3, 3, 1), (4, 4, 0)] {
            let mut queue = queue();
            let payload = take_payload(&mut queue, usize::MAX, max_packets);
            assert_eq!(payload.split(|byte| *byte == SEPARATOR as u8).count(), n_packets, "{max_packets}");
            assert_eq!(queue.len(), left, "{max_packets}");
        }
    }

    #[test]
    fn binary_messages_are_measured_decoded() {
        for (body, bytes) in [("", 0), ("4héllo", 7), ("4a\x1e4b", 5), ("bAQIDBA==", 4), ("bAQID\x1e4a\x1ebAQI=", 9)] {
            assert_eq!(weight(body), bytes, "{body:?}");
        }
        for length in 0..100 {
            let body = format!("b{}", STANDARD.encode(vec![0; length]));
            assert!(weight(&body) == length && body.len() <= longest_body(length), "{length}");
        }
    }

    #[test]
    fn payload_round_trips() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut queue = VecDeque::new();
        for length in [0, 1, 2, 3, 125, 126, 255] {
            queue.push_back(websocket::binary_frame(&bytes[..length]));
            queue.push_back(message_frame(&"é".repeat(length * 300)));
        }
        let payload = take_payload(&mut queue, usize::MAX, usize::MAX);
        let mut packets = decode_payload(std::str::from_utf8(&payload).unwrap());
        for length in [0, 1, 2, 3, 125, 126, 255] {
            assert_eq!(packets.next(), Some(Ok(Packet::Binary(bytes[..length].into()))));
            assert_eq!(packets.next(), Some(Ok(Packet::Message(&"é".repeat(length * 300)))));
        }
        assert_eq!(packets.next(), None);
    }
}
