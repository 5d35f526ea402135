//! A message from its receipt to its outcome: shown to all members at once, then confirmed or failed.

use roundhouse_sdk::{Failure, StoreFailure};
use serde_json::json;

use super::{Sim, about, away, is, joined, names, person, r1, say, say_as, store};

#[test]
fn message_reaches_everyone_before_it_is_stored() {
    let mut sim = Sim::new();
    let bob = joined(&mut sim, "bob");
    let ana = sim.connect_as(person("ana", Some("Ana"), &json!({"email": "ana@example.com"})));
    sim.emit_with_ack(ana, "joinRoom", r1()).unwrap();
    let reply =
        sim.emit_with_ack(ana, "roomMessage", json!({"roomId": "r1", "body": "Hello!", "clientId": "k1"})).unwrap();
    let temp_id = reply["tempId"].as_str().unwrap();
    assert!(temp_id.starts_with("temp_"));
    assert_eq!(reply, json!({"tempId": temp_id}));
    let shown = (
        "roomMessageRecieved".to_owned(),
        json!({
            "_id": temp_id,
            "tempId": temp_id,
            "body": "Hello!",
            "senderId": {"_id": "ana", "username": "Ana", "email": "ana@example.com"},
            "roomId": "r1",
            "isOptimistic": true,
            "createdAt": "2027-01-15T08:00:00.000Z",
        }),
    );
    assert_eq!(sim.received(bob), std::slice::from_ref(&shown));
    assert_eq!(
        sim.received(ana),
        [shown, ("roomMessageSent".to_owned(), json!({"tempId": temp_id, "clientId": "k1"}))]
    );
}

#[test]
fn sending_does_not_read_the_store() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    let before = sim.n_fetches();
    say(&mut sim, ana, "hi");
    say_as(&mut sim, ana, "k1");
    say_as(&mut sim, ana, "k1");
    assert_eq!(names(&mut sim, bob), ["roomMessageRecieved"; 2]);
    store(&mut sim);
    assert_eq!(names(&mut sim, bob), ["roomMessageConfirmed"; 2]);
    assert_eq!(sim.n_fetches(), before);
}

#[test]
fn sent_event_reaches_every_tab_of_the_sender() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    // A second tab of Ana's, which has not joined.
    let tab = sim.connect("ana", "Ana");
    let temp_id = say(&mut sim, ana, "hi");
    assert_eq!(sim.received(tab), [("roomMessageSent".to_owned(), json!({"tempId": temp_id}))]);
}

#[test]
fn stored_message_is_confirmed_under_permanent_id() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    let temp_id = say_as(&mut sim, ana, "k1");
    sim.received(ana);
    sim.received(bob);
    sim.advance(std::time::Duration::from_secs(3));
    let save = sim.saves().remove(0);
    assert_eq!(
        (save.tag.as_str(), save.collection.as_str(), save.key.as_deref()),
        (&*temp_id, "messages", Some("ana k1"))
    );
    let id = sim.stored(&save);
    let confirmed = (
        "roomMessageConfirmed".to_owned(),
        json!({
            "_id": id,
            "tempId": temp_id,
            "body": "hi",
            "senderId": {"_id": "ana", "username": "ana", "email": null},
            "roomId": "r1",
            "isConfirmed": true,
            "createdAt": "2027-01-15T08:00:00.000Z",
        }),
    );
    assert_eq!(sim.received(ana), std::slice::from_ref(&confirmed));
    assert_eq!(sim.received(bob), [confirmed]);
}

#[test]
fn failed_save_is_broadcast_with_reason() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    let first = say_as(&mut sim, ana, "k1");
    let second = say(&mut sim, ana, "hi");
    sim.received(ana);
    sim.received(bob);
    let saves = sim.saves();
    sim.not_stored(&saves[0], away());
    sim.not_stored(&saves[1], StoreFailure { failure: Failure::too_large("it is too long"), retryable: false });
    let failed = [
        (
            "roomMessageFailed".to_owned(),
            json!({
                "tempId": first,
                "clientId": "k1",
                "error": {"code": "feature_unavailable", "message": "the store is away"},
                "retryable": true,
            }),
        ),
        (
            "roomMessageFailed".to_owned(),
            json!({
                "tempId": second,
                "error": {"code": "too_large", "message": "it is too long"},
                "retryable": false,
            }),
        ),
    ];
    assert_eq!(sim.received(ana), failed);
    assert_eq!(sim.received(bob), failed);
}

#[test]
fn every_message_gets_one_outcome_in_order() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let temp_ids = ["a", "b", "c"].map(|body| say(&mut sim, ana, body));
    sim.received(ana);
    let saves = sim.saves();
    sim.stored(&saves[0]);
    sim.not_stored(&saves[1], away());
    sim.stored(&saves[2]);
    assert_eq!(
        about(&mut sim, ana),
        [
            is("roomMessageConfirmed", &temp_ids[0]),
            is("roomMessageFailed", &temp_ids[1]),
            is("roomMessageConfirmed", &temp_ids[2]),
        ]
    );
    assert!(sim.saves().is_empty());
}

#[test]
fn message_is_confirmed_after_sender_disconnects() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    say(&mut sim, ana, "hi");
    sim.disconnect(ana);
    sim.received(bob);
    store(&mut sim);
    assert_eq!(names(&mut sim, bob), ["roomMessageConfirmed"]);
}

#[test]
fn message_is_stored_in_an_emptied_room() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    say(&mut sim, ana, "hi");
    sim.disconnect(ana);
    sim.advance(std::time::Duration::from_secs(3600));
    assert!(!sim.exists(super::ROOM));
    store(&mut sim);
    assert_eq!(sim.documents(super::ROOM, "messages").len(), 1);
}

#[test]
fn unnamed_sender_is_shown_by_id() {
    let mut sim = Sim::new();
    let ana = sim.connect_as(person("ana", None, &json!({"email": 7})));
    sim.emit_with_ack(ana, "joinRoom", r1()).unwrap();
    let data = json!({"roomId": "r1", "body": "hi", "senderId": {"_id": "ana", "username": "The Boss"}});
    sim.emit_with_ack(ana, "roomMessage", data).unwrap();
    let shown = sim.received(ana).remove(0).1;
    assert_eq!(shown["senderId"], json!({"_id": "ana", "username": "ana", "email": null}));
}

#[test]
fn messages_without_client_id_are_each_stored() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    assert_ne!(say(&mut sim, ana, "hi"), say(&mut sim, ana, "hi"));
    store(&mut sim);
    assert_eq!(sim.documents(super::ROOM, "messages").len(), 2);
}
