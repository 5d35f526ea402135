//! A connection of a page, whose faults are ordinary results.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::balancer::NODE_HEADER;
use crate::client::{WebSocket, open_websocket};

/// The time-out of a handshake, and of a write.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A connection with the plain protocol.
#[derive(Debug)]
pub(super) struct Wire {
    socket: WebSocket,
    /// The host, if the load balancer said which.
    pub(super) node: Option<usize>,
}

/// What arrives.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A frame.
    Frame(Value),
    /// The answer to a ping.
    Pong,
}

impl Wire {
    /// Connects to a host or a load balancer.
    ///
    /// # Errors
    /// If that fails, or takes too long, with the reason.
    pub(super) async fn open(ws: &str, token: &str) -> Result<Self, String> {
        let connected = timeout(TIMEOUT, open_websocket(format!("{ws}/ws?token={token}"))).await;
        let (socket, answer) = connected.map_err(|_| "no handshake in time")?.map_err(|error| error.to_string())?;
        let node = answer.headers().get(NODE_HEADER).and_then(|name| name.to_str().ok()?.parse().ok());
        Ok(Self { socket, node })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// If the connection has ended, or takes nothing.
    pub(super) async fn send(&mut self, frame: &Value) -> Result<(), String> {
        self.write(Message::text(frame.to_string())).await
    }

    /// Asks the host for a sign of life.
    ///
    /// # Errors
    /// If the connection has ended, or takes nothing.
    pub(super) async fn ping(&mut self) -> Result<(), String> {
        self.write(Message::Ping(Vec::new().into())).await
    }

    async fn write(&mut self, message: Message) -> Result<(), String> {
        let written = timeout(TIMEOUT, self.socket.send(message)).await;
        written.map_err(|_| "it takes nothing any more")?.map_err(|error| error.to_string())
    }

    /// The next arrival. Safe to cancel.
    ///
    /// # Errors
    /// If the connection has ended, with the reason.
    pub(super) async fn next(&mut self) -> Result<Arrival, String> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text).map(Arrival::Frame).map_err(|error| error.to_string());
                }
                Some(Ok(Message::Pong(_))) => return Ok(Arrival::Pong),
                Some(Ok(Message::Close(frame))) => {
                    // The host may have closed the socket already.
                    let _ = self.socket.flush().await;
                    return Err(frame.map_or("closed".to_owned(), |frame| format!("{} {}", frame.code, frame.reason)));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the connection broke".to_owned()),
            }
        }
    }

    /// Closes with a handshake.
    pub(super) async fn close(mut self) {
        // The host may be gone.
        let _ = timeout(TIMEOUT, self.socket.close(None)).await;
        let rest = async { while self.socket.next().await.is_some_and(|message| message.is_ok()) {} };
        let _ = timeout(TIMEOUT, rest).await;
    }
}
