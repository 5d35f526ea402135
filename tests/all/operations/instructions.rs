//! The cost of the hot paths in instructions, which does not depend on how busy the machine is: a guard against
//! regressions.
//!
//! Each repetition begins when all effects of the one before have arrived. Its cost is the difference between `n`
//! repetitions and twice as many, which leaves out fixed costs. The baseline is `tests/benchmarks/instructions.json`; a
//! path whose cost differs by more than the tolerance given there fails. `INSTRUCTIONS_BASELINE=write` writes a new
//! baseline.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use roundhouse::auth::sign;
use roundhouse_tests::bench::{LIMITS, SECRET, say, token};
use roundhouse_tests::raw::{client_frame, connect_raw, connect_socket_io, take_frames};
use roundhouse_tests::{CountedHost, TIMEOUT, guests, skip};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Set to `write` to make the counted figures the baseline.
const BASELINE: &str = "INSTRUCTIONS_BASELINE";

/// The number of members of the room that receives the events.
const ROOM: usize = 100;

/// More deliveries than a shard remembers.
const REMEMBERED: usize = 5000;

/// The cost of each path when the baseline was written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Baseline {
    /// The tolerance of a figure, in per cent: more than the effect of another build of libc, and less than one more
    /// scan of a payload.
    tolerance_percent: f64,
    /// Instructions by path.
    instructions: BTreeMap<String, u64>,
}

#[tokio::test]
async fn hot_paths_match_the_instruction_baseline() {
    if cfg!(debug_assertions) {
        return skip("instructions", "the baseline is of a release build: run it with --release");
    }
    match CountedHost::is_possible() {
        Ok(()) => {
            let mut counted = count().await.unwrap();
            for (rules, policy) in [("no rules of rooms", String::new()), ("100 rules of rooms", rules())] {
                counted.extend(count_checked(rules, &policy).await.unwrap());
            }
            compare(&counted).unwrap();
        }
        Err(why) => skip("instructions", why),
    }
}

/// A host that does nothing by itself while instructions are counted: no heartbeats, ticks, timers or watched folder.
fn start(more: &str) -> CountedHost {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("plugins.d")).unwrap();
    fs::write(dir.path().join("plugins.d/relay.wasm"), guests::relay()).unwrap();
    let mut config = format!(
        "shards = 1\nauth.jwt.secret = \"{SECRET}\"\n{LIMITS}\
         [heartbeat]\ninterval = \"1h\"\ntimeout = \"2h\"\n\
         [plugins]\nthreads = 1\nwatch = false\ncall_deadline = \"10s\"\n\
         [plugins.ticket-collision.settings]\ntypingSeconds = 3600\n"
    );
    // Each further plugin would have to be compiled.
    for name in ["campaign-progress", "chat-confirmation", "crm-events", "ticket-events", "timeline"] {
        config += &format!("[plugins.{name}]\nenabled = false\n");
    }
    CountedHost::start(dir, &(config + more))
}

