//! Section 3 of the contract, rule by rule, on the simulator.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test like the test itself")]

mod learning;
mod recipients;
mod refusals;

use roundhouse_sdk::simulator::{Connection, Simulation};
use roundhouse_sdk::{Failure, Identity};
use serde_json::{Value, json};
use ticket_events::TicketEvents;

type Sim = Simulation<TicketEvents>;

/// The scope of the ticket of most tests.
const SCOPE: &str = "ticket-events:t1";

/// All connected users, by their relation to the ticket of [`People::create`].
struct People {
    ana_creator: Connection,
    bob_assignee: Connection,
    adam_admin: Connection,
    sue_super_admin: Connection,
    eve_stranger: Connection,
}

impl People {
    fn connect(sim: &mut Sim) -> Self {
        Self {
            ana_creator: sim.connect("ana", "Ana"),
            bob_assignee: sim.connect("bob", "Bob"),
            adam_admin: with_role(sim, "adam", "admin"),
            sue_super_admin: with_role(sim, "sue", "super_admin"),
            eve_stranger: sim.connect("eve", "Eve"),
        }
    }

    /// The same users, after the event that Ana created the ticket for Bob. The events that they received until now are
    /// discarded.
    fn create(sim: &mut Sim) -> Self {
        let people = Self::connect(sim);
        tell(sim, "ticket:created", json!({"ticketId": "t1", "creatorId": "ana", "assigneeId": "bob"})).unwrap();
        people.who_heard(sim);
        people
    }

    /// The users who received an event since the last call, once for each event.
    fn who_heard(&self, sim: &mut Sim) -> Vec<&'static str> {
        let all = [
            ("ana", self.ana_creator),
            ("bob", self.bob_assignee),
            ("adam", self.adam_admin),
            ("sue", self.sue_super_admin),
            ("eve", self.eve_stranger),
        ];
        let mut heard = Vec::new();
        for (name, connection) in all {
            heard.extend(sim.received(connection).iter().map(|_| name));
        }
        heard
    }
}

fn with_role(sim: &mut Sim, user_id: &str, role: &str) -> Connection {
    let (user_id, roles, claims) = (user_id.to_owned(), vec![role.to_owned()], "{}".to_owned());
    sim.connect_as(Identity { user_id, name: None, roles, claims })
}

/// Sends an event of the service that keeps the tickets.
fn tell(sim: &mut Sim, event: &str, data: Value) -> Result<Value, Failure> {
    sim.service("tickets", event, data)
}

/// Sends an event of the ticket. Returns the users who received it.
fn heard(sim: &mut Sim, people: &People, event: &str, data: Value) -> Vec<&'static str> {
    tell(sim, event, about_t1(data)).unwrap();
    people.who_heard(sim)
}

fn about_t1(mut data: Value) -> Value {
    data["ticketId"] = json!("t1");
    data
}

/// Each event with its required fields, caused by Cleo.
fn events() -> [(&'static str, Value); 7] {
    [
        ("ticket:created", json!({"title": "It broke", "createdBy": "cleo"})),
        ("ticket:updated", json!({"changes": {"title": "It burns"}, "updatedBy": "cleo"})),
        ("ticket:statusChanged", json!({"oldStatus": "open", "newStatus": "in progress", "updatedBy": "cleo"})),
        ("ticket:priorityChanged", json!({"oldPriority": "low", "newPriority": "high", "updatedBy": "cleo"})),
        (
            "ticket:commentAdded",
            json!({"comment": {"id": "k1", "body": "Where?", "user": {"id": "cleo", "name": "Cleo"}}}),
        ),
        ("ticket:attachmentAdded", json!({"attachment": {"id": "f1", "name": "a.png"}, "uploadedBy": "cleo"})),
        ("ticket:attachmentDeleted", json!({"attachmentId": "f1", "deletedBy": "cleo"})),
    ]
}
