//! A client of Socket.IO, over either transport of Engine.IO.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::client::Closed;
use crate::engine::{EngineSocket, Packet, Polling};
use crate::{SILENCE, TIMEOUT, eventually};

/// A received Socket.IO packet, with its attachments.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The type, `0` to `4`; a packet with attachments has the type of one without.
    pub kind: char,
    /// The namespace.
    pub namespace: String,
    /// The id of an acknowledgement.
    pub id: Option<u64>,
    /// The data: of an event, the arguments without name and offset.
    pub data: Value,
    /// The name of an event.
    pub event: String,
    /// The offset of an event, if any.
    pub offset: Option<String>,
    /// The attachments, in the order of their numbers.
    pub attachments: Vec<Vec<u8>>,
}

impl Received {
    /// The only argument.
    pub fn argument(&self) -> &Value {
        match self.data.as_array().map(Vec::as_slice) {
            Some([argument]) => argument,
            _ => panic!("it has not one argument: {self:?}"),
        }
    }

    /// Reads a packet's text, and the number of its attachments.
    fn read(text: &str) -> (Self, usize) {
        let mut rest = text;
        let kind = rest.chars().next().expect("a packet has a type");
        rest = &rest[1..];
        let mut n_attachments = 0;
        let kind = match kind {
            '5' | '6' => {
                let (number, behind) = rest.split_once('-').expect("a binary packet says its attachments");
                (n_attachments, rest) = (number.parse().expect("a number of attachments"), behind);
                if kind == '5' { '2' } else { '3' }
            }
            kind => kind,
        };
        let mut namespace = "/";
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').expect("a comma ends the namespace");
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let id = rest[..digits].parse().ok();
        let json = &rest[digits..];
        let mut data =
            if json.is_empty() { Value::Null } else { serde_json::from_str(json).expect("packets are JSON") };
        let mut event = String::new();
        if kind == '2' {
            let name = data.as_array_mut().expect("an event is an array").remove(0);
            name.as_str().expect("an event has a name").clone_into(&mut event);
        }
        let namespace = namespace.to_owned();
        (Self { kind, namespace, id, data, event, offset: None, attachments: Vec::new() }, n_attachments)
    }
}

#[derive(Debug)]
enum Transport {
    Polling(Polling),
    Socket(Box<EngineSocket>),
}

/// A Socket.IO connection. It answers the host's pings while it is read from.
#[derive(Debug)]
pub struct SocketIoClient {
    transport: Transport,
    /// Packets that arrived while another was waited for.
    kept_packets: VecDeque<Received>,
    /// A packet that lacks attachments, and the number of attachments that it will have.
    incomplete: Option<(Received, usize)>,
    last_id: u64,
    /// By namespace, the state for recovery: `pid`, and the `offset` of the last event.
    sessions: HashMap<String, Value>,
}

impl SocketIoClient {
    /// A client on a polling session.
    pub fn on_polling(polling: Polling) -> Self {
        Self::on(Transport::Polling(polling))
    }

    /// A client on a WebSocket.
    pub fn on_socket(socket: EngineSocket) -> Self {
        Self::on(Transport::Socket(Box::new(socket)))
    }

    fn on(transport: Transport) -> Self {
        Self { transport, kept_packets: VecDeque::new(), incomplete: None, last_id: 0, sessions: HashMap::new() }
    }

    /// A client on a new WebSocket, connected to no namespace.
    pub async fn socket(ws: &str) -> Self {
        Self::on_socket(EngineSocket::open(ws).await)
    }

    /// A client on a new polling session, connected to no namespace.
    pub async fn polling(ws: &str) -> Self {
        Self::on_polling(Polling::open(ws).await)
    }

    /// Upgrades a polling session to a WebSocket.
    pub async fn upgrade(self) -> Self {
        let Transport::Polling(polling) = self.transport else { panic!("it has its WebSocket already") };
        let transport = Transport::Socket(Box::new(EngineSocket::upgrade(polling).await));
        Self { transport, ..self }
    }

    /// Connects to a namespace with `said` as its `auth`. Returns the data of the answer, or of the refusal.
    pub async fn connect(&mut self, namespace: &str, said: &Value) -> Result<Value, Value> {
        let auth = if said.is_null() { String::new() } else { said.to_string() };
        self.send_text(&format!("40{}{auth}", prefix(namespace))).await;
        let wanted = |packet: &Received| matches!(packet.kind, '0' | '4') && packet.namespace == namespace;
        let answer = self.wait_for(wanted).await;
        if answer.kind == '4' {
            return Err(answer.data);
        }
        let pid = &answer.data["pid"];
        if pid.is_string() {
            // A recovered session has received the events up to its offset.
            let offset = if said["pid"] == *pid { said["offset"].clone() } else { Value::Null };
            self.sessions.insert(namespace.to_owned(), json!({ "pid": pid, "offset": offset }));
        }
        Ok(answer.data)
    }

