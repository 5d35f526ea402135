//! Refused messages, which change and emit nothing.

use serde_json::{Value, json};

use super::{Sim, names, on_account, on_contact};

const FROM_CLIENTS: [&str; 6] = [
    "subscribe:whatsapp",
    "unsubscribe:whatsapp",
    "subscribe:contact",
    "unsubscribe:contact",
    "typing:start",
    "typing:stop",
];

const FROM_SERVICES: [&str; 18] = [
    "whatsapp:connection:status",
    "whatsapp:qr",
    "whatsapp:ready",
    "whatsapp:disconnected",
    "message:status:update",
    "message:received",
    "message:sent",
    "message:delivered",
    "message:read",
    "message:failed",
    "contact:created",
    "contact:updated",
    "contact:deleted",
    "flow:execution:started",
    "flow:execution:completed",
    "flow:execution:failed",
    "system:notification",
    "team:activity",
];

fn full() -> Value {
    json!({"accountId": "a1", "contactId": "k1", "userId": "ana", "messageId": "m1", "status": "Sent"})
}

/// Sends a refused event, after which nothing is emitted or kept. `who` is the user id of a client; without it a
/// service sends the event. Returns the code and message of the error.
fn refused(who: Option<&str>, event: &str, data: Value) -> (String, String) {
    let mut sim = Sim::new();
    let people = [on_account(&mut sim, "ana"), on_contact(&mut sim, "ana"), on_contact(&mut sim, "bob")];
    let failure = match who {
        Some(user_id) => {
            let who = sim.connect(user_id, user_id);
            sim.emit_with_ack(who, event, data).unwrap_err()
        }
        None => sim.service("crm", event, data).unwrap_err(),
    };
    for who in people {
        assert!(names(&mut sim, who).is_empty());
    }
    assert!(sim.state("contact:k1").is_none());
    (failure.code, failure.message)
}

#[test]
fn clients_cannot_send_server_events() {
    for event in FROM_SERVICES {
        assert_eq!(refused(Some("ana"), event, full()).0, "forbidden", "{event}");
    }
    assert_eq!(refused(Some("ana"), "typing:indicator", full()).0, "unknown_event");
}

#[test]
fn services_can_neither_subscribe_nor_type() {
    for event in FROM_CLIENTS {
        assert_eq!(refused(None, event, full()).0, "forbidden", "{event}");
    }
}

#[test]
fn foreign_sender_id_is_forbidden() {
    for event in FROM_CLIENTS {
        for field in ["userId", "senderId", "agentId"] {
            let mut data = json!({"accountId": "a1", "contactId": "k1"});
            data[field] = json!("bob");
            assert_eq!(refused(Some("ana"), event, data.clone()).0, "forbidden", "{event} {field}");
            data[field] = json!(7);
            assert_eq!(refused(Some("ana"), event, data.clone()).0, "bad_request", "{event} {field}");
            data[field] = json!("ana");
            let mut sim = Sim::new();
            let ana = sim.connect("ana", "Ana");
            sim.emit_with_ack(ana, event, data).unwrap();
        }
    }
}

#[test]
fn client_must_name_account_or_contact() {
    for event in FROM_CLIENTS {
        let field = if event.ends_with("whatsapp") { "accountId" } else { "contactId" };
        for id in [json!(null), json!(7), json!(""), json!("a b"), json!("x".repeat(129))] {
            let (code, message) = refused(Some("ana"), event, json!({field: id}));
            assert_eq!(code, "bad_request");
            assert!(message.contains(field), "{message}");
            assert_eq!(refused(Some("ana"), event, id).0, "bad_request");
        }
    }
}

#[test]
fn service_events_without_required_fields_are_refused() {
    for event in FROM_SERVICES {
        let wants: &[&str] = match event.split(':').next().unwrap() {
            "whatsapp" => &["accountId"],
            "contact" => &["contactId"],
            "flow" => &["userId"],
            "message" if event == "message:status:update" => &["messageId", "status"],
            _ => &[],
        };
        for field in wants {
            for wrong in [json!(null), json!(7), json!("")] {
                let mut data = full();
                data[*field] = wrong;
                let (code, message) = refused(None, event, data);
                assert_eq!(code, "bad_request", "{event} {field}");
                assert!(message.contains(field), "{message}");
            }
        }
    }
}

#[test]
fn optional_ids_must_be_valid() {
    for (event, field) in [
        ("message:received", "accountId"),
        ("message:received", "whatsappAccountId"),
        ("message:sent", "userId"),
        ("contact:updated", "userId"),
    ] {
        for wrong in [json!(7), json!("a b"), json!({})] {
            let (code, message) = refused(None, event, json!({"contactId": "k1", field: wrong}));
            assert_eq!(code, "bad_request");
            assert!(message.contains(field), "{message}");
        }
    }
}

