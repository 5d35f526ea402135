//! Attackers' HTTP: requests in a closed loop, and connections that send half of a request and wait.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::field::Field;
use crate::bench::SECRET;

/// The path of new polling sessions.
pub(super) const POLL: &str = "/socket.io/?EIO=4&transport=polling";
/// The greatest length of the head of an answer, in bytes.
const MAX_HEAD: usize = 65_536;
/// The time between two bytes of a slow connection.
const TRICKLE: Duration = Duration::from_millis(900);

/// An HTTP response.
#[derive(Debug)]
pub(super) struct Reply {
    /// The status code, as text.
    pub(super) status: String,
    /// Whether the connection stays open.
    pub(super) is_kept: bool,
    /// The beginning of the body, as far as it was received with the head.
    pub(super) body: String,
}

impl Field {
    /// Opens an Engine.IO polling session. Returns its id.
    pub(super) async fn polling_session(&self, address: usize) -> anyhow::Result<String> {
        let mut socket = self.reach(address).await?;
        self.tally.borrow_mut().sent(POLL.len());
        socket.write_all(&bare_request(POLL)).await?;
        let reply = self.answer(&mut socket).await?;
        let sid = reply.body.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next());
        sid.map(str::to_owned).with_context(|| format!("no session: {}", reply.status))
    }

    /// Sends requests on `n` connections, each after the answer to the one before, and at most `per_second` on each.
    pub async fn request<'a>(
        &self,
        at: SocketAddr,
        n: usize,
        per_second: f64,
        request: impl Fn(usize, usize) -> Cow<'a, [u8]>,
    ) {
        let request = &request;
        join_all((0..n).map(|i| async move {
            let (mut socket, mut k) = (None, 0);
            while !self.is_over() {
                let (began, bytes) = (tokio::time::Instant::now(), request(i, k));
                let asked = self.ask(at, &mut socket, &bytes);
                match tokio::time::timeout_at(self.until().into(), asked).await {
                    Ok(Ok(status)) => self.tally.borrow_mut().refused(&status),
                    Ok(Err(_)) => {
                        self.tally.borrow_mut().refused("no answer");
                        socket = None;
                    }
                    Err(_) => return,
                }
                k += 1;
                let next = began + Duration::from_secs_f64(1.0 / per_second);
                tokio::time::sleep_until(next.min(self.until().into())).await;
            }
        }))
        .await;
    }

    /// Sends one request on a kept connection. Returns the status.
    async fn ask(&self, at: SocketAddr, kept: &mut Option<TcpStream>, request: &[u8]) -> anyhow::Result<String> {
        let mut socket = match kept.take() {
            Some(socket) => socket,
            None => self.reach_at(at, 0).await?,
        };
        self.tally.borrow_mut().sent(request.len());
        socket.write_all(request).await?;
        let reply = self.answer(&mut socket).await?;
        if reply.is_kept {
            *kept = Some(socket);
        }
        Ok(reply.status)
    }

    /// Reads an answer.
    pub(super) async fn answer(&self, socket: &mut TcpStream) -> anyhow::Result<Reply> {
        let (mut head, mut buffer) = (Vec::new(), vec![0; 65_536]);
        let end = loop {
            let n = socket.read(&mut buffer).await?;
            ensure!(n > 0 && head.len() < MAX_HEAD, "no whole answer");
            self.tally.borrow_mut().got_bytes += n as u64;
            head.extend_from_slice(&buffer[..n]);
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
        let status = text.split(' ').nth(1).context("no status")?.to_owned();
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut rest = length.and_then(|n| n.parse::<usize>().ok()).unwrap_or_default();
        rest = rest.saturating_sub(head.len() - end);
        while rest > 0 {
            let n = socket.read(&mut buffer).await?;
            ensure!(n > 0, "half an answer");
            self.tally.borrow_mut().got_bytes += n as u64;
            rest = rest.saturating_sub(n);
        }
        let is_kept = !text.contains("connection: close") && status != "101";
        Ok(Reply { status, is_kept, body: String::from_utf8_lossy(&head[end..]).into_owned() })
    }

    /// Opens `n` connections that send `bytes` and wait for the host to close; if `trickles`, each sends a byte at
    /// intervals.
    pub async fn hold(&self, at: SocketAddr, n: usize, trickles: bool, bytes: impl Fn(usize) -> Vec<u8>) {
        let bytes = &bytes;
        join_all((0..n).map(|i| async move {
            while !self.is_over() {
                let bytes = bytes(i);
                let held = self.hold_one(at, trickles, &bytes);
                match tokio::time::timeout_at(self.until().into(), held).await {
                    Ok(Ok(status)) => self.tally.borrow_mut().closed(&status),
                    Ok(Err(_)) => self.tally.borrow_mut().closed("without a word"),
                    Err(_) => return,
                }
                self.pause(TRICKLE).await;
            }
        }))
        .await;
    }

    async fn hold_one(&self, at: SocketAddr, trickles: bool, bytes: &[u8]) -> anyhow::Result<String> {
        let mut socket = self.reach_at(at, 0).await?;
        self.tally.borrow_mut().sent(bytes.len());
        {
            // A refusal may arrive while the connection still sends.
            let (reader, mut writer) = socket.split();
            tokio::select! {
                sent = writer.write_all(bytes) => sent?,
                _ = reader.readable() => {}
            }
        }
        loop {
            tokio::select! {
                answered = self.answer(&mut socket) => return Ok(answered?.status),
                () = tokio::time::sleep(TRICKLE), if trickles => {}
            }
            socket.write_all(b"x").await?;
        }
    }
}

/// A request with an API key.
pub(super) fn api_request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A request without headers or body.
pub(super) fn bare_request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()
}
