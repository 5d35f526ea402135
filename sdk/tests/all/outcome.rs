//! What becomes of the state, seen at the one way into a feature.

use roundhouse_sdk::{
    Call, Effect, Event, Failure, Message, Outcome, Payload, Query, Sender, StateChange, handle, migrate, migrate_down,
};
use serde_json::json;

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

#[test]
fn state_is_put_kept_or_cleared() {
    let one: &[u8] = br#"{"notes":["x"]}"#;
    for (what, before, after) in [
        ("note", None, StateChange::Put(one.to_vec())),
        ("greet", Some(one), StateChange::Keep),
        ("greet", None, StateChange::Keep),
        ("forget", Some(one), StateChange::Clear),
        ("forget", None, StateChange::Keep),
    ] {
        assert_eq!(order(what, before).unwrap().state, after, "{what}");
    }
}

#[test]
fn unreadable_state_is_internal_failure() {
    assert_eq!(order("note", Some(b"{")).unwrap_err().code, "internal");
}

#[test]
fn query_replies_without_changing_state() {
    let query = Query { name: "notes".to_owned(), data: "{}".to_owned() };
    let outcome = handle::<Probe>(call(), Event::Query(query), Some(br#"{"notes":["x"]}"#)).unwrap();
    let reply = Payload::of(&["x"]).unwrap();
    assert_eq!(outcome.effects, [Effect::Reply(reply)]);
    assert_eq!(outcome.state, StateChange::Keep);
}

#[test]
fn unknown_future_event_is_ignored() {
    let later = Event::Other("moved".to_owned(), "{}".to_owned());
    let outcome = handle::<Probe>(call(), later, Some(br#"{"notes":["x"]}"#)).unwrap();
    assert_eq!((outcome.effects.len(), outcome.state), (0, StateChange::Keep));
}

#[test]
fn compatible_old_state_is_read_as_current() {
    assert_eq!(migrate::<Probe>(1, br#"{ "notes": ["x"] }"#).unwrap(), br#"{"notes":["x"]}"#);
    assert_eq!(migrate::<Probe>(1, b"[]]").unwrap_err().code, "internal");
}

#[test]
fn downgrade_requires_a_downward_migration() {
    let refusal = migrate_down::<Probe>(1, br#"{"notes":["x"]}"#).unwrap_err();
    assert!(refusal.message.contains("no way back to schema version 1"), "{}", refusal.message);
    let asked = Event::Other("migrate-down".to_owned(), "1".to_owned());
    assert_eq!(handle::<Probe>(call(), asked, Some(br#"{"notes":["x"]}"#)).unwrap_err(), refusal);
}
