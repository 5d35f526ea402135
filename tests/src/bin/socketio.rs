//! Recovery in figures: `cargo build --release && cargo run --release --bin socketio`.
//!
//! 500 clients lose their connection for two seconds again and again while 200 messages a second are published to them,
//! by Socket.IO's connection state recovery and then by the plain protocol's `resume`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use roundhouse_tests::bench::{LIMITS, SECRET, say, token};
use roundhouse_tests::raw::{client_frame, connect_raw, connect_socket_io, take_frames};
use roundhouse_tests::{TestHost, guests};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

const PAYLOAD_BYTES: usize = 128;
const CLIENTS: usize = 500;
const PER_SECOND: u64 = 200;
const SECONDS: u64 = 30;
const AWAY: Duration = Duration::from_secs(2);
/// The shortest time that a client stays connected. The longest is twice that, so that clients disconnect at different
/// times.
const STAY: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        recovery(Protocol::SocketIo).await?;
        recovery(Protocol::Plain).await
    })
}

/// A host with several shards, so that a client may resume on another shard.
async fn host() -> anyhow::Result<TestHost> {
    // The generator's plain clients do not answer heartbeats.
    let config = format!(
        "shards = 2\nauth.jwt.secret = \"{SECRET}\"\n{LIMITS}heartbeat = {{ interval = \"10m\", timeout = \"20m\" }}\n\
         plugins.threads = 1\n"
    );
    let host = TestHost::start_with(&config, &[]);
    let loaded = host.try_load("relay", guests::relay()).await;
    ensure!(loaded.status == 200, "{}", loaded.text);
    Ok(host)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Plain,
    SocketIo,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "the plain protocol",
            Self::SocketIo => "Socket.IO",
        }
    }

    fn event(self, event: &str, data: &Value) -> Vec<u8> {
        client_frame(
            match self {
                Self::Plain => json!({ "event": event, "data": data }).to_string(),
                Self::SocketIo => format!("42{}", json!([event, data])),
            }
            .as_bytes(),
        )
    }
}

/// The messages that one client has received: their numbers must be consecutive.
#[derive(Debug, Default)]
struct Got {
    next: u64,
    lost: u64,
    doubled: u64,
    drops: u64,
    not_recovered: u64,
}

async fn recovery(protocol: Protocol) -> anyhow::Result<()> {
    let host = host().await?;
    let got: Rc<RefCell<Vec<Got>>> = Rc::new(RefCell::new((0..CLIENTS).map(|_| Got::default()).collect()));
    let over = Rc::new(Cell::new(false));
    let joined = Rc::new(Cell::new(0));
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let (ws, got, over, joined) = (host.ws.clone(), got.clone(), over.clone(), joined.clone());
        clients.push(spawn_local(async move { client(protocol, &ws, n, &got, &over, &joined).await }));
    }
    roundhouse_tests::eventually("all have joined", async || (joined.get() == CLIENTS).then_some(())).await;

    let mut publisher = connect_raw(&host.ws, &token("publisher")?).await?;
    let started = Instant::now();
    let total = PER_SECOND * SECONDS;
    for n in 0..total {
        let due = Duration::from_nanos(1_000_000_000 / PER_SECOND * n);
        tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        let payload = format!("{n:08}{}", "x".repeat(PAYLOAD_BYTES - 8));
        publisher.write_all(&Protocol::Plain.event("publish", &json!({ "room": "r", "payload": payload }))).await?;
    }
    // Detached clients resume once more, and stay connected.
    over.set(true);
    let deadline = Instant::now() + Duration::from_secs(10);
    while got.borrow().iter().any(|got| got.next < total) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for client in clients {
        client.abort();
        if let Ok(result) = client.await {
            result?;
        }
    }
    let got = got.borrow();
    let sum = |of: fn(&Got) -> u64| got.iter().map(of).sum::<u64>();
    let missing: u64 = got.iter().map(|got| total - got.next.min(total) + got.lost).sum();
    let all = total * CLIENTS as u64;
    let name = protocol.name();
    say(&format!(
        "recovery over {name}: {CLIENTS} clients dropped {} times for {AWAY:?} under {PER_SECOND} messages/s for {SECONDS} s: \
         {:.4} % of {all} delivered, {missing} lost or out of order, {} doubled, {} times not recovered",
        sum(|got| got.drops),
        100.0 * (all - missing) as f64 / all as f64,
        sum(|got| got.doubled),
        sum(|got| got.not_recovered),
    ))
}

