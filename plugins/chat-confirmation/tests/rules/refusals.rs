//! Refused messages, which change and emit nothing.

use serde_json::{Value, json};

use super::{ROOM, Sim, joined, names, r1};

/// Sends a message of Ana's that is refused: nothing is emitted, changed or stored. Returns the code and message of the
/// error.
fn refused(event: &str, more: &Value) -> (String, String) {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    let before = format!("{:?}", sim.state(ROOM));
    let mut data = r1();
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let failure = sim.emit_with_ack(ana, event, data).unwrap_err();
    assert!(names(&mut sim, ana).is_empty());
    assert!(names(&mut sim, bob).is_empty());
    assert!(sim.saves().is_empty());
    assert_eq!(format!("{:?}", sim.state(ROOM)), before);
    (failure.code, failure.message)
}

#[test]
fn foreign_sender_id_is_forbidden() {
    for event in ["joinRoom", "leaveRoom", "roomMessage", "roomHistory"] {
        for field in ["senderId", "userId", "agentId"] {
            for claim in [json!("bob"), json!({"_id": "bob", "username": "Ana"})] {
                assert_eq!(refused(event, &json!({"body": "hi", field: claim})).0, "forbidden", "{event} {field}");
            }
        }
    }
}

#[test]
fn own_sender_id_is_accepted() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    for claim in [json!("ana"), json!({"_id": "ana"}), json!(null)] {
        sim.emit_with_ack(ana, "roomMessage", json!({"roomId": "r1", "body": "hi", "senderId": claim})).unwrap();
    }
}

#[test]
fn malformed_sender_id_is_bad_request() {
    for (claim, named) in
        [(json!(7), "senderId"), (json!([]), "senderId"), (json!({}), "_id"), (json!({"_id": 7}), "expected a string")]
    {
        let (code, message) = refused("roomMessage", &json!({"body": "hi", "senderId": claim}));
        assert_eq!(code, "bad_request");
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn body_has_1_to_16384_characters() {
    // The limit counts Unicode characters, not bytes or UTF-16 units.
    for body in [json!(""), json!("x".repeat(16_385)), json!("\u{1f600}".repeat(16_385)), json!(7), json!(null)] {
        let (code, message) = refused("roomMessage", &json!({"body": body}));
        assert_eq!(code, "bad_request");
        assert!(message.contains("body"), "{message}");
    }
    assert_eq!(refused("roomMessage", &json!({})).0, "bad_request");
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    for body in ["x".to_owned(), "é".repeat(16_384), "\u{1}".repeat(16_384), "\u{1f600}".repeat(16_384)] {
        sim.emit_with_ack(ana, "roomMessage", json!({"roomId": "r1", "body": body})).unwrap();
    }
}

#[test]
fn invalid_ids_are_named_in_bad_request() {
    for id in [json!(""), json!("a b"), json!("x".repeat(129)), json!(7)] {
        for (event, field) in [("roomMessage", "clientId"), ("roomHistory", "before"), ("joinRoom", "roomId")] {
            let (code, message) = refused(event, &json!({"body": "hi", field: id}));
            assert_eq!(code, "bad_request");
            assert!(message.contains(field), "{message}");
        }
    }
}

#[test]
fn history_limit_outside_1_to_100_is_refused() {
    for limit in [json!(0), json!(101), json!(-1), json!("10"), json!(1.5)] {
        let (code, message) = refused("roomHistory", &json!({"limit": limit}));
        assert_eq!(code, "bad_request");
        assert!(message.contains("limit"), "{message}");
    }
}

#[test]
fn non_members_can_neither_send_nor_read() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    let eve = sim.connect("eve", "Eve");
    // Ana's other tab has not joined.
    let tab = sim.connect("ana", "Ana");
    sim.emit_with_ack(bob, "leaveRoom", r1()).unwrap();
    for who in [eve, tab, bob] {
        for event in ["roomMessage", "roomHistory"] {
            let failure = sim.emit_with_ack(who, event, json!({"roomId": "r1", "body": "hi"})).unwrap_err();
            assert_eq!(failure.code, "forbidden");
            assert!(failure.message.contains("joinRoom"), "{failure}");
        }
    }
    assert!(names(&mut sim, ana).is_empty());
    let failure = sim.emit_with_ack(eve, "channelMessage", json!({"channelId": "r1", "body": "hi"})).unwrap_err();
    assert!(failure.message.contains("joinChannel"), "{failure}");
}

#[test]
fn membership_does_not_extend_to_other_rooms() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    for (event, place) in [("roomMessage", "roomId"), ("channelMessage", "channelId")] {
        let data = json!({place: if place == "roomId" { "r2" } else { "r1" }, "body": "hi"});
        assert_eq!(sim.emit_with_ack(ana, event, data).unwrap_err().code, "forbidden");
    }
}

#[test]
fn refusal_without_acknowledgement_is_an_error_event() {
    let mut sim = Sim::new();
    let eve = sim.connect("eve", "Eve");
    sim.emit(eve, "roomMessage", json!({"roomId": "r1", "body": "hi"}));
    let (name, error) = sim.received(eve).remove(0);
    assert_eq!((name.as_str(), &error["code"], &error["event"]), ("error", &json!("forbidden"), &json!("roomMessage")));
}

#[test]
fn clients_cannot_send_server_events() {
    for event in ["roomMessageRecieved", "roomMessageSent", "roomMessageConfirmed", "roomMessageFailed"] {
        assert_eq!(refused(event, &json!({})).0, "unknown_event");
    }
}

#[test]
fn services_cannot_join_send_or_read() {
    let mut sim = Sim::new();
    for event in ["joinRoom", "leaveRoom", "roomMessage", "roomHistory"] {
        assert_eq!(sim.service("billing", event, json!({"roomId": "r1", "body": "hi"})).unwrap_err().code, "forbidden");
    }
}

#[test]
fn unknown_settings_are_refused_by_key() {
    let mut sim = Sim::new().with_settings(json!({"limit": 3}));
    let ana = sim.connect("ana", "Ana");
    let failure = sim.emit_with_ack(ana, "joinRoom", r1()).unwrap_err();
    assert_eq!(failure.code, "feature_unavailable");
    assert!(failure.message.contains("limit"), "{failure}");
}
