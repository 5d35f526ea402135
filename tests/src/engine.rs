//! Clients of Engine.IO, which send and receive packets without reading their content.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::SinkExt as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::client::{self, Closed, WebSocket, open_websocket};
use crate::{Answer, TIMEOUT, http};

/// The default path of Socket.IO, with the only supported version of Engine.IO.
pub const ENGINE: &str = "/socket.io/?EIO=4";

/// Separates the packets of a payload.
const SEPARATOR: char = '\x1e';

/// A packet of either transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// The type and the text.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

impl Packet {
    /// The packet's form in a payload.
    pub fn encode(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Binary(bytes) => format!("b{}", STANDARD.encode(bytes)),
        }
    }

    /// Reads a payload.
    pub fn decode_all(payload: &str) -> Vec<Self> {
        let decode = |packet: &str| match packet.strip_prefix('b') {
            Some(base64) => Self::Binary(STANDARD.decode(base64).expect("binary packets are base64")),
            None => Self::Text(packet.to_owned()),
        };
        payload.split(SEPARATOR).map(decode).collect()
    }
}

impl From<&str> for Packet {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Reads the open packet, with which a session begins.
fn handshake(packet: &str) -> Value {
    let json = packet.strip_prefix('0').expect("a session begins with an open packet");
    serde_json::from_str(json).expect("the open packet carries JSON")
}

/// A polling session. Each request has a TCP connection of its own, and may therefore reach any shard.
#[derive(Debug)]
pub struct Polling {
    ws: String,
    /// The open packet.
    pub open: Value,
    /// The pending poll, if any.
    waiting: Option<JoinHandle<Answer>>,
    received: VecDeque<Packet>,
}

impl Polling {
    /// Opens a session.
    pub async fn open(ws: &str) -> Self {
        Self::open_with(ws, "", &[]).await
    }

    /// Opens a session by a request with these headers and an addition to the query, such as `&token=…`.
    pub async fn open_with(ws: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let path = format!("{ENGINE}&transport=polling{query}");
        let answer = http(ws, "GET", &path, headers, "").await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text);
        Self { ws: ws.to_owned(), open: handshake(&answer.text), waiting: None, received: VecDeque::new() }
    }

    /// The session's id.
    pub fn sid(&self) -> &str {
        self.open["sid"].as_str().expect("the open packet says the session's id")
    }

    /// The path of the session's requests.
    pub fn path(&self) -> String {
        format!("{ENGINE}&transport=polling&sid={}", self.sid())
    }

    /// Begins a poll. Returns while the poll is pending.
    pub fn begin_poll(&self) -> JoinHandle<Answer> {
        let (ws, path) = (self.ws.clone(), self.path());
        tokio::spawn(async move { http(&ws, "GET", &path, &[], "").await.expect("an answer") })
    }

    /// Makes one poll. Returns its response.
    pub async fn poll(&self) -> Answer {
        self.begin_poll().await.expect("no panic")
    }

    /// Makes one request with a payload. Returns its response.
    pub async fn post(&self, payload: &str) -> Answer {
        let headers = [("content-type", "text/plain;charset=UTF-8")];
        http(&self.ws, "POST", &self.path(), &headers, payload.to_owned()).await.expect("an answer")
    }

    /// Sends packets in one payload, which the host must accept.
    pub async fn send(&self, packets: &[Packet]) {
        let packets: Vec<String> = packets.iter().map(Packet::encode).collect();
        let answer = self.post(&packets.join(&SEPARATOR.to_string())).await;
        assert_eq!((answer.status, &*answer.text), (200, "ok"), "{packets:?}");
    }

    /// The next packet, for which this polls as often as necessary; or the body of the refusal if the session has
    /// ended. Safe to cancel.
    pub async fn next(&mut self) -> Result<Packet, Value> {
        while self.received.is_empty() {
            if self.waiting.is_none() {
                self.waiting = Some(self.begin_poll());
            }
            let Some(waiting) = &mut self.waiting else { continue };
            let answer = waiting.await.expect("no panic");
            self.waiting = None;
            if answer.status != 200 {
                return Err(answer.body);
            }
            self.received.extend(Packet::decode_all(&answer.text));
        }
        Ok(self.received.pop_front().expect("there is one"))
    }

    /// Begins a request whose remainder the caller writes. `headers` end with a line break.
    pub async fn begin(&self, method: &str, headers: &str) -> TcpStream {
        let address = self.ws.trim_start_matches("ws://");
        let mut socket = TcpStream::connect(address).await.expect("the host listens");
        let head = format!("{method} {} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n", self.path());
        socket.write_all(head.as_bytes()).await.expect("the host takes a request");
        socket
    }

    /// Begins a post that the host has begun to read. Its body of one byte is not sent.
    pub async fn begin_post(&self) -> TcpStream {
        let headers = "content-length: 1\r\nexpect: 100-continue\r\nconnection: close\r\n";
        let mut socket = self.begin("POST", headers).await;
        let mut answer = [0; 25];
        let read = timeout(TIMEOUT, socket.read_exact(&mut answer)).await.expect("an answer in time");
        read.expect("the host reads the request");
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        socket
    }

