//! The service: it sends numbered events to each timeline, one after another, and the history of rooms is read for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::page::Shared;
use super::record::{At, Post, number};
use super::wire::{Arrival, Wire};
use crate::{Random, TestCluster, http};

/// The time-out of a call.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Sends events to a timeline, each to any host, until the run is over. Each begins when the call before has ended.
pub(super) async fn post_events(
    shared: Arc<Shared>,
    timeline: usize,
    mut is_paused: watch::Receiver<bool>,
    mut random: Random,
) {
    loop {
        sleep(Duration::from_millis(60 + random.below(120) as u64)).await;
        // An error says that the run is over.
        if is_paused.wait_for(|is_paused| !is_paused).await.is_err() {
            return;
        }
        let node = random.below(shared.apis.len());
        let n = begin(&shared, timeline);
        let outcome = timeout(PATIENCE, post(&shared.apis[node], timeline, n)).await;
        let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let mut record = shared.record();
        let now = record.now();
        let post = &mut record.posts[timeline][n];
        (post.ended, post.is_acknowledged) = (Some(now), outcome.is_ok());
        if let Err(why) = outcome {
            record
                .note(format!("the service does not know of event {n} of timeline {timeline}, to host {node}: {why}"));
        }
    }
}

fn begin(shared: &Shared, timeline: usize) -> usize {
    let mut record = shared.record();
    let began: At = record.now();
    record.posts[timeline].push(Post { began, ended: None, is_acknowledged: false });
    record.posts[timeline].len() - 1
}

async fn post(api: &str, timeline: usize, n: usize) -> Result<(), String> {
    let data = json!({ "entityType": "ticket", "entityId": format!("e{timeline}"), "item": { "n": n } });
    let body = json!({ "event": "timeline:new_item", "data": data }).to_string();
    call(api, "POST", "/v1/events", body).await.map(drop)
}

/// Calls the API of a host.
///
/// # Errors
/// If the host does not answer, or refuses.
pub(super) async fn call(api: &str, method: &str, path: &str, body: String) -> Result<Value, String> {
    let key = format!("Bearer {}", TestCluster::key());
    let answer = http(api, method, path, &[("authorization", &key)], body).await.map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(answer.body) } else { Err(format!("{} {}", answer.status, answer.text)) }
}

/// The numbers of the messages in the history of a room, as a member gets them.
///
/// # Errors
/// If the host does not answer, or refuses.
pub(super) async fn history(ws: &str, room: usize) -> Result<Vec<usize>, String> {
    let mut wire = Wire::open(ws, &TestCluster::token("auditor")).await?;
    let place = json!({ "roomId": format!("r{room}") });
    ask(&mut wire, 1, "joinRoom", &place).await?;
    let mut numbers = Vec::new();
    let mut before = Value::Null;
    for id in 2.. {
        let mut data = place.clone();
        data["limit"] = json!(100);
        if !before.is_null() {
            data["before"] = before;
        }
        let page = ask(&mut wire, id, "roomHistory", &data).await?;
        let messages = page["messages"].as_array().cloned().unwrap_or_default();
        numbers.extend(messages.iter().filter_map(|message| number(&message["body"])));
        before = messages.last().map_or(Value::Null, |message| message["_id"].clone());
        if page["hasMore"] != true || before.is_null() {
            break;
        }
    }
    wire.close().await;
    Ok(numbers)
}

async fn ask(wire: &mut Wire, id: i64, event: &str, data: &Value) -> Result<Value, String> {
    wire.send(&json!({ "event": event, "data": data, "id": id })).await?;
    let answer = async {
        loop {
            match wire.next().await? {
                Arrival::Frame(frame) if frame["id"] == id => return Ok::<Value, String>(frame),
                _ => {}
            }
        }
    };
    let frame = timeout(PATIENCE, answer).await.map_err(|_| format!("no answer to {event} in time"))??;
    match frame.get("error") {
        Some(error) => Err(format!("{event} was refused: {error}")),
        None => Ok(frame["data"].clone()),
    }
}
