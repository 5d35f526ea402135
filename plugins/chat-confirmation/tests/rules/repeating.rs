//! Messages that a client sends again under the same id of its own.

use std::time::Duration;

use serde_json::json;

use super::{ROOM, Sim, about, away, is, join, joined, names, r1, say_as, store};

#[test]
fn repeat_gets_first_temporary_id_and_stores_once() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    let first = say_as(&mut sim, ana, "k1");
    sim.received(ana);
    sim.received(bob);
    assert_eq!(say_as(&mut sim, ana, "k1"), first);
    store(&mut sim);
    assert_eq!(say_as(&mut sim, ana, "k1"), first);
    // The members received one confirmation for all three.
    assert_eq!(about(&mut sim, ana), [is("roomMessageConfirmed", &first)]);
    assert_eq!(about(&mut sim, bob), [is("roomMessageConfirmed", &first)]);
    assert!(sim.saves().is_empty());
    assert_eq!(sim.documents(ROOM, "messages").len(), 1);
}

#[test]
fn repeat_without_acknowledgement_receives_sent_event() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let tab = joined(&mut sim, "ana");
    let first = say_as(&mut sim, ana, "k1");
    sim.received(ana);
    sim.received(tab);
    sim.emit(ana, "roomMessage", json!({"roomId": "r1", "body": "hi", "clientId": "k1"}));
    assert_eq!(sim.received(ana), [("roomMessageSent".to_owned(), json!({"tempId": first, "clientId": "k1"}))]);
    assert!(names(&mut sim, tab).is_empty());
}

#[test]
fn client_id_is_unique_per_sender_and_room() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    sim.emit_with_ack(ana, "joinRoom", json!({"roomId": "r2"})).unwrap();
    let elsewhere =
        sim.emit_with_ack(ana, "roomMessage", json!({"roomId": "r2", "body": "hi", "clientId": "k1"})).unwrap();
    let temp_ids = [super::temp_id(&elsewhere), say_as(&mut sim, ana, "k1"), say_as(&mut sim, bob, "k1")];
    assert!(temp_ids[0] != temp_ids[1] && temp_ids[1] != temp_ids[2]);
    store(&mut sim);
    assert_eq!(sim.documents(ROOM, "messages").len(), 2);
    assert_eq!(sim.documents("room:r2", "messages").len(), 1);
}

#[test]
fn failed_message_may_be_sent_again() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let first = say_as(&mut sim, ana, "k1");
    let save = sim.saves().remove(0);
    sim.not_stored(&save, away());
    sim.received(ana);
    let second = say_as(&mut sim, ana, "k1");
    assert_ne!(first, second);
    store(&mut sim);
    assert_eq!(
        about(&mut sim, ana),
        [is("roomMessageRecieved", &second), is("roomMessageSent", &second), is("roomMessageConfirmed", &second),]
    );
}

#[test]
fn repeat_is_recognised_across_connections_and_leaves() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let first = say_as(&mut sim, ana, "k1");
    sim.emit_with_ack(ana, "leaveRoom", r1()).unwrap();
    join(&mut sim, ana);
    assert_eq!(say_as(&mut sim, ana, "k1"), first);
    sim.disconnect(ana);
    let ana = joined(&mut sim, "ana");
    assert_eq!(say_as(&mut sim, ana, "k1"), first);
}

#[test]
fn repeat_is_recognised_after_room_is_forgotten() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let first = say_as(&mut sim, ana, "k1");
    store(&mut sim);
    sim.disconnect(ana);
    sim.advance(Duration::from_secs(3600));
    assert!(!sim.exists(ROOM));
    let ana = joined(&mut sim, "ana");
    assert_eq!(say_as(&mut sim, ana, "k1"), first);
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn occupied_room_reads_the_store_once() {
    let mut sim = Sim::new();
    joined(&mut sim, "ana");
    // From here on, a join that has to read the store is not acknowledged.
    sim.hold_fetches();
    let bob = joined(&mut sim, "bob");
    let first = say_as(&mut sim, bob, "k1");
    assert_eq!(say_as(&mut sim, bob, "k1"), first);
}

