//! The time from a host's death until agents on the others hear that its agent has left.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use roundhouse_tests::TestClient;
use roundhouse_tests::bench::{median, thousands};
use serde_json::{Value, json};

use crate::field::{Extent, Field, Hosts, MOST_NODES, progress};
use crate::table::Table;

/// The host that is killed.
const KILLED: usize = 1;

/// The time for which each of the others is listened to before the kill. Meanwhile all nodes see each other connected to
/// Redis: one that dies before that is given up as late as one that is silent.
const LISTENS: Duration = Duration::from_millis(500);

/// The result of one kill.
struct Death {
    /// Whether the killed host owned the ticket.
    was_owner: bool,
    /// Until the last of the others was told.
    told: Duration,
}

/// Kills a host again and again.
pub(crate) fn measure(field: &Field, extent: Extent) -> anyhow::Result<Table> {
    let mut hosts = field.start(MOST_NODES)?;
    let mut deaths = Vec::new();
    for n in 0..extent.n_kills {
        progress(&format!("kill {} of {}", n + 1, extent.n_kills));
        // The owners take turns.
        let ticket = (0..).map(|more| format!("k{n}-{more}"));
        let mut ticket = ticket.filter(|ticket| hosts.owner(&format!("ticket:{ticket}")) == n % MOST_NODES);
        let ticket = ticket.next().context("a ticket has this owner")?;
        let told = field.runtime.block_on(kill(&mut hosts, &ticket))?;
        deaths.push(Death { was_owner: n % MOST_NODES == KILLED, told });
        hosts.start_again(KILLED, &field.runtime)?;
    }
    Ok(table(&deaths))
}

async fn kill(hosts: &mut Hosts, ticket: &str) -> anyhow::Result<Duration> {
    let users = ["ana", "ben", "eva"];
    let mut clients = Vec::new();
    for (node, user) in users.iter().enumerate() {
        let mut client = hosts.cluster().client(node, user).await;
        let viewed = client.emit_with_ack("ticket:view", json!({ "ticketId": ticket })).await;
        viewed.map_err(|error| anyhow::anyhow!("ticket:view: {error}"))?;
        clients.push(client);
    }
    // It stays connected until its host dies.
    let _ben = clients.remove(KILLED);
    for client in &mut clients {
        let early = tokio::time::timeout(LISTENS, client.expect_event("agent:left")).await;
        ensure!(early.is_err(), "an agent left a living host: {early:?}");
    }
    let died = Instant::now();
    hosts.kill(KILLED);
    let mut last = Duration::ZERO;
    for told in futures_util::future::join_all(clients.iter_mut().map(|client| left(client, died))).await {
        let (data, after) = told;
        ensure!(data["agentId"] == users[KILLED], "another agent left: {data}");
        last = last.max(after);
    }
    Ok(last)
}

/// Waits until a client is told that an agent has left.
async fn left(client: &mut TestClient, died: Instant) -> (Value, Duration) {
    let data = client.expect_event("agent:left").await;
    (data, died.elapsed())
}

fn table(deaths: &[Death]) -> Table {
    let mut table =
        Table::new("`kill -9` of one of three nodes", &["ms until all others got `agent:left`", "n", "median", "max"]);
    for (name, is_it) in [
        ("all", (|_| true) as fn(&Death) -> bool),
        ("the ticket was the dead node's", |death| death.was_owner),
        ("the ticket was another's", |death| !death.was_owner),
    ] {
        let times = deaths.iter().filter(|death| is_it(death)).map(|death| death.told.as_secs_f64() * 1e3);
        let times: Vec<f64> = times.collect();
        if !times.is_empty() {
            let most = times.iter().copied().fold(0.0, f64::max);
            table.row(name, [times.len().to_string(), thousands(median(times), 0), thousands(most, 0)]);
        }
    }
    table
}
