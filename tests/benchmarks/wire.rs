//! Each server's protocol: how a client connects, joins a room and publishes to it.

use std::sync::LazyLock;

use roundhouse_tests::bench::token;
use roundhouse_tests::raw::client_frame;
use serde_json::{Value, json};

/// The length of the text in each event, in bytes.
pub(crate) const PAYLOAD_BYTES: usize = 128;

/// One exchange: the bytes to send, and the mark of the answer's end.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) send: Vec<u8>,
    pub(crate) until: Until,
}

/// The mark by which an answer is complete.
#[derive(Debug, Clone)]
pub(crate) enum Until {
    /// The head of an HTTP response that switches to WebSocket.
    Switched,
    /// These bytes, received since the step began.
    Contains(&'static [u8]),
}

/// A server's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Roundhouse's plain protocol, authenticated.
    Plain,
    /// Socket.IO by WebSocket, with a token if the server wants one.
    SocketIo,
    /// The plain protocol, as the bare room in Node speaks it.
    Bare,
    /// NATS in WebSocket frames.
    Nats,
    /// The floors' protocol: six bytes, then publishes of one length.
    Floor,
}

/// The name of a room. All names have one length, so that all frames do.
pub(crate) fn room_name(room: usize) -> String {
    format!("r{room:03}")
}

fn text(payload: impl AsRef<str>) -> Vec<u8> {
    client_frame(payload.as_ref().as_bytes())
}

fn upgrade(path: &str) -> Step {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    Step { send: request.into_bytes(), until: Until::Switched }
}

fn step(send: Vec<u8>, until: &'static [u8]) -> Step {
    Step { send, until: Until::Contains(until) }
}

/// The data of an event.
fn message(room: usize) -> Value {
    static PAYLOAD: LazyLock<String> = LazyLock::new(|| "x".repeat(PAYLOAD_BYTES));
    json!({ "room": room_name(room), "payload": *PAYLOAD })
}

impl Wire {
    /// The steps by which `user` connects.
    pub(crate) fn connect(self, user: &str) -> anyhow::Result<Vec<Step>> {
        Ok(match self {
            Self::Plain => {
                vec![upgrade(&format!("/ws?token={}", token(user)?)), step(Vec::new(), b"{\"event\":\"connected\"")]
            }
            Self::SocketIo => vec![
                upgrade("/socket.io/?EIO=4&transport=websocket"),
                step(Vec::new(), b"0{"),
                step(text(format!("40{}", json!({ "token": token(user)? }))), b"40{"),
            ],
            Self::Bare => vec![upgrade("/")],
            Self::Nats => vec![
                upgrade("/"),
                step(text("CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n"), b"PONG\r\n"),
            ],
            Self::Floor => Vec::new(),
        })
    }

    /// The steps by which a client connects to a WebSocket without authentication.
    pub(crate) fn connect_at(path: &str) -> Vec<Step> {
        vec![upgrade(path)]
    }

    /// The step by which a client joins a room.
    pub(crate) fn join(self, room: usize) -> Step {
        let data = json!({ "room": room_name(room) });
        match self {
            Self::Plain | Self::Bare => {
                step(text(json!({ "event": "join", "data": data, "id": 7 }).to_string()), b"\"id\":7")
            }
            Self::SocketIo => step(text(format!("427{}", json!(["join", data]))), b"437["),
            Self::Nats => step(text(format!("SUB {} 1\r\nPING\r\n", room_name(room))), b"PONG\r\n"),
            Self::Floor => step(floor_head(b'j', room), b"joined"),
        }
    }

    /// The step by which a connected client becomes a publisher, if the protocol needs one.
    pub(crate) fn begin_to_publish(self, room: usize) -> Option<Step> {
        (self == Self::Floor).then(|| step(floor_head(b'p', room), b"joined"))
    }

    /// The frame that publishes an event to a room.
    pub(crate) fn publish(self, room: usize) -> Vec<u8> {
        match self {
            Self::Plain | Self::Bare | Self::Floor => {
                text(json!({ "event": "publish", "data": message(room) }).to_string())
            }
            Self::SocketIo => text(format!("42{}", json!(["publish", message(room)]))),
            Self::Nats => text(format!("PUB {} {PAYLOAD_BYTES}\r\n{}\r\n", room_name(room), "x".repeat(PAYLOAD_BYTES))),
        }
    }

    /// The bytes of one event if a frame may hold several; `None` if each frame is one event.
    pub(crate) fn bytes_per_event(self, room: usize) -> Option<usize> {
        let head = format!("MSG {} 1 {PAYLOAD_BYTES}\r\n", room_name(room)).len();
        (self == Self::Nats).then_some(head + PAYLOAD_BYTES + 2)
    }
}

/// The bytes with which a connection to a floor begins.
fn floor_head(kind: u8, room: usize) -> Vec<u8> {
    [&[kind, b' '], room_name(room).as_bytes()].concat()
}

/// The plain protocol's frame of an event to a member, which the floors write.
pub(crate) fn plain_event(room: usize) -> Vec<u8> {
    let payload = json!({ "event": "message", "data": message(room) }).to_string();
    let mut frame = vec![0x81, 126];
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend(payload.into_bytes());
    frame
}

/// The answer to a heartbeat, without which a server would close the connection; `None` for other frames.
pub(crate) fn answer(opcode: u8, payload: &[u8]) -> Option<Vec<u8>> {
    match (opcode, payload) {
        (9, _) => {
            let mut pong = client_frame(payload);
            pong[0] = 0x8a;
            Some(pong)
        }
        // Engine.IO's ping.
        (1, b"2") => Some(text("3")),
        (_, b"PING\r\n") => Some(text("PONG\r\n")),
        _ => None,
    }
}