    /// Connects to the main namespace with a token. Returns the connection's id.
    pub async fn connect_as(&mut self, token: &str) -> String {
        let entered = self.connect("/", &json!({ "token": token })).await.expect("the token is good");
        entered["sid"].as_str().expect("a namespace has an id").to_owned()
    }

    /// Connects to the main namespace with a token and the session of `lost`. Returns the connection's id.
    pub async fn recover(&mut self, lost: &Self, token: &str) -> String {
        let entered = self.connect("/", &lost.session_with(token)).await.expect("the token is good");
        entered["sid"].as_str().expect("a namespace has an id").to_owned()
    }

    /// The `auth` that recovers the session of a namespace: `pid`, and `offset` if an event was received.
    pub fn session(&self, namespace: &str) -> Value {
        let session = self.sessions.get(namespace).expect("it is in the namespace, and may come back");
        match &session["offset"] {
            Value::Null => json!({ "pid": session["pid"] }),
            _ => session.clone(),
        }
    }

    /// The `auth` that recovers the session of the main namespace, with a token.
    pub fn session_with(&self, token: &str) -> Value {
        let mut session = self.session("/");
        session["token"] = json!(token);
        session
    }

    /// Sends a packet of Engine.IO.
    pub async fn send_packet(&mut self, packet: Packet) {
        self.send_packets(&[packet]).await;
    }

    /// Sends packets of Engine.IO; a polling client sends them in one payload.
    pub async fn send_packets(&mut self, packets: &[Packet]) {
        match &mut self.transport {
            Transport::Polling(polling) => polling.send(packets).await,
            Transport::Socket(socket) => {
                for packet in packets {
                    socket.send(packet.clone()).await;
                }
            }
        }
    }

    /// Sends a text packet of Engine.IO.
    pub async fn send_text(&mut self, text: &str) {
        self.send_packet(text.into()).await;
    }

    /// Sends an event in the main namespace, with an array of arguments.
    pub async fn emit(&mut self, event: &str, arguments: Value) {
        self.emit_in("/", event, arguments, None).await;
    }

    /// Sends an event.
    pub async fn emit_in(&mut self, namespace: &str, event: &str, mut arguments: Value, id: Option<u64>) {
        arguments.as_array_mut().expect("arguments are an array").insert(0, json!(event));
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        self.send_text(&format!("42{}{id}{arguments}", prefix(namespace))).await;
    }

    /// Sends an event in the main namespace and waits for its acknowledgement, an array of arguments.
    pub async fn emit_with_ack(&mut self, event: &str, arguments: Value) -> Value {
        self.emit_with_ack_in("/", event, arguments).await
    }

    /// Sends an event and waits for its acknowledgement.
    pub async fn emit_with_ack_in(&mut self, namespace: &str, event: &str, arguments: Value) -> Value {
        self.last_id += 1;
        let id = Some(self.last_id);
        self.emit_in(namespace, event, arguments, id).await;
        self.wait_for(|packet| packet.kind == '3' && packet.namespace == namespace && packet.id == id).await.data
    }

    /// Sends an event that must be refused. Returns the error's code.
    pub async fn emit_refused(&mut self, event: &str, arguments: Value) -> String {
        let answer = self.emit_with_ack(event, arguments).await;
        answer[0]["error"]["code"].as_str().unwrap_or_else(|| panic!("it was not refused: {answer}")).to_owned()
    }

    /// Waits until a scope of the hostile guest has received exactly these notifications, in this order.
    pub async fn expect_notifications(&mut self, scope: &str, expected: &[&str]) {
        let expected = json!([expected]);
        eventually(&format!("{scope} has got {expected}"), async || {
            let got = self.emit_with_ack("hostile:told", json!([{ "id": scope }])).await;
            (got == expected).then_some(())
        })
        .await;
    }

    /// Waits for an event. Earlier packets are kept.
    pub async fn expect_event(&mut self, event: &str) -> Received {
        self.wait_for(|packet| packet.event == event).await
    }

