//! What the simulated host checks, keeps and forgets.

use std::time::Duration;

use roundhouse_sdk::log::Level;
use roundhouse_sdk::simulator::{Connection, Simulation};
use serde_json::{Value, json};

use crate::probe::Probe;

type Sim = Simulation<Probe>;

fn order(sim: &mut Sim, who: Connection, what: &str) -> Value {
    sim.emit_with_ack(who, "do", json!({"id": "1", "what": what, "with": "x"})).unwrap()
}

#[test]
fn context_has_scope_room_and_sequence_number() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let tab = sim.connect("ana", "Ana");
    order(&mut sim, ana, "join");
    order(&mut sim, tab, "join");
    assert_eq!(order(&mut sim, ana, "context"), json!([["probe:1", "probe:{id}", "1", 3, true], 2, 1]));
}

#[test]
fn context_has_membership_and_connections_of_user() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let tab = sim.connect("ana", "Ana");
    let bob = sim.connect("bob", "Bob");
    // The context shows the room as it was before the event's own effects.
    assert_eq!(order(&mut sim, ana, "place"), json!(["out", 0]));
    order(&mut sim, ana, "join");
    assert_eq!(order(&mut sim, ana, "place"), json!(["in", 1]));
    assert_eq!(order(&mut sim, tab, "place"), json!(["out", 1]));
    order(&mut sim, tab, "join");
    assert_eq!(order(&mut sim, tab, "place"), json!(["in", 2]));
    assert_eq!(order(&mut sim, bob, "place"), json!(["out", 0]));
    order(&mut sim, ana, "leave");
    assert_eq!(order(&mut sim, ana, "place"), json!(["out", 1]));
    // Another scope has another room, and a service is in none.
    assert_eq!(sim.emit_with_ack(tab, "do", json!({"id": "2", "what": "place"})).unwrap(), json!(["out", 0]));
    assert_eq!(sim.service("billing", "do", json!({"id": "1", "what": "place"})).unwrap(), json!(["out", 0]));
}

#[test]
fn counts_include_joining_but_not_leaving_connection() {
    let mut sim = Sim::new();
    let [ana, tab] = [sim.connect("ana", "Ana"), sim.connect("ana", "Ana")];
    sim.join(ana, "probe:1");
    sim.join(tab, "probe:1");
    sim.leave(ana, "probe:1");
    sim.disconnect(tab);
    assert_eq!(
        sim.query("notes", json!({"id": "1"})).unwrap(),
        json!(["joined ana in 1", "joined ana in 2", "left ana left 1 out 1", "left ana disconnected 0 out 0"])
    );
}

#[test]
fn acknowledgement_context_has_current_membership() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "join");
    for _ in 0..2 {
        order(&mut sim, ana, "ask");
    }
    sim.acknowledge(ana, "x", json!("yes"));
    order(&mut sim, ana, "leave");
    sim.acknowledge(ana, "x", json!("yes"));
    assert_eq!(sim.query("notes", json!({"id": "1"})).unwrap(), json!(["x yes in", "x yes out"]));
}

#[test]
fn random_numbers_differ_by_event_and_are_reproducible() {
    let run = || {
        let mut sim = Sim::new();
        let ana = sim.connect("ana", "Ana");
        [order(&mut sim, ana, "random"), order(&mut sim, ana, "random")]
    };
    let [first, second] = run();
    assert_ne!(first, second);
    assert_ne!(first[0], first[1]);
    assert_eq!(run(), [first, second]);
}

#[test]
fn settings_may_change_at_runtime() {
    let mut sim = Sim::new().with_settings(json!({"greeting": "hello"}));
    let ana = sim.connect("ana", "Ana");
    assert_eq!(order(&mut sim, ana, "greet"), "hello");
    sim.set_settings(&json!({"greeting": "salut"}));
    assert_eq!(order(&mut sim, ana, "greet"), "salut");
    sim.set_settings(&json!({"greeting": 1}));
    let failure = sim.emit_with_ack(ana, "unit", json!({"id": "1"})).unwrap_err();
    assert_eq!(failure.code, "feature_unavailable");
    assert_eq!(failure.message, "settings: greeting: invalid type: integer `1`, expected a string");
}

