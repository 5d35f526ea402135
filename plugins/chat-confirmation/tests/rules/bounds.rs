//! The state stays within its limit whatever users do: the simulator panics if the state exceeds the host's limit.

use std::collections::BTreeSet;
use std::time::Duration;

use chat_confirmation::ChatConfirmation;
use roundhouse_sdk::simulator::Connection;
use roundhouse_sdk::{Call, Event, Failure, Member, Message, Payload, Sender, StateChange, StoreFailure, handle};
use serde_json::json;

use super::{ROOM, Sim, about, away, is, join, joined, names, r1, say, say_as, store};

/// The size of the room's state as the host stores it, in bytes.
fn n_bytes(sim: &Sim) -> usize {
    sim.state(ROOM).map_or(0, |room| serde_json::to_vec(&room).unwrap().len())
}

#[test]
fn client_ids_of_last_hundred_messages_are_remembered() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let temp_ids: Vec<String> = (0..101).map(|n| say_as(&mut sim, ana, &format!("client-{n:030}"))).collect();
    for n in [1, 100] {
        assert_eq!(say_as(&mut sim, ana, &format!("client-{n:030}")), temp_ids[n]);
    }
    assert_ne!(say_as(&mut sim, ana, &format!("client-{:030}", 0)), temp_ids[0]);
}

#[test]
fn state_stays_below_6_kib_for_longest_ids() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, &"é".repeat(128));
    for n in 0..300 {
        say_as(&mut sim, ana, &format!("{n:\"<4}{}", "\"".repeat(124)));
    }
    assert!(n_bytes(&sim) < 6 * 1024, "{}", n_bytes(&sim));
    let last = say_as(&mut sim, ana, "last");
    assert_eq!(say_as(&mut sim, ana, "last"), last);
}

#[test]
fn client_id_overflowing_document_key_is_refused() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, &"\u{1f600}".repeat(128));
    let message = |client_id: String| json!({"roomId": "r1", "body": "hi", "clientId": client_id});
    let failure = sim.emit_with_ack(ana, "roomMessage", message("\u{1f600}".repeat(128))).unwrap_err();
    assert_eq!(failure.code, "bad_request");
    sim.emit_with_ack(ana, "roomMessage", message("\u{1f600}".repeat(127))).unwrap();
}

