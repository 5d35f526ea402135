//! Refused messages, which change and emit nothing.

use serde_json::{Value, json};

use super::{People, SCOPE, Sim, about_t1, events, tell};

/// Sends a service's event that is refused: nothing is emitted or changed. Returns the code and message of the error.
fn refused(event: &str, data: &Value) -> (String, String) {
    let mut sim = Sim::new();
    let people = People::create(&mut sim);
    let before = format!("{:?}", sim.state(SCOPE));
    let failure = tell(&mut sim, event, data.clone()).unwrap_err();
    assert!(people.who_heard(&mut sim).is_empty());
    assert_eq!(format!("{:?}", sim.state(SCOPE)), before);
    (failure.code, failure.message)
}

#[test]
fn clients_cannot_send_service_events() {
    for (event, data) in events() {
        let mut sim = Sim::new();
        let people = People::create(&mut sim);
        let before = format!("{:?}", sim.state(SCOPE));
        for who in [people.ana_creator, people.adam_admin] {
            assert_eq!(sim.emit_with_ack(who, event, about_t1(data.clone())).unwrap_err().code, "forbidden", "{event}");
        }
        assert!(people.who_heard(&mut sim).is_empty());
        assert_eq!(format!("{:?}", sim.state(SCOPE)), before);
    }
}

#[test]
fn invalid_ticket_id_is_bad_request() {
    for (event, data) in events() {
        for id in [json!(null), json!(7), json!(""), json!("a b"), json!("x".repeat(129))] {
            let mut data = data.clone();
            data["ticketId"] = id;
            let (code, message) = refused(event, &data);
            assert_eq!(code, "bad_request");
            assert!(message.contains("ticketId"), "{message}");
        }
        let (code, _) = refused(event, &json!("t1"));
        assert_eq!(code, "bad_request", "{event}");
    }
}

#[test]
fn missing_or_invalid_fields_are_named_in_error() {
    for (event, data, named) in [
        ("ticket:updated", json!({"updatedBy": "ana"}), "changes"),
        ("ticket:updated", json!({"changes": null}), "changes"),
        ("ticket:updated", json!({"changes": ["title"]}), "changes"),
        ("ticket:statusChanged", json!({"oldStatus": "open"}), "newStatus"),
        ("ticket:statusChanged", json!({"newStatus": 3}), "newStatus"),
        ("ticket:statusChanged", json!({"oldStatus": 2, "newStatus": "open"}), "oldStatus"),
        ("ticket:priorityChanged", json!({"oldPriority": "low"}), "newPriority"),
        ("ticket:priorityChanged", json!({"newPriority": null}), "newPriority"),
        ("ticket:priorityChanged", json!({"oldPriority": 2, "newPriority": "low"}), "oldPriority"),
        ("ticket:commentAdded", json!({}), "comment"),
        ("ticket:commentAdded", json!({"comment": "Where?"}), "comment"),
        ("ticket:attachmentAdded", json!({"uploadedBy": "ana"}), "attachment"),
        ("ticket:attachmentAdded", json!({"attachment": "f1"}), "attachment"),
        ("ticket:attachmentDeleted", json!({"deletedBy": "ana"}), "attachmentId"),
        ("ticket:attachmentDeleted", json!({"attachmentId": 7}), "attachmentId"),
        ("ticket:attachmentDeleted", json!({"attachmentId": "f 1"}), "attachmentId"),
    ] {
        let (code, message) = refused(event, &about_t1(data.clone()));
        assert_eq!(code, "bad_request", "{event} {data}");
        assert!(message.contains(named), "{event} {data}: {message}");
    }
}

#[test]
fn invalid_participants_are_named_in_bad_request() {
    for (event, data) in events() {
        for (field, value) in [
            ("creatorId", json!(7)),
            ("creatorId", json!("a b")),
            ("creatorId", json!({"id": "ana"})),
            ("participants", json!("ana")),
            ("participants", json!(["ana", 7])),
            ("participants", json!(["ana", {"name": "Bob"}])),
            ("participants", json!(["a b"])),
        ] {
            let mut data = about_t1(data.clone());
            data[field] = value.clone();
            let (code, message) = refused(event, &data);
            assert_eq!(code, "bad_request", "{event} {value}");
            assert!(message.contains(field), "{event} {value}: {message}");
        }
    }
}

#[test]
fn too_many_participants_are_too_large() {
    let ids: Vec<String> = (0..130).map(|n| format!("{n:\"<128}")).collect();
    let (code, message) = refused("ticket:commentAdded", &about_t1(json!({"comment": {}, "participants": ids})));
    assert_eq!(code, "too_large");
    assert!(message.contains("participants"), "{message}");
}

#[test]
fn invalid_settings_are_named() {
    for (settings, named) in [
        (json!({"adminRole": ["admin"]}), "adminRole"),
        (json!({"adminRoles": "admin"}), "adminRoles"),
        (json!({"excludeActor": "no"}), "excludeActor"),
    ] {
        let mut sim = Sim::new().with_settings(settings);
        let failure = tell(&mut sim, "ticket:created", json!({"ticketId": "t1"})).unwrap_err();
        assert_eq!(failure.code, "feature_unavailable");
        assert!(failure.message.contains(named), "{failure}");
    }
}