#[test]
fn conflicting_account_ids_are_refused() {
    let data = json!({"contactId": "k1", "accountId": "a1", "whatsappAccountId": "a2"});
    for event in ["whatsapp:ready", "message:received"] {
        assert_eq!(refused(None, event, data.clone()).0, "bad_request");
    }
    let mut sim = Sim::new();
    let both = json!({"accountId": "a1", "whatsappAccountId": "a1"});
    sim.service("crm", "whatsapp:ready", both).unwrap();
}

#[test]
fn account_ids_have_at_most_128_characters() {
    let longest = "\u{1f600}".repeat(128);
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    sim.emit_with_ack(ana, "subscribe:whatsapp", json!(longest)).unwrap();
    assert_eq!(sim.service("crm", "whatsapp:ready", json!({"accountId": longest})).unwrap(), json!({"delivered": 1}));
    let longer = "x".repeat(129);
    assert_eq!(refused(Some("ana"), "subscribe:whatsapp", json!(longer)).0, "bad_request");
    assert_eq!(refused(None, "whatsapp:ready", json!({"accountId": longer})).0, "bad_request");
}

#[test]
fn message_must_name_a_recipient() {
    for event in FROM_SERVICES.iter().filter(|event| event.starts_with("message:")) {
        let (code, message) = refused(None, event, json!({"messageId": "m1", "status": "Sent"}));
        assert_eq!(code, "bad_request", "{event}");
        assert!(message.contains("contactId"), "{message}");
    }
}

#[test]
fn fields_unused_by_event_may_have_any_type() {
    for (event, data) in [
        ("system:notification", json!({"userId": 7, "status": 3, "roles": "admin", "messageId": 12, "accountId": ""})),
        ("contact:updated", json!({"contactId": "k1", "status": {"is": "new"}, "roles": "owner", "messageId": 5})),
        ("whatsapp:connection:status", json!({"accountId": "a1", "status": 2, "userId": 9})),
        ("message:received", json!({"contactId": "k1", "status": 1, "messageId": 4})),
        ("team:activity", json!({"userId": 5, "contactId": null})),
        ("flow:execution:failed", json!({"userId": "ana", "status": 500})),
    ] {
        let mut sim = Sim::new();
        let people = [on_account(&mut sim, "ana"), on_contact(&mut sim, "ana")];
        sim.service("crm", event, data.clone()).unwrap();
        let heard: Vec<_> = people.into_iter().flat_map(|who| sim.received(who)).collect();
        assert!(!heard.is_empty() && heard.iter().all(|(_, heard)| *heard == data), "{event}");
    }
}

#[test]
fn typing_with_invalid_account_id_is_refused() {
    for event in ["typing:start", "typing:stop"] {
        for wrong in [json!(7), json!(""), json!({})] {
            let data = json!({"contactId": "k1", "whatsappAccountId": wrong});
            let (code, message) = refused(Some("ana"), event, data);
            assert_eq!(code, "bad_request");
            assert!(message.contains("whatsappAccountId"), "{message}");
        }
    }
}

#[test]
fn unknown_status_is_bad_request() {
    for status in ["Lost", "", "Sent "] {
        let mut data = full();
        data["status"] = json!(status);
        let (code, message) = refused(None, "message:status:update", data);
        assert_eq!(code, "bad_request");
        assert!(message.contains("status"), "{message}");
    }
}

#[test]
fn empty_or_malformed_roles_are_refused() {
    for roles in [json!([]), json!("admin"), json!([7])] {
        let (code, message) = refused(None, "team:activity", json!({"roles": roles}));
        assert_eq!(code, "bad_request");
        assert!(message.contains("roles"), "{message}");
    }
}

#[test]
fn service_payload_must_be_an_object() {
    for event in FROM_SERVICES {
        for data in [json!("k1"), json!(["k1"]), json!(null), json!(7)] {
            assert_eq!(refused(None, event, data).0, "bad_request", "{event}");
        }
    }
}

#[test]
fn invalid_name_is_bad_request() {
    for name in [json!(7), json!(""), json!("x".repeat(129)), json!("a\u{0}b")] {
        let (code, message) = refused(Some("ana"), "typing:start", json!({"contactId": "k1", "userName": name}));
        assert_eq!(code, "bad_request");
        assert!(message.contains("userName"), "{message}");
    }
}

#[test]
fn invalid_settings_are_named() {
    for (settings, named) in
        [(json!({"typingSecond": 3}), "typingSecond"), (json!({"typingSeconds": 0}), "typingSeconds")]
    {
        let mut sim = Sim::new().with_settings(settings);
        let ana = sim.connect("ana", "Ana");
        let failure = sim.emit_with_ack(ana, "subscribe:contact", json!("k1")).unwrap_err();
        assert_eq!(failure.code, "feature_unavailable");
        assert!(failure.message.contains(named), "{failure}");
    }
}
