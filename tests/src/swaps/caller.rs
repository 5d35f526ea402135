//! A service's connection to the API, which is kept between calls.

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::line::within;
use crate::{TIMEOUT, TestHost};

/// A connection to the API.
#[derive(Debug)]
pub(super) struct Caller {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
    host: String,
    authorization: String,
}

impl Caller {
    /// Connects to the host's API, with its key.
    pub(super) async fn open(host: &TestHost) -> anyhow::Result<Self> {
        let address = host.api.trim_start_matches("http://").to_owned();
        let socket = TcpStream::connect(&address).await.context("the API does not listen")?;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await?;
        // The end of the connection is an error of the call that waits for it.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, connection, host: address, authorization: format!("Bearer {}", host.key) })
    }

    /// Makes a call. Returns the status and the body.
    pub(super) async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<(u16, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("authorization", &self.authorization)
            .body(Full::new(body.into()))?;
        let answered = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status().as_u16();
            let text = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, serde_json::from_slice(&text).unwrap_or(Value::Null)))
        };
        within(TIMEOUT, answered).await.and_then(|answer| answer).with_context(|| format!("{method} {path}"))
    }

    /// Posts an event of a service.
    pub(super) async fn post(&mut self, event: &Value) -> anyhow::Result<(u16, Value)> {
        self.call("POST", "/v1/events", event.to_string()).await
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