/// Counts the instructions of each path.
async fn count() -> anyhow::Result<BTreeMap<String, u64>> {
    let mut counted = start("");
    let ws = counted.host.ws.clone();
    let mut agent = Client::of(connect_raw(&ws, &token("ana")?).await?);
    let mut plain = Room::new("plain", connect_raw(&ws, &token("publisher")?).await?);
    let mut socket_io = Room::new("socket.io", connect_raw(&ws, &token("publisher")?).await?);
    for n in 0..ROOM {
        let token = token(&format!("member{n}"))?;
        plain.members.push(Client::of(connect_raw(&ws, &token).await?));
        let (socket, _, received) = connect_socket_io(&ws, &json!({ "token": token })).await?;
        socket_io.members.push(Client { socket, received });
    }
    let (join_plain, join_socket_io) =
        (plain.event("join"), format!("420{}", json!(["join", { "room": "socket.io" }])));
    for (member, other) in plain.members.iter_mut().zip(&mut socket_io.members) {
        member.ask(&join_plain, b"{\"id\":7,").await?;
        other.ask(&client_frame(join_socket_io.as_bytes()), b"430[").await?;
    }
    // What is remembered of the past has its greatest size from then on: each event takes the place of another.
    for _ in 0..REMEMBERED / 64 {
        plain.publish(64, b"{\"event\":\"message\"").await?;
    }
    counted.begin();

    let event = |name: &str| event(name, &json!({ "ticketId": "507f1f77bcf86cd799439011" }));
    let (view, typing) = (event("ticket:view"), event("ticket:typing"));
    let acknowledged = difference(&mut counted, 200, async || {
        agent.ask(&view, b"{\"id\":7,").await?;
        agent.ask(&typing, b"{\"id\":7,").await
    });
    let acknowledged = acknowledged.await? / 2;
    let fan_out = difference(&mut counted, 40, async || plain.publish(1, b"{\"event\":\"message\"").await).await?;
    let fan_out_socket_io =
        difference(&mut counted, 40, async || socket_io.publish(1, b"42[\"message\"").await).await?;
    let token = token("ben")?;
    let connection = difference(&mut counted, 100, async || {
        let mut socket = connect_raw(&ws, &token).await?;
        socket.write_all(&close_frame()).await?;
        // The host answers the close, and closes the connection.
        tokio::time::timeout(TIMEOUT, socket.read_to_end(&mut Vec::new())).await??;
        Ok(())
    });
    let connection = connection.await?;
    let figures = [
        ("an event through a component, acknowledged", acknowledged),
        ("an event to a room of 100, plain protocol", fan_out),
        ("an event to a room of 100, Socket.IO", fan_out_socket_io),
        // The members' frames are merged into one write as far as the events are read at once.
        (
            "64 events at once to a room of 100, plain protocol",
            difference(&mut counted, 10, async || plain.publish(64, b"{\"event\":\"message\"").await).await?,
        ),
        ("a connection: handshake, signing in, close", connection),
    ];
    Ok(figures.map(|(name, figure)| (name.to_owned(), figure)).into())
}

/// A hundred rules of rooms, of which the last matches: its condition reads a claim.
fn rules() -> String {
    let rule = |pattern: &str| {
        format!("[[rooms]]\npattern = \"{pattern}\"\nallow = \"id.startsWith(identity.claims.companyId + '-')\"\n")
    };
    let others: String = (1..100).map(|n| rule(&format!("room{n}:{{id}}"))).collect();
    others + &rule("ticket:{id}")
}

/// Counts the instructions of a join and of an event by a client whose rooms are checked by `rules`.
async fn count_checked(name: &str, rules: &str) -> anyhow::Result<[(String, u64); 2]> {
    let mut counted = start(rules);
    let token = sign(&json!({ "sub": "ana", "companyId": "acme", "iss": "https://id.example", "aud": "app" }), SECRET)?;
    let mut agent = Client::of(connect_raw(&counted.host.ws, &token).await?);
    let [view, typing, leave] = ["ticket:view", "ticket:typing", "ticket:leave"]
        .map(|name| event(name, &json!({ "ticketId": "acme-507f1f77bcf86cd799439011" })));
    counted.begin();
    let join = difference(&mut counted, 200, async || {
        agent.ask(&view, b"{\"id\":7,\"data\"").await?;
        agent.ask(&leave, b"{\"id\":7,\"data\"").await
    });
    let join = join.await?;
    agent.ask(&view, b"{\"id\":7,\"data\"").await?;
    let event = difference(&mut counted, 200, async || agent.ask(&typing, b"{\"id\":7,\"data\"").await).await?;
    let names = ["an event that joins a room, and one that leaves it", "an event to the scope of a room"];
    Ok([(format!("{}, {name}", names[0]), join), (format!("{}, {name}", names[1]), event)])
}

/// The instructions of one repetition of `each`.
async fn difference(
    counted: &mut CountedHost,
    n: u64,
    mut each: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    // One-time costs, such as filled caches, come before counting.
    for _ in 0..n / 2 {
        each().await?;
    }
    counted.take();
    let mut figures = [0; 2];
    for (times, figure) in [n, 2 * n].into_iter().zip(&mut figures) {
        for _ in 0..times {
            each().await?;
        }
        *figure = counted.take();
    }
    let [once, twice] = figures;
    ensure!(twice > once, "{n} cost {once} instructions, and twice as many {twice}");
    Ok((twice - once) / n)
}