    /// Waits for a packet. Earlier packets are kept.
    pub async fn wait_for(&mut self, wanted: impl Fn(&Received) -> bool) -> Received {
        if let Some(at) = self.kept_packets.iter().position(&wanted) {
            return self.kept_packets.remove(at).expect("it is there");
        }
        loop {
            let packet = match timeout(TIMEOUT, self.read()).await {
                Ok(Ok(packet)) => packet,
                Ok(Err(closed)) => panic!("the connection ended: {closed:?}; kept: {:?}", self.kept_packets),
                Err(_) => panic!("it did not come in time; what came is {:?}", self.kept_packets),
            };
            if wanted(&packet) {
                return packet;
            }
            self.kept_packets.push_back(packet);
        }
    }

    /// The next packet of any kind, in the order of arrival.
    pub async fn next(&mut self) -> Received {
        match self.kept_packets.pop_front() {
            Some(packet) => packet,
            None => timeout(TIMEOUT, self.read()).await.expect("a packet in time").expect("the connection is open"),
        }
    }

    /// The next packet of any kind, or the end of the transport. Safe to cancel.
    pub async fn next_or_closed(&mut self) -> Result<Received, Closed> {
        match self.kept_packets.pop_front() {
            Some(packet) => Ok(packet),
            None => self.read().await,
        }
    }

    /// All packets that have arrived, and those that arrive within [`SILENCE`](crate::SILENCE).
    pub async fn drain(&mut self) -> Vec<Received> {
        let mut packets: Vec<Received> = self.kept_packets.drain(..).collect();
        while let Ok(Ok(packet)) = timeout(SILENCE, self.read()).await {
            packets.push(packet);
        }
        packets
    }

    /// The kept packets.
    pub fn kept(&self) -> Vec<Received> {
        self.kept_packets.iter().cloned().collect()
    }

    /// Waits for the end of the transport. Earlier packets are kept.
    pub async fn closed(&mut self) -> Closed {
        loop {
            match timeout(TIMEOUT, self.read()).await.expect("the connection ends in time") {
                Ok(packet) => self.kept_packets.push_back(packet),
                Err(closed) => return closed,
            }
        }
    }

    /// Disconnects from the main namespace, and returns when the host has handled the packet.
    pub async fn disconnect(mut self) {
        self.send_text("41").await;
        self.connect("/nowhere", &Value::Null).await.expect_err("there is no such namespace");
        self.cut().await;
    }

    /// Breaks the transport, as a failing network does.
    pub async fn cut(self) {
        match self.transport {
            Transport::Polling(polling) => polling.cut().await,
            Transport::Socket(socket) => drop(socket),
        }
    }

    /// Closes a WebSocket with a code, or without one.
    pub async fn close(self, code: Option<u16>) {
        let Transport::Socket(socket) = self.transport else { panic!("there is no WebSocket to close") };
        socket.close(code).await;
    }

    /// Waits for the next packet and its attachments. Safe to cancel.
    async fn read(&mut self) -> Result<Received, Closed> {
        loop {
            match (self.read_packet().await?, &mut self.incomplete) {
                (Packet::Binary(bytes), Some((packet, _))) => packet.attachments.push(bytes),
                (Packet::Binary(bytes), None) => panic!("an attachment of nothing: {bytes:?}"),
                (Packet::Text(text), None) => match &*text {
                    "1" => return Err(Closed { code: None, reason: text }),
                    "2" => self.send_text("3").await,
                    "6" => {}
                    text => {
                        let message = text.strip_prefix('4').unwrap_or_else(|| panic!("{text} is not for a client"));
                        self.incomplete = Some(Received::read(message));
                    }
                },
                (Packet::Text(text), Some(_)) => panic!("{text} came where an attachment was to come"),
            }
            if let Some((packet, _)) = self.incomplete.take_if(|(packet, n)| packet.attachments.len() == *n) {
                return Ok(self.take_offset(packet));
            }
        }
    }

    /// Removes an event's offset, which follows the arguments, and keeps it for recovery. An event that asks for an
    /// acknowledgement has none.
    fn take_offset(&mut self, mut packet: Received) -> Received {
        if packet.kind == '2'
            && packet.id.is_none()
            && let Some(session) = self.sessions.get_mut(&packet.namespace)
            && let Some(arguments) = packet.data.as_array_mut()
            && let Some(offset) = arguments.pop_if(|last| last.is_string())
        {
            packet.offset = offset.as_str().map(str::to_owned);
            session["offset"] = offset;
        }
        packet
    }

    async fn read_packet(&mut self) -> Result<Packet, Closed> {
        match &mut self.transport {
            Transport::Socket(socket) => socket.read().await,
            Transport::Polling(polling) => {
                polling.next().await.map_err(|refusal| Closed { code: None, reason: refusal.to_string() })
            }
        }
    }
}

/// The prefix of a namespace in packets.
fn prefix(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}
