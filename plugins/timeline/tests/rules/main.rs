//! Section 2 of the contract, rule by rule, on the simulator.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test like the test itself")]

mod activity;
mod figures;
mod refusals;
mod subscribing;

use roundhouse_sdk::simulator::{Connection, Simulation};
use serde_json::{Value, json};
use timeline::Timeline;

type Sim = Simulation<Timeline>;

/// The timeline of most tests.
const ROOM: &str = "timeline:client:123";

fn client() -> Value {
    json!({"entityType": "client", "entityId": "123"})
}

/// The acknowledgement of a subscription.
fn subscribed(subscribers: u32) -> Value {
    json!({"entityType": "client", "entityId": "123", "subscribers": subscribers})
}

/// Connects a user who subscribes; the events received until now are discarded.
fn subscriber(sim: &mut Sim, user_id: &str) -> Connection {
    let who = sim.connect(user_id, user_id);
    sim.emit_with_ack(who, "timeline:subscribe", client()).unwrap();
    sim.received(who);
    who
}

/// Subscribes a connection. Returns the number of subscribers in the acknowledgement.
fn subscribe(sim: &mut Sim, who: Connection) -> u64 {
    sim.emit_with_ack(who, "timeline:subscribe", client()).unwrap()["subscribers"].as_u64().unwrap()
}

/// The fields of a service's event of the client, with `more` fields.
fn about_client(more: Value) -> Value {
    let mut data = client();
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    data
}

/// The names of the events that a connection received.
fn names(sim: &mut Sim, who: Connection) -> Vec<String> {
    sim.received(who).into_iter().map(|(name, _)| name).collect()
}