#[test]
fn emptied_room_reads_the_store_again() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    sim.emit_with_ack(ana, "leaveRoom", r1()).unwrap();
    sim.fail_fetches(Some(away()));
    join(&mut sim, ana);
    assert_eq!(sim.logs().len(), 1);
    sim.fail_fetches(None);
    // The room keeps this id, but reads the store at the next join, because the read at the last one failed.
    let first = say_as(&mut sim, ana, "k1");
    join(&mut sim, ana);
    sim.disconnect(ana);
    sim.fail_fetches(Some(away()));
    let ana = joined(&mut sim, "ana");
    assert!(sim.logs().is_empty());
    assert_eq!(say_as(&mut sim, ana, "k1"), first);
}

#[test]
fn only_joins_wait_for_the_store() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let first = say_as(&mut sim, ana, "k1");
    store(&mut sim);
    sim.restart();
    let ana = sim.connect("ana", "Ana");
    sim.hold_fetches();
    sim.emit(ana, "joinRoom", r1());
    let bob = joined(&mut sim, "bob");
    let between = say_as(&mut sim, bob, "k2");
    sim.release_fetches();
    assert_eq!(say_as(&mut sim, ana, "k1"), first);
    assert_eq!(say_as(&mut sim, bob, "k2"), between);
}

#[test]
fn repeat_during_fetch_is_broadcast_but_stored_once() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let first = say_as(&mut sim, ana, "k1");
    store(&mut sim);
    sim.restart();
    let ana = sim.connect("ana", "Ana");
    sim.hold_fetches();
    sim.emit(ana, "joinRoom", r1());
    let second = say_as(&mut sim, ana, "k1");
    assert_ne!(first, second);
    sim.received(ana);
    store(&mut sim);
    let confirmed = sim.received(ana).remove(0).1;
    assert_eq!((confirmed["tempId"].as_str().unwrap(), &confirmed["_id"]), (&*second, &json!("d1")));
    assert_eq!(sim.documents(ROOM, "messages").len(), 1);
}

#[test]
fn confirmation_of_repeat_has_stored_text() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let first = say_as(&mut sim, ana, "k1");
    store(&mut sim);
    let confirmed = sim.received(ana).pop().unwrap().1;
    sim.restart();
    let ana = sim.connect("ana", "Ana");
    sim.hold_fetches();
    sim.emit(ana, "joinRoom", r1());
    let other = json!({"roomId": "r1", "body": "something else", "clientId": "k1"});
    let second = super::temp_id(&sim.emit_with_ack(ana, "roomMessage", other.clone()).unwrap());
    sim.received(ana);
    sim.advance(Duration::from_secs(1));
    store(&mut sim);
    let mut again = sim.received(ana).remove(0).1;
    assert_eq!(again["tempId"], json!(second));
    again["tempId"] = json!(first);
    assert_eq!(again, confirmed);
    // Now the room knows the client's id.
    assert_eq!(super::temp_id(&sim.emit_with_ack(ana, "roomMessage", other).unwrap()), first);
}

#[test]
fn failed_store_read_is_retried_at_next_join() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let first = say_as(&mut sim, ana, "k1");
    store(&mut sim);
    sim.restart();
    sim.fail_fetches(Some(away()));
    let ana = joined(&mut sim, "ana");
    sim.fail_fetches(None);
    join(&mut sim, ana);
    assert_eq!(say_as(&mut sim, ana, "k1"), first);
}

#[test]
fn repeat_is_recognised_after_300_messages_of_others() {
    let mut sim = Sim::new();
    let (ana, bob) = (joined(&mut sim, "ana"), joined(&mut sim, "bob"));
    let first = say_as(&mut sim, ana, "k1");
    sim.disconnect(ana);
    for n in 0..300 {
        say_as(&mut sim, bob, &format!("b{n}"));
    }
    let ana = joined(&mut sim, "ana");
    assert_eq!(say_as(&mut sim, ana, "k1"), first);
}
