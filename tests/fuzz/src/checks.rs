//! Properties of each codec that hold for any input. The fuzz targets run these on a fuzzer's bytes, and
//! `host/tests/codecs.rs` on the committed corpus and mutations of it; so this names the codecs as `crate::protocol`.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::model::Payload;
use crate::protocol::engineio::{self, Packet as Engine};
use crate::protocol::plain::{self, Incoming};
use crate::protocol::socketio::{self, Packet};
use crate::protocol::websocket::{self, Content, Message, Violation};

/// A decoded WebSocket message that owns its data: the decoder only lends it.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// Feeds `bytes` in pieces of this length, and returns the output and its end.
fn read_frames(bytes: &[u8], max_bytes: usize, mut piece: impl FnMut() -> usize) -> (Vec<Kept>, Option<Violation>) {
    let mut decoder = websocket::Decoder::default();
    let mut seen = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(piece().clamp(1, rest.len()));
        rest = later;
        let sink = |message: Message<'_>| {
            seen.push(match message {
                Message::Text(text) => Kept::Text(text.to_owned()),
                Message::Binary(bytes) => Kept::Binary(bytes.to_vec()),
                Message::Ping(content) => Kept::Ping(content.to_vec()),
                Message::Pong => Kept::Pong,
                Message::Close(code) => Kept::Close(code),
            });
            true
        };
        if let Err(violation) = decoder.feed(&mut chunk.to_vec(), || max_bytes, sink) {
            return (seen, Some(violation));
        }
        // A header, a control frame and the chunk beside the message; a vector that grows may be twice as large.
        let kept = decoder.buffered();
        assert!(kept <= 2 * (max_bytes + 14 + 125 + chunk.len()), "{kept} bytes are kept for {max_bytes}");
    }
    (seen, None)
}

/// WebSocket frames: any split gives the same messages; none is over the limit and no buffer grows beyond it; decoded
/// messages survive a round trip. The first byte selects the limit, the second the pieces.
pub fn websocket(data: &[u8]) {
    let [limit, seed, bytes @ ..] = data else { return };
    let max_bytes = 16 << (limit % 10);
    let whole = read_frames(bytes, max_bytes, || usize::MAX);
    assert_eq!(read_frames(bytes, max_bytes, || 1), whole, "byte by byte");
    let mut random = Random::new((*seed).into());
    let pieces = read_frames(bytes, max_bytes, || if random.below(3) == 0 { 1 } else { random.below(70) });
    assert_eq!(pieces, whole, "in pieces");
    for message in &whole.0 {
        match message {
            Kept::Text(text) => {
                assert!(text.len() <= max_bytes);
                let frame = websocket::text_frame(text);
                assert_eq!(websocket::contents(&frame).collect::<Vec<_>>(), [Content::Text(text.as_bytes())]);
            }
            Kept::Binary(bytes) => {
                assert!(bytes.len() <= max_bytes);
                let frame = websocket::binary_frame(bytes);
                assert_eq!(websocket::contents(&frame).collect::<Vec<_>>(), [Content::Binary(bytes)]);
            }
            Kept::Ping(content) => assert!(content.len() <= 125),
            Kept::Pong | Kept::Close(_) => {}
        }
    }
    // Frames of the host, and not of a client; they may carry anything all the same.
    assert!(websocket::contents(bytes).count() <= bytes.len());
}

fn arguments(payload: &Payload) -> Vec<&str> {
    payload.arguments().into_iter().map(RawValue::get).collect()
}

/// A frame's fields.
fn fields(json: &str) -> BTreeMap<String, &RawValue> {
    serde_json::from_str(json).expect("what the host writes is a JSON object")
}

/// The host's frame of an event or an acknowledgement, in the form in which a client would send it.
fn as_client(json: &str, payload: &Payload) -> String {
    let mut fields = fields(json);
    let arguments = arguments(payload);
    assert_eq!(fields["data"].get(), arguments.first().copied().unwrap_or("null"));
    assert_eq!(fields.contains_key("args"), arguments.len() > 1);
    assert_eq!(fields.contains_key("attachments"), !payload.attachments.is_empty());
    if fields.contains_key("args") {
        fields.remove("data");
    }
    serde_json::to_string(&fields).expect("JSON that was read can be written")
}

