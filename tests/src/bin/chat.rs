//! Chat under load, in figures: `cargo build --release && cargo run --release --bin chat
//! [undisturbed|outage|kill|both]`.
//!
//! 50 rooms of 20 people, 2,000 messages a second for 30 seconds, stored in SQLite: undisturbed; with the store stopped
//! for 5 seconds in the middle; with the host killed in the middle and started again; and with the host killed when the
//! store has been stopped for 5 seconds. Each message carries its number and its sending time, so that each member's
//! copies, order and latency are known.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use roundhouse_tests::bench::{LIMITS, SECRET, quantile, say, token};
use roundhouse_tests::chat::{
    MEMBERS, Member, PER_SECOND, ROOMS, Seen, Shared, TIMEOUT, Tally, frame, join_all, message, wait_for_the_end, write,
};
use roundhouse_tests::{TestClient, TestHost};
use serde_json::{Value, json};
use tokio::task::LocalSet;

const SECONDS: usize = 30;
const OUTAGE: Duration = Duration::from_secs(5);
const MESSAGES: usize = PER_SECOND * SECONDS;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    None,
    Outage,
    Kill,
    /// The outage, and the kill at its end.
    Both,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wanted = std::env::args().nth(1);
    for (name, disturbance) in [
        ("undisturbed", Disturbance::None),
        ("outage", Disturbance::Outage),
        ("kill", Disturbance::Kill),
        ("both", Disturbance::Both),
    ] {
        if wanted.as_deref().is_none_or(|wanted| wanted == name) {
            LocalSet::new().block_on(&runtime, run(name, disturbance))?;
        }
    }
    Ok(())
}

/// Starts the killed host again and connects all members, who repeat their unacknowledged messages as clients do.
async fn recover(
    name: &str,
    host: &mut TestHost,
    members: Vec<Member>,
    tally: &Shared,
    stamps: &[u32],
) -> anyhow::Result<Vec<Member>> {
    let down = Instant::now();
    // Each reader ends when it has read all bytes that the host wrote before it was killed.
    for member in members {
        tokio::time::timeout(TIMEOUT, member.reader).await.context("a connection outlived the host")??;
    }
    host.restart();
    let members = join_all(&host.ws, tally).await?;
    let after = down.elapsed().as_secs_f64();
    say(&format!("{name}: killed and back with all {} members after {after:.1} s", members.len()))?;
    let unacknowledged: Vec<usize> = (0..stamps.len()).filter(|n| !tally.borrow().acknowledged[*n]).collect();
    say(&format!("{name}: {} messages were not acknowledged and are sent again", unacknowledged.len()))?;
    for n in unacknowledged {
        write(&members[message(n).2].socket, &frame(n, stamps[n])).await?;
    }
    Ok(members)
}

async fn run(name: &str, disturbance: Disturbance) -> anyhow::Result<()> {
    let config = format!(
        "auth.jwt.secret = \"{SECRET}\"\n{LIMITS}[[api_keys]]\nname = \"figures\"\n\
         key = \"figures\"\nscopes = [\"publish\", \"admin\"]\n"
    );
    let mut host = TestHost::start_with(&config, &[]);
    let tally: Shared = Rc::new(RefCell::new(Tally::new(MESSAGES)));
    let mut members = join_all(&host.ws, &tally).await?;
    tally.borrow_mut().began = Instant::now();
    let began = Instant::now();
    let period = Duration::from_secs(1) / PER_SECOND as u32;
    let middle = MESSAGES / 2;
    let away = OUTAGE.as_secs() as usize * PER_SECOND;
    let (goes, killed) = match disturbance {
        Disturbance::None => (None, None),
        Disturbance::Outage => (Some(middle), None),
        Disturbance::Kill => (None, Some(middle)),
        Disturbance::Both => (Some(middle), Some(middle + away)),
    };
    let mut stamps = vec![0; MESSAGES];
    let mut late = Vec::new();
    let mut lock = None;
    for n in 0..MESSAGES {
        let due = period * n as u32;
        let elapsed = began.elapsed();
        if due > elapsed {
            tokio::time::sleep(due - elapsed).await;
        }
        if Some(n) == goes {
            let store = rusqlite::Connection::open(host.dir().join("roundhouse.db"))?;
            store.busy_timeout(Duration::from_secs(5))?;
            store.execute_batch("BEGIN EXCLUSIVE")?;
            tally.borrow_mut().outage = Some((began.elapsed(), began.elapsed() + OUTAGE));
            lock = Some(store);
        }
        if Some(n) == killed {
            // The kill comes while messages are in flight to and from the host.
            host.kill();
        }
        if n == middle + away {
            drop(lock.take());
        }
        if Some(n) == killed {
            members = recover(name, &mut host, members, &tally, &stamps[..n]).await?;
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

fn quantiles(figures: &[u32]) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    let at = |share| quantile(&sorted, share) / 1000.0;
    format!("median {:.2} ms, p99 {:.2} ms, longest {:.1} ms", at(0.5), at(0.99), at(1.0))
}

fn report(name: &str, disturbance: Disturbance, tally: &Tally) -> anyhow::Result<()> {
    say(&format!("{name}: shown: {} ({} deliveries)", quantiles(&tally.shown_after), tally.shown_after.len()))?;
    if !tally.shown_in_outage.is_empty() {
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
    if matches!(disturbance, Disturbance::None | Disturbance::Outage) {
        let differ = tally.orders.chunks(MEMBERS).filter(|room| room.iter().any(|order| *order != room[0]));
        say(&format!("{name}: rooms whose members saw different orders, of messages or of ends: {}", differ.count()))?;
    }
    if let Some(refused) = tally.refused.first() {
        say(&format!("{name}: refused: {refused}"))?;
    }
    Ok(())
}

/// Checks that each message is in the store once, and in order.
async fn check_history(name: &str, host: &TestHost) -> anyhow::Result<()> {
    let token = token("reader")?;
    let mut client = TestClient::connect(&host.ws, &token).await;
    let mut ask = async |event: &str, data: Value| {
        client.emit_with_ack(event, data).await.map_err(|error| anyhow::anyhow!("{event}: {error}"))
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