/// Compares the counted figures with the baseline, or writes them as the new one.
fn compare(counted: &BTreeMap<String, u64>) -> anyhow::Result<()> {
    let path = baseline_path();
    let text = fs::read_to_string(&path).with_context(|| format!("there is no {}", path.display()))?;
    let mut baseline: Baseline = serde_json::from_str(&text)?;
    let mut complaints = Vec::new();
    for (name, now) in counted {
        let (line, is_off) = match baseline.instructions.get(name) {
            Some(before) if *before > 0 => {
                let percent = 100.0 * (*now as f64 / *before as f64 - 1.0);
                let line = format!("{name}: {now} instructions, {before} in the baseline ({percent:+.1} %)");
                (line, percent.abs() > baseline.tolerance_percent)
            }
            _ => (format!("{name}: {now} instructions, nothing in the baseline"), true),
        };
        say(&line)?;
        if is_off {
            complaints.push(line);
        }
    }
    let gone = baseline.instructions.keys().filter(|name| !counted.contains_key(*name));
    complaints.extend(gone.map(|name| format!("{name}: in the baseline, and not counted any more")));
    if std::env::var(BASELINE).is_ok_and(|what| what == "write") {
        baseline.instructions.clone_from(counted);
        return Ok(fs::write(&path, serde_json::to_string_pretty(&baseline)? + "\n")?);
    }
    ensure!(
        complaints.is_empty(),
        "{}\nIf nothing was changed: is it another processor or Valgrind than the baseline's? Components are compiled for \
         the processor that Valgrind shows.\nWhere that is as it should be, for better or worse, write the new baseline, \
         and say in the commit why:\n\
         {BASELINE}=write cargo test --release -p roundhouse-tests --test all instructions",
        complaints.join("\n")
    );
    Ok(())
}

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/instructions.json")
}

fn event(name: &str, data: &serde_json::Value) -> Vec<u8> {
    client_frame(json!({ "event": name, "data": data, "id": 7 }).to_string().as_bytes())
}

/// A close frame with the code 1000, masked with zeros.
fn close_frame() -> Vec<u8> {
    [&[0x88, 0x82, 0, 0, 0, 0][..], &1000_u16.to_be_bytes()].concat()
}

struct Client {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn of(socket: TcpStream) -> Self {
        Self { socket, received: Vec::new() }
    }

    /// Sends a frame, and waits for a frame that begins with `answer`.
    async fn ask(&mut self, frame: &[u8], answer: &[u8]) -> anyhow::Result<()> {
        self.socket.write_all(frame).await?;
        self.wait(1, answer).await
    }

    /// Waits for `n` frames that begin with `wanted`.
    async fn wait(&mut self, n: usize, wanted: &[u8]) -> anyhow::Result<()> {
        let mut come = 0;
        let mut buffer = [0; 4096];
        while come < n {
            let read = tokio::time::timeout(TIMEOUT, self.socket.read(&mut buffer)).await??;
            ensure!(read > 0, "the host closed the connection");
            self.received.extend_from_slice(&buffer[..read]);
            take_frames(&mut self.received, |text| come += usize::from(text.starts_with(wanted)));
        }
        Ok(())
    }
}

/// A room, and a client that sends to the room without being a member.
struct Room {
    name: &'static str,
    publisher: TcpStream,
    members: Vec<Client>,
}

impl Room {
    fn new(name: &'static str, publisher: TcpStream) -> Self {
        Self { name, publisher, members: Vec::new() }
    }

    fn event(&self, name: &str) -> Vec<u8> {
        event(name, &json!({ "room": self.name }))
    }

    /// Sends `n` events of 128 bytes at once, and waits until each member has received them.
    async fn publish(&mut self, n: usize, wanted: &[u8]) -> anyhow::Result<()> {
        let event = json!({ "event": "publish", "data": { "room": self.name, "payload": "x".repeat(128) } });
        self.publisher.write_all(&client_frame(event.to_string().as_bytes()).repeat(n)).await?;
        for member in &mut self.members {
            member.wait(n, wanted).await?;
        }
        Ok(())
    }
}
