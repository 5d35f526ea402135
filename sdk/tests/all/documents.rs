//! Documents: promised, stored, fetched, and told of after a restart.

use std::time::Duration;

use roundhouse_sdk::simulator::{Connection, Simulation};
use roundhouse_sdk::{Failure, StoreFailure};
use serde_json::{Value, json};

use crate::probe::Probe;

type Sim = Simulation<Probe>;

fn order(sim: &mut Sim, who: Connection, what: &str, with: &str) -> Result<Value, Failure> {
    sim.emit_with_ack(who, "do", json!({"id": "1", "what": what, "with": with}))
}

fn notes(sim: &mut Sim) -> Value {
    sim.query("notes", json!({"id": "1"})).unwrap()
}

/// Ana, and the documents a, b, c stored in this order.
fn with_three_stored() -> (Sim, Connection) {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    for text in ["a", "b", "c"] {
        order(&mut sim, ana, "save", text).unwrap();
    }
    for save in sim.saves() {
        sim.stored(&save);
    }
    order(&mut sim, ana, "forget", "").unwrap();
    (sim, ana)
}

fn overloaded() -> StoreFailure {
    StoreFailure { failure: Failure::feature_unavailable("the store is away"), retryable: true }
}

#[test]
fn save_outcome_returns_the_document() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "save", "a").unwrap();
    order(&mut sim, ana, "save", "b").unwrap();
    let saves = sim.saves();
    assert_eq!((saves[0].scope.as_str(), saves[0].collection.as_str()), ("probe:1", "things"));
    assert_eq!(saves[0].document, json!({"text": "a"}));
    assert_eq!(sim.stored(&saves[0]), "d1");
    sim.not_stored(&saves[1], overloaded());
    assert_eq!(notes(&mut sim), json!(["a things/a: d1", "b things/b: feature_unavailable retryable true"]));
    assert_eq!(sim.documents("probe:1", "things"), [json!({"text": "a"})]);
}

#[test]
fn first_document_of_key_wins_in_each_collection() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    for with in ["k", "k", "l"] {
        order(&mut sim, ana, "save twice", with).unwrap();
    }
    let saves = sim.saves();
    assert_eq!(saves[0].key.as_deref(), Some("k"));
    let ids: Vec<String> = saves.iter().map(|save| sim.stored(save)).collect();
    assert_eq!(ids, ["d1", "d2", "d1", "d2", "d3", "d4"]);
    assert_eq!(sim.documents("probe:1", "things").len(), 2);
}

#[test]
fn save_executed_twice_stores_one_document() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "save", "a").unwrap();
    let save = sim.saves().remove(0);
    assert_eq!(sim.stored(&save), sim.stored(&save));
    assert_eq!(sim.documents("probe:1", "things").len(), 1);
}

#[test]
fn reply_after_fetch_reaches_the_requester() {
    let (mut sim, ana) = with_three_stored();
    assert_eq!(order(&mut sim, ana, "fetch", "all").unwrap(), json!([["c", "b", "a"], "d1", false]));
    assert_eq!(notes(&mut sim), json!(["fetched all"]));
}

#[test]
fn pages_go_backwards_from_a_document() {
    let (mut sim, ana) = with_three_stored();
    assert_eq!(order(&mut sim, ana, "fetch before", "d3").unwrap(), json!([["b", "a"], "d1", false]));
    order(&mut sim, ana, "save", "d").unwrap();
    let save = sim.saves().remove(0);
    sim.stored(&save);
    assert_eq!(order(&mut sim, ana, "fetch before", "d4").unwrap(), json!([["c", "b"], "d2", true]));
    assert_eq!(order(&mut sim, ana, "fetch before", "d9").unwrap_err().code, "not_found");
}

#[test]
fn fetch_after_reply_still_returns_documents() {
    let (mut sim, ana) = with_three_stored();
    assert_eq!(order(&mut sim, ana, "fetch and reply", "later").unwrap(), "at once");
    assert_eq!(notes(&mut sim), json!(["fetched later"]));
}

#[test]
fn fetch_may_follow_fetch_before_reply() {
    let (mut sim, ana) = with_three_stored();
    assert_eq!(order(&mut sim, ana, "fetch", "again").unwrap(), json!([["c"], "d3", true]));
    assert_eq!(notes(&mut sim), json!(["fetched again", "fetched second"]));
}

#[test]
fn failed_fetch_is_reported_to_requester() {
    let (mut sim, ana) = with_three_stored();
    sim.fail_fetches(Some(overloaded()));
    assert_eq!(order(&mut sim, ana, "fetch", "all").unwrap_err().code, "feature_unavailable");
    sim.emit(ana, "do", json!({"id": "1", "what": "fetch", "with": "all"}));
    assert_eq!(sim.received(ana)[0].1["code"], "feature_unavailable");
    // The failure left no note.
    assert_eq!(notes(&mut sim), json!([]));
    sim.fail_fetches(None);
    assert!(order(&mut sim, ana, "fetch", "all").is_ok());
}

#[test]
fn other_events_may_precede_fetched_documents() {
    let (mut sim, ana) = with_three_stored();
    sim.hold_fetches();
    sim.emit(ana, "do", json!({"id": "1", "what": "fetch", "with": "all"}));
    order(&mut sim, ana, "note", "between").unwrap();
    assert_eq!(notes(&mut sim), json!(["between"]));
    sim.release_fetches();
    assert_eq!(notes(&mut sim), json!(["between", "fetched all"]));
}

#[test]
fn restart_drops_volatile_scopes_and_keeps_promises() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    for (what, with) in [("join", ""), ("note", "x"), ("timer", "t"), ("ask", "q"), ("save", "a")] {
        order(&mut sim, ana, what, with).unwrap();
    }
    let save = sim.saves().remove(0);
    sim.restart();
    assert!(sim.closed(ana).is_some());
    assert!(!sim.is_in(ana, "probe:1"));
    assert!(!sim.exists("probe:1"));
    sim.advance(Duration::from_secs(10));
    sim.stored(&save);
    assert_eq!(notes(&mut sim), json!(["a things/a restored: d1"]));
    // What is promised from now on is of this life.
    let ana = sim.connect("ana", "Ana");
    order(&mut sim, ana, "save", "b").unwrap();
    let save = sim.saves().remove(0);
    sim.stored(&save);
    assert_eq!(notes(&mut sim)[1], "b things/b: d2");
}

#[test]
fn restart_keeps_durable_states_and_timers() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    sim.emit_with_ack(ana, "keep", json!({"left": "l", "right": "r", "what": "x"})).unwrap();
    sim.restart();
    assert!(!sim.is_in(ana, "pair:l:r"));
    sim.advance(Duration::from_secs(3));
    assert_eq!(sim.state("pair:l:r").unwrap().notes, ["x", "timer x 0"]);
}
