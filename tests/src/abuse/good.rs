//! Good clients: users who work in pairs on tickets, in chats and on timelines, a little at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::glimpse::{Glimpse, error_code};
use super::ledger::{Entry, Ledger, Served};
use super::visitors;
use crate::bench::token;
use crate::raw::{client_frame, connect_raw_on, connect_socket_io, frame_of, reach};

/// The usual number of good clients: half by the plain protocol and half by Socket.IO, one of each in a pair.
pub const GOOD_CLIENTS: usize = 20;
/// The number of recipients of each message: the pair.
const LISTENERS: u64 = 2;
/// The time between two events of one client: a fifth of the rate that a client may have.
const PERIOD: Duration = Duration::from_millis(100);
/// The time after which a reply counts as missing: users have left the page by then.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The time before a client that lost its connection reconnects.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// The good clients, on a thread of their own until this value is dropped.
#[derive(Debug)]
pub struct GoodClients {
    ledger: Arc<Ledger>,
    is_over: Arc<AtomicBool>,
    n_ready: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl GoodClients {
    /// Connects `n` good clients, an even number, and waits until all are at work.
    ///
    /// # Errors
    /// If the host refuses good clients before it is attacked.
    pub fn move_in(ws: &str, api: &str, n: usize) -> anyhow::Result<Self> {
        let (ledger, is_over, n_ready) = (Arc::default(), Arc::default(), Arc::default());
        let mut good_clients = Self { ledger, is_over, n_ready, thread: None };
        let (ledger, n_ready) = (good_clients.ledger.clone(), good_clients.n_ready.clone());
        let (is_over, ws, api) = (good_clients.is_over.clone(), ws.to_owned(), api.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("good".to_owned()).spawn(move || {
            runtime.block_on(async {
                let clients = join_all((0..n).map(|index| live((index, n), &ws, &ledger, &n_ready)));
                let visitors = async { tokio::join!(visitors::come(&ws, &ledger), visitors::operate(&api, &ledger)) };
                tokio::select! {
                    _ = async { tokio::join!(clients, visitors) } => {}
                    () = ends(&is_over) => {}
                }
            });
        })?;
        good_clients.thread = Some(thread);
        let deadline = Instant::now() + TIMEOUT;
        while good_clients.n_ready.load(Ordering::Acquire) < n {
            if Instant::now() > deadline {
                let served = good_clients.served(deadline - TIMEOUT, Instant::now());
                bail!("the good clients did not get in: {:?}", served.said);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(good_clients)
    }

    /// The service of the good clients between `from` and `until`. Waits until each request that was due then is
    /// answered or missing.
    pub fn served(&self, from: Instant, until: Instant) -> Served {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(served) = self.ledger.take(from, until, LISTENERS, Instant::now() < deadline) {
                return served;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for GoodClients {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The panic of that thread has been printed.
            let _ = thread.join();
        }
    }
}

async fn ends(is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn live((index, n): (usize, usize), ws: &str, ledger: &Ledger, n_ready: &AtomicUsize) {
    let mut is_first = true;
    loop {
        let worked = async {
            let mut client = Client::connect(index, ws, ledger).await?;
            if is_first {
                n_ready.fetch_add(1, Ordering::Release);
                is_first = false;
            }
            // The clients' events are spread over the period.
            client.work(Instant::now() + PERIOD * index as u32 / n as u32).await
        };
        if let Err(error) = worked.await {
            ledger.cut(format!("{error:#}"));
        }
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

/// A connected good client.
struct Client<'a> {
    index: usize,
    socket: TcpStream,
    ledger: &'a Ledger,
    glimpse: Glimpse,
    open: HashMap<u64, (Entry, &'static str)>,
    last_id: u64,
}

/// The events that a client sends in turn, from the third on; it sends the first two when it connects.
const EVENTS: [&str; 8] = [
    "ticket:view",
    "joinRoom",
    "ticket:typing",
    "roomMessage",
    "timeline:subscribe",
    "typing:start",
    "ticket:stop_typing",
    "subscribe:campaign",
];
/// The number of events that a client sends when it connects.
const OPENING: usize = 2;

impl<'a> Client<'a> {
    async fn connect(index: usize, ws: &str, ledger: &'a Ledger) -> anyhow::Result<Self> {
        let token = token(&format!("good-{index}"))?;
        let (socket, received) = if index.is_multiple_of(2) {
            connect_raw_on(reach(ws).await?, &token).await?
        } else {
            let (socket, _, received) = connect_socket_io(ws, &json!({ "token": token })).await?;
            (socket, received)
        };
        let (glimpse, open) = (Glimpse::default(), HashMap::new());
        let mut client = Self { index, socket, ledger, glimpse, open, last_id: 0 };
        for event in &EVENTS[..OPENING] {
            client.send(event, Instant::now()).await?;
        }
        if !received.is_empty() {
            client.take(&received).await?;
        }
        let mut buffer = vec![0; 65_536];
        while !client.open.is_empty() {
            let n = tokio::time::timeout(TIMEOUT, client.socket.read(&mut buffer)).await.context("no answer")??;
            client.take(&buffer[..n]).await?;
        }
        Ok(client)
    }

    /// Sends an event per period from `due` on, and reads all frames, until the connection ends.
    async fn work(&mut self, mut due: Instant) -> anyhow::Result<()> {
        let mut buffer = vec![0; 65_536];
        for turn in self.index.. {
            loop {
                tokio::select! {
                    read = self.socket.read(&mut buffer) => self.take(&buffer[..read?]).await?,
                    () = tokio::time::sleep_until(due.into()) => break,
                }
            }
            self.send(EVENTS[OPENING + turn % (EVENTS.len() - OPENING)], due).await?;
            due += PERIOD;
        }
        Ok(())
    }

    async fn send(&mut self, event: &'static str, due: Instant) -> anyhow::Result<()> {
        self.last_id += 1;
        let (id, pair) = (self.last_id, format!("good-{}", self.index / 2));
        let data = match event {
            "joinRoom" => json!({ "roomId": pair }),
            "roomMessage" => json!({ "roomId": pair, "body": "How do you do?" }),
            "timeline:subscribe" => json!({ "entityType": "client", "entityId": pair }),
            "typing:start" => json!({ "contactId": pair, "whatsappAccountId": "a" }),
            "subscribe:campaign" => json!({ "campaignId": pair }),
            _ => json!({ "ticketId": pair }),
        };
        let frame = if self.index.is_multiple_of(2) {
            json!({ "event": event, "data": data, "id": id }).to_string()
        } else {
            format!("42{id}{}", json!([event, data]))
        };
        let entry = self.ledger.ask(super::RequestKind::Event, due);
        self.open.insert(id, (entry, event));
        Ok(self.socket.write_all(&client_frame(frame.as_bytes())).await?)
    }

    async fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if bytes.is_empty() {
            bail!("the connection was ended without a word");
        }
        let (mut closed, mut pongs) = (None, Vec::new());
        let (open, ledger) = (&mut self.open, self.ledger);
        self.glimpse.feed(bytes, |opcode, seen| match (opcode, seen) {
            (8, _) => closed = Some(seen.to_vec()),
            (9, _) => pongs.extend(frame_of(0x8a, seen)),
            (1, b"2") => pongs.extend(client_frame(b"3")),
            (1, _) => answered(open, ledger, seen),
            _ => {}
        });
        if let Some(closed) = closed {
            let code = closed.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
            bail!("closed with {code}: {}", String::from_utf8_lossy(closed.get(2..).unwrap_or_default()));
        }
        if !pongs.is_empty() {
            self.socket.write_all(&pongs).await?;
        }
        Ok(())
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        for (entry, _) in self.open.values() {
            self.ledger.end(*entry, Err("the connection was lost".to_owned()));
        }
    }
}

fn answered(open: &mut HashMap<u64, (Entry, &'static str)>, ledger: &Ledger, seen: &[u8]) {
    let is_heard = [&b"{\"event\":\"roomMessageRecieved\""[..], b"42[\"roomMessageRecieved\""];
    if is_heard.iter().any(|start| seen.starts_with(start)) {
        ledger.received();
    }
    let Some(rest) = seen.strip_prefix(b"{\"id\":").or_else(|| seen.strip_prefix(b"43")) else { return };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
    let id = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let Some((entry, event)) = open.remove(&id) else { return };
    let behind = String::from_utf8_lossy(rest);
    let is_error = behind.contains(",\"error\":{\"code\"") || behind.contains("[{\"error\":{\"code\"");
    let outcome = match error_code(seen).filter(|_| is_error) {
        Some(code) => Err(format!("{event}: {code}")),
        None => Ok(()),
    };
    if event == "roomMessage" && outcome.is_ok() {
        ledger.acknowledged();
    }
    ledger.end(entry, outcome);
}
