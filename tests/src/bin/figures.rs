//! What the host does on this machine, in figures: `cargo build --release && cargo run --release --bin figures`.
//!
//! The host runs as its own process. Where it is compared with a floor, the floor is the least that any server would
//! have to do, run in turn with the host; the ratio says more than either figure, for machines are noisy.

use std::cell::Cell;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream as StdStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use roundhouse_tests::bench::{SECRET, median, resident_bytes, say, token};
use roundhouse_tests::raw::{client_frame, connect_raw};
use roundhouse_tests::{TestClient, TestHost, guests};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

const IDLE_CONNECTIONS: usize = 5_000;
const ROOM: usize = 1_000;
const PAYLOAD_BYTES: usize = 128;
const ROUNDS: usize = 3;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        view_latency().await?;
        plugin_events().await?;
        idle_memory().await?;
        deliveries().await
    })
}

/// One shard and one plugin thread, so that figures are per thread.
fn host() -> TestHost {
    let config = format!(
        "shards = 1\nauth.jwt.secret = \"{SECRET}\"\n[limits]\nevents_per_second = 0\nrooms_per_connection = 100000\n\
         [plugins]\nthreads = 1\n"
    );
    TestHost::start_with(&config, &[])
}

/// From reading a `ticket:view` to queueing its effects and its acknowledgement, as the host itself measures it.
async fn view_latency() -> anyhow::Result<()> {
    let host = host();
    let mut client = TestClient::connect(&host.ws, &token("ana")?).await;
    // Each to a ticket of its own, and one at a time: nothing queues up.
    for n in 0..5_000 {
        client.ask("ticket:view", json!({ "ticketId": format!("t{n}") })).await.map_err(|e| anyhow::anyhow!("{e}"))?;
    }
    let stats = host.get("/v1/stats").await;
    say(&format!(
        "ticket:view, frame read to effects queued: median {:.0} µs, p99 {:.0} µs (5,000 views, one at a time)",
        stats["eventP50Us"].as_f64().unwrap_or_default(),
        stats["eventP99Us"].as_f64().unwrap_or_default()
    ))
}

/// `ticket:typing` as fast as one plugin thread takes it.
async fn plugin_events() -> anyhow::Result<()> {
    const IN_FLIGHT: usize = 256;
    const EVENTS: usize = 100_000;
    let host = host();
    let mut client = TestClient::connect(&host.ws, &token("ana")?).await;
    for n in 0..64 {
        client.ask("ticket:view", json!({ "ticketId": format!("t{n}") })).await.map_err(|e| anyhow::anyhow!("{e}"))?;
        client
            .ask("ticket:typing", json!({ "ticketId": format!("t{n}") }))
            .await
            .map_err(|e| anyhow::anyhow!("{e}"))?;
    }
    client.drain().await;
    // Everybody types already, so that each event makes one call and one acknowledgement.
    let mut socket = connect_raw(&host.ws, &token("ana")?).await?;
    let view = |n: usize| format!("{{\"event\":\"ticket:view\",\"data\":{{\"ticketId\":\"t{n}\"}},\"id\":7}}");
    let mut answers = Answers::default();
    for n in 0..64 {
        socket.write_all(&client_frame(view(n).as_bytes())).await?;
        answers.wait(&mut socket, 1).await?;
    }
    let frames: Vec<Vec<u8>> = (0..64)
        .map(|n| {
            client_frame(
                format!("{{\"event\":\"ticket:typing\",\"data\":{{\"ticketId\":\"t{n}\"}},\"id\":7}}").as_bytes(),
            )
        })
        .collect();
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        while answered < EVENTS {
            let mut batch = Vec::new();
            while sent < EVENTS && sent - answered < IN_FLIGHT {
                batch.extend_from_slice(&frames[sent % frames.len()]);
                sent += 1;
            }
            socket.write_all(&batch).await?;
            answered += answers.wait(&mut socket, 1).await?;
        }
        rates.push(EVENTS as f64 / started.elapsed().as_secs_f64());
    }
    let report = host.report("ticket-collision").await;
    say(&format!(
        "plugin events on one plugin thread: {:.0}/s (ticket:typing, {IN_FLIGHT} in flight; a call: median {:.1} µs, p99 {:.1} µs)",
        median(rates),
        report["latency"]["p50Us"].as_f64().unwrap_or_default(),
        report["latency"]["p99Us"].as_f64().unwrap_or_default()
    ))
}

/// Counts acknowledgements in a stream of frames, by what only they begin with.
#[derive(Default)]
struct Answers {
    tail: Vec<u8>,
}

impl Answers {
    /// Reads until there were at least `n`, and says how many.
    async fn wait(&mut self, socket: &mut TcpStream, n: usize) -> anyhow::Result<usize> {
        const START: &[u8] = b"{\"id\":7,";
        let mut buffer = vec![0; 64 * 1024];
        let mut found = 0;
        while found < n {
            let read = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut buffer)).await??;
            ensure!(read > 0, "the host closed the connection");
            self.tail.extend_from_slice(&buffer[..read]);
            found += self.tail.windows(START.len()).filter(|window| *window == START).count();
            let keep = self.tail.len().saturating_sub(START.len() - 1);
            self.tail.drain(..keep);
        }
        Ok(found)
    }
}

