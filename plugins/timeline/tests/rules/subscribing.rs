//! Subscriptions to a timeline.

use serde_json::json;

use super::{ROOM, Sim, client, names, subscribe, subscribed, subscriber};

#[test]
fn subscribing_emits_event_and_acknowledges() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    assert_eq!(sim.emit_with_ack(ana, "timeline:subscribe", client()).unwrap(), subscribed(1));
    assert_eq!(sim.received(ana), [("timeline:subscribed".to_owned(), subscribed(1))]);
    assert!(sim.is_in(ana, ROOM));
    let bob = sim.connect("bob", "Bob");
    sim.emit(bob, "timeline:subscribe", client());
    assert_eq!(sim.received(bob), [("timeline:subscribed".to_owned(), subscribed(2))]);
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn unsubscribing_emits_event_and_leaves_room() {
    let mut sim = Sim::new();
    let ana = subscriber(&mut sim, "ana");
    assert_eq!(sim.emit_with_ack(ana, "timeline:unsubscribe", client()).unwrap(), client());
    assert_eq!(sim.received(ana), [("timeline:unsubscribed".to_owned(), client())]);
    assert!(!sim.is_in(ana, ROOM));
    assert!(sim.state(ROOM).is_none());
}

#[test]
fn subscribing_and_unsubscribing_are_idempotent() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    for _ in 0..3 {
        assert_eq!(subscribe(&mut sim, ana), 1);
    }
    assert_eq!(names(&mut sim, ana), ["timeline:subscribed"; 3]);
    for _ in 0..2 {
        sim.emit_with_ack(ana, "timeline:unsubscribe", client()).unwrap();
    }
    assert_eq!(names(&mut sim, ana), ["timeline:unsubscribed"; 2]);
    assert_eq!(subscribe(&mut sim, ana), 1);
}

#[test]
fn second_tab_is_not_a_second_subscriber() {
    let mut sim = Sim::new();
    let first = subscriber(&mut sim, "ana");
    let second = sim.connect("ana", "Ana");
    assert_eq!(subscribe(&mut sim, second), 1);
    let bob = sim.connect("bob", "Bob");
    assert_eq!(subscribe(&mut sim, bob), 2);
    // Ana stays subscribed until her last tab is closed.
    sim.disconnect(first);
    assert_eq!(sim.query("subscribers", client()).unwrap(), json!({"count": 2}));
    sim.emit_with_ack(second, "timeline:unsubscribe", client()).unwrap();
    assert_eq!(sim.query("subscribers", client()).unwrap(), json!({"count": 1}));
    assert_eq!(subscribe(&mut sim, second), 2);
}

#[test]
fn last_disconnect_clears_state() {
    let mut sim = Sim::new();
    let ana = subscriber(&mut sim, "ana");
    let bob = subscriber(&mut sim, "bob");
    sim.disconnect(ana);
    assert!(names(&mut sim, bob).is_empty());
    assert_eq!(subscribe(&mut sim, bob), 1);
    sim.disconnect(bob);
    assert!(sim.state(ROOM).is_none());
}

#[test]
fn memberships_by_other_features_count() {
    let mut sim = Sim::new();
    let tab = sim.connect("ana", "Ana");
    sim.join(tab, ROOM);
    let ana = sim.connect("ana", "Ana");
    assert_eq!(subscribe(&mut sim, ana), 1);
    sim.leave(tab, ROOM);
    sim.leave(ana, ROOM);
    assert!(sim.state(ROOM).is_none());
    assert_eq!(subscribe(&mut sim, ana), 1);
}

#[test]
fn timelines_are_separate_by_type_and_id() {
    let mut sim = Sim::new();
    let ana = subscriber(&mut sim, "ana");
    for (entity_type, entity_id) in [("lead", "123"), ("client", "1:23")] {
        let data = json!({"entityType": entity_type, "entityId": entity_id});
        let answer = sim.emit_with_ack(ana, "timeline:subscribe", data.clone()).unwrap();
        assert_eq!(answer["subscribers"], 1);
        sim.received(ana);
        assert_eq!(sim.service("crm", "timeline:refresh", data).unwrap(), json!({"delivered": 1}));
        assert_eq!(sim.received(ana)[0].1["entityId"], entity_id);
    }
}

#[test]
fn state_limit_holds_beyond_remembered_subscribers() {
    let mut sim = Sim::new();
    // Ids as long as they may be; the simulator panics where the state grows too large.
    for n in 0..500 {
        let who = sim.connect(&format!("{n:\"<128}"), "Somebody");
        assert_eq!(subscribe(&mut sim, who), n + 1);
    }
    assert_eq!(sim.query("subscribers", client()).unwrap(), json!({"count": 500}));
    assert_eq!(sim.service("crm", "timeline:refresh", client()).unwrap(), json!({"delivered": 500}));
}
