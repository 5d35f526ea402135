//! What comes of what a feature orders.

use std::time::Duration;

use roundhouse_sdk::simulator::{Connection, Simulation};
use roundhouse_sdk::{ClaimedSender, Failure, Identity};
use serde_json::{Value, json};

use crate::probe::Probe;

type Sim = Simulation<Probe>;

fn order(sim: &mut Sim, who: Connection, what: &str, with: &str) -> Value {
    sim.emit_with_ack(who, "do", json!({"id": "1", "what": what, "with": with})).unwrap()
}

fn notes(sim: &mut Sim) -> Value {
    sim.query("notes", json!({"id": "1"})).unwrap()
}

fn said(text: &str) -> Vec<(String, Value)> {
    vec![("said".to_owned(), json!({"text": text}))]
}

fn admin(sim: &mut Sim, user_id: &str) -> Connection {
    sim.connect_as(Identity {
        user_id: user_id.to_owned(),
        name: None,
        roles: vec!["admin".to_owned()],
        claims: json!({"team": "blue"}).to_string(),
    })
}

#[test]
fn room_emit_skips_the_excepted_connection() {
    let mut sim = Sim::new();
    let people = [sim.connect("ana", "Ana"), sim.connect("bob", "Bob"), sim.connect("eve", "Eve")];
    order(&mut sim, people[0], "join", "");
    order(&mut sim, people[1], "join", "");
    order(&mut sim, people[0], "say to room", "hi");
    assert_eq!(people.map(|who| sim.received(who)), [vec![], said("hi"), vec![]]);
    order(&mut sim, people[1], "leave", "");
    order(&mut sim, people[0], "say to room", "hi");
    assert_eq!(sim.received(people[1]), []);
}

#[test]
fn overlapping_audiences_receive_once() {
    let mut sim = Sim::new();
    let ana = admin(&mut sim, "ana");
    let tab = sim.connect("ana", "Ana");
    let bob = sim.connect("bob", "Bob");
    let eve = sim.connect("eve", "Eve");
    order(&mut sim, ana, "join", "");
    order(&mut sim, ana, "say to many", "hi");
    assert_eq!([ana, tab, bob].map(|who| sim.received(who)), [said("hi"), said("hi"), said("hi")]);
    assert_eq!(sim.received(eve), []);
    order(&mut sim, eve, "say to role", "admin");
    assert_eq!([ana, tab].map(|who| sim.received(who).len()), [1, 0]);
    order(&mut sim, eve, "say to all", "hi");
    assert!(sim.deliveries(tab)[0].volatile);
}

#[test]
fn event_may_have_several_arguments_and_attachments() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "pair", "x");
    let delivery = sim.deliveries(ana).remove(0);
    assert_eq!(delivery.event, "pair");
    assert_eq!(delivery.args, [json!("x"), json!({"_placeholder": true, "num": 0})]);
    assert_eq!(delivery.attachments, [vec![1, 2]]);
}

#[test]
fn failure_discards_state_and_effects() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let failing = json!({"id": "1", "what": "fail", "with": "no"});
    assert_eq!(sim.emit_with_ack(ana, "do", failing.clone()), Err(Failure::conflict("no")));
    assert_eq!(sim.received(ana), []);
    assert!(!sim.exists("probe:1"));
    sim.emit(ana, "do", failing);
    let error = json!({"code": "conflict", "message": "no", "event": "do"});
    assert_eq!(sim.received(ana), [("error".to_owned(), error)]);
}

#[test]
fn feature_receives_acknowledgement_or_reason_it_is_missing() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "ask", "first");
    order(&mut sim, ana, "ask", "second");
    sim.acknowledge(ana, "first", json!("yes"));
    sim.advance(Duration::from_secs(5));
    order(&mut sim, ana, "ask", "third");
    sim.disconnect(ana);
    assert_eq!(notes(&mut sim), json!(["first yes out", "second timeout out", "third disconnected out"]));
}

#[test]
fn timer_set_by_timer_has_minimum_delay() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "timer", "chain");
    sim.advance(Duration::from_secs(3));
    sim.advance(Duration::from_millis(9));
    assert_eq!(notes(&mut sim), json!(["timer chain 0"]));
    sim.advance(Duration::from_millis(1));
    assert_eq!(notes(&mut sim), json!(["timer chain 0", "timer link 0"]));
}