/// Connections that have signed in and do nothing.
async fn idle_memory() -> anyhow::Result<()> {
    let host = host();
    let mut sockets = Vec::new();
    // The first ones pay for what all share.
    for n in 0..100 {
        sockets.push(connect_raw(&host.ws, &token(&format!("user{n}"))?).await?);
    }
    let before = resident_bytes(host.pid())?;
    for n in 0..IDLE_CONNECTIONS {
        sockets.push(connect_raw(&host.ws, &token(&format!("idle{n}"))?).await?);
    }
    let after = resident_bytes(host.pid())?;
    let stats = host.get("/v1/stats").await;
    ensure!(stats["connections"] == sockets.len(), "all are connected: {stats}");
    say(&format!(
        "resident memory: {:.2} KiB per idle connection ({IDLE_CONNECTIONS} connections, each of another user; the host without any: {:.1} MiB)",
        (after - before) / IDLE_CONNECTIONS as f64 / 1024.0,
        before / 1024.0 / 1024.0
    ))
}

/// Events of 128 bytes to 1,000 clients in a room: with one event in flight, and with 64.
async fn deliveries() -> anyhow::Result<()> {
    let host = host();
    let loaded = host.load("hostile", guests::hostile("normal")).await;
    ensure!(loaded.status == 200, "{}", loaded.text);
    let frame_bytes = 2
        + 2
        + format!("{{\"event\":\"hostile:noise\",\"data\":{{\"noise\":\"{}\"}}}}", "x".repeat(PAYLOAD_BYTES)).len();
    let room = Room::default();
    for n in 0..ROOM {
        let mut socket = connect_raw(&host.ws, &token(&format!("member{n}"))?).await?;
        socket.write_all(&client_frame(b"{\"event\":\"hostile:count\",\"data\":{\"id\":\"r\"},\"id\":7}")).await?;
        Answers::default().wait(&mut socket, 1).await?;
        room.read(socket);
    }
    let mut publisher = connect_raw(&host.ws, &token("publisher")?).await?;
    let publish = json!({ "event": "hostile:do", "data": { "id": "r", "how": "flood-room", "with": PAYLOAD_BYTES } });
    let publish = client_frame(publish.to_string().as_bytes());
    let floor = Floor::start(frame_bytes)?;
    for (in_flight, events) in [(1, 300), (64, 2_000)] {
        let (mut hosts, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let rate =
                room.run(events, in_flight, frame_bytes, async |n| Ok(publisher.write_all(&publish.repeat(n)).await?));
            hosts.push(rate.await?);
            floors.push(floor.run(events, in_flight).await?);
        }
        let (host, floor) = (median(hosts), median(floors));
        say(&format!(
            "deliveries to {ROOM} clients, {in_flight} in flight: {host:.0}/s; the floor, {}: {floor:.0}/s; ratio {:.2}",
            if in_flight == 1 { "one write per frame" } else { "all frames in one write" },
            host / floor
        ))?;
    }
    Ok(())
}

/// The members of a room, who count bytes.
#[derive(Clone, Default)]
struct Room(Rc<(Cell<usize>, Notify)>);

impl Room {
    fn read(&self, mut socket: TcpStream) {
        let room = self.clone();
        spawn_local(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(n @ 1..) = socket.read(&mut buffer).await {
                let (received, changed) = &*room.0;
                received.set(received.get() + n);
                changed.notify_one();
            }
        });
    }

    /// Publishes `events`, with so many in flight, and gives deliveries per second.
    async fn run(
        &self,
        events: usize,
        in_flight: usize,
        frame_bytes: usize,
        mut publish: impl AsyncFnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<f64> {
        let (received, changed) = &*self.0;
        received.set(0);
        let started = Instant::now();
        let mut sent = 0;
        while received.get() < events * ROOM * frame_bytes {
            let arrived = received.get() / (ROOM * frame_bytes);
            let more = (arrived + in_flight).min(events).saturating_sub(sent);
            // In batches of half of what may be in flight, or every wake-up would send one.
            if more > in_flight / 2 || (more > 0 && sent + more == events) {
                publish(more).await?;
                sent += more;
            }
            tokio::time::timeout(Duration::from_secs(10), changed.notified()).await.context("deliveries stopped")?;
        }
        Ok((events * ROOM) as f64 / started.elapsed().as_secs_f64())
    }
}

/// A thread that writes a ready-made frame to each of its sockets whenever it is asked to.
struct Floor {
    room: Room,
    ask: std::sync::mpsc::Sender<usize>,
    frame_bytes: usize,
}

impl Floor {
    fn start(frame_bytes: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let accept = std::thread::spawn(move || -> std::io::Result<Vec<StdStream>> {
            (0..ROOM).map(|_| listener.accept().map(|(socket, _)| socket)).collect()
        });
        let room = Room::default();
        for _ in 0..ROOM {
            let socket = StdStream::connect(address)?;
            socket.set_nonblocking(true)?;
            room.read(TcpStream::from_std(socket)?);
        }
        let mut sockets = accept.join().map_err(|_| anyhow::anyhow!("the floor's listener panicked"))??;
        for socket in &sockets {
            socket.set_nodelay(true)?;
        }
        let (ask, asked) = std::sync::mpsc::channel::<usize>();
        std::thread::spawn(move || {
            while let Ok(n) = asked.recv() {
                let frames = vec![b'x'; frame_bytes * n];
                for socket in &mut sockets {
                    if socket.write_all(&frames).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { room, ask, frame_bytes })
    }

    async fn run(&self, events: usize, in_flight: usize) -> anyhow::Result<f64> {
        self.room.run(events, in_flight, self.frame_bytes, async |n| Ok(self.ask.send(n)?)).await
    }
}
