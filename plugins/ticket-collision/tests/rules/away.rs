//! Agents whose connections are detached and may resume.

use std::time::Duration;

use roundhouse_sdk::simulator::Connection;
use serde_json::{Value, json};

use super::{ROOM, Sim, ana_and_bob, doing, forget, is, nameless, names, t1, typing, view};

/// The default of `awaySeconds`.
const AWAY: Duration = Duration::from_secs(10);

const MOMENT: Duration = Duration::from_millis(1);

/// The viewers of the ticket in the answer to a service's query.
fn shown(sim: &mut Sim) -> Vec<(String, String)> {
    doing(&sim.query("viewers", t1()).unwrap())
}

/// Ana has been away until she is out, and the events of that are discarded.
fn ana_out_and_bob(sim: &mut Sim) -> (Connection, Connection) {
    let (ana, bob) = ana_and_bob(sim);
    sim.lose(ana);
    sim.advance(AWAY);
    forget(sim, &[ana, bob]);
    (ana, bob)
}

#[test]
fn short_detachment_is_not_broadcast() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    for _ in 0..3 {
        sim.lose(ana);
        sim.advance(AWAY - MOMENT);
        assert_eq!(shown(&mut sim), [is("ana", "viewing"), is("bob", "viewing")]);
        sim.come_back(ana);
        sim.advance(AWAY * 2);
    }
    assert!(names(&mut sim, ana).is_empty() && names(&mut sim, bob).is_empty());
    assert_eq!(sim.timers(ROOM), ["sweep"]);
}

#[test]
fn long_detachment_reaches_only_the_others() {
    let mut sim = Sim::new().with_settings(json!({"typingSeconds": 60}));
    let (ana, bob) = ana_and_bob(&mut sim);
    typing(&mut sim, ana);
    forget(&mut sim, &[ana, bob]);
    sim.lose(ana);
    sim.advance(AWAY - MOMENT);
    assert!(names(&mut sim, bob).is_empty());
    sim.advance(MOMENT);
    let received = sim.received(bob);
    let told: Vec<&str> = received.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(told, ["agent:stopped_typing", "agent:left", "viewers:updated"]);
    let left = json!({"ticketId": "t1", "agentId": "ana", "agentName": "Ana", "reason": "disconnected"});
    assert_eq!(received[1].1, left);
    assert_eq!(doing(&received[2].1), [is("bob", "viewing")]);
    assert!(names(&mut sim, ana).is_empty(), "nothing waits for her that says she left");
    let stats = sim.stats().unwrap();
    assert_eq!((&stats["totalViewers"], &stats["typingCount"]), (&json!(1), &json!(0)));
}

#[test]
fn returning_agent_rejoins_with_original_start_time() {
    let mut sim = Sim::new();
    let before = sim.now();
    let (ana, bob) = ana_out_and_bob(&mut sim);
    let eve = sim.connect("eve", "Eve");
    let list = view(&mut sim, eve);
    assert_eq!(doing(&list), [is("bob", "viewing"), is("eve", "viewing")]);
    forget(&mut sim, &[bob, eve]);
    sim.come_back(ana);
    let whole = [is("ana", "viewing"), is("bob", "viewing"), is("eve", "viewing")];
    for other in [bob, eve] {
        let received = sim.received(other);
        let joined = json!({"ticketId": "t1", "agentId": "ana", "agentName": "Ana"});
        assert_eq!(received[0], ("agent:joined".to_owned(), joined));
        assert_eq!((received[1].0.as_str(), doing(&received[1].1)), ("viewers:updated", whole.to_vec()));
        assert_eq!(received[1].1["viewers"][0]["since"], before, "since she came first");
        assert_eq!(received.len(), 2);
    }
    // Ana's replay has the events that she missed, and each list has her in it.
    let received = sim.received(ana);
    let told: Vec<&str> = received.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(told, ["agent:joined", "viewers:updated"]);
    assert_eq!(received[0].1["agentId"], "eve");
    assert_eq!(doing(&received[1].1), whole);
}

#[test]
fn agent_stays_while_one_tab_is_connected() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    view(&mut sim, tab);
    forget(&mut sim, &[ana, tab, bob]);
    sim.lose(ana);
    sim.advance(AWAY * 6);
    assert!(names(&mut sim, bob).is_empty());
    // All remaining connections have been away for `awaySeconds`.
    sim.disconnect(tab);
    assert_eq!(names(&mut sim, bob), ["agent:left", "viewers:updated"]);
    sim.come_back(ana);
    assert_eq!(names(&mut sim, bob), ["agent:joined", "viewers:updated"]);
    sim.disconnect(ana);
    assert_eq!(names(&mut sim, bob), ["agent:left", "viewers:updated"], "a close is told at once");
}

