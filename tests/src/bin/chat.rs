//! Chat under load, in figures: `cargo build --release && cargo run --release --bin chat [undisturbed|outage|kill]`.
//!
//! 50 rooms of 20 people, 2,000 messages a second for 30 seconds, stored in SQLite: undisturbed; with the store stopped
//! for 5 seconds in the middle; and with the host killed in the middle and started again. Each message says which it is
//! and when it was sent, so that a member knows what it got, how often, in which order, and after how long.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use roundhouse_tests::bench::{SECRET, say, token};
use roundhouse_tests::raw::{client_frame, connect_raw, take_frames};
use roundhouse_tests::{TestClient, TestHost};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

const ROOMS: usize = 50;
const MEMBERS: usize = 20;
const PER_SECOND: usize = 2_000;
const SECONDS: usize = 30;
const OUTAGE: Duration = Duration::from_secs(5);
const MESSAGES: usize = PER_SECOND * SECONDS;
/// How long the ends of the last messages are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    None,
    Outage,
    Kill,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wanted = std::env::args().nth(1);
    for (name, disturbance) in
        [("undisturbed", Disturbance::None), ("outage", Disturbance::Outage), ("kill", Disturbance::Kill)]
    {
        if wanted.as_deref().is_none_or(|wanted| wanted == name) {
            LocalSet::new().block_on(&runtime, run(name, disturbance))?;
        }
    }
    Ok(())
}

/// What one member got of each message of its room.
#[derive(Clone, Copy, Default)]
struct Seen {
    shown: u8,
    confirmed: u8,
    failed: u8,
}

/// What all members got.
struct Tally {
    began: Instant,
    /// By member and number of the message in its room.
    seen: Vec<Vec<Seen>>,
    /// The last message of each sender that a member was shown, and was told the end of.
    last: Vec<[(i64, i64); MEMBERS]>,
    /// Messages before which a later one of the same sender came.
    disordered: usize,
    /// What tells one order of all shown, and of all confirmed, from another.
    orders: Vec<(u64, u64)>,
    acknowledged: Vec<bool>,
    refused: Vec<String>,
    /// Microseconds from when a message was sent until it was shown, and until its end was told.
    shown_after: Vec<u32>,
    ended_after: Vec<u32>,
    /// The same while the store was away.
    shown_in_outage: Vec<u32>,
    outage: Option<(Duration, Duration)>,
}

type Shared = Rc<RefCell<Tally>>;

impl Tally {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            seen: vec![vec![Seen::default(); MESSAGES / ROOMS]; ROOMS * MEMBERS],
            last: vec![[(-1, -1); MEMBERS]; ROOMS * MEMBERS],
            disordered: 0,
            orders: vec![(0, 0); ROOMS * MEMBERS],
            acknowledged: vec![false; MESSAGES],
            refused: Vec::new(),
            shown_after: Vec::new(),
            ended_after: Vec::new(),
            shown_in_outage: Vec::new(),
            outage: None,
        }
    }

    fn take(&mut self, member: usize, frame: &[u8]) {
        let now = self.began.elapsed();
        if frame.starts_with(b"{\"event\":\"roomMessageRecieved\"") {
            let Some((n, sent)) = message_in(frame, b"\"body\":\"m:") else { return };
            self.seen[member][n].shown += 1;
            let last = &mut self.last[member][n % MEMBERS].0;
            self.disordered += usize::from(std::mem::replace(last, n as i64) >= n as i64);
            self.orders[member].0 = follow(self.orders[member].0, n);
            let after = now.as_micros() as u32 - sent;
            self.shown_after.push(after);
            if self.outage.is_some_and(|(from, to)| now >= from && now <= to) {
                self.shown_in_outage.push(after);
            }
        } else if frame.starts_with(b"{\"event\":\"roomMessageConfirmed\"") {
            let Some((n, sent)) = message_in(frame, b"\"body\":\"m:") else { return };
            self.seen[member][n].confirmed += 1;
            let last = &mut self.last[member][n % MEMBERS].1;
            self.disordered += usize::from(std::mem::replace(last, n as i64) >= n as i64);
            self.orders[member].1 = follow(self.orders[member].1, n);
            self.ended_after.push(now.as_micros() as u32 - sent);
        } else if frame.starts_with(b"{\"event\":\"roomMessageFailed\"") {
            let Some((n, _)) = message_in(frame, b"\"clientId\":\"m:") else { return };
            self.seen[member][n].failed += 1;
        } else if let Some(id) = frame.strip_prefix(b"{\"id\":") {
            if let Some(id) = number(id).filter(|id| (*id as usize) < MESSAGES) {
                if frame.windows(8).any(|window| window == b"\"error\":") {
                    self.refused.push(String::from_utf8_lossy(frame).into_owned());
                }
                self.acknowledged[id as usize] = true;
            }
        } else if frame.starts_with(b"{\"event\":\"error\"") {
            self.refused.push(String::from_utf8_lossy(frame).into_owned());
        }
    }
}

