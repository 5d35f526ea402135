//! Typing agents, and the recipients of their events.

use std::time::Duration;

use serde_json::json;

use super::{Sim, ana_and_bob, doing, forget, is, names, t1, typing, view};

#[test]
fn typing_event_reaches_only_other_agents() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    sim.advance(Duration::from_secs(1));
    let started = sim.now();
    assert_eq!(sim.emit_with_ack(ana, "ticket:typing", t1()).unwrap(), json!(null));
    let received = sim.received(bob);
    assert_eq!(
        received[0],
        (
            "agent:typing".to_owned(),
            json!({
                "ticketId": "t1",
                "agentId": "ana",
                "agentName": "Ana",
                "warning": "COLLISION_RISK",
                "message": "Ana is typing an answer to this ticket",
            })
        )
    );
    assert_eq!(received[1].0, "viewers:updated");
    assert_eq!(doing(&received[1].1), [is("ana", "typing"), is("bob", "viewing")]);
    assert_eq!(received[1].1["viewers"][0]["typingStartedAt"], started);
    assert_eq!(received[1].1["viewers"][1].get("typingStartedAt"), None);
    assert_eq!(sim.received(ana), [received[1].clone()]);
}

#[test]
fn concurrent_typist_is_warned() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    forget(&mut sim, &[ana, bob]);
    typing(&mut sim, bob);
    let received = sim.received(bob);
    assert_eq!(received[0].0, "collision:warning");
    assert_eq!(received[0].1["severity"], "typing");
    assert_eq!(doing(&received[0].1), [is("ana", "typing")]);
    assert_eq!(received[1].0, "viewers:updated");
    assert_eq!(received.len(), 2);
    assert_eq!(names(&mut sim, ana), ["agent:typing", "viewers:updated"]);
}

#[test]
fn typing_expires_after_ten_seconds() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    sim.advance(Duration::from_millis(9_999));
    forget(&mut sim, &[ana, bob]);
    // A repeated `ticket:typing` prolongs the typing and emits nothing.
    typing(&mut sim, ana);
    sim.advance(Duration::from_millis(9_999));
    assert!(names(&mut sim, ana).is_empty());
    assert!(names(&mut sim, bob).is_empty());

    sim.advance(Duration::from_millis(1));
    let received = sim.received(bob);
    assert_eq!(
        received[0],
        ("agent:stopped_typing".to_owned(), json!({"ticketId": "t1", "agentId": "ana", "agentName": "Ana"}))
    );
    assert_eq!(received[1].0, "viewers:updated");
    assert_eq!(doing(&received[1].1), [is("ana", "viewing"), is("bob", "viewing")]);
    assert_eq!(names(&mut sim, ana), ["viewers:updated"]);
}

#[test]
fn repeated_typing_keeps_its_start_time() {
    let mut sim = Sim::new();
    let (ana, _) = ana_and_bob(&mut sim);
    let began = sim.now();
    typing(&mut sim, ana);
    sim.advance(Duration::from_secs(5));
    typing(&mut sim, ana);
    let viewers = sim.query("viewers", t1()).unwrap();
    assert_eq!(viewers["viewers"][0]["typingStartedAt"], began);
}

#[test]
fn typing_timeout_is_a_setting() {
    let mut sim = Sim::new().with_settings(json!({"typingSeconds": 3}));
    let (ana, bob) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    forget(&mut sim, &[bob]);
    sim.advance(Duration::from_secs(3));
    assert_eq!(names(&mut sim, bob), ["agent:stopped_typing", "viewers:updated"]);
}

#[test]
fn typing_in_progress_adopts_changed_timeout() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    forget(&mut sim, &[bob]);
    sim.set_settings(&json!({"typingSeconds": 15}));
    sim.advance(Duration::from_secs(14));
    assert!(names(&mut sim, bob).is_empty());
    sim.advance(Duration::from_secs(1));
    assert_eq!(names(&mut sim, bob), ["agent:stopped_typing", "viewers:updated"]);
}

#[test]
fn typing_stop_is_broadcast_once() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    forget(&mut sim, &[ana, bob]);
    sim.emit_with_ack(ana, "ticket:stop_typing", t1()).unwrap();
    assert_eq!(names(&mut sim, bob), ["agent:stopped_typing", "viewers:updated"]);
    assert_eq!(names(&mut sim, ana), ["viewers:updated"]);
    // Neither a second stop nor the end of `typingSeconds` emits anything more.
    sim.emit_with_ack(ana, "ticket:stop_typing", t1()).unwrap();
    sim.advance(Duration::from_secs(20));
    assert!(names(&mut sim, bob).is_empty());
}

#[test]
fn non_viewer_can_neither_start_nor_stop_typing() {
    let mut sim = Sim::new();
    let (_, bob) = ana_and_bob(&mut sim);
    let eve = sim.connect("eve", "Eve");
    for event in ["ticket:typing", "ticket:stop_typing"] {
        assert_eq!(sim.emit_with_ack(eve, event, t1()).unwrap_err().code, "conflict");
    }
    assert!(names(&mut sim, bob).is_empty());
}

#[test]
fn closing_idle_tab_keeps_agent_typing() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    view(&mut sim, tab);
    typing(&mut sim, ana);
    forget(&mut sim, &[bob]);
    sim.disconnect(tab);
    assert!(names(&mut sim, bob).is_empty());
    let viewers = sim.query("viewers", t1()).unwrap();
    assert_eq!(doing(&viewers), [is("ana", "typing"), is("bob", "viewing")]);
}

#[test]
fn closing_typing_tab_ends_typing_not_viewing() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    view(&mut sim, tab);
    typing(&mut sim, tab);
    forget(&mut sim, &[ana, bob]);
    sim.disconnect(tab);
    assert_eq!(names(&mut sim, bob), ["agent:stopped_typing", "viewers:updated"]);
    assert_eq!(names(&mut sim, ana), ["viewers:updated"]);
}

#[test]
fn typing_continues_when_latest_typing_tab_closes() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    view(&mut sim, tab);
    typing(&mut sim, ana);
    typing(&mut sim, tab);
    forget(&mut sim, &[bob]);
    sim.disconnect(tab);
    assert!(names(&mut sim, bob).is_empty());
    sim.disconnect(ana);
    assert_eq!(names(&mut sim, bob), ["agent:stopped_typing", "agent:left", "viewers:updated"]);
}

#[test]
fn typing_tab_views_ticket_until_it_closes() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    typing(&mut sim, tab);
    assert!(sim.is_in(tab, "ticket:t1"));
    forget(&mut sim, &[ana, bob]);
    sim.disconnect(tab);
    assert_eq!(names(&mut sim, bob), ["agent:stopped_typing", "viewers:updated"]);
    typing(&mut sim, ana);
    let other = sim.connect("ana", "Ana");
    typing(&mut sim, other);
    forget(&mut sim, &[bob]);
    sim.disconnect(ana);
    assert!(names(&mut sim, bob).is_empty(), "the agent goes on in the other tab");
}

#[test]
fn other_tabs_of_typist_receive_only_viewer_list() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    view(&mut sim, tab);
    forget(&mut sim, &[ana, tab, bob]);
    typing(&mut sim, ana);
    sim.emit_with_ack(ana, "ticket:stop_typing", t1()).unwrap();
    assert_eq!(names(&mut sim, tab), ["viewers:updated", "viewers:updated"]);
}
