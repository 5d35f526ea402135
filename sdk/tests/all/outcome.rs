//! What becomes of the state, seen at the one way into a feature.

use roundhouse_sdk::{
    Call, Effect, Event, Failure, Message, Outcome, Payload, Query, Sender, StateChange, handle, migrate, read_state,
};
use serde_json::{Value, json};

use crate::probe::Probe;

fn call() -> Call {
    Call {
        now: 0,
        seed: 0,
        sequence: 1,
        scope: "probe:1".to_owned(),
        params: vec!["1".to_owned()],
        room_connections: 0,
        room_users: 0,
        connection_in_room: false,
        user_connections: 0,
        settings: "{}".to_owned(),
    }
}

fn order(what: &str, state: Option<&[u8]>) -> Result<Outcome, Failure> {
    let message = Message {
        event: "do".to_owned(),
        sender: Sender::Service("s".to_owned()),
        payload: Payload::of(&json!({"what": what, "with": "x"}))?,
        wants_reply: false,
    };
    handle::<Probe>(call(), Event::Message(message), state)
}

/// A state with one note, as this build stores it and as earlier ones did.
fn one() -> (Vec<u8>, &'static [u8]) {
    let StateChange::Put(state) = order("note", None).unwrap().state else { panic!("a note is put") };
    (state, br#"{"notes":["x"]}"#)
}

#[test]
fn state_is_put_kept_or_cleared() {
    let (one, _) = one();
    assert_eq!(read_state::<Value>(&one).unwrap(), json!({"notes": ["x"]}));
    for (what, before, after) in [
        ("greet", Some(&one[..]), StateChange::Keep),
        ("greet", None, StateChange::Keep),
        ("forget", Some(&one[..]), StateChange::Clear),
        ("forget", None, StateChange::Keep),
    ] {
        assert_eq!(order(what, before).unwrap().state, after, "{what}");
    }
}

#[test]
fn a_state_that_an_earlier_build_left_is_read_and_stored_anew_at_the_first_event() {
    let (one, as_json) = one();
    for (what, after) in [("greet", StateChange::Put(one)), ("forget", StateChange::Clear)] {
        assert_eq!(order(what, Some(as_json)).unwrap().state, after, "{what}");
    }
    let StateChange::Put(two) = order("note", Some(as_json)).unwrap().state else { panic!("a note is put") };
    assert_eq!(read_state::<Value>(&two).unwrap(), json!({"notes": ["x", "x"]}));
}

#[test]
fn a_state_that_cannot_be_read_is_an_internal_failure() {
    assert_eq!(order("note", Some(b"{")).unwrap_err().code, "internal");
}

#[test]
fn a_query_only_replies() {
    let query = Query { name: "notes".to_owned(), data: "{}".to_owned() };
    let outcome = handle::<Probe>(call(), Event::Query(query), Some(br#"{"notes":["x"]}"#)).unwrap();
    let reply = Payload::of(&["x"]).unwrap();
    assert_eq!(outcome.effects, [Effect::Reply(reply)]);
    assert_eq!(outcome.state, StateChange::Keep);
}

#[test]
fn what_a_later_host_may_tell_is_ignored() {
    let later = Event::Other("moved".to_owned(), "{}".to_owned());
    let outcome = handle::<Probe>(call(), later, Some(&one().0)).unwrap();
    assert_eq!((outcome.effects.len(), outcome.state), (0, StateChange::Keep));
}

#[test]
fn an_old_state_is_taken_where_it_still_reads_as_todays() {
    assert_eq!(migrate::<Probe>(1, br#"{ "notes": ["x"] }"#).unwrap(), one().0);
    assert_eq!(migrate::<Probe>(1, &one().0).unwrap(), one().0);
    assert_eq!(migrate::<Probe>(1, b"[]]").unwrap_err().code, "internal");
}
