//! A swap: a feature is replaced while all clients stay connected, and no client notices.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use roundhouse_tests::guests::ticket_collision;
use roundhouse_tests::{TestClient, TestHost};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const CLIENTS: usize = 200;
const TICKETS: usize = 50;
const SWAPS: usize = 20;

/// A client, and the frames that it received, in order.
struct Seen {
    client: TestClient,
    user: String,
    ticket: String,
    frames: Vec<Value>,
    sent: Vec<i64>,
    /// The viewers of the ticket after the run.
    viewers: Value,
}

/// Views the client's ticket, then types and stops typing in turn until the run ends.
async fn run_client(
    mut client: TestClient,
    user: String,
    ticket: String,
    stop: Arc<AtomicBool>,
    events: Arc<AtomicUsize>,
) -> Seen {
    let on_ticket = json!({ "ticketId": ticket });
    let mut frames = Vec::new();
    let mut sent = vec![client.emit_with_id("ticket:view", on_ticket.clone()).await];
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        for event in ["ticket:typing", "ticket:stop_typing"] {
            sent.push(client.emit_with_id(event, on_ticket.clone()).await);
            events.fetch_add(1, Ordering::Relaxed);
        }
        // The acknowledgement of an event follows all events to its sender that the event caused.
        let last = *sent.last().unwrap();
        loop {
            let frame = client.next().await;
            let is_last = frame["id"] == last;
            frames.push(frame);
            if is_last {
                break;
            }
        }
        round += 1;
        // Clients run out of step, and leave the machine some idle time.
        tokio::time::sleep(Duration::from_millis(20 + (round * 7 + user.len() as u64) % 30)).await;
    }
    Seen { client, user, ticket, frames, sent, viewers: Value::Null }
}

/// Reads the remaining frames after all clients are done, and views the ticket once more.
async fn last_view(mut seen: Seen) -> Seen {
    seen.frames.extend(seen.client.drain().await);
    let again = seen.client.emit_with_ack("ticket:view", json!({ "ticketId": seen.ticket })).await;
    seen.viewers = again.expect("it is connected and views")["viewers"].clone();
    seen.frames.extend(seen.client.drain().await);
    seen
}

/// Waits for the tasks of all clients.
async fn all<T: Send + 'static>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.expect("no client was disconnected"));
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_swaps_under_load_lose_nothing() {
    let config = "auth.jwt.secret = \"s\"\nlimits.events_per_second = 0";
    let host = TestHost::start_with(config, &[]);
    let builds = [ticket_collision("0.1.1"), ticket_collision("0.1.2")];
    let stop = Arc::new(AtomicBool::new(false));
    let events = Arc::new(AtomicUsize::new(0));
    let mut working = Vec::new();
    for n in 0..CLIENTS {
        let (user, ticket) = (format!("agent{n}"), format!("t{}", n % TICKETS));
        let client = host.client(&user).await;
        working.push(tokio::spawn(run_client(client, user, ticket, stop.clone(), events.clone())));
    }
    for swap in 0..SWAPS {
        // Some hundred events lie between two swaps, so that each swap happens under load.
        let goal = events.load(Ordering::Relaxed) + 2 * CLIENTS;
        while events.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let loaded = host.load("ticket-collision", builds[swap % 2].clone()).await;
        assert_eq!(loaded["generation"], swap + 2);
    }
    let goal = events.load(Ordering::Relaxed) + 2 * CLIENTS;
    while events.load(Ordering::Relaxed) < goal {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let all_seen = all(working).await;
    // Each client stays connected until all have viewed their ticket again.
    let all_seen = all(all_seen.into_iter().map(|seen| tokio::spawn(last_view(seen))).collect()).await;
    for seen in &all_seen {
        check_acknowledgements(seen);
        check_final_viewers(seen);
    }
    let mut by_ticket: HashMap<&str, Vec<&Seen>> = HashMap::new();
    for seen in &all_seen {
        by_ticket.entry(&seen.ticket).or_default().push(seen);
    }
    assert_eq!(by_ticket.len(), TICKETS);
    for clients in by_ticket.values() {
        check_order(clients);
    }
    let report = host.report("ticket-collision").await;
    assert_eq!((&report["generation"], &report["traps"]), (&json!(SWAPS + 1), &json!(0)), "{report}");
    assert_eq!(report["stats"]["totalViewers"], CLIENTS);
    let events = events.load(Ordering::Relaxed);
    assert!(events >= 2 * CLIENTS * SWAPS, "{events} events under {SWAPS} swaps");
}

/// Checks that each event was acknowledged once, in sending order.
fn check_acknowledgements(seen: &Seen) {
    let acknowledged: Vec<i64> = seen
        .frames
        .iter()
        .filter(|frame| frame.get("event").is_none())
        .map(|frame| {
            assert!(frame.get("error").is_none(), "{}: {frame}", seen.user);
            frame["id"].as_i64().expect("an acknowledgement has an id")
        })
        .collect();
    assert!(acknowledged == seen.sent, "{} was acknowledged {} of {}", seen.user, acknowledged.len(), seen.sent.len());
}

/// Checks that the client sees the viewers of its ticket at the end, none of them typing.
fn check_final_viewers(seen: &Seen) {
    let viewers = seen.viewers.as_array().expect("a list of viewers");
    assert_eq!(viewers.len(), CLIENTS / TICKETS, "{}: {viewers:?}", seen.user);
    assert!(viewers.iter().all(|viewer| viewer["status"] == "viewing"), "{}: {viewers:?}", seen.user);
}

/// Checks that all clients of a ticket saw the same lists in the same order, each once: a later client saw the tail of
/// an earlier client's lists. Each client saw another's typing as often as the other sent it.
fn check_order(clients: &[&Seen]) {
    let lists = |seen: &Seen| -> Vec<String> {
        seen.frames
            .iter()
            .filter(|f| f["event"] == "viewers:updated")
            .map(|f| f["data"]["viewers"].to_string())
            .collect()
    };
    let longest = clients.iter().map(|seen| lists(seen)).max_by_key(Vec::len).expect("there are clients");
    for seen in clients {
        let own = lists(seen);
        assert!(own[..] == longest[longest.len() - own.len()..], "{} saw other lists, or in another order", seen.user);
        for other in clients.iter().filter(|other| other.user != seen.user) {
            let about = |event: &str| {
                seen.frames
                    .iter()
                    .filter(|f| f["event"] == event && f["data"]["agentId"] == other.user.as_str())
                    .count()
            };
            let (began, ended) = (about("agent:typing"), about("agent:stopped_typing"));
            assert!(ended >= began, "{} has seen no end of {}", seen.user, other.user);
            // A client that joined while another was typing has not seen that typing start.
            assert!(ended - began <= 1, "{} saw {began} of {ended} of {}", seen.user, other.user);
            let typed = (other.sent.len() - 1) / 2;
            assert!(ended <= typed, "{} saw {ended} of {typed} of {}", seen.user, other.user);
        }
    }
    // The first client has seen all typing of the others.
    let first = clients.iter().max_by_key(|seen| lists(seen).len()).expect("there are clients");
    for other in clients.iter().filter(|other| other.user != first.user) {
        let began =
            first.frames.iter().filter(|f| f["event"] == "agent:typing" && f["data"]["agentId"] == other.user.as_str());
        assert_eq!(began.count(), (other.sent.len() - 1) / 2, "{} of {}", first.user, other.user);
    }
}
