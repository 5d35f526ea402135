//! A client of the plain protocol.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::{SILENCE, TIMEOUT, eventually};

/// A WebSocket over TCP.
pub(crate) type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a WebSocket as browsers do, without Nagle's algorithm (RFC 896): with the delayed acknowledgements of TCP (RFC 1122) it
/// holds the second of two small frames up for 40 ms.
pub(crate) async fn open_websocket(
    request: impl IntoClientRequest + Unpin,
) -> Result<(WebSocket, Response<Option<Vec<u8>>>), Error> {
    connect_async_with_config(request, None, true).await
}

/// A connection that sends and receives JSON objects.
#[derive(Debug)]
pub struct TestClient {
    socket: WebSocket,
    /// The `data` of the first frame.
    pub connected: Value,
    /// Frames that arrived while another was waited for.
    kept_frames: VecDeque<Value>,
    last_id: i64,
}

/// The end of a connection: close code and reason; without a code, the connection broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The close code.
    pub code: Option<u16>,
    /// The reason.
    pub reason: String,
}

impl TestClient {
    /// Connects with a token in the query.
    pub async fn connect(ws: &str, token: &str) -> Self {
        Self::connect_to(&format!("{ws}/ws?token={token}")).await
    }

    /// Connects to a whole URL and waits for the first frame.
    pub async fn connect_to(url: &str) -> Self {
        Self::connect_with(url.into_client_request().expect("a URL")).await
    }

    /// Connects with a request and waits for the first frame.
    pub async fn connect_with(request: Request<()>) -> Self {
        let mut client = Self::open(request).await;
        client.connected = client.expect_event("connected").await;
        client
    }

    /// Opens a WebSocket with a request, and waits for no frame.
    pub async fn open(request: Request<()>) -> Self {
        let (socket, _) =
            timeout(TIMEOUT, open_websocket(request)).await.expect("the handshake in time").expect("a handshake");
        Self { socket, connected: Value::Null, kept_frames: VecDeque::new(), last_id: 0 }
    }

    /// The connection's id.
    pub fn id(&self) -> &str {
        self.connected["connectionId"].as_str().expect("connected says the connection's id")
    }