#[test]
fn idle_scope_is_forgotten() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "note");
    sim.advance(Duration::from_secs(59));
    assert!(sim.state("probe:1").is_some());
    sim.advance(Duration::from_secs(1));
    assert!(!sim.exists("probe:1"));
}

#[test]
fn members_and_watches_keep_scope_alive() {
    for what in ["join", "watch"] {
        let mut sim = Sim::new();
        let ana = sim.connect("ana", "Ana");
        order(&mut sim, ana, what);
        sim.advance(Duration::from_secs(600));
        assert!(sim.exists("probe:1"), "{what}");
        sim.disconnect(ana);
        sim.advance(Duration::from_secs(60));
        assert!(!sim.exists("probe:1"), "{what}");
    }
}

#[test]
fn stats_gather_answers_of_all_scopes() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    for id in ["1", "2"] {
        sim.emit_with_ack(ana, "do", json!({"id": id, "what": "note"})).unwrap();
    }
    assert_eq!(sim.stats().unwrap(), json!([["probe:1", 1], ["probe:2", 1]]));
    assert_eq!(sim.query("nothing", json!({})).unwrap_err().code, "not_found");
}

#[test]
fn log_lines_are_recorded_once() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "log");
    assert_eq!(sim.logs(), [(Level::Warn, "x happened".to_owned())]);
}

#[test]
fn services_can_send_but_not_join() {
    let mut sim = Sim::new();
    assert_eq!(sim.service("billing", "unit", json!({"id": "1"})).unwrap(), "unit");
    let joining = json!({"id": "1", "what": "join"});
    assert_eq!(sim.service("billing", "do", joining).unwrap_err().code, "forbidden");
}

#[test]
fn unserialisable_reply_is_internal_failure() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let failure = sim.emit_with_ack(ana, "do", json!({"id": "1", "what": "not json"})).unwrap_err();
    assert_eq!(failure.code, "internal");
}

/// What the simulator says when the probe does this.
fn complaint(what: &str) -> String {
    let panic = std::panic::catch_unwind(|| {
        let mut sim = Sim::new();
        let ana = sim.connect("ana", "Ana");
        order(&mut sim, ana, what);
    });
    *panic.unwrap_err().downcast::<String>().unwrap()
}

#[test]
fn contract_violations_panic_in_simulator() {
    assert!(
        complaint("undeclared event")
            .ends_with("an emit of \"undeclared\", which is not among the events that its manifest lists")
    );
    assert!(
        complaint("undeclared room")
            .ends_with("an emit to the room \"elsewhere\", which its manifest does not ask for")
    );
    assert!(complaint("impure").contains("comes out differently when it is handled again"));
    assert!(complaint("lose an attachment").ends_with("an attachment has no placeholder in the arguments"));
    assert!(complaint("fetch twice").ends_with("two fetches for one event"));
    assert!(complaint("fetch too much").ends_with("a fetch of 1001 documents, and it may be 1 to 1000"));
    assert!(complaint("save under a long key").ends_with("a document with a tag or key of more than 1024 bytes"));
    assert!(complaint("reply twice").ends_with("two replies to one event"));
    assert!(complaint("do too much").contains("1001 effects"));
    assert!(complaint("emit too much").ends_with("effects of more than 1048576 bytes"));
}

#[test]
fn timers_per_scope_are_bounded() {
    let panic = std::panic::catch_unwind(|| {
        let mut sim = Sim::new();
        let ana = sim.connect("ana", "Ana");
        order(&mut sim, ana, "set too many timers");
        order(&mut sim, ana, "set too many timers");
    });
    let complaint = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(complaint.ends_with("1200 timers in one scope, and there may be 1000"), "{complaint}");
}
