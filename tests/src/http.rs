//! HTTP calls, and the figures that they get.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::TIMEOUT;

/// A response of the API.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, if it is JSON.
    pub body: Value,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// A header; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }

    /// The body: the result if the status is 200, else the error.
    pub(crate) fn into_result(self) -> Result<Value, Value> {
        match self.status {
            200 => Ok(self.body),
            _ => Err(self.body),
        }
    }
}

/// Makes one HTTP call.
///
/// # Errors
/// If no response arrives in time.
pub async fn http(
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> anyhow::Result<Answer> {
    http_within(TIMEOUT, base, method, path, headers, body).await
}

/// Makes one HTTP call whose answer may take longer than others do.
///
/// # Errors
/// If no response arrives within `limit`.
pub async fn http_within(
    limit: Duration,
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> anyhow::Result<Answer> {
    let address = base.trim_start_matches("http://").trim_start_matches("ws://");
    let mut request =
        Request::builder().method(Method::from_bytes(method.as_bytes())?).uri(path).header("host", address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into()))?;
    let answered = async {
        let socket = TcpStream::connect(address).await.context("nobody listens")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = String::from_utf8(response.into_body().collect().await?.to_bytes().into())?;
        connection.abort();
        ensure!((200..600).contains(&status), "a status that makes no sense: {status}");
        Ok(Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(json!(null)), text })
    };
    tokio::time::timeout(limit, answered).await.context("no answer in time")?
}

/// The value of one of the host's Prometheus metrics.
pub async fn metric(api: &str, name: &str) -> u64 {
    let metrics = http(api, "GET", "/metrics", &[], "").await.expect("an answer").text;
    let name = format!("roundhouse_{name} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.and_then(|figure| figure.parse().ok()).unwrap_or_else(|| panic!("there is no figure {name}: {metrics}"))
}