#[test]
fn timer_is_replaced_by_name_and_cancelled() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "timer", "one");
    sim.advance(Duration::from_secs(2));
    order(&mut sim, ana, "timer", "two");
    sim.advance(Duration::from_secs(2));
    assert_eq!(notes(&mut sim), json!([]));
    sim.advance(Duration::from_secs(1));
    order(&mut sim, ana, "timer", "three");
    order(&mut sim, ana, "cancel", "");
    sim.advance(Duration::from_secs(9));
    assert_eq!(notes(&mut sim), json!(["timer two 0"]));
}

#[test]
fn reply_counts_each_reached_connection_once() {
    let mut sim = Sim::new();
    let people = [sim.connect("ana", "Ana"), sim.connect("bob", "Bob"), sim.connect("bob", "Bob")];
    for who in people {
        order(&mut sim, who, "join", "");
    }
    admin(&mut sim, "eve");
    assert_eq!(order(&mut sim, people[0], "reach connections", "hi"), json!({"delivered": 4}));
    assert_eq!(order(&mut sim, people[0], "reach users", "hi"), json!({"people": 3}));
}

#[test]
fn each_external_removal_is_reported_once() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let bob = sim.connect("bob", "Bob");
    let eve = sim.connect("eve", "Eve");
    for what in ["join", "watch"] {
        order(&mut sim, ana, what, "");
    }
    order(&mut sim, bob, "watch", "");
    sim.join(eve, "probe:1");
    sim.disconnect(ana);
    sim.disconnect(bob);
    sim.leave(eve, "probe:1");
    assert_eq!(
        notes(&mut sim),
        json!([
            "joined eve in 1",
            "left ana disconnected 1 out 0",
            "left bob disconnected 1 out 0",
            "left eve left 0 out 0",
        ])
    );
}

#[test]
fn own_joins_are_reported_only_to_neighbouring_scopes() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "join", "");
    order(&mut sim, ana, "join room", "probe:2");
    order(&mut sim, ana, "join room", "hall:1");
    order(&mut sim, ana, "disconnect", "enough");
    assert_eq!(sim.closed(ana), Some("enough"));
    assert!(!sim.is_in(ana, "hall:1"));
    // That it disconnected somebody is its doing; that the connection is gone now is told like any other end.
    assert_eq!(notes(&mut sim), json!(["left ana disconnected 0 out 0"]));
    let neighbour = sim.query("notes", json!({"id": "2"})).unwrap();
    assert_eq!(neighbour, json!(["joined ana in 1", "left ana disconnected 0 out 0"]));
}

#[test]
fn claims_and_roles_come_from_identity() {
    let identity = Identity {
        user_id: "ana".to_owned(),
        name: None,
        roles: vec!["admin".to_owned()],
        claims: json!({"team": "blue", "level": 3}).to_string(),
    };
    assert_eq!(identity.claim::<String>("team").as_deref(), Some("blue"));
    assert_eq!(identity.claim::<u32>("level"), Some(3));
    assert_eq!(identity.claim::<u32>("team"), None);
    assert!(identity.has_role("admin"));
    assert_eq!(identity.must_be("agentId", Some("bob")).unwrap_err().code, "forbidden");
}

#[test]
fn only_own_sender_id_may_be_claimed() {
    let identity = Identity { user_id: "ana".to_owned(), name: None, roles: Vec::new(), claims: "{}".to_owned() };
    for field in ["agentId", "senderId", "userId"] {
        for (claimed, allowed) in [
            (json!(null), true),
            (json!("ana"), true),
            (json!({"_id": "ana", "username": "Ana"}), true),
            (json!("bob"), false),
            (json!({"_id": "bob"}), false),
        ] {
            let claims: ClaimedSender = serde_json::from_value(json!({field: claimed, "else": 1})).unwrap();
            assert_eq!(claims.check(&identity).is_ok(), allowed, "{field} {claimed}");
        }
        for wrong in [json!(7), json!({}), json!([])] {
            assert!(serde_json::from_value::<ClaimedSender>(json!({field: wrong})).is_err());
        }
    }
}
