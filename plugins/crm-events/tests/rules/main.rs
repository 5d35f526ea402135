//! Section 6 of the contract, rule by rule, on the simulator.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test like the test itself")]

mod messages;
mod pushing;
mod refusals;
mod subscribing;
mod typing;

use crm_events::CrmEvents;
use roundhouse_sdk::Identity;
use roundhouse_sdk::simulator::{Connection, Simulation};
use serde_json::{Value, json};

type Sim = Simulation<CrmEvents>;

/// Connects a user who subscribes to the contact `k1`.
fn on_contact(sim: &mut Sim, user_id: &str) -> Connection {
    let who = sim.connect(user_id, &user_id.to_uppercase());
    sim.emit_with_ack(who, "subscribe:contact", json!("k1")).unwrap();
    who
}

/// Connects a user who subscribes to the account `a1`.
fn on_account(sim: &mut Sim, user_id: &str) -> Connection {
    let who = sim.connect(user_id, &user_id.to_uppercase());
    sim.emit_with_ack(who, "subscribe:whatsapp", json!("a1")).unwrap();
    who
}

fn push(sim: &mut Sim, event: &str, data: &Value) -> Value {
    sim.service("crm", event, data.clone()).unwrap()
}

fn delivered(n: u32) -> Value {
    json!({"delivered": n})
}

/// The names of the events that a connection received.
fn names(sim: &mut Sim, who: Connection) -> Vec<String> {
    sim.received(who).into_iter().map(|(name, _)| name).collect()
}

fn is(event: &str, data: &Value) -> (String, Value) {
    (event.to_owned(), data.clone())
}

fn with_role(sim: &mut Sim, user_id: &str, role: &str) -> Connection {
    sim.connect_as(Identity {
        user_id: user_id.to_owned(),
        name: None,
        roles: vec![role.to_owned()],
        claims: "{}".to_owned(),
    })
}