#[test]
fn channel_state_does_not_grow_with_users() {
    let mut sim = Sim::new();
    let people: Vec<Connection> = (0..10_000).map(|n| sim.connect(&format!("507f1f77bcf86cd799{n:06}"), "P")).collect();
    let c1 = json!({"channelId": "c1"});
    for (n, who) in people.iter().enumerate() {
        assert_eq!(sim.emit_with_ack(*who, "joinChannel", c1.clone()).unwrap()["connectedUsers"], n + 1);
    }
    let data = json!({"channelId": "c1", "body": "hi"});
    sim.emit_with_ack(people[9_999], "channelMessage", data).unwrap();
    assert_eq!(names(&mut sim, people[0]), ["channelMessageRecieved"]);
    let state = serde_json::to_string(&sim.state("channel:c1").unwrap()).unwrap();
    assert_eq!(state, r#"{"isFilled":true}"#);
    assert_eq!(sim.emit_with_ack(people[0], "leaveChannel", c1).unwrap()["connectedUsers"], 9_999);
}

#[test]
fn tabs_per_user_are_unlimited() {
    let mut sim = Sim::new();
    for _ in 0..100 {
        let tab = sim.connect("ana", "Ana");
        assert_eq!(join(&mut sim, tab)["connectedUsers"], 1);
    }
    let tab = joined(&mut sim, "ana");
    say(&mut sim, tab, "hi");
}

#[test]
fn message_without_client_id_leaves_state_unchanged() {
    let call = Call {
        now: 1,
        seed: 1,
        sequence: 1,
        scope: ROOM.to_owned(),
        params: vec!["r1".to_owned()],
        room_connections: 1,
        room_users: 1,
        connection_in_room: true,
        user_connections: 1,
        settings: "{}".to_owned(),
    };
    let ana = Member { connection: "c1".to_owned(), identity: super::person("ana", None, &json!({})) };
    let message = Message {
        event: "roomMessage".to_owned(),
        sender: Sender::Client(ana),
        payload: Payload::of(&json!({"roomId": "r1", "body": "hi"})).unwrap(),
        wants_reply: true,
    };
    for state in [None, Some(br#"{"isFilled":true}"#.as_slice())] {
        let outcome = handle::<ChatConfirmation>(call.clone(), Event::Message(message.clone()), state).unwrap();
        assert_eq!(outcome.state, StateChange::Keep);
    }
}

#[test]
fn empty_room_has_no_state() {
    for how in ["leave", "disconnect", "be taken out"] {
        let mut sim = Sim::new();
        let [ana, bob] = ["ana", "bob"].map(|user| joined(&mut sim, user));
        say(&mut sim, ana, "hi");
        store(&mut sim);
        sim.disconnect(bob);
        assert!(sim.state(ROOM).is_some());
        match how {
            "leave" => drop(sim.emit_with_ack(ana, "leaveRoom", r1()).unwrap()),
            "disconnect" => sim.disconnect(ana),
            _ => sim.leave(ana, ROOM),
        }
        assert!(sim.state(ROOM).is_none(), "{how}");
    }
}

/// A room without members, in which `n` messages from before a restart have failed for the reason `why`.
fn failed_over_a_restart(n: usize, why: &str) -> (Sim, Vec<String>) {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let temp_ids: Vec<String> = (0..n).map(|n| say_as(&mut sim, ana, &format!("{n:é<128}"))).collect();
    let saves = sim.saves();
    sim.restart();
    for save in &saves {
        sim.not_stored(save, StoreFailure { failure: Failure::internal(why), ..away() });
    }
    (sim, temp_ids)
}

#[test]
fn newest_outcomes_are_kept_when_too_many() {
    let (mut sim, temp_ids) = failed_over_a_restart(200, "it is full");
    assert!(n_bytes(&sim) <= 33 * 1024, "{}", n_bytes(&sim));
    assert!(sim.logs().iter().any(|(_, line)| line.contains("not kept")));
    let ana = sim.connect("ana", "Ana");
    join(&mut sim, ana);
    let told = about(&mut sim, ana);
    assert!(told.len() > 50, "{}", told.len());
    let expected: Vec<_> = temp_ids[200 - told.len()..].iter().map(|id| is("roomMessageFailed", id)).collect();
    assert_eq!(told, expected);
}

#[test]
fn oversized_outcome_is_read_from_store() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let short = say(&mut sim, ana, "hi");
    // The longest body: each character takes six bytes in JSON.
    let longest = say(&mut sim, ana, &"\u{1}".repeat(16_384));
    let long = say(&mut sim, ana, &"x".repeat(16_384));
    let saves = sim.saves();
    sim.restart();
    for save in &saves {
        sim.stored(save);
    }
    let ana = sim.connect("ana", "Ana");
    join(&mut sim, ana);
    assert_eq!(
        about(&mut sim, ana),
        [&short, &long, &longest].map(|temp_id| is("roomMessageConfirmed", temp_id)),
        "the room's own first"
    );
    assert!(sim.logs().is_empty());
}

/// A room without members, in which `n` messages from before a restart were stored.
fn stored_over_a_restart(n: usize) -> (Sim, Vec<String>) {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let temp_ids: Vec<String> = (0..n).map(|n| say(&mut sim, ana, &format!("{n} {}", "x".repeat(200)))).collect();
    let saves = sim.saves();
    sim.restart();
    sim.advance(Duration::from_secs(1));
    for save in &saves {
        sim.stored(save);
    }
    (sim, temp_ids)
}

#[test]
fn overflowing_outcomes_are_confirmed_once_from_store() {
    let (mut sim, temp_ids) = stored_over_a_restart(1000);
    assert!(n_bytes(&sim) <= 33 * 1024, "{}", n_bytes(&sim));
    let wanted: BTreeSet<_> = temp_ids.iter().map(|temp_id| is("roomMessageConfirmed", temp_id)).collect();
    for user in ["ana", "bob"] {
        let who = sim.connect(user, user);
        join(&mut sim, who);
        let told = about(&mut sim, who);
        assert_eq!((told.len(), told.into_iter().collect()), (temp_ids.len(), wanted.clone()), "{user}");
        sim.advance(Duration::from_secs(1));
        // Messages that are sent after the restart are confirmed as usual, and not replayed to later joiners.
        say(&mut sim, who, "and now?");
        store(&mut sim);
        sim.received(who);
    }
    sim.advance(Duration::from_secs(120));
    let eve = sim.connect("eve", "Eve");
    join(&mut sim, eve);
    assert!(names(&mut sim, eve).is_empty(), "nobody is on the way back any more");
}

#[test]
fn leaving_during_fetch_cancels_pending_outcomes() {
    let (mut sim, _) = stored_over_a_restart(300);
    for goes in ["leaves", "disconnects", "leaves and joins"] {
        let ana = sim.connect("ana", "Ana");
        sim.hold_fetches();
        sim.emit(ana, "joinRoom", r1());
        let n_kept = about(&mut sim, ana).len();
        match goes {
            "disconnects" => sim.disconnect(ana),
            _ => drop(sim.emit_with_ack(ana, "leaveRoom", r1()).unwrap()),
        }
        if goes == "leaves and joins" {
            sim.emit(ana, "joinRoom", r1());
        }
        sim.release_fetches();
        let n_told = about(&mut sim, ana).len();
        assert_eq!(n_told, if goes == "leaves and joins" { 300 } else { 0 }, "{goes}, {n_kept} are kept");
    }
}

#[test]
fn full_room_fits_state_limit_and_shrinks_again() {
    let (mut sim, _) = failed_over_a_restart(200, "it is full");
    let ana = joined(&mut sim, "ana");
    for n in 0..120 {
        say_as(&mut sim, ana, &format!("{n:x<128}"));
    }
    sim.advance(Duration::from_secs(120));
    assert!(n_bytes(&sim) < 6 * 1024, "{}", n_bytes(&sim));
}

#[test]
fn unreadable_stored_message_does_not_block_joins() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    say_as(&mut sim, ana, "k1");
    let mut save = sim.saves().remove(0);
    save.document = json!({"from": "another time"});
    // The feature panics on this outcome, but the document is in the store.
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.stored(&save)));
    assert!(told.is_err());
    sim.restart();
    let ana = sim.connect("ana", "Ana");
    assert_eq!(join(&mut sim, ana)["connectedUsers"], 1);
}
