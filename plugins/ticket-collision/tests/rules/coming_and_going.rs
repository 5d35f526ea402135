//! Viewers of a ticket, and the recipients of their events.

use serde_json::json;

use super::{ROOM, Sim, ana_and_bob, doing, forget, is, nameless, names, t1, typing, view};

#[test]
fn first_viewer_gets_only_the_list() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let list = json!({
        "ticketId": "t1",
        "viewers": [{"agentId": "ana", "agentName": "Ana", "status": "viewing", "since": sim.now()}],
    });
    assert_eq!(view(&mut sim, ana), list);
    assert_eq!(sim.received(ana), [("viewers:updated".to_owned(), list)]);
    assert!(sim.is_in(ana, ROOM));
}

#[test]
fn second_agent_is_warned_and_first_is_notified() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let bob = sim.connect("bob", "Bob");
    let since = sim.now();
    view(&mut sim, ana);
    forget(&mut sim, &[ana]);
    sim.advance(std::time::Duration::from_secs(1));

    let answer = view(&mut sim, bob);
    let ana_shown = json!({"agentId": "ana", "agentName": "Ana", "status": "viewing", "since": since});
    let bob_shown = json!({"agentId": "bob", "agentName": "Bob", "status": "viewing", "since": since + 1000});
    let list = json!({"ticketId": "t1", "viewers": [ana_shown, bob_shown]});
    assert_eq!(answer, list);
    assert_eq!(
        sim.received(bob),
        [
            (
                "collision:warning".to_owned(),
                json!({
                    "ticketId": "t1",
                    "severity": "viewing",
                    "viewers": [ana_shown],
                    "message": "Ana is viewing this ticket",
                })
            ),
            ("viewers:updated".to_owned(), list.clone()),
        ]
    );
    assert_eq!(
        sim.received(ana),
        [
            ("agent:joined".to_owned(), json!({"ticketId": "t1", "agentId": "bob", "agentName": "Bob"})),
            ("viewers:updated".to_owned(), list),
        ]
    );
}

#[test]
fn newcomer_is_warned_of_typing() {
    let mut sim = Sim::new();
    let (ana, _) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    let eve = sim.connect("eve", "Eve");
    view(&mut sim, eve);
    let (name, warning) = sim.received(eve).remove(0);
    assert_eq!(name, "collision:warning");
    assert_eq!(warning["severity"], "typing");
    assert_eq!(warning["message"], "Ana is typing an answer to this ticket; 2 other agents have it open");
    assert_eq!(doing(&warning), [is("ana", "typing"), is("bob", "viewing")]);
}

#[test]
fn second_tab_causes_no_collision_or_broadcast() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    let answer = view(&mut sim, tab);
    assert_eq!(doing(&answer), [is("ana", "viewing"), is("bob", "viewing")]);
    assert_eq!(sim.received(tab), [("viewers:updated".to_owned(), answer)]);
    assert!(names(&mut sim, ana).is_empty());
    assert!(names(&mut sim, bob).is_empty());
}

#[test]
fn repeated_view_is_only_acknowledged() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    assert_eq!(doing(&view(&mut sim, ana)), [is("ana", "viewing"), is("bob", "viewing")]);
    assert!(names(&mut sim, ana).is_empty());
    assert!(names(&mut sim, bob).is_empty());
}

#[test]
fn leave_reason_reaches_only_other_viewers() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    assert_eq!(sim.emit_with_ack(ana, "ticket:leave", t1()).unwrap(), json!(null));
    assert!(names(&mut sim, ana).is_empty());
    assert!(!sim.is_in(ana, ROOM));
    let received = sim.received(bob);
    assert_eq!(
        received[0],
        ("agent:left".to_owned(), json!({"ticketId": "t1", "agentId": "ana", "agentName": "Ana", "reason": "left"}))
    );
    assert_eq!(received[1].0, "viewers:updated");
    assert_eq!(doing(&received[1].1), [is("bob", "viewing")]);
    assert_eq!(received.len(), 2);
}

