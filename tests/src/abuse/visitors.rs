//! Newcomers and the operator, because a host that only serves connected clients has failed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::glimpse::{Glimpse, error_code};
use super::ledger::{Ledger, RequestKind};
use super::line::plain;
use super::requests::api_request;
use crate::bench::token;
use crate::raw::{connect_raw_on, reach};

/// The time between two newcomers, and between two requests of the operator.
const PERIOD: Duration = Duration::from_millis(250);
/// The time-out of a newcomer or an operator.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Newcomers, one after another: each connects, opens a ticket, and disconnects when the ticket's event is
/// acknowledged.
pub(super) async fn come(ws: &str, ledger: &Ledger) {
    for n in 0u64.. {
        let due = Instant::now();
        let entry = ledger.ask(RequestKind::Newcomer, due);
        let visited = tokio::time::timeout(TIMEOUT, visit(ws, n)).await.context("no answer");
        ledger.end(entry, visited.and_then(|visited| visited).map_err(|error| format!("{error:#}")));
        tokio::time::sleep_until((due + PERIOD).into()).await;
    }
}

async fn visit(ws: &str, n: u64) -> anyhow::Result<()> {
    let (mut socket, received) = connect_raw_on(reach(ws).await?, &token(&format!("newcomer-{}", n % 8))?).await?;
    socket.write_all(&plain("ticket:view", r#"{"ticketId":"new"}"#)).await?;
    let (mut glimpse, mut buffer, mut answer) = (Glimpse::default(), vec![0; 65_536], None);
    let mut came = received;
    loop {
        glimpse.feed(&came, |opcode, seen| match opcode {
            8 => answer = Some(Err(anyhow::anyhow!("closed: {}", String::from_utf8_lossy(seen)))),
            1 if seen.starts_with(b"{\"id\":7,\"error\"") => {
                answer = Some(Err(anyhow::anyhow!("ticket:view: {}", error_code(seen).unwrap_or_default())));
            }
            1 if seen.starts_with(b"{\"id\":7,") => answer = Some(Ok(())),
            _ => {}
        });
        if let Some(answer) = answer {
            return answer;
        }
        let n = socket.read(&mut buffer).await?;
        ensure!(n > 0, "the connection was ended without a word");
        came = buffer[..n].to_vec();
    }
}

/// An operator who reads the stats, over a new connection each time.
pub(super) async fn operate(api: &str, ledger: &Ledger) {
    loop {
        let due = Instant::now();
        let entry = ledger.ask(RequestKind::Operator, due);
        let looked = tokio::time::timeout(TIMEOUT, look(api)).await.context("no answer");
        ledger.end(entry, looked.and_then(|looked| looked).map_err(|error| format!("{error:#}")));
        tokio::time::sleep_until((due + PERIOD).into()).await;
    }
}

async fn look(api: &str) -> anyhow::Result<()> {
    let at: SocketAddr = api.trim_start_matches("http://").parse()?;
    let mut socket = tokio::net::TcpStream::connect(at).await?;
    socket.write_all(&api_request("GET", "/v1/stats", "")).await?;
    let mut answer = vec![0; 4096];
    let n = socket.read(&mut answer).await?;
    let head = String::from_utf8_lossy(&answer[..n]);
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some(status) => bail!("status {status}"),
        None => bail!("no answer"),
    }
}
