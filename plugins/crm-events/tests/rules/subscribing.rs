//! Subscriptions to accounts and contacts.

use serde_json::json;

use super::{Sim, delivered, names, on_account, on_contact, push};

#[test]
fn account_is_named_by_id_or_object() {
    for data in [
        json!("a1"),
        json!({"accountId": "a1"}),
        json!({"whatsappAccountId": "a1"}),
        json!({"accountId": null, "whatsappAccountId": "a1"}),
    ] {
        let mut sim = Sim::new();
        let ana = sim.connect("ana", "Ana");
        assert_eq!(sim.emit_with_ack(ana, "subscribe:whatsapp", data.clone()).unwrap(), json!({"accountId": "a1"}));
        assert!(sim.is_in(ana, "whatsapp:a1"));
        assert_eq!(sim.emit_with_ack(ana, "unsubscribe:whatsapp", data).unwrap(), json!({"accountId": "a1"}));
        assert!(!sim.is_in(ana, "whatsapp:a1"));
    }
}

#[test]
fn contact_is_named_by_id_or_object() {
    for data in [json!("k1"), json!({"contactId": "k1"})] {
        let mut sim = Sim::new();
        let ana = sim.connect("ana", "Ana");
        assert_eq!(sim.emit_with_ack(ana, "subscribe:contact", data.clone()).unwrap(), json!({"contactId": "k1"}));
        assert!(sim.is_in(ana, "contact:k1"));
        assert_eq!(sim.emit_with_ack(ana, "unsubscribe:contact", data).unwrap(), json!({"contactId": "k1"}));
        assert!(!sim.is_in(ana, "contact:k1"));
    }
}

#[test]
fn subscribing_and_unsubscribing_are_idempotent() {
    let mut sim = Sim::new();
    let ana = on_account(&mut sim, "ana");
    sim.emit_with_ack(ana, "subscribe:whatsapp", json!("a1")).unwrap();
    sim.emit_with_ack(ana, "subscribe:contact", json!("k1")).unwrap();
    sim.emit_with_ack(ana, "subscribe:contact", json!("k1")).unwrap();
    assert_eq!(push(&mut sim, "whatsapp:ready", &json!({"accountId": "a1"})), delivered(1));
    assert_eq!(push(&mut sim, "contact:updated", &json!({"contactId": "k1"})), delivered(1));
    for event in ["unsubscribe:whatsapp", "unsubscribe:contact"] {
        for _ in 0..2 {
            sim.emit_with_ack(ana, event, json!(if event.ends_with("contact") { "k1" } else { "a1" })).unwrap();
        }
    }
    assert_eq!(push(&mut sim, "whatsapp:ready", &json!({"accountId": "a1"})), delivered(0));
    assert_eq!(push(&mut sim, "contact:updated", &json!({"contactId": "k1"})), delivered(0));
}

#[test]
fn each_tab_has_its_own_subscription() {
    let mut sim = Sim::new();
    let ana = on_account(&mut sim, "ana");
    let tab = on_account(&mut sim, "ana");
    sim.emit_with_ack(ana, "unsubscribe:whatsapp", json!("a1")).unwrap();
    push(&mut sim, "whatsapp:qr", &json!({"accountId": "a1", "qr": "x"}));
    assert!(names(&mut sim, ana).is_empty());
    assert_eq!(names(&mut sim, tab), ["whatsapp:qr"]);
}

#[test]
fn disconnecting_ends_subscription_and_leaves_no_state() {
    let mut sim = Sim::new();
    let ana = on_contact(&mut sim, "ana");
    sim.emit_with_ack(ana, "subscribe:whatsapp", json!("a1")).unwrap();
    sim.disconnect(ana);
    assert_eq!(push(&mut sim, "whatsapp:ready", &json!({"accountId": "a1"})), delivered(0));
    assert_eq!(push(&mut sim, "contact:updated", &json!({"contactId": "k1"})), delivered(0));
    assert!(sim.state("contact:k1").is_none());
}

#[test]
fn subscriptions_are_not_broadcast() {
    let mut sim = Sim::new();
    let ana = on_contact(&mut sim, "ana");
    on_contact(&mut sim, "bob");
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn stats_cover_all_contacts() {
    let mut sim = Sim::new();
    let nothing = json!({"contacts": 0, "subscribers": 0, "connections": 0, "typing": 0});
    assert_eq!(sim.stats().unwrap(), nothing);
    let ana = on_contact(&mut sim, "ana");
    on_contact(&mut sim, "ana");
    on_account(&mut sim, "eve");
    sim.emit_with_ack(ana, "subscribe:contact", json!("k2")).unwrap();
    sim.emit_with_ack(ana, "typing:start", json!({"contactId": "k2"})).unwrap();
    push(&mut sim, "flow:execution:started", &json!({"userId": "ana"}));
    assert_eq!(sim.stats().unwrap(), json!({"contacts": 2, "subscribers": 2, "connections": 3, "typing": 1}));
}
