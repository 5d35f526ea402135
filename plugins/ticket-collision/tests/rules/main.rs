//! Section 1 of the contract, rule by rule, on the simulator.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test like the test itself")]

mod away;
mod coming_and_going;
mod refusals;
mod stale_and_stats;
mod typing;

use roundhouse_sdk::Identity;
use roundhouse_sdk::simulator::{Connection, Simulation};
use serde_json::{Value, json};
use ticket_collision::TicketCollision;

type Sim = Simulation<TicketCollision>;

/// The ticket of all tests.
const ROOM: &str = "ticket:t1";

fn t1() -> Value {
    json!({"ticketId": "t1"})
}

fn view(sim: &mut Sim, who: Connection) -> Value {
    sim.emit_with_ack(who, "ticket:view", t1()).unwrap()
}

fn typing(sim: &mut Sim, who: Connection) {
    sim.emit_with_ack(who, "ticket:typing", t1()).unwrap();
}

/// Ana and Bob, both viewing; the events that they received until now are discarded.
fn ana_and_bob(sim: &mut Sim) -> (Connection, Connection) {
    let ana = sim.connect("ana", "Ana");
    let bob = sim.connect("bob", "Bob");
    view(sim, ana);
    view(sim, bob);
    forget(sim, &[ana, bob]);
    (ana, bob)
}

fn forget(sim: &mut Sim, connections: &[Connection]) {
    for connection in connections {
        sim.received(*connection);
    }
}

/// The names of the events that a connection received.
fn names(sim: &mut Sim, who: Connection) -> Vec<String> {
    sim.received(who).into_iter().map(|(name, _)| name).collect()
}

fn nameless(user_id: &str) -> Identity {
    Identity { user_id: user_id.to_owned(), name: None, roles: Vec::new(), claims: "{}".to_owned() }
}

/// The agents in a list of viewers, each with its activity.
fn doing(list: &Value) -> Vec<(String, String)> {
    let viewers = list["viewers"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    viewers.iter().map(|viewer| (text(&viewer["agentId"]), text(&viewer["status"]))).collect()
}

fn is(agent: &str, status: &str) -> (String, String) {
    (agent.to_owned(), status.to_owned())
}
