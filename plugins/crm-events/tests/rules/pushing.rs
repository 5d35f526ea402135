//! Services' events, and their recipients.

use serde_json::{Value, json};

use super::{Sim, delivered, is, names, on_account, on_contact, push, with_role};

const ACCOUNT_EVENTS: [&str; 4] =
    ["whatsapp:connection:status", "whatsapp:qr", "whatsapp:ready", "whatsapp:disconnected"];

const MESSAGE_EVENTS: [&str; 6] = [
    "message:status:update",
    "message:received",
    "message:sent",
    "message:delivered",
    "message:read",
    "message:failed",
];

const CONTACT_EVENTS: [&str; 3] = ["contact:created", "contact:updated", "contact:deleted"];

const FLOW_EVENTS: [&str; 3] = ["flow:execution:started", "flow:execution:completed", "flow:execution:failed"];

#[test]
fn account_events_reach_subscribers_by_either_id_field() {
    for event in ACCOUNT_EVENTS {
        for field in ["accountId", "whatsappAccountId"] {
            let mut sim = Sim::new();
            let ana = on_account(&mut sim, "ana");
            let bob = on_contact(&mut sim, "bob");
            let data = json!({field: "a1", "status": "Connected", "qr": "data:…", "n": 1});
            assert_eq!(push(&mut sim, event, &data), delivered(1));
            assert_eq!(sim.received(ana), [is(event, &data)]);
            assert!(names(&mut sim, bob).is_empty());
        }
    }
}

#[test]
fn message_update_reaches_each_connection_once() {
    for event in MESSAGE_EVENTS {
        let mut sim = Sim::new();
        let account = on_account(&mut sim, "ana");
        let contact = on_contact(&mut sim, "bob");
        let user = sim.connect("eve", "Eve");
        // Connected as the user, and subscribed to the account and the contact.
        let all = on_account(&mut sim, "eve");
        sim.emit_with_ack(all, "subscribe:contact", json!("k1")).unwrap();
        let other = sim.connect("mia", "Mia");
        let data = json!({
            "accountId": "a1", "contactId": "k1", "userId": "eve",
            "messageId": "m1", "status": "Sent", "message": {"body": "hi"},
        });
        assert_eq!(push(&mut sim, event, &data), delivered(4));
        for who in [account, contact, user, all] {
            assert_eq!(sim.received(who), [is(event, &data)]);
        }
        assert!(names(&mut sim, other).is_empty());
    }
}

#[test]
fn message_reaches_rooms_named_by_its_ids() {
    let mut sim = Sim::new();
    let account = on_account(&mut sim, "ana");
    let contact = on_contact(&mut sim, "bob");
    assert_eq!(
        push(&mut sim, "message:received", &json!({"contactId": "k1", "whatsappAccountId": "a1"})),
        delivered(2)
    );
    assert_eq!(push(&mut sim, "message:received", &json!({"contactId": "k1"})), delivered(1));
    assert_eq!(push(&mut sim, "message:received", &json!({"contactId": "k2", "accountId": "a1"})), delivered(1));
    // A message from a number that is not a contact yet.
    assert_eq!(push(&mut sim, "message:received", &json!({"accountId": "a1"})), delivered(1));
    assert_eq!(push(&mut sim, "message:received", &json!({"userId": "ana"})), delivered(1));
    assert_eq!(names(&mut sim, account).len(), 4);
    assert_eq!(names(&mut sim, contact).len(), 2);
}

#[test]
fn contact_events_reach_subscribers_and_user() {
    for event in CONTACT_EVENTS {
        let mut sim = Sim::new();
        let account = on_account(&mut sim, "ana");
        let contact = on_contact(&mut sim, "bob");
        let user = sim.connect("eve", "Eve");
        let data = json!({"contactId": "k1", "userId": "eve", "accountId": "a1", "contact": {"name": "Kim"}});
        assert_eq!(push(&mut sim, event, &data), delivered(2));
        assert_eq!(sim.received(contact), [is(event, &data)]);
        assert_eq!(sim.received(user), [is(event, &data)]);
        assert!(names(&mut sim, account).is_empty());
        assert_eq!(push(&mut sim, event, &json!({"contactId": "k1"})), delivered(1));
    }
}

#[test]
fn flow_events_reach_every_connection_of_user() {
    for event in FLOW_EVENTS {
        let mut sim = Sim::new();
        let tabs = [sim.connect("ana", "Ana"), sim.connect("ana", "Ana")];
        let bob = sim.connect("bob", "Bob");
        let data = json!({"userId": "ana", "flowId": "f1"});
        assert_eq!(push(&mut sim, event, &data), delivered(2));
        for tab in tabs {
            assert_eq!(sim.received(tab), [is(event, &data)]);
        }
        assert!(names(&mut sim, bob).is_empty());
    }
}

#[test]
fn notification_reaches_everyone() {
    let mut sim = Sim::new();
    let people = [sim.connect("ana", "Ana"), on_account(&mut sim, "bob")];
    let data = json!({"title": "Maintenance", "roles": ["admin"]});
    assert_eq!(push(&mut sim, "system:notification", &data), delivered(2));
    for who in people {
        assert_eq!(sim.received(who), [is("system:notification", &data)]);
    }
}

#[test]
fn team_events_reach_all_or_named_roles() {
    let mut sim = Sim::new();
    let admin = with_role(&mut sim, "ana", "admin");
    let agent = with_role(&mut sim, "bob", "agent");
    let other = sim.connect("eve", "Eve");
    for (roles, n) in [(json!(null), 3), (json!(["admin"]), 1), (json!(["admin", "agent"]), 2), (json!(["nobody"]), 0)]
    {
        let data = json!({"activity": "x", "roles": roles});
        assert_eq!(push(&mut sim, "team:activity", &data), delivered(n));
    }
    assert_eq!([admin, agent, other].map(|who| names(&mut sim, who).len()), [3, 2, 1]);
}

#[test]
fn payload_is_forwarded_unchanged() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let data: Value = serde_json::from_str(r#"{"z":1.50,"a":[null,{"deep":"ü"}],"userId":null}"#).unwrap();
    push(&mut sim, "system:notification", &data);
    assert_eq!(sim.received(ana), [is("system:notification", &data)]);
}

#[test]
fn event_without_recipients_reports_zero_deliveries() {
    let mut sim = Sim::new();
    sim.connect("ana", "Ana");
    for (event, data) in [
        ("whatsapp:qr", json!({"accountId": "a1"})),
        ("message:received", json!({"contactId": "k1", "accountId": "a1", "userId": "eve"})),
        ("contact:deleted", json!({"contactId": "k1"})),
        ("flow:execution:failed", json!({"userId": "eve"})),
    ] {
        assert_eq!(push(&mut sim, event, &data), delivered(0));
    }
}