fn check_same(read: &Payload, written: &Payload) {
    // No argument and a null argument look the same.
    let or_none = |payload| Some(arguments(payload)).filter(|arguments| *arguments != ["null"]).unwrap_or_default();
    assert_eq!(or_none(read), or_none(written));
    assert_eq!(read.attachments, written.attachments);
}

/// Plain frames: a decoded frame survives a round trip; a malformed one gets a short answer.
pub fn plain(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match plain::decode(text) {
        Ok(Incoming::Event { event, payload, id }) => {
            assert!(event.len() <= plain::MAX_EVENT_BYTES);
            let json = as_client(&plain::encode_event(&event, &payload, id), &payload);
            match plain::decode(&json) {
                Ok(Incoming::Event { event: name, payload: again, id: same }) => {
                    assert_eq!((name, same), (event, id));
                    check_same(&again, &payload);
                }
                other => panic!("{json}: {other:?}"),
            }
        }
        Ok(Incoming::Acknowledgement { id, payload }) => {
            let json = as_client(&plain::encode_reply(id, Ok(&payload)), &payload);
            match plain::decode(&json) {
                Ok(Incoming::Acknowledgement { id: same, payload: again }) => {
                    assert_eq!(same, id);
                    check_same(&again, &payload);
                }
                other => panic!("{json}: {other:?}"),
            }
        }
        Err(bad) => {
            assert!(bad.failure.message.len() < 500, "{}", bad.failure.message);
            let json = match bad.id {
                Some(id) => plain::encode_reply(id, Err(&bad.failure)),
                None => plain::encode_error(&bad.failure, bad.event.as_deref()),
            };
            assert!(!fields(&json).is_empty());
        }
    }
}

/// Engine.IO packets and payloads: a decoded packet encodes to the same bytes, and a queue is cut between packets.
pub fn engineio(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else { return };
    match engineio::decode(body) {
        Ok(Engine::Binary(_)) => assert!(body.starts_with('b')),
        Ok(packet) => assert_eq!(text_of(&packet), body),
        Err(_) => {}
    }
    let packets: Vec<_> = engineio::decode_payload(body).collect();
    let is_broken = packets.last().is_some_and(Result::is_err);
    let good = packets.len() - usize::from(is_broken);
    assert!(packets[..good].iter().all(Result::is_ok), "an error is the last");
    let frames = packets[..good].iter().flatten().map(|packet| match packet {
        Engine::Binary(bytes) => websocket::binary_frame(bytes),
        packet => websocket::text_frame(&text_of(packet)),
    });
    let mut queue: VecDeque<Bytes> = frames.collect();
    let all = engineio::take_payload(&mut queue.clone(), usize::MAX, usize::MAX);
    if is_broken {
        assert!(data.starts_with(&all));
    } else {
        assert_eq!(all, data);
    }
    let mut bodies: Vec<Bytes> = Vec::new();
    let max_bytes = data.len() / 3;
    while !queue.is_empty() {
        let before = queue.len();
        let payload = engineio::take_payload(&mut queue, max_bytes, usize::MAX);
        assert!(queue.len() + 1 == before || payload.len() <= max_bytes && queue.len() < before);
        bodies.push(payload);
    }
    assert_eq!(bodies.join(&b'\x1e'), all);
}

/// A packet in the form of a text frame.
fn text_of(packet: &Engine<'_>) -> String {
    match packet {
        Engine::Open => "0".to_owned(),
        Engine::Close => "1".to_owned(),
        Engine::Ping(data) => format!("2{data}"),
        Engine::Pong(data) => format!("3{data}"),
        Engine::Message(text) => format!("4{text}"),
        Engine::Binary(bytes) => panic!("a binary message of {} bytes is no text frame", bytes.len()),
        Engine::Upgrade => "5".to_owned(),
        Engine::Noop => "6".to_owned(),
    }
}

