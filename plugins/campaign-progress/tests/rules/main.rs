//! Section 4 of the contract, rule by rule, on the simulator.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test like the test itself")]

mod life_cycle;
mod progress;
mod refusals;
mod stats;
mod subscribing;

use campaign_progress::CampaignProgress;
use roundhouse_sdk::Failure;
use roundhouse_sdk::simulator::{Connection, Simulation};
use serde_json::{Value, json};

type Sim = Simulation<CampaignProgress>;

/// The campaign of most tests.
const ROOM: &str = "campaign:c1";

fn c1() -> Value {
    json!({"campaignId": "c1"})
}

/// Sends an event of the service that runs the campaigns.
fn tell(sim: &mut Sim, event: &str, data: Value) -> Result<Value, Failure> {
    sim.service("campaigns", event, data)
}

/// Starts a campaign of a thousand messages without an owner.
fn start(sim: &mut Sim) {
    tell(sim, "campaign:started", json!({"campaignId": "c1", "name": "Autumn", "total": 1000})).unwrap();
}

/// Starts a campaign that Olga owns.
fn start_olgas(sim: &mut Sim) {
    let data = json!({"campaignId": "c1", "name": "Autumn", "total": 1000, "ownerId": "olga"});
    tell(sim, "campaign:started", data).unwrap();
}

fn report(sim: &mut Sim, status: &str, count: u64) -> Result<Value, Failure> {
    tell(sim, "campaign:message", json!({"campaignId": "c1", "status": status, "count": count}))
}

fn sent(sim: &mut Sim, count: u64) {
    report(sim, "sent", count).unwrap();
}

/// Connects Ana as a subscriber, and discards the events that she received until now.
fn ana(sim: &mut Sim) -> Connection {
    let ana = sim.connect("ana", "Ana");
    sim.emit_with_ack(ana, "subscribe:campaign", c1()).unwrap();
    sim.received(ana);
    ana
}

/// The names of the events that a connection received.
fn names(sim: &mut Sim, who: Connection) -> Vec<String> {
    sim.received(who).into_iter().map(|(name, _)| name).collect()
}

/// The number of processed messages in each progress event that a connection received.
fn processed(sim: &mut Sim, who: Connection) -> Vec<u64> {
    let received = sim.received(who).into_iter();
    let progress = received.filter(|(name, _)| name == "campaign:progress");
    progress.map(|(_, data)| data["processed"].as_u64().unwrap()).collect()
}

/// The figures in the acknowledgement of a new subscription.
fn snapshot(sim: &mut Sim) -> Value {
    let late = sim.connect("late", "Late");
    let snapshot = sim.emit_with_ack(late, "subscribe:campaign", c1()).unwrap();
    sim.disconnect(late);
    snapshot
}