#[test]
fn disconnect_is_broadcast_as_disconnected() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    sim.disconnect(ana);
    let received = sim.received(bob);
    assert_eq!(received[0].1["reason"], "disconnected");
    assert_eq!(doing(&received[1].1), [is("bob", "viewing")]);
}

#[test]
fn agent_removed_from_room_is_reported_as_left() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    sim.leave(ana, ROOM);
    assert_eq!(sim.received(bob)[0].1["reason"], "left");
}

#[test]
fn agent_leaves_with_last_viewing_connection() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    view(&mut sim, tab);
    sim.disconnect(ana);
    assert!(names(&mut sim, bob).is_empty());
    sim.emit_with_ack(tab, "ticket:leave", t1()).unwrap();
    assert_eq!(names(&mut sim, bob), ["agent:left", "viewers:updated"]);
}

#[test]
fn closing_non_viewing_tab_keeps_agent_viewing() {
    let mut sim = Sim::new();
    let (_, bob) = ana_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    sim.disconnect(tab);
    assert!(names(&mut sim, bob).is_empty());
}

#[test]
fn typing_stops_before_agent_leaves() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    for way in ["leave", "disconnect"] {
        view(&mut sim, ana);
        typing(&mut sim, ana);
        forget(&mut sim, &[ana, bob]);
        match way {
            "leave" => drop(sim.emit_with_ack(ana, "ticket:leave", t1()).unwrap()),
            _ => sim.disconnect(ana),
        }
        let received = sim.received(bob);
        let order: Vec<&str> = received.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(order, ["agent:stopped_typing", "agent:left", "viewers:updated"], "{way}");
        let stopped = json!({"ticketId": "t1", "agentId": "ana", "agentName": "Ana"});
        assert_eq!(received[0].1, stopped);
        assert_eq!(sim.timers(ROOM), ["sweep"]);
    }
}

#[test]
fn leaving_unviewed_ticket_emits_and_creates_nothing() {
    let mut sim = Sim::new();
    let (_, bob) = ana_and_bob(&mut sim);
    let eve = sim.connect("eve", "Eve");
    sim.emit_with_ack(eve, "ticket:leave", t1()).unwrap();
    assert!(names(&mut sim, bob).is_empty());
    sim.emit_with_ack(eve, "ticket:leave", json!({"ticketId": "nobody-here"})).unwrap();
    assert_eq!(sim.state("ticket:nobody-here").map(|_| ()), None);
}

#[test]
fn ticket_without_viewers_has_no_state() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    sim.disconnect(ana);
    sim.disconnect(bob);
    assert!(sim.state(ROOM).is_none());
    assert!(sim.timers(ROOM).is_empty());
    sim.advance(std::time::Duration::from_secs(61));
    assert!(!sim.exists(ROOM));
}

#[test]
fn tickets_are_independent() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    let eve = sim.connect("eve", "Eve");
    sim.emit_with_ack(eve, "ticket:view", json!({"ticketId": "t2"})).unwrap();
    assert_eq!(names(&mut sim, eve), ["viewers:updated"]);
    assert!(names(&mut sim, ana).is_empty());
    assert!(names(&mut sim, bob).is_empty());
}

#[test]
fn payload_name_is_used_only_without_identity_name() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let called = json!({"ticketId": "t1", "agentName": "The Boss"});
    assert_eq!(sim.emit_with_ack(ana, "ticket:view", called.clone()).unwrap()["viewers"][0]["agentName"], "Ana");
    let bob = sim.connect_as(nameless("bob"));
    assert_eq!(sim.emit_with_ack(bob, "ticket:view", called).unwrap()["viewers"][1]["agentName"], "The Boss");
    let eve = sim.connect_as(nameless("eve"));
    assert_eq!(sim.emit_with_ack(eve, "ticket:view", t1()).unwrap()["viewers"][2]["agentName"], "eve");
}
