//! Restarts of the host while messages are being stored.

use std::time::Duration;

use roundhouse_sdk::simulator::Save;
use serde_json::json;

use super::{ROOM, Sim, about, away, is, join, joined, names, say, say_as};

/// Ana has sent two messages, `k1` and one without an id, and the host restarted before storing them.
fn down() -> (Sim, [String; 2], Vec<Save>) {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let temp_ids = [say_as(&mut sim, ana, "k1"), say(&mut sim, ana, "there")];
    let saves = sim.saves();
    sim.restart();
    (sim, temp_ids, saves)
}

#[test]
fn outcomes_after_restart_reach_present_members() {
    let (mut sim, temp_ids, saves) = down();
    let ana = joined(&mut sim, "ana");
    let id = sim.stored(&saves[0]);
    sim.not_stored(&saves[1], away());
    let received = sim.received(ana);
    assert_eq!(received[0].0, "roomMessageConfirmed");
    assert_eq!(
        (&received[0].1["_id"], &received[0].1["tempId"], &received[0].1["body"]),
        (&json!(id), &json!(temp_ids[0]), &json!("hi"))
    );
    assert_eq!(received[1].0, "roomMessageFailed");
    assert_eq!(received[1].1["tempId"], json!(temp_ids[1]));
    assert_eq!(received.len(), 2);
}

#[test]
fn joiner_within_two_minutes_receives_outcomes() {
    let (mut sim, temp_ids, saves) = down();
    sim.stored(&saves[0]);
    sim.not_stored(&saves[1], away());
    sim.advance(Duration::from_secs(119));
    for user in ["ana", "bob"] {
        let who = sim.connect(user, user);
        assert_eq!(join(&mut sim, who)["connectedUsers"], if user == "ana" { 1 } else { 2 });
        let received = sim.received(who);
        assert_eq!(received[0].0, "roomMessageConfirmed");
        assert_eq!(received[0].1["_id"], "d1");
        assert_eq!(received[0].1["createdAt"], "2027-01-15T08:00:00.000Z");
        assert_eq!(
            received[1],
            (
                "roomMessageFailed".to_owned(),
                json!({
                    "tempId": temp_ids[1],
                    "error": {"code": "feature_unavailable", "message": "the store is away"},
                    "retryable": true,
                })
            )
        );
        // A second join replays nothing.
        join(&mut sim, who);
        assert!(names(&mut sim, who).is_empty());
    }
}

#[test]
fn later_joiner_receives_no_outcomes() {
    let (mut sim, _, saves) = down();
    sim.stored(&saves[0]);
    sim.advance(Duration::from_secs(119));
    assert!(sim.exists(ROOM));
    sim.advance(Duration::from_secs(1));
    assert!(sim.timers(ROOM).is_empty());
    let ana = sim.connect("ana", "Ana");
    join(&mut sim, ana);
    assert!(names(&mut sim, ana).is_empty());
    sim.disconnect(ana);
    sim.advance(Duration::from_secs(3600));
    assert!(!sim.exists(ROOM));
}

#[test]
fn each_outcome_expires_after_its_own_two_minutes() {
    let (mut sim, temp_ids, saves) = down();
    sim.stored(&saves[0]);
    sim.advance(Duration::from_secs(60));
    sim.stored(&saves[1]);
    sim.advance(Duration::from_secs(60));
    let ana = sim.connect("ana", "Ana");
    join(&mut sim, ana);
    assert_eq!(about(&mut sim, ana), [is("roomMessageConfirmed", &temp_ids[1])]);
}

#[test]
fn each_joiner_receives_outcomes_once() {
    let (mut sim, temp_ids, saves) = down();
    sim.stored(&saves[0]);
    let ana = sim.connect("ana", "Ana");
    // The room's read of the newest messages is still under way.
    sim.hold_fetches();
    sim.emit(ana, "joinRoom", super::r1());
    sim.stored(&saves[1]);
    sim.release_fetches();
    assert_eq!(
        about(&mut sim, ana),
        [is("roomMessageConfirmed", &temp_ids[0]), is("roomMessageConfirmed", &temp_ids[1])]
    );
}

#[test]
fn joiner_leaving_during_fetch_receives_no_outcomes() {
    let (mut sim, temp_ids, saves) = down();
    let ana = sim.connect("ana", "Ana");
    sim.hold_fetches();
    sim.emit(ana, "joinRoom", super::r1());
    sim.emit_with_ack(ana, "leaveRoom", super::r1()).unwrap();
    sim.stored(&saves[0]);
    sim.release_fetches();
    assert!(names(&mut sim, ana).is_empty());
    let bob = sim.connect("bob", "Bob");
    assert_eq!(join(&mut sim, bob)["connectedUsers"], 1);
    assert_eq!(about(&mut sim, bob), [is("roomMessageConfirmed", &temp_ids[0])]);
}

#[test]
fn connection_joined_by_another_feature_receives_outcomes() {
    let (mut sim, temp_ids, saves) = down();
    sim.stored(&saves[0]);
    let ana = sim.connect("ana", "Ana");
    sim.join(ana, ROOM);
    assert_eq!(about(&mut sim, ana), [is("roomMessageConfirmed", &temp_ids[0])]);
    join(&mut sim, ana);
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn store_outage_does_not_withhold_outcomes() {
    let (mut sim, temp_ids, saves) = down();
    sim.not_stored(&saves[0], away());
    sim.fail_fetches(Some(away()));
    let ana = sim.connect("ana", "Ana");
    join(&mut sim, ana);
    assert_eq!(about(&mut sim, ana), [is("roomMessageFailed", &temp_ids[0])]);
}

#[test]
fn outcome_delivered_twice_is_emitted_once() {
    let (mut sim, temp_ids, saves) = down();
    let ana = joined(&mut sim, "ana");
    sim.stored(&saves[0]);
    sim.stored(&saves[0]);
    assert_eq!(about(&mut sim, ana), [is("roomMessageConfirmed", &temp_ids[0])]);
}

#[test]
fn repeat_after_restart_gets_first_temporary_id() {
    let (mut sim, temp_ids, saves) = down();
    let ana = joined(&mut sim, "ana");
    sim.stored(&saves[0]);
    assert_eq!(say_as(&mut sim, ana, "k1"), temp_ids[0]);
    assert!(sim.saves().is_empty());
}

#[test]
fn repeat_before_restored_save_is_stored_once() {
    let (mut sim, temp_ids, saves) = down();
    let ana = joined(&mut sim, "ana");
    let second = say_as(&mut sim, ana, "k1");
    sim.received(ana);
    let repetition = sim.saves().remove(0);
    let id = sim.stored(&saves[0]);
    assert_eq!(sim.stored(&repetition), id);
    assert_eq!(about(&mut sim, ana), [is("roomMessageConfirmed", &temp_ids[0]), is("roomMessageConfirmed", &second)]);
    assert_eq!(sim.documents(ROOM, "messages").len(), 1);
    assert_eq!(say_as(&mut sim, ana, "k1"), temp_ids[0]);
}

#[test]
fn messages_stored_without_restart_are_not_replayed() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    say(&mut sim, ana, "hi");
    super::store(&mut sim);
    let bob = sim.connect("bob", "Bob");
    join(&mut sim, bob);
    assert!(names(&mut sim, bob).is_empty());
}
