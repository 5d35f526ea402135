//! A plugin that misbehaves, driven by clients of its author.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{BURST, RATE, attack, hostile};
use crate::abuse::{Attack, Field, Flood, Handshake, line};
use crate::bench::token;
use crate::guests;

/// The time between two looks at the plugin's notifications.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The number of clients of the plugin's author.
const CLIENTS: usize = 4;

pub(in crate::abuse) const ATTACKS: &[Attack] = &[
    attack!("panics", Plugin, Closed, 1, "a panic in each call, 4 clients at their rate", |f| drive(
        f,
        "panic",
        json!({})
    )),
    attack!("spins", Plugin, Closed, 1, "a call that never ends, 4 clients at their rate", |f| drive(
        f,
        "spin",
        json!({})
    )),
    attack!("eats", Plugin, Closed, 1, "a call that takes all memory of its instance", |f| drive(f, "eat", json!({}))),
    attack!("recursion", Plugin, Closed, 1, "a call that calls itself", |f| drive(f, "recurse", json!({}))),
    attack!("effects", Plugin, Closed, 1, "a million effects in one call", |f| drive(f, "flood", json!({}))),
    attack!("large-effects", Plugin, Closed, 1, "effects of 1.2 MB in one call", |f| drive(f, "too-much", json!({}))),
    attack!("fat-states", Plugin, Closed, 1, "states of 60 kB, another scope each", fat_states),
    attack!("log-lines", Plugin, Closed, 1, "10,000 log lines in each call", |f| drive(f, "log", json!({}))),
    attack!("tells-all", Plugin, Closed, 1, "20 events of 1 kB to everybody in each call, as granted", |f| {
        drive(f, "tell-all", json!({ "count": 20, "bytes": 1000 }))
    }),
    attack!("own-room", Plugin, Closed, 1, "events of 600 kB to a room of 20, who read", own_room),
    attack!("owed-acknowledgements", Plugin, Closed, 1, "asks for 1,000 acknowledgements in each call", |f| {
        drive(f, "ask-many", json!({ "count": 1000 }))
    }),
    attack!("fat-timers", Plugin, Closed, 1, "timers of 900 kB each, a thousand in a scope", |f| async move {
        let flood = Flood::of(CLIENTS, Handshake::Plain).rate(RATE).burst(BURST);
        // A timer's name identifies it, so each frame goes to another scope once a scope has its maximum of timers.
        let frame = |i: usize, n: usize| {
            hostile(&format!("fat{i}-{n}"), "fat-timers", &json!({ "count": 9, "bytes": 100_000 }))
        };
        f.pour(flood, |i, n| Cow::Owned(frame(i, n))).await;
        anyhow::Ok(())
    }),
    attack!("fat-timers-one-scope", Plugin, Closed, 1, "timers of 900 kB a call, over and over in one scope", |f| {
        drive(f, "fat-timers", json!({ "count": 9, "bytes": 100_000 }))
    }),
    attack!("saves", Plugin, Closed, 1, "900 documents of 1 kB in each call, as granted", |f| {
        drive(f, "save-many", json!({ "count": 900, "bytes": 1000 }))
    }),
    attack!("fetches", Plugin, Closed, 1, "a page of 100 documents of 8 kB in each call", fetches),
    attack!(
        "takes-connections",
        Plugin,
        Closed,
        1,
        "takes everybody who connects into its room, and looks at their tokens",
        takes
    ),
];

async fn drive(field: Rc<Field>, how: &str, with: Value) -> anyhow::Result<()> {
    let frame = hostile("driven", how, &with);
    field.pour(Flood::of(CLIENTS, Handshake::Plain).accounts().rate(RATE), |_, _| Cow::Borrowed(&frame)).await;
    Ok(())
}

async fn fat_states(field: Rc<Field>) -> anyhow::Result<()> {
    let flood = Flood::of(CLIENTS, Handshake::Plain).rate(RATE).burst(BURST);
    let frame = |i: usize, n: usize| hostile(&format!("fat{i}-{n}"), "large-state", &json!({ "bytes": 60_000 }));
    field.pour(flood, |i, n| Cow::Owned(frame(i, n))).await;
    Ok(())
}

async fn own_room(field: Rc<Field>) -> anyhow::Result<()> {
    let join = line::plain("hostile:count", r#"{"id":"own"}"#);
    let _members = field.connect_all(Flood::of(field.some(20), Handshake::Plain).accounts().opening(join)).await;
    let frame = hostile("own", "flood-room", &json!(600_000));
    field.pour(Flood::of(1, Handshake::Plain).rate(RATE), |_, _| Cow::Borrowed(&frame)).await;
    Ok(())
}

async fn fetches(field: Rc<Field>) -> anyhow::Result<()> {
    let mut asker = field.asker(&field.user(0)).await?;
    asker.ask(&hostile("driven", "save-many", &json!({ "count": 100, "bytes": 8000 }))).await?;
    field.begin();
    drive(field, "fetch", json!({})).await
}

/// Loads a build of the guest that asks for each connect notification and joins each connection to its room. If the
/// host grants both, every client is in that room.
async fn takes(field: Rc<Field>) -> anyhow::Result<()> {
    let loaded = field.call("PUT", "/v1/plugins/hostile", guests::hostile("takes")).await?;
    if loaded.status != 200 {
        field.tally.borrow_mut().notes.push("the build is refused".to_owned());
        field.pause(field.time).await;
        return Ok(());
    }
    field.begin();
    let mut victim = field.reach(1).await?;
    let auth = json!({ "token": token("victim")? });
    victim = crate::raw::connect_socket_io_on(victim, &auth).await?.0;
    let shout = line::plain("hostile:greeted", "{}");
    let mut asker = field.asker(&field.user(0)).await?;
    let mut saw = String::new();
    while !field.is_over() && !saw.contains("victim in") {
        field.pause(POLL_INTERVAL).await;
        // The asker may have been disconnected, after the plugin has seen its token.
        let Ok(answer) = asker.ask(&shout).await else { break };
        saw = answer;
    }
    let is_taken = field.call("GET", "/v1/rooms/greeted", Vec::new()).await?.text.contains("victim");
    let mut harm = Vec::new();
    if saw.contains("eyJ") {
        harm.push("the plugin sees tokens".to_owned());
    }
    if is_taken {
        harm.push("everybody is in its room".to_owned());
    }
    field.tally.borrow_mut().harm.extend(harm);
    field.pour(Flood::of(1, Handshake::Plain).rate(RATE), |_, _| Cow::Borrowed(&shout)).await;
    drop(victim);
    Ok(())
}
