//! Section 5 of the contract, rule by rule, on the simulator.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test like the test itself")]

mod bounds;
mod channels;
mod history;
mod joining;
mod refusals;
mod repeating;
mod restarting;
mod sending;
mod stats;

use chat_confirmation::ChatConfirmation;
use roundhouse_sdk::simulator::{Connection, Simulation};
use roundhouse_sdk::{Failure, Identity, StoreFailure};
use serde_json::{Value, json};

type Sim = Simulation<ChatConfirmation>;

/// The room of most tests.
const ROOM: &str = "room:r1";

fn r1() -> Value {
    json!({"roomId": "r1"})
}

fn join(sim: &mut Sim, who: Connection) -> Value {
    sim.emit_with_ack(who, "joinRoom", r1()).unwrap()
}

/// Connects a user who joins the room, and discards the events of the join.
fn joined(sim: &mut Sim, user_id: &str) -> Connection {
    let who = sim.connect(user_id, user_id);
    join(sim, who);
    sim.received(who);
    who
}

/// Sends a message. Returns its temporary id.
fn say(sim: &mut Sim, who: Connection, body: &str) -> String {
    temp_id(&sim.emit_with_ack(who, "roomMessage", json!({"roomId": "r1", "body": body})).unwrap())
}

/// Sends a message with a client's id. Returns its temporary id.
fn say_as(sim: &mut Sim, who: Connection, client_id: &str) -> String {
    let data = json!({"roomId": "r1", "body": "hi", "clientId": client_id});
    temp_id(&sim.emit_with_ack(who, "roomMessage", data).unwrap())
}

fn temp_id(acknowledgement: &Value) -> String {
    acknowledgement["tempId"].as_str().unwrap().to_owned()
}

/// Stores all promised documents.
fn store(sim: &mut Sim) {
    for save in sim.saves() {
        sim.stored(&save);
    }
}

/// The names of the events that a connection received.
fn names(sim: &mut Sim, who: Connection) -> Vec<String> {
    sim.received(who).into_iter().map(|(name, _)| name).collect()
}

/// The names of the events that a connection received, each with the temporary id in it.
fn about(sim: &mut Sim, who: Connection) -> Vec<(String, String)> {
    sim.received(who).into_iter().map(|(name, data)| (name, temp_id(&data))).collect()
}

fn is(name: &str, temp_id: &str) -> (String, String) {
    (name.to_owned(), temp_id.to_owned())
}

fn away() -> StoreFailure {
    StoreFailure { failure: Failure::feature_unavailable("the store is away"), retryable: true }
}

fn person(user_id: &str, name: Option<&str>, claims: &Value) -> Identity {
    Identity {
        user_id: user_id.to_owned(),
        name: name.map(str::to_owned),
        roles: Vec::new(),
        claims: claims.to_string(),
    }
}
