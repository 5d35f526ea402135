//! Joining and leaving a room.

use serde_json::json;

use super::{ROOM, Sim, join, joined, names, r1, say};

#[test]
fn join_reply_has_user_count() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let bob = sim.connect("bob", "Bob");
    assert_eq!(join(&mut sim, ana), json!({"roomId": "r1", "connectedUsers": 1}));
    assert_eq!(join(&mut sim, bob), json!({"roomId": "r1", "connectedUsers": 2}));
    assert!(sim.is_in(ana, ROOM));
}

#[test]
fn second_tab_does_not_raise_user_count() {
    let mut sim = Sim::new();
    joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    let tab = sim.connect("ana", "Ana");
    assert_eq!(join(&mut sim, tab)["connectedUsers"], 2);
    assert_eq!(sim.emit_with_ack(tab, "leaveRoom", r1()).unwrap(), json!({"roomId": "r1", "connectedUsers": 2}));
    // The first tab is still a member.
    say(&mut sim, bob, "hi");
    assert!(names(&mut sim, tab).is_empty());
}

#[test]
fn joining_and_leaving_are_idempotent() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    joined(&mut sim, "bob");
    for _ in 0..2 {
        assert_eq!(join(&mut sim, ana)["connectedUsers"], 2);
    }
    for _ in 0..2 {
        assert_eq!(sim.emit_with_ack(ana, "leaveRoom", r1()).unwrap()["connectedUsers"], 1);
    }
    assert!(!sim.is_in(ana, ROOM));
}

#[test]
fn user_leaves_with_last_connection() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let tab = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    sim.disconnect(ana);
    assert_eq!(join(&mut sim, bob)["connectedUsers"], 2);
    sim.leave(tab, ROOM);
    assert_eq!(join(&mut sim, bob)["connectedUsers"], 1);
}

#[test]
fn connection_that_left_receives_nothing() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    sim.emit_with_ack(ana, "leaveRoom", r1()).unwrap();
    say(&mut sim, bob, "hi");
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn connection_joined_by_another_feature_counts() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = sim.connect("bob", "Bob");
    sim.join(bob, ROOM);
    say(&mut sim, bob, "hi");
    assert_eq!(names(&mut sim, ana), ["roomMessageRecieved"]);
    assert_eq!(join(&mut sim, ana)["connectedUsers"], 2);
}

#[test]
fn store_outage_does_not_block_joins() {
    let mut sim = Sim::new();
    sim.fail_fetches(Some(super::away()));
    let ana = sim.connect("ana", "Ana");
    assert_eq!(join(&mut sim, ana), json!({"roomId": "r1", "connectedUsers": 1}));
    say(&mut sim, ana, "hi");
    assert_eq!(sim.logs().len(), 1);
}

#[test]
fn joins_and_leaves_are_not_broadcast() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    sim.disconnect(bob);
    assert!(names(&mut sim, ana).is_empty());
}