    /// Sends text as it is.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.expect("the connection takes a frame");
    }

    /// Sends any WebSocket message.
    pub async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.expect("the connection takes a frame");
    }

    /// Sends an event.
    pub async fn emit(&mut self, event: &str, data: Value) {
        self.send_text(json!({ "event": event, "data": data }).to_string()).await;
    }

    /// Sends an event and waits for its acknowledgement: its data, or its error.
    pub async fn emit_with_ack(&mut self, event: &str, data: Value) -> Result<Value, Value> {
        let id = self.emit_with_id(event, data).await;
        self.expect_ack(id).await
    }

    /// Sends an event that asks for an acknowledgement. Returns the acknowledgement id.
    pub async fn emit_with_id(&mut self, event: &str, data: Value) -> i64 {
        self.last_id += 1;
        self.send_text(json!({ "event": event, "data": data, "id": self.last_id }).to_string()).await;
        self.last_id
    }

    /// Waits for the acknowledgement of `id`.
    pub async fn expect_ack(&mut self, id: i64) -> Result<Value, Value> {
        let frame = self.wait_for(|frame| frame["id"] == id && frame.get("event").is_none()).await;
        match frame.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(frame["data"].clone()),
        }
    }

    /// Sends an event that must be refused. Returns the error's code.
    pub async fn emit_refused(&mut self, event: &str, data: Value) -> String {
        let error = self.emit_with_ack(event, data).await.expect_err("a refusal");
        error["code"].as_str().expect("an error has a code").to_owned()
    }

    /// Waits until a scope of the hostile guest has received exactly these notifications, in this order.
    pub async fn expect_notifications(&mut self, scope: &str, expected: &[&str]) {
        let expected = json!(expected);
        eventually(&format!("{scope} has got {expected}"), async || {
            let got = self.emit_with_ack("hostile:told", json!({ "id": scope })).await.unwrap_or_default();
            (got == expected).then_some(())
        })
        .await;
    }

    /// Waits for an event. Returns its data. Earlier frames are kept.
    pub async fn expect_event(&mut self, event: &str) -> Value {
        self.wait_for(|frame| frame["event"] == event).await["data"].clone()
    }

    async fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept_frames.iter().position(&wanted) {
            return self.kept_frames.remove(at).expect("it is there");
        }
        loop {
            let frame = match timeout(TIMEOUT, self.read()).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(closed)) => panic!("the connection ended: {closed:?}; kept: {:?}", self.kept_frames),
                Err(_) => panic!("it did not come in time; what came is {:?}", self.kept_frames),
            };
            if wanted(&frame) {
                return frame;
            }
            self.kept_frames.push_back(frame);
        }
    }

    /// Drops the kept frames.
    pub fn discard_kept(&mut self) {
        self.kept_frames.clear();
    }

    /// The next frame of any kind, in the order of arrival.
    pub async fn next(&mut self) -> Value {
        if let Some(frame) = self.kept_frames.pop_front() {
            return frame;
        }
        timeout(TIMEOUT, self.read()).await.expect("a frame in time").expect("the connection is open")
    }

    /// The next frame, or the end of the connection.
    pub async fn next_or_closed(&mut self) -> Result<Value, Closed> {
        self.read().await
    }

    /// All frames that have arrived, and those that arrive within [`SILENCE`](crate::SILENCE).
    pub async fn drain(&mut self) -> Vec<Value> {
        let mut frames: Vec<Value> = self.kept_frames.drain(..).collect();
        while let Ok(Ok(frame)) = timeout(SILENCE, self.read()).await {
            frames.push(frame);
        }
        frames
    }

    /// The frames that come within this time.
    pub async fn frames_within(&mut self, time: Duration) -> Vec<Value> {
        let mut frames: Vec<Value> = self.kept_frames.drain(..).collect();
        let until = Instant::now() + time;
        while let Ok(Ok(frame)) = timeout_at(until, self.read()).await {
            frames.push(frame);
        }
        frames
    }

    /// The names of the events of [`TestClient::drain`].
    pub async fn drain_events(&mut self) -> Vec<String> {
        self.drain().await.iter().filter_map(|frame| Some(frame["event"].as_str()?.to_owned())).collect()
    }

    /// Waits for the next data frame; pings are answered by the library.
    async fn read(&mut self) -> Result<Value, Closed> {
        loop {
            if let Message::Text(text) = read(&mut self.socket).await? {
                return Ok(serde_json::from_str(&text).expect("frames are JSON"));
            }
        }
    }

    /// Waits for the end of the connection. Earlier frames are kept.
    pub async fn closed(&mut self) -> Closed {
        self.closed_within(TIMEOUT).await
    }

    /// Waits for the end of the connection, for `patience` at most. Earlier frames are kept.
    pub async fn closed_within(&mut self, patience: Duration) -> Closed {
        let end = async {
            loop {
                match self.read().await {
                    Ok(frame) => self.kept_frames.push_back(frame),
                    Err(closed) => return closed,
                }
            }
        };
        timeout(patience, end).await.expect("the connection ends in time")
    }

    /// Closes with a handshake, and waits for the host's answer.
    pub async fn close(mut self) {
        self.socket.close(None).await.expect("a close can be sent");
        while let Ok(Some(Ok(_))) = timeout(TIMEOUT, self.socket.next()).await {}
    }
}

/// Waits for the next message of a WebSocket other than its close.
pub(crate) async fn read(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> Result<Message, Closed> {
    match socket.next().await {
        Some(Ok(Message::Close(frame))) => {
            let code = frame.as_ref().map(|frame| u16::from(frame.code));
            let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
            // The flush sends the answer to the close; the host may have closed the socket already.
            let _ = socket.flush().await;
            Err(Closed { code, reason })
        }
        Some(Ok(message)) => Ok(message),
        Some(Err(Error::Io(_) | Error::Protocol(_) | Error::ConnectionClosed | Error::AlreadyClosed)) | None => {
            Err(Closed { code: None, reason: String::new() })
        }
        Some(Err(error)) => panic!("{error}"),
    }
}