/// Socket.IO packets, one message per line: an attachment where the line begins with `b`, else text. A decoded packet
/// is within the limit, and survives a round trip over WebSocket and over polling.
pub fn socketio(data: &[u8]) {
    const MAX_BYTES: usize = 4096;
    let mut decoder = socketio::Decoder::default();
    for line in data.split(|byte| *byte == b'\n') {
        let read = match (line, std::str::from_utf8(line)) {
            ([b'b', attachment @ ..], _) => decoder.binary(attachment.into()),
            (_, Ok(text)) => decoder.text(text, MAX_BYTES),
            _ => return,
        };
        match read {
            Ok(None) => {}
            Ok(Some(packet)) => check_packet(&packet, MAX_BYTES),
            Err(_) => return,
        }
    }
}

fn check_packet(packet: &Packet<'_>, max_bytes: usize) {
    let frames = match packet {
        Packet::Connect { namespace, .. } => {
            let welcome = read_back(&socketio::connect_frame(namespace, "sid", Some("pid")));
            assert!(matches!(welcome, Packet::Connect { namespace: same, auth: Some(_) } if same == *namespace));
            return;
        }
        Packet::Disconnect { namespace } => socketio::disconnect_frame(namespace),
        // A refused packet, which is never sent.
        Packet::Overfull { .. } => return,
        Packet::Event { namespace, event, payload, id } => {
            check_payload(payload, max_bytes);
            let frames = socketio::event_frames(namespace, event, payload, *id, Some("offset"));
            let Packet::Event { payload: longer, .. } = read_back(&frames) else { panic!("{frames:?} is no event") };
            let mut expected = arguments(payload);
            expected.push("\"offset\"");
            assert_eq!(arguments(&longer), expected);
            socketio::event_frames(namespace, event, payload, *id, None)
        }
        Packet::Ack { namespace, id, payload } => {
            check_payload(payload, max_bytes);
            socketio::ack_frames(namespace, *id, payload)
        }
    };
    // Neither implements equality; their debug output is complete.
    assert_eq!(format!("{:?}", read_back(&frames)), format!("{packet:?}"));
}

fn check_payload(payload: &Payload, max_bytes: usize) {
    assert!(payload.args().len() <= max_bytes);
    assert!(payload.attachments.iter().all(|attachment| attachment.len() <= max_bytes));
    let checked = Payload::from_args(payload.args(), payload.attachments.clone());
    assert_eq!(&checked.expect("what was read is a payload"), payload);
}

/// Reads the host's frames as a client's, once as WebSocket messages and once as a polling payload.
fn read_back(frames: &Bytes) -> Packet<'static> {
    let packets: Vec<_> = websocket::contents(frames)
        .map(|content| match content {
            Content::Text(text) => engineio::decode(std::str::from_utf8(text).expect("a text frame is text")),
            Content::Binary(bytes) => Ok(Engine::Binary(bytes.into())),
        })
        .collect();
    let payload = engineio::take_payload(&mut VecDeque::from([frames.clone()]), 0, usize::MAX);
    let body = std::str::from_utf8(&payload).expect("a payload is text");
    assert_eq!(engineio::decode_payload(body).collect::<Vec<_>>(), packets, "over polling");
    let mut decoder = socketio::Decoder::default();
    let mut read = None;
    for packet in packets {
        assert!(read.is_none(), "one packet is one packet");
        read = match packet {
            Ok(Engine::Message(text)) => decoder.text(text, usize::MAX).map(|packet| packet.map(Packet::into_owned)),
            Ok(Engine::Binary(bytes)) => decoder.binary(Cow::Owned(bytes.into_owned())),
            other => panic!("{other:?} is no message"),
        }
        .expect("what the host writes can be read");
    }
    read.expect("it is a whole packet")
}

/// Pseudo-random numbers, the same in each run.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next one, below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % end as u64) as usize
    }
}