    /// Breaks the connection in the middle of a request that the host has begun to read.
    pub async fn cut(mut self) {
        let broken = self.begin_post().await;
        if let Some(waiting) = self.waiting.take() {
            waiting.abort();
        }
        drop(broken);
    }
}

/// A WebSocket request with these headers.
pub fn with_headers(url: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = url.into_client_request().expect("a URL");
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header's value"));
    }
    request
}

/// A session on a WebSocket, from its beginning or after an upgrade.
#[derive(Debug)]
pub struct EngineSocket {
    socket: WebSocket,
    /// The open packet, if the session began on this WebSocket.
    pub open: Value,
    /// Packets that were received by polling, or while another was waited for.
    received: VecDeque<Packet>,
}

impl EngineSocket {
    /// Opens a session.
    pub async fn open(ws: &str) -> Self {
        Self::open_with(ws, "", &[]).await
    }

    /// Opens a session by a request with these headers and an addition to the query, such as `&token=…`.
    pub async fn open_with(ws: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let request = with_headers(&format!("{ws}{ENGINE}&transport=websocket{query}"), headers);
        let mut client = Self::dial(request).await;
        match client.next().await {
            Ok(Packet::Text(packet)) => client.open = handshake(&packet),
            other => panic!("a session begins with an open packet, not {other:?}"),
        }
        client
    }

    /// A WebSocket for a polling session, before its upgrade.
    pub async fn for_upgrade(polling: &Polling) -> Self {
        let url = format!("{}{ENGINE}&transport=websocket&sid={}", polling.ws, polling.sid());
        Self::dial(with_headers(&url, &[])).await
    }

    /// Upgrades a polling session to a WebSocket: the probe, the end of the pending poll, and the upgrade packet.
    pub async fn upgrade(polling: Polling) -> Self {
        let mut socket = Self::for_upgrade(&polling).await;
        socket.send("2probe").await;
        assert_eq!(socket.next().await, Ok("3probe".into()));
        socket.received = polling.received;
        if let Some(waiting) = polling.waiting {
            let answer = waiting.await.expect("no panic");
            assert_eq!(answer.status, 200, "{}", answer.text);
            socket.received.extend(Packet::decode_all(&answer.text));
        }
        socket.send("5").await;
        socket
    }

    async fn dial(request: Request<()>) -> Self {
        let handshake = timeout(TIMEOUT, open_websocket(request)).await.expect("the handshake in time");
        let (socket, _) = handshake.expect("a handshake");
        Self { socket, open: Value::Null, received: VecDeque::new() }
    }

    /// Sends a packet.
    pub async fn send(&mut self, packet: impl Into<Packet>) {
        let message = match packet.into() {
            Packet::Text(text) => Message::text(text),
            Packet::Binary(bytes) => Message::Binary(Bytes::from(bytes)),
        };
        self.socket.send(message).await.expect("the connection takes a frame");
    }

    /// The next packet, or the end of the connection.
    pub async fn next(&mut self) -> Result<Packet, Closed> {
        timeout(TIMEOUT, self.read()).await.expect("a packet in time")
    }

    /// The next packet, or the end of the connection, without a time-out.
    pub(crate) async fn read(&mut self) -> Result<Packet, Closed> {
        if let Some(packet) = self.received.pop_front() {
            return Ok(packet);
        }
        loop {
            match client::read(&mut self.socket).await? {
                Message::Text(text) => return Ok(Packet::Text(text.to_string())),
                Message::Binary(bytes) => return Ok(Packet::Binary(bytes.to_vec())),
                _ => {}
            }
        }
    }

    /// Waits until the host has read all sent packets: it answers a WebSocket ping with or without a session.
    pub async fn sync(&mut self) {
        self.socket.send(Message::Ping(Bytes::new())).await.expect("the connection takes a frame");
        let pong = async {
            loop {
                match client::read(&mut self.socket).await.expect("the connection is open") {
                    Message::Pong(_) => return,
                    Message::Text(text) => self.received.push_back(Packet::Text(text.to_string())),
                    Message::Binary(bytes) => self.received.push_back(Packet::Binary(bytes.to_vec())),
                    _ => {}
                }
            }
        };
        timeout(TIMEOUT, pong).await.expect("an answer in time");
    }

    /// Waits for the end of the connection. Earlier packets are dropped.
    pub async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.next().await {
                return closed;
            }
        }
    }

    /// Closes with a code, or without one, and waits for the host's answer.
    pub async fn close(mut self, code: Option<u16>) {
        let frame = code.map(|code| CloseFrame { code: code.into(), reason: "".into() });
        self.socket.close(frame).await.expect("a close can be sent");
        while let Ok(Ok(_)) = timeout(TIMEOUT, self.read()).await {}
    }
}
