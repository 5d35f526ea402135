//! A client's connection on either protocol, which the bench can cut and recover.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{Closed, SocketIoClient, TIMEOUT, TestClient};

/// The protocol of a connection, and how it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// The plain protocol.
    Plain,
    /// Socket.IO on a WebSocket.
    SocketIo,
    /// Socket.IO that begins by polling and is upgraded to a WebSocket, as in a browser.
    Upgraded,
}

/// What has arrived.
#[derive(Debug)]
pub(super) enum Arrival {
    /// An acknowledgement: its data or its error.
    Acknowledgement(i64, Result<Value, Value>),
    /// An event and its data.
    Event(String, Value),
}

#[derive(Debug)]
enum Wire {
    /// With the session, and the frames that have arrived in it.
    Plain(Box<TestClient>, String, u64),
    SocketIo(Box<SocketIoClient>),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Line {
    wire: Wire,
    /// The connection's id, which a recovery keeps.
    id: String,
}

/// A connection that was cut, and its way back.
#[derive(Debug)]
pub(super) struct Lost {
    id: String,
    session: Session,
}

#[derive(Debug)]
enum Session {
    Plain(Value),
    SocketIo(Value),
}

/// The id of `resume`. Other events have greater ones.
const RESUME: i64 = 0;

impl Line {
    /// Connects, and begins a session that can be recovered.
    pub(super) async fn open(protocol: Protocol, ws: &str, token: &str) -> anyhow::Result<Self> {
        if protocol == Protocol::Plain {
            let (client, begun) = resume(ws, token, json!({})).await?;
            return Self::plain(client, &begun, 0);
        }
        let mut client = match protocol {
            Protocol::Upgraded => SocketIoClient::polling(ws).await.upgrade().await,
            _ => SocketIoClient::socket(ws).await,
        };
        let id = client.connect_as(token).await;
        Ok(Self { wire: Wire::SocketIo(Box::new(client)), id })
    }

    fn plain(client: TestClient, begun: &Value, frames: u64) -> anyhow::Result<Self> {
        let text = |field: &str| begun[field].as_str().map(str::to_owned).context("resume is answered with both ids");
        Ok(Self { wire: Wire::Plain(Box::new(client), text("session")?, frames), id: text("connectionId")? })
    }

    /// Sends an event that asks for an acknowledgement.
    pub(super) async fn send(&mut self, event: &str, data: &Value, id: i64) {
        match &mut self.wire {
            Wire::Plain(client, ..) => {
                client.send_text(json!({ "event": event, "data": data, "id": id }).to_string()).await;
            }
            Wire::SocketIo(client) => client.emit_in("/", event, json!([data]), Some(id.unsigned_abs())).await,
        }
    }

    /// The next arrival. Safe to cancel.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(super) async fn next(&mut self) -> anyhow::Result<Arrival> {
        match &mut self.wire {
            Wire::Plain(client, _, frames) => {
                let mut frame = client.next_or_closed().await.map_err(ended)?;
                *frames += 1;
                if let Some(event) = frame["event"].as_str() {
                    return Ok(Arrival::Event(event.to_owned(), frame["data"].take()));
                }
                let id = frame["id"].as_i64().context("an acknowledgement has an id")?;
                let is_error = frame.get("error").is_some();
                Ok(Arrival::Acknowledgement(
                    id,
                    if is_error { Err(frame["error"].take()) } else { Ok(frame["data"].take()) },
                ))
            }
            Wire::SocketIo(client) => {
                let mut packet = client.next_or_closed().await.map_err(ended)?;
                let mut data = packet.data.get_mut(0).map(Value::take).unwrap_or_default();
                match (packet.kind, packet.id) {
                    ('2', _) => Ok(Arrival::Event(packet.event, data)),
                    ('3', Some(id)) => {
                        let is_error = data.get("error").is_some();
                        Ok(Arrival::Acknowledgement(
                            id as i64,
                            if is_error { Err(data["error"].take()) } else { Ok(data) },
                        ))
                    }
                    _ => bail!("the host sent {packet:?}"),
                }
            }
        }
    }

    /// Breaks the transport, as a failing network does. What has arrived and was not read is lost with it.
    pub(super) async fn cut(self, token: &str) -> Lost {
        let session = match self.wire {
            Wire::Plain(client, session, frames) => {
                drop(client);
                Session::Plain(json!({ "session": session, "offset": frames }))
            }
            Wire::SocketIo(client) => {
                let session = client.session_with(token);
                client.cut().await;
                Session::SocketIo(session)
            }
        };
        Lost { id: self.id, session }
    }
}

impl Lost {
    /// Connects again, to the session from before.
    ///
    /// # Errors
    /// If the session is not recovered.
    pub(super) async fn recover(self, ws: &str, token: &str) -> anyhow::Result<Line> {
        let line = match self.session {
            Session::Plain(session) => {
                let (client, resumed) = resume(ws, token, session.clone()).await?;
                ensure!(resumed["recovered"] == true, "{} was not recovered by {session}: {resumed}", self.id);
                Line::plain(client, &resumed, session["offset"].as_u64().unwrap_or_default())?
            }
            Session::SocketIo(session) => {
                let mut client = SocketIoClient::socket(ws).await;
                let answer = client.connect("/", &session).await;
                let entered = answer.map_err(|refused| anyhow::anyhow!("the session was refused: {refused}"))?;
                let id = entered["sid"].as_str().context("a namespace has an id")?.to_owned();
                Line { wire: Wire::SocketIo(Box::new(client)), id }
            }
        };
        ensure!(line.id == self.id, "{} came back as {}, without its session", self.id, line.id);
        Ok(line)
    }
}

/// Connects with the plain protocol and sends `resume`, whose answer is the first frame.
async fn resume(ws: &str, token: &str, session: Value) -> anyhow::Result<(TestClient, Value)> {
    let mut client = TestClient::connect(ws, token).await;
    client.send_text(json!({ "event": "resume", "data": session, "id": RESUME }).to_string()).await;
    let frame = within(TIMEOUT, client.next_or_closed()).await?.map_err(ended)?;
    ensure!(frame["id"] == RESUME && frame.get("error").is_none(), "resume was answered by {frame}");
    Ok((client, frame["data"].clone()))
}

/// The result of `future`, which must come in time.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> anyhow::Result<T> {
    timeout(limit, future).await.with_context(|| format!("nothing came within {limit:?}"))
}

fn ended(closed: Closed) -> anyhow::Error {
    match closed.code {
        Some(code) => anyhow::anyhow!("the host closed the connection with {code}: {}", closed.reason),
        None => anyhow::anyhow!("the connection broke: {}", closed.reason),
    }
}
