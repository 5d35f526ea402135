//! Refused messages, which change and emit nothing.

use serde_json::{Value, json};

use super::{ROOM, Sim, about_client, client, names, subscriber};

#[test]
fn unknown_type_is_refused_listing_known_types() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let planet = json!({"entityType": "planet", "entityId": "mars"});
    for event in ["timeline:subscribe", "timeline:unsubscribe"] {
        let failure = sim.emit_with_ack(ana, event, planet.clone()).unwrap_err();
        assert_eq!(failure.code, "bad_request");
        assert!(failure.message.contains("client, contact, lead, case, invoice, organization, ticket"), "{failure}");
    }
    assert_eq!(sim.service("crm", "timeline:refresh", planet).unwrap_err().code, "bad_request");
    assert!(names(&mut sim, ana).is_empty());
    assert!(!sim.is_in(ana, "timeline:planet:mars"));
}

#[test]
fn entity_types_are_a_setting() {
    let mut sim = Sim::new().with_settings(json!({"entityTypes": ["planet"]}));
    let ana = sim.connect("ana", "Ana");
    sim.emit_with_ack(ana, "timeline:subscribe", json!({"entityType": "planet", "entityId": "mars"})).unwrap();
    assert_eq!(sim.emit_with_ack(ana, "timeline:subscribe", client()).unwrap_err().code, "bad_request");
}

#[test]
fn foreign_sender_id_is_forbidden() {
    let mut sim = Sim::new();
    let ana = subscriber(&mut sim, "ana");
    let bob = sim.connect("bob", "Bob");
    for field in ["agentId", "userId", "senderId"] {
        for (who, event) in [(ana, "timeline:unsubscribe"), (bob, "timeline:subscribe")] {
            let failure = sim.emit_with_ack(who, event, about_client(json!({field: "carl"}))).unwrap_err();
            assert_eq!(failure.code, "forbidden");
            assert!(failure.message.contains(field), "{failure}");
            assert!(names(&mut sim, who).is_empty());
        }
    }
    assert!(sim.is_in(ana, ROOM));
    assert!(!sim.is_in(bob, ROOM));
    sim.emit_with_ack(bob, "timeline:subscribe", about_client(json!({"userId": "bob"}))).unwrap();
}

#[test]
fn clients_cannot_send_service_events() {
    let mut sim = Sim::new();
    let ana = subscriber(&mut sim, "ana");
    let bob = subscriber(&mut sim, "bob");
    let data = about_client(json!({"item": {}, "itemId": "a1", "items": []}));
    for event in [
        "timeline:new_item",
        "timeline:item_updated",
        "timeline:item_deleted",
        "timeline:refresh",
        "timeline:bulk_update",
    ] {
        assert_eq!(sim.emit_with_ack(ana, event, data.clone()).unwrap_err().code, "forbidden", "{event}");
    }
    for event in ["timeline:subscribed", "timeline:unsubscribed"] {
        assert_eq!(sim.emit_with_ack(ana, event, data.clone()).unwrap_err().code, "unknown_event", "{event}");
    }
    assert!(names(&mut sim, bob).is_empty());
}

#[test]
fn services_cannot_subscribe() {
    let mut sim = Sim::new();
    for event in ["timeline:subscribe", "timeline:unsubscribe"] {
        assert_eq!(sim.service("crm", event, client()).unwrap_err().code, "forbidden");
    }
}

#[test]
fn missing_or_invalid_fields_are_named_in_error() {
    let mut sim = Sim::new();
    let ana = subscriber(&mut sim, "ana");
    for (event, more, named) in [
        ("timeline:new_item", json!({}), "item"),
        ("timeline:new_item", json!({"item": null}), "item"),
        ("timeline:item_updated", json!({"itemId": "a1"}), "item"),
        ("timeline:item_deleted", json!({"item": {}}), "itemId"),
        ("timeline:item_deleted", json!({"itemId": 7}), "itemId"),
        ("timeline:item_deleted", json!({"itemId": "a 1"}), "itemId"),
        ("timeline:bulk_update", json!({}), "items"),
        ("timeline:bulk_update", json!({"items": {"id": "a1"}}), "items"),
    ] {
        let failure = sim.service("crm", event, about_client(more)).unwrap_err();
        assert_eq!(failure.code, "bad_request");
        assert!(failure.message.contains(&format!("`{named}`")) || failure.message.contains(&format!("{named}:")));
    }
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn invalid_ids_are_named_in_bad_request() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let of = |entity_type: Value, entity_id: Value| json!({"entityType": entity_type, "entityId": entity_id});
    for (data, named) in [
        (json!(null), "entityType"),
        (json!("client:123"), "entityType"),
        (json!({"entityId": "123"}), "entityType"),
        (of(json!("client:x"), json!("123")), "entityType"),
        (of(json!("client"), json!(123)), "entityId"),
        (of(json!("client"), json!("")), "entityId"),
        (of(json!("client"), json!("x".repeat(129))), "entityId"),
    ] {
        let failure = sim.emit_with_ack(ana, "timeline:subscribe", data).unwrap_err();
        assert_eq!(failure.code, "bad_request");
        assert!(failure.message.contains(named), "{failure}");
    }
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn invalid_settings_are_named() {
    for (settings, named) in [
        (json!({"entityType": ["client"]}), "entityType"),
        (json!({"entityTypes": "client"}), "entityTypes"),
        (json!({"entityTypes": [7]}), "entityTypes"),
    ] {
        let mut sim = Sim::new().with_settings(settings);
        let ana = sim.connect("ana", "Ana");
        let failure = sim.emit_with_ack(ana, "timeline:subscribe", client()).unwrap_err();
        assert_eq!(failure.code, "feature_unavailable");
        assert!(failure.message.contains(named), "{failure}");
    }
}
