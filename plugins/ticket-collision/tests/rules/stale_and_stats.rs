//! Stale viewers, and the stats and queries for services.

use std::time::Duration;

use serde_json::json;

use super::{ROOM, Sim, ana_and_bob, doing, forget, is, names, t1, typing, view};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn viewers_idle_for_thirty_minutes_leave_as_stale() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    sim.advance(29 * MINUTE);
    // A repeated `ticket:view` is activity.
    view(&mut sim, bob);
    sim.advance(MINUTE);
    let received = sim.received(bob);
    assert_eq!(
        received[0],
        ("agent:left".to_owned(), json!({"ticketId": "t1", "agentId": "ana", "agentName": "Ana", "reason": "stale"}))
    );
    assert_eq!(received[1].0, "viewers:updated");
    assert_eq!(doing(&received[1].1), [is("bob", "viewing")]);
    // The stale viewer gets the list without itself, and no further events.
    assert_eq!(sim.received(ana), [received[1].clone()]);
    assert!(!sim.is_in(ana, ROOM));
    assert!(sim.is_in(bob, ROOM));
    typing(&mut sim, bob);
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn stale_viewer_returns_as_newcomer() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    sim.advance(29 * MINUTE);
    typing(&mut sim, bob);
    sim.advance(MINUTE);
    forget(&mut sim, &[ana, bob]);
    view(&mut sim, ana);
    assert_eq!(names(&mut sim, ana), ["collision:warning", "viewers:updated"]);
    assert_eq!(names(&mut sim, bob), ["agent:joined", "viewers:updated"]);
}

#[test]
fn all_stale_viewers_leave_and_state_is_dropped() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    sim.advance(30 * MINUTE);
    assert_eq!(names(&mut sim, ana), ["agent:left", "viewers:updated"]);
    assert_eq!(names(&mut sim, bob), ["agent:left", "viewers:updated"]);
    assert!(sim.state(ROOM).is_none());
    assert!(sim.timers(ROOM).is_empty());
    // The later disconnect of a removed viewer emits nothing.
    sim.disconnect(ana);
    assert!(names(&mut sim, bob).is_empty());
}

#[test]
fn nearly_stale_viewer_leaves_at_next_sweep() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    sim.advance(Duration::from_secs(1));
    view(&mut sim, ana);
    view(&mut sim, bob);
    sim.advance(34 * MINUTE);
    assert!(sim.is_in(ana, ROOM));
    sim.advance(MINUTE);
    assert!(!sim.is_in(ana, ROOM));
}

#[test]
fn staleness_and_sweep_interval_are_settings() {
    let mut sim = Sim::new().with_settings(json!({"staleMinutes": 4, "sweepMinutes": 2}));
    let (ana, _) = ana_and_bob(&mut sim);
    sim.advance(3 * MINUTE);
    assert!(sim.is_in(ana, ROOM));
    sim.advance(MINUTE);
    assert!(!sim.is_in(ana, ROOM));
}

#[test]
fn typing_stops_before_stale_agent_leaves() {
    let mut sim = Sim::new().with_settings(json!({"typingSeconds": 7200, "staleMinutes": 10}));
    let (ana, bob) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    sim.advance(9 * MINUTE);
    view(&mut sim, bob);
    forget(&mut sim, &[ana, bob]);
    sim.advance(MINUTE);
    assert_eq!(names(&mut sim, bob), ["agent:stopped_typing", "agent:left", "viewers:updated"]);
}

#[test]
fn services_query_viewers_of_a_ticket() {
    let mut sim = Sim::new();
    let (ana, _) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    let answer = sim.query("viewers", t1()).unwrap();
    assert_eq!(answer["ticketId"], "t1");
    assert_eq!(doing(&answer), [is("ana", "typing"), is("bob", "viewing")]);
    let nobody = json!({"ticketId": "t9", "viewers": []});
    assert_eq!(sim.query("viewers", json!({"ticketId": "t9"})).unwrap(), nobody);
    assert_eq!(sim.query("viewers", json!({})).unwrap_err().code, "bad_request");
}

#[test]
fn stats_cover_all_viewed_tickets() {
    let mut sim = Sim::new();
    let nothing = json!({"activeTickets": 0, "totalViewers": 0, "typingCount": 0, "tickets": []});
    assert_eq!(sim.stats().unwrap(), nothing);
    let (ana, bob) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    let eve = sim.connect("eve", "Eve");
    sim.emit_with_ack(eve, "ticket:view", json!({"ticketId": "t2"})).unwrap();
    sim.emit_with_ack(bob, "ticket:view", json!({"ticketId": "t3"})).unwrap();
    sim.emit_with_ack(bob, "ticket:leave", json!({"ticketId": "t3"})).unwrap();
    assert_eq!(
        sim.stats().unwrap(),
        json!({
            "activeTickets": 2,
            "totalViewers": 3,
            "typingCount": 1,
            "tickets": [
                {"ticketId": "t1", "viewerCount": 2, "typingCount": 1},
                {"ticketId": "t2", "viewerCount": 1, "typingCount": 0},
            ],
        })
    );
}