/// A number for an order that goes on with `n`.
fn follow(order: u64, n: usize) -> u64 {
    (order.rotate_left(5) ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let mut digits = digits.peekable();
    digits.peek()?;
    Some(digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// The message's number in its room, and when it was sent, in microseconds: behind `start`, as `7:123456`.
fn message_in(frame: &[u8], start: &[u8]) -> Option<(usize, u32)> {
    let at = frame.windows(start.len()).position(|window| window == start)? + start.len();
    let n = number(&frame[at..])?;
    let behind = frame[at..].iter().position(|byte| *byte == b':')? + at + 1;
    Some((n as usize, number(&frame[behind..])? as u32))
}

struct Member {
    socket: Rc<TcpStream>,
    reader: JoinHandle<()>,
}

async fn join(ws: String, member: usize, tally: Shared) -> anyhow::Result<Member> {
    let token = token(&format!("user{member}"))?;
    let socket = Rc::new(connect_raw(&ws, &token).await?);
    let room = member / MEMBERS;
    let ask = json!({ "event": "joinRoom", "data": { "roomId": format!("r{room}") }, "id": MESSAGES });
    write(&socket, &client_frame(ask.to_string().as_bytes())).await?;
    let (joined, is_joined) = tokio::sync::oneshot::channel();
    let reader = spawn_local({
        let (socket, mut joined) = (socket.clone(), Some(joined));
        async move {
            let mut received = Vec::new();
            let own = format!("{{\"id\":{MESSAGES},");
            loop {
                if socket.readable().await.is_err() {
                    return;
                }
                match socket.try_read_buf(&mut received) {
                    Ok(0) => return,
                    Ok(_) => take_frames(&mut received, |frame| {
                        if frame.starts_with(own.as_bytes()) {
                            // Whoever joined may have given up.
                            if let Some(joined) = joined.take() {
                                let _ = joined.send(());
                            }
                        } else {
                            tally.borrow_mut().take(member, frame);
                        }
                    }),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
    });
    tokio::time::timeout(PATIENCE, is_joined).await.context("a join was not acknowledged")??;
    Ok(Member { socket, reader })
}

async fn write(socket: &TcpStream, mut bytes: &[u8]) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn join_all(ws: &str, tally: &Shared) -> anyhow::Result<Vec<Member>> {
    let joins: Vec<_> =
        (0..ROOMS * MEMBERS).map(|member| spawn_local(join(ws.to_owned(), member, tally.clone()))).collect();
    let mut members = Vec::new();
    for join in joins {
        members.push(join.await??);
    }
    Ok(members)
}

/// The `n`th message of all: its room, its number there, and its sender.
fn message(n: usize) -> (usize, usize, usize) {
    let (room, number) = (n % ROOMS, n / ROOMS);
    (room, number, room * MEMBERS + number % MEMBERS)
}

fn frame(n: usize, sent: u32) -> Vec<u8> {
    let (room, number, _) = message(n);
    let text = format!(
        "{{\"event\":\"roomMessage\",\"data\":{{\"roomId\":\"r{room}\",\"body\":\"m:{number}:{sent}:{}\",\
         \"clientId\":\"m:{number}:{sent}:\"}},\"id\":{n}}}",
        "x".repeat(80)
    );
    client_frame(text.as_bytes())
}

async fn run(name: &str, disturbance: Disturbance) -> anyhow::Result<()> {
    let config = format!(
        "auth.jwt.secret = \"{SECRET}\"\n[limits]\nevents_per_second = 0\n[[api_keys]]\nname = \"figures\"\n\
         key = \"figures\"\nscopes = [\"publish\", \"admin\"]\n"
    );
    let mut host = TestHost::start_with(&config, &[]);
    let tally: Shared = Rc::new(RefCell::new(Tally::new()));
    let mut members = join_all(&host.ws, &tally).await?;
    tally.borrow_mut().began = Instant::now();
    let began = Instant::now();
    let period = Duration::from_secs(1) / PER_SECOND as u32;
    let middle = MESSAGES / 2;
    let mut stamps = vec![0; MESSAGES];
    let mut late = Vec::new();
    let mut lock = None;
    for n in 0..MESSAGES {
        let due = period * n as u32;
        let elapsed = began.elapsed();
        if due > elapsed {
            tokio::time::sleep(due - elapsed).await;
        }
        if n == middle && disturbance == Disturbance::Outage {
            let store = rusqlite::Connection::open(host.dir().join("roundhouse.db"))?;
            store.busy_timeout(Duration::from_secs(5))?;
            store.execute_batch("BEGIN EXCLUSIVE")?;
            tally.borrow_mut().outage = Some((began.elapsed(), began.elapsed() + OUTAGE));
            lock = Some(store);
        }
        if lock.is_some() && due >= period * middle as u32 + OUTAGE {
            lock = None;
        }
        if n == middle && disturbance == Disturbance::Kill {
            // Messages are on their way in all directions.
            host.kill();
            let down = Instant::now();
            // What the host had written is theirs to read.
            for member in members.drain(..) {
                tokio::time::timeout(PATIENCE, member.reader).await.context("a connection outlived the host")??;
            }
            host.restart();
            members = join_all(&host.ws, &tally).await?;
            say(&format!(
                "{name}: killed and back with all {} members after {:.1} s",
                members.len(),
                down.elapsed().as_secs_f64()
            ))?;
            // As clients do: what was not acknowledged is sent again under its id.
            let unacknowledged: Vec<usize> = (0..n).filter(|n| !tally.borrow().acknowledged[*n]).collect();
            say(&format!("{name}: {} messages were not acknowledged and are sent again", unacknowledged.len()))?;
            for n in unacknowledged {
                write(&members[message(n).2].socket, &frame(n, stamps[n])).await?;
            }
        }
        stamps[n] = began.elapsed().as_micros() as u32;
        late.push(stamps[n].saturating_sub(due.as_micros() as u32));
        write(&members[message(n).2].socket, &frame(n, stamps[n])).await?;
    }
    wait_for_the_end(&tally).await?;
    say(&format!("{name}: the generator sent too late by: {}", quantiles(&late)))?;
    report(name, disturbance, &tally.borrow())?;
    check_history(name, &host).await
}

async fn wait_for_the_end(tally: &Shared) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = (tally.borrow().shown_after.len(), tally.borrow().ended_after.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = (tally.borrow().shown_after.len(), tally.borrow().ended_after.len());
        let all_acknowledged = tally.borrow().acknowledged.iter().all(|acknowledged| *acknowledged);
        if before == now && all_acknowledged {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not all was acknowledged in time");
        }
    }
}

fn quantiles(figures: &[u32]) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| {
        let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        f64::from(sorted.get(index).copied().unwrap_or_default()) / 1000.0
    };
    format!("median {:.2} ms, p99 {:.2} ms, longest {:.1} ms", at(0.5), at(0.99), at(1.0))
}

fn report(name: &str, disturbance: Disturbance, tally: &Tally) -> anyhow::Result<()> {
    say(&format!("{name}: shown: {} ({} deliveries)", quantiles(&tally.shown_after), tally.shown_after.len()))?;
    if disturbance == Disturbance::Outage {
        say(&format!("{name}: shown while the store was away: {}", quantiles(&tally.shown_in_outage)))?;
    }
    say(&format!("{name}: ended: {} ({} deliveries)", quantiles(&tally.ended_after), tally.ended_after.len()))?;
    let all = || tally.seen.iter().flatten();
    let count = |is_it: fn(&Seen) -> bool| all().filter(|seen| is_it(seen)).count();
    say(&format!(
        "{name}: of {} messages to {MEMBERS} members each: shown twice {}, not shown {}; with an end {}, \
         shown and without an end {}, told the same end twice {}, told both ends {}; a sender's out of order {}; refused {}",
        MESSAGES,
        count(|seen| seen.shown > 1),
        count(|seen| seen.shown == 0),
        count(|seen| seen.confirmed + seen.failed > 0),
        count(|seen| seen.shown > 0 && seen.confirmed + seen.failed == 0),
        count(|seen| seen.confirmed > 1 || seen.failed > 1),
        count(|seen| seen.confirmed > 0 && seen.failed > 0),
        tally.disordered,
        tally.refused.len(),
    ))?;
    if disturbance != Disturbance::Kill {
        let differ = tally.orders.chunks(MEMBERS).filter(|room| room.iter().any(|order| *order != room[0]));
        say(&format!("{name}: rooms whose members saw different orders, of messages or of ends: {}", differ.count()))?;
    }
    if let Some(refused) = tally.refused.first() {
        say(&format!("{name}: refused: {refused}"))?;
    }
    Ok(())
}

/// Every message is in the store, once, in order.
async fn check_history(name: &str, host: &TestHost) -> anyhow::Result<()> {
    let token = token("reader")?;
    let mut client = TestClient::connect(&host.ws, &token).await;
    let mut ask = async |event: &str, data: Value| {
        client.ask(event, data).await.map_err(|error| anyhow::anyhow!("{event}: {error}"))
    };
    let (mut n_stored, mut n_disordered) = (0, 0);
    for room in 0..ROOMS {
        let room_id = format!("r{room}");
        ask("joinRoom", json!({ "roomId": room_id })).await?;
        let mut before = Value::Null;
        let mut numbers = Vec::new();
        loop {
            let mut data = json!({ "roomId": room_id, "limit": 100 });
            if !before.is_null() {
                data["before"] = before.clone();
            }
            let page = ask("roomHistory", data).await?;
            for message in page["messages"].as_array().context("messages")? {
                let body = message["body"].as_str().context("a body")?;
                numbers.push(body.split(':').nth(1).context("a number")?.parse::<usize>()?);
                before = message["_id"].clone();
            }
            if page["hasMore"] == false {
                break;
            }
        }
        let distinct: HashSet<_> = numbers.iter().collect();
        ensure!(distinct.len() == numbers.len(), "a message was stored twice in {room_id}");
        n_stored += numbers.len();
        for sender in 0..MEMBERS {
            let of_sender: Vec<_> = numbers.iter().filter(|n| **n % MEMBERS == sender).collect();
            n_disordered += of_sender.windows(2).filter(|pair| pair[0] < pair[1]).count();
        }
    }
    say(&format!(
        "{name}: in the history: {n_stored} of {MESSAGES}, none twice, {n_disordered} of a sender's out of order"
    ))
}