#[test]
fn detachment_begins_when_last_tab_detaches() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    view(&mut sim, tab);
    forget(&mut sim, &[ana, tab, bob]);
    sim.lose(tab);
    sim.advance(AWAY);
    sim.lose(ana);
    sim.advance(AWAY - MOMENT);
    assert!(names(&mut sim, bob).is_empty());
    sim.advance(MOMENT);
    assert_eq!(names(&mut sim, bob), ["agent:left", "viewers:updated"]);
    // One connection disconnects and the other resumes: the departure is not emitted twice.
    sim.disconnect(tab);
    assert!(names(&mut sim, bob).is_empty());
    sim.come_back(ana);
    assert_eq!(names(&mut sim, bob), ["agent:joined", "viewers:updated"]);
}

#[test]
fn disconnect_after_long_detachment_is_not_broadcast() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_out_and_bob(&mut sim);
    sim.advance(AWAY);
    sim.disconnect(ana);
    assert!(names(&mut sim, bob).is_empty());
    sim.disconnect(bob);
    assert!(sim.state(ROOM).is_none() && sim.timers(ROOM).is_empty());
}

#[test]
fn stale_detached_agent_is_removed_silently() {
    let mut sim = Sim::new();
    let (ana, bob) = ana_out_and_bob(&mut sim);
    for _ in 0..7 {
        view(&mut sim, bob);
        sim.advance(Duration::from_secs(5 * 60));
    }
    assert!(names(&mut sim, bob).is_empty());
    assert!(!sim.is_in(ana, ROOM));
    sim.come_back(ana);
    assert_eq!(shown(&mut sim), [is("bob", "viewing")]);
}

#[test]
fn new_connection_of_detached_agent_is_a_newcomer() {
    // A Socket.IO client before 4.6 cannot resume, and returns on a new connection.
    let mut sim = Sim::new();
    let (old, bob) = ana_out_and_bob(&mut sim);
    let new = sim.connect("ana", "Ana");
    let list = view(&mut sim, new);
    assert_eq!(doing(&list), [is("ana", "viewing"), is("bob", "viewing")]);
    assert_eq!(names(&mut sim, new), ["collision:warning", "viewers:updated"]);
    assert_eq!(names(&mut sim, bob), ["agent:joined", "viewers:updated"]);
    sim.disconnect(old);
    assert!(names(&mut sim, bob).is_empty());
    assert_eq!(shown(&mut sim), [is("ana", "viewing"), is("bob", "viewing")]);
}

#[test]
fn typing_in_new_tab_reattaches_agent() {
    let mut sim = Sim::new();
    let (_, bob) = ana_out_and_bob(&mut sim);
    let tab = sim.connect("ana", "Ana");
    typing(&mut sim, tab);
    assert_eq!(names(&mut sim, bob), ["agent:joined", "agent:typing", "viewers:updated"]);
    assert_eq!(names(&mut sim, tab), ["viewers:updated"]);
}

#[test]
fn detached_agent_causes_no_collision_warning() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    view(&mut sim, ana);
    sim.lose(ana);
    sim.advance(AWAY);
    let bob = sim.connect("bob", "Bob");
    assert_eq!(doing(&view(&mut sim, bob)), [is("bob", "viewing")]);
    assert_eq!(names(&mut sim, bob), ["viewers:updated"]);
}

#[test]
fn detachment_threshold_is_a_setting() {
    for (seconds, waits) in [(0, Duration::ZERO), (60, Duration::from_secs(60))] {
        let mut sim = Sim::new().with_settings(json!({"awaySeconds": seconds}));
        let (ana, bob) = ana_and_bob(&mut sim);
        sim.lose(ana);
        if !waits.is_zero() {
            sim.advance(waits - MOMENT);
            assert!(names(&mut sim, bob).is_empty());
            sim.advance(MOMENT);
        }
        assert_eq!(names(&mut sim, bob), ["agent:left", "viewers:updated"]);
    }
}

#[test]
fn state_of_older_build_is_read() {
    let before: Value = json!({"viewers": [{
        "agentId": "ana", "agentName": "Ana", "connections": ["c1"], "since": 1, "lastActivity": 1,
        "typing": {"since": 1, "last": 1, "connections": ["c1"]},
    }]});
    let ticket: ticket_collision::Ticket = serde_json::from_value(before.clone()).unwrap();
    assert_eq!(serde_json::to_value(&ticket).unwrap(), before);
}

#[test]
fn full_detached_ticket_fits_state_limit() {
    let mut sim = Sim::new().with_settings(json!({"typingSeconds": 60, "awaySeconds": 60}));
    let mut tabs = Vec::new();
    // The simulator panics if the state exceeds its limit.
    'agents: for agent in 0.. {
        for _ in 0..16 {
            let tab = sim.connect_as(nameless(&format!("{agent:0>64}")));
            if sim.emit_with_ack(tab, "ticket:view", t1()).is_err() {
                break 'agents;
            }
            tabs.push(tab);
        }
    }
    // Two connections of each agent type, which is as many as the state keeps.
    for tab in tabs.iter().step_by(8) {
        sim.emit_with_ack(*tab, "ticket:typing", t1()).unwrap();
    }
    for tab in &tabs {
        sim.lose(*tab);
    }
    sim.advance(Duration::from_secs(60));
    assert!(shown(&mut sim).is_empty());
}
