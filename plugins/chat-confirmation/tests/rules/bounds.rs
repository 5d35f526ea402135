//! The state stays within the host's limit whatever users do: the simulator panics where it does not.

use roundhouse_sdk::StoreFailure;
use serde_json::json;

use super::{ROOM, Sim, about, away, join, joined, r1, say, say_as};

#[test]
fn several_hundred_messages_are_remembered_and_the_oldest_are_forgotten_first() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let temp_ids: Vec<String> = (0..301).map(|n| say_as(&mut sim, ana, &format!("client-{n:030}"))).collect();
    for n in [1, 300] {
        assert_eq!(say_as(&mut sim, ana, &format!("client-{n:030}")), temp_ids[n]);
    }
    assert_ne!(say_as(&mut sim, ana, &format!("client-{:030}", 0)), temp_ids[0]);
}

#[test]
fn messages_with_the_longest_ids_leave_the_state_within_its_limit() {
    let mut sim = Sim::new();
    let sender = "é".repeat(128);
    let ana = joined(&mut sim, &sender);
    for n in 0..300 {
        say_as(&mut sim, ana, &format!("{n:\"<4}{}", "\"".repeat(124)));
    }
    let last = say_as(&mut sim, ana, "last");
    assert_eq!(say_as(&mut sim, ana, "last"), last);
}

#[test]
fn ids_that_are_too_long_for_the_store_together_are_refused() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, &"\u{1f600}".repeat(128));
    let message = |client_id: String| json!({"roomId": "r1", "body": "hi", "clientId": client_id});
    let failure = sim.send(ana, "roomMessage", message("\u{1f600}".repeat(128))).unwrap_err();
    assert_eq!(failure.code, "bad_request");
    sim.send(ana, "roomMessage", message("\u{1f600}".repeat(127))).unwrap();
}

#[test]
fn a_full_room_lets_nobody_else_in_and_still_works() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let mut n_let_in = 1;
    let failure = loop {
        let who = sim.connect(&format!("507f1f77bcf86cd7{n_let_in:08}"), "Somebody");
        match sim.send(who, "joinRoom", r1()) {
            Ok(reply) => {
                n_let_in += 1;
                assert_eq!(reply["connectedUsers"], n_let_in);
            }
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.code, "conflict");
    assert!(n_let_in > 900, "{n_let_in}");
    for n in 0..400 {
        say_as(&mut sim, ana, &format!("client-{n:030}"));
    }
}

#[test]
fn members_come_in_though_many_messages_are_remembered() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    for n in 0..300 {
        say_as(&mut sim, ana, &format!("{n:x<128}"));
    }
    for n in 0..300 {
        joined(&mut sim, &format!("{n:y<100}"));
    }
    assert_eq!(join(&mut sim, ana)["connectedUsers"], 301);
}

#[test]
fn a_person_has_a_bounded_number_of_tabs() {
    let mut sim = Sim::new();
    for _ in 0..16 {
        joined(&mut sim, "ana");
    }
    let tab = sim.connect("ana", "Ana");
    assert_eq!(sim.send(tab, "joinRoom", r1()).unwrap_err().code, "conflict");
    assert!(!sim.is_in(tab, ROOM));
}

#[test]
fn the_newest_ends_of_a_restart_are_kept_where_there_are_too_many() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let temp_ids: Vec<String> = (0..200).map(|n| say_as(&mut sim, ana, &format!("{n:é<128}"))).collect();
    let saves = sim.saves();
    sim.restart();
    for save in &saves {
        sim.not_stored(save, StoreFailure { failure: roundhouse_sdk::Failure::internal("é".repeat(9999)), ..away() });
    }
    assert!(sim.logs().iter().any(|(_, line)| line.contains("not kept")));
    let ana = sim.connect("ana", "Ana");
    join(&mut sim, ana);
    let told = about(&mut sim, ana);
    assert!(!told.is_empty());
    let expected: Vec<_> = temp_ids[200 - told.len()..].iter().map(|id| super::is("roomMessageFailed", id)).collect();
    assert_eq!(told, expected);
}

#[test]
fn long_messages_that_ended_over_a_restart_are_told_within_the_hosts_limit() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    for _ in 0..15 {
        say(&mut sim, ana, &"\u{1}".repeat(16_384));
    }
    let saves = sim.saves();
    sim.restart();
    for save in &saves {
        sim.stored(save);
    }
    let ana = sim.connect("ana", "Ana");
    join(&mut sim, ana);
    assert_eq!(about(&mut sim, ana).len(), 9);
    assert!(sim.logs().iter().any(|(_, line)| line.contains("not told of all")));
}

#[test]
fn a_message_in_the_store_that_cannot_be_read_keeps_nobody_out() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    say_as(&mut sim, ana, "k1");
    let mut save = sim.saves().remove(0);
    save.document = json!({"from": "another time"});
    // The feature cannot make sense of its outcome, but it is in the store.
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.stored(&save)));
    assert!(told.is_err());
    sim.restart();
    let ana = sim.connect("ana", "Ana");
    assert_eq!(join(&mut sim, ana)["connectedUsers"], 1);
}
