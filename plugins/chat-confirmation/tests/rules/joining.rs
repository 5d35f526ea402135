//! Who is in a room.

use serde_json::json;

use super::{ROOM, Sim, join, joined, names, r1, say};

#[test]
fn who_joins_is_told_how_many_people_are_there() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let bob = sim.connect("bob", "Bob");
    assert_eq!(join(&mut sim, ana), json!({"roomId": "r1", "connectedUsers": 1}));
    assert_eq!(join(&mut sim, bob), json!({"roomId": "r1", "connectedUsers": 2}));
    assert!(sim.is_in(ana, ROOM));
}

#[test]
fn a_second_tab_is_no_second_person() {
    let mut sim = Sim::new();
    joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    let tab = sim.connect("ana", "Ana");
    assert_eq!(join(&mut sim, tab)["connectedUsers"], 2);
    assert_eq!(sim.emit_with_ack(tab, "leaveRoom", r1()).unwrap(), json!({"roomId": "r1", "connectedUsers": 2}));
    // The first tab is still in.
    say(&mut sim, bob, "hi");
    assert!(names(&mut sim, tab).is_empty());
}

#[test]
fn joining_and_leaving_are_safe_to_repeat() {
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
fn a_person_is_gone_with_the_last_connection_however_it_goes() {
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
fn who_left_hears_nothing_more() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    sim.emit_with_ack(ana, "leaveRoom", r1()).unwrap();
    say(&mut sim, bob, "hi");
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn who_was_brought_in_by_somebody_else_is_in() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = sim.connect("bob", "Bob");
    sim.join(bob, ROOM);
    say(&mut sim, bob, "hi");
    assert_eq!(names(&mut sim, ana), ["roomMessageRecieved"]);
    assert_eq!(join(&mut sim, ana)["connectedUsers"], 2);
}

#[test]
fn a_store_that_is_away_keeps_nobody_out() {
    let mut sim = Sim::new();
    sim.fail_fetches(Some(super::away()));
    let ana = sim.connect("ana", "Ana");
    assert_eq!(join(&mut sim, ana), json!({"roomId": "r1", "connectedUsers": 1}));
    say(&mut sim, ana, "hi");
    assert_eq!(sim.logs().len(), 1);
}

#[test]
fn nobody_is_told_of_comings_and_goings() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    sim.disconnect(bob);
    assert!(names(&mut sim, ana).is_empty());
}