/// Connects a client, to its session if it has one. Returns the socket, the bytes received after the host's answer, and
/// Socket.IO's `pid`.
async fn open(
    protocol: Protocol,
    ws: &str,
    token: &str,
    session: Option<&(String, String)>,
    frames: u64,
) -> anyhow::Result<(TcpStream, Vec<u8>, Option<String>)> {
    match protocol {
        Protocol::Plain => {
            let mut socket = connect_raw(ws, token).await?;
            let wanted = session.map_or(json!({}), |(key, _)| json!({ "session": key, "offset": frames }));
            socket.write_all(&protocol.event("resume", &wanted)).await?;
            Ok((socket, Vec::new(), None))
        }
        Protocol::SocketIo => {
            let mut auth = json!({ "token": token });
            if let Some((pid, offset)) = session {
                auth["pid"] = pid.as_str().into();
                if !offset.is_empty() {
                    auth["offset"] = offset.as_str().into();
                }
            }
            let (socket, answer, rest) = connect_socket_io(ws, &auth).await?;
            let pid = answer["pid"].as_str().context("there is a pid")?.to_owned();
            Ok((socket, rest, Some(pid)))
        }
    }
}

/// Handles a frame other than a ping: the answer to `resume`, or an event. Events count towards the offset of the plain
/// protocol.
fn take_text(text: &str, session: &mut Option<(String, String)>, frames: &mut u64, got: &mut Got) {
    let Some(data) = text.strip_prefix("{\"event\":\"resumed\",\"data\":") else {
        *frames += 1;
        note(text, session, got);
        return;
    };
    let data: Value = serde_json::from_str(data.trim_end_matches('}'))
        .or_else(|_| serde_json::from_str(&data[..data.len() - 1]))
        .unwrap_or_default();
    let key = data["session"].as_str().unwrap_or_default().to_owned();
    if session.as_ref().is_none_or(|(known, _)| *known != key) {
        *frames = 0;
    }
    note_session(session, key, got);
}

/// One client, which connects, stays and breaks its connection until the run is over.
async fn client(
    protocol: Protocol,
    ws: &str,
    n: usize,
    got: &RefCell<Vec<Got>>,
    over: &Cell<bool>,
    joined: &Cell<usize>,
) -> anyhow::Result<()> {
    let token = token(&format!("user{n}"))?;
    let mut session: Option<(String, String)> = None;
    // The events since the session began: the offset of the plain protocol.
    let mut frames = 0;
    let mut stay = STAY + STAY * (n % 100) as u32 / 100;
    loop {
        let (mut socket, mut received, pid) = open(protocol, ws, &token, session.as_ref(), frames).await?;
        if let Some(pid) = pid {
            note_session(&mut session, pid, &mut got.borrow_mut()[n]);
        }
        if joined.get() < CLIENTS {
            socket.write_all(&protocol.event("join", &json!({ "room": "r" }))).await?;
            joined.set(joined.get() + 1);
        }
        let until = Instant::now() + stay;
        stay = STAY + STAY * ((n * 7919 + got.borrow()[n].drops as usize * 31) % 100) as u32 / 100;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let mut pings = 0;
            take_frames(&mut received, |frame| {
                let text = std::str::from_utf8(frame).unwrap_or_default();
                if text == "2" {
                    pings += 1;
                } else {
                    take_text(text, &mut session, &mut frames, &mut got.borrow_mut()[n]);
                }
            });
            for _ in 0..pings {
                socket.write_all(&client_frame(b"3")).await?;
            }
            if Instant::now() >= until && !over.get() {
                break;
            }
            let step = Duration::from_millis(100);
            match tokio::time::timeout(step, socket.read(&mut buffer)).await {
                Ok(Ok(n @ 1..)) => received.extend_from_slice(&buffer[..n]),
                Ok(_) => break,
                Err(_) => {}
            }
        }
        // A reset, so that bytes in the socket's buffers are lost with it.
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        drop(socket);
        got.borrow_mut()[n].drops += 1;
        tokio::time::sleep(AWAY).await;
    }
}

fn note_session(session: &mut Option<(String, String)>, key: String, got: &mut Got) {
    match session {
        Some((known, _)) if *known == key => {}
        Some(_) => {
            got.not_recovered += 1;
            *session = Some((key, String::new()));
        }
        None => *session = Some((key, String::new())),
    }
}

/// Records a message's number, and the offset after it.
fn note(text: &str, session: &mut Option<(String, String)>, got: &mut Got) {
    const PAYLOAD: &str = "\"payload\":\"";
    let Some(at) = text.find(PAYLOAD) else { return };
    let number = text.get(at + PAYLOAD.len()..).and_then(|rest| rest.get(..8)).and_then(|n| n.parse::<u64>().ok());
    let Some(number) = number else { return };
    if number < got.next {
        got.doubled += 1;
    } else {
        got.lost += number - got.next;
        got.next = number + 1;
    }
    // The offset of Socket.IO is the last argument.
    if let (Some((_, offset)), Some(last)) =
        (session, text.strip_suffix("\"]").and_then(|text| text.rsplit('"').next()))
    {
        *offset = last.to_owned();
    }
}
