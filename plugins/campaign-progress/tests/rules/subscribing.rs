//! Subscriptions to a campaign.

use serde_json::json;

use super::{ROOM, Sim, ana, c1, names, report, sent, snapshot, start, tell};

#[test]
fn subscriber_gets_snapshot_at_once() {
    let mut sim = Sim::new();
    start(&mut sim);
    sent(&mut sim, 250);
    report(&mut sim, "failed", 5).unwrap();
    report(&mut sim, "delivered", 40).unwrap();
    report(&mut sim, "read", 3).unwrap();
    let ana = sim.connect("ana", "Ana");
    let answer = sim.emit_with_ack(ana, "subscribe:campaign", c1()).unwrap();
    let expected = json!({
        "campaignId": "c1",
        "name": "Autumn",
        "state": "running",
        "total": 1000,
        "processed": 255,
        "sent": 250,
        "delivered": 40,
        "read": 3,
        "failed": 5,
        "percent": 25.5,
        "ratePerSecond": 0,
        "etaMs": null,
    });
    assert_eq!(answer, expected);
    assert_eq!(sim.received(ana), [("campaign:snapshot".to_owned(), expected)]);
    assert!(sim.is_in(ana, ROOM));
}

#[test]
fn bare_id_subscribes_and_unsubscribes() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = sim.connect("ana", "Ana");
    sim.emit(ana, "subscribe:campaign", json!("c1"));
    assert_eq!(names(&mut sim, ana), ["campaign:snapshot"]);
    assert!(sim.is_in(ana, ROOM));
    sim.emit(ana, "unsubscribe:campaign", json!("c1"));
    assert!(names(&mut sim, ana).is_empty());
    assert!(!sim.is_in(ana, ROOM));
}

#[test]
fn subscribing_before_start_is_allowed() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let expected = json!({
        "campaignId": "c1",
        "state": "pending",
        "total": 0,
        "processed": 0,
        "sent": 0,
        "delivered": 0,
        "read": 0,
        "failed": 0,
        "percent": 0,
        "ratePerSecond": 0,
        "etaMs": null,
    });
    assert_eq!(sim.emit_with_ack(ana, "subscribe:campaign", c1()).unwrap(), expected);
    assert_eq!(sim.received(ana), [("campaign:snapshot".to_owned(), expected)]);
    assert!(sim.state(ROOM).is_none());
    start(&mut sim);
    assert_eq!(names(&mut sim, ana), ["campaign:started"]);
}

#[test]
fn late_subscriber_learns_the_final_status() {
    let mut sim = Sim::new();
    start(&mut sim);
    tell(&mut sim, "campaign:failed", json!({"campaignId": "c1", "reason": "no credit"})).unwrap();
    let shown = snapshot(&mut sim);
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("failed"), &json!("no credit")));
}

#[test]
fn unsubscribed_connection_receives_nothing() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    assert_eq!(sim.emit_with_ack(ana, "unsubscribe:campaign", c1()).unwrap(), json!(null));
    sent(&mut sim, 100);
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn subscribing_and_unsubscribing_are_idempotent() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    sim.emit_with_ack(ana, "subscribe:campaign", c1()).unwrap();
    assert_eq!(names(&mut sim, ana), ["campaign:snapshot"]);
    sent(&mut sim, 100);
    assert_eq!(names(&mut sim, ana), ["campaign:progress"]);
    for _ in 0..2 {
        sim.emit_with_ack(ana, "unsubscribe:campaign", c1()).unwrap();
    }
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn each_tab_has_its_own_subscription() {
    let mut sim = Sim::new();
    start(&mut sim);
    let first = ana(&mut sim);
    let second = ana(&mut sim);
    let other = sim.connect("ana", "Ana");
    sim.emit_with_ack(first, "unsubscribe:campaign", c1()).unwrap();
    sent(&mut sim, 100);
    assert!(names(&mut sim, first).is_empty());
    assert_eq!(names(&mut sim, second), ["campaign:progress"]);
    assert!(names(&mut sim, other).is_empty());
}

#[test]
fn other_subscriptions_survive_closing_a_tab() {
    let mut sim = Sim::new();
    start(&mut sim);
    let first = ana(&mut sim);
    let second = ana(&mut sim);
    sim.disconnect(first);
    sent(&mut sim, 100);
    assert!(names(&mut sim, first).is_empty());
    assert_eq!(names(&mut sim, second), ["campaign:progress"]);
}
