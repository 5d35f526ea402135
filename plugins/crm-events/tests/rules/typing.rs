//! Typing indicators, and their recipients.

use std::time::Duration;

use roundhouse_sdk::Identity;
use serde_json::{Value, json};

use super::{Sim, is, names, on_contact};

fn typing() -> Value {
    json!({"contactId": "k1", "whatsappAccountId": "a1"})
}

fn indicator(user_id: &str, is_typing: bool) -> (String, Value) {
    is(
        "typing:indicator",
        &json!({
            "contactId": "k1",
            "userId": user_id,
            "userName": user_id.to_uppercase(),
            "isTyping": is_typing,
        }),
    )
}

#[test]
fn only_other_subscribed_users_receive_typing_indicators() {
    let mut sim = Sim::new();
    let ana = on_contact(&mut sim, "ana");
    let tab = on_contact(&mut sim, "ana");
    let bob = on_contact(&mut sim, "bob");
    let eve = sim.connect("eve", "Eve");
    assert_eq!(sim.emit_with_ack(ana, "typing:start", typing()).unwrap(), json!(null));
    assert_eq!(sim.received(bob), [indicator("ana", true)]);
    assert_eq!(sim.emit_with_ack(ana, "typing:stop", typing()).unwrap(), json!(null));
    assert_eq!(sim.received(bob), [indicator("ana", false)]);
    for who in [ana, tab, eve] {
        assert!(names(&mut sim, who).is_empty());
    }
}

#[test]
fn typing_expires_after_ten_seconds() {
    let mut sim = Sim::new();
    let ana = on_contact(&mut sim, "ana");
    let bob = on_contact(&mut sim, "bob");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.advance(Duration::from_millis(9_999));
    // A repeated `typing:start` prolongs the typing and emits nothing.
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.advance(Duration::from_millis(9_999));
    assert_eq!(sim.received(bob), [indicator("ana", true)]);
    sim.advance(Duration::from_millis(1));
    assert_eq!(sim.received(bob), [indicator("ana", false)]);
    assert!(sim.state("contact:k1").is_none());
}

#[test]
fn typing_timeout_may_change_at_runtime() {
    let mut sim = Sim::new().with_settings(json!({"typingSeconds": 3}));
    let ana = on_contact(&mut sim, "ana");
    let bob = on_contact(&mut sim, "bob");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.set_settings(&json!({"typingSeconds": 5}));
    sim.advance(Duration::from_secs(4));
    assert_eq!(names(&mut sim, bob).len(), 1);
    sim.advance(Duration::from_secs(1));
    assert_eq!(sim.received(bob), [indicator("ana", false)]);
}

#[test]
fn typing_ends_on_disconnect_and_unsubscribe() {
    for goes in ["disconnects", "unsubscribes", "is taken out"] {
        let mut sim = Sim::new();
        let ana = on_contact(&mut sim, "ana");
        let bob = on_contact(&mut sim, "bob");
        sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
        sim.received(bob);
        match goes {
            "disconnects" => sim.disconnect(ana),
            "unsubscribes" => drop(sim.emit_with_ack(ana, "unsubscribe:contact", json!("k1")).unwrap()),
            _ => sim.leave(ana, "contact:k1"),
        }
        assert_eq!(sim.received(bob), [indicator("ana", false)], "{goes}");
        sim.advance(Duration::from_secs(60));
        assert!(names(&mut sim, bob).is_empty());
    }
}

#[test]
fn typing_continues_while_another_tab_types() {
    let mut sim = Sim::new();
    let ana = on_contact(&mut sim, "ana");
    let tab = on_contact(&mut sim, "ana");
    let bob = on_contact(&mut sim, "bob");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.emit_with_ack(tab, "typing:start", typing()).unwrap();
    assert_eq!(sim.received(bob), [indicator("ana", true)]);
    sim.disconnect(ana);
    assert!(names(&mut sim, bob).is_empty());
    sim.disconnect(tab);
    assert_eq!(sim.received(bob), [indicator("ana", false)]);
}

#[test]
fn typing_continues_when_latest_typing_tab_closes() {
    let mut sim = Sim::new();
    let ana = on_contact(&mut sim, "ana");
    let tab = on_contact(&mut sim, "ana");
    let bob = on_contact(&mut sim, "bob");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.advance(Duration::from_secs(4));
    sim.emit_with_ack(tab, "typing:start", typing()).unwrap();
    sim.disconnect(tab);
    assert_eq!(sim.received(bob), [indicator("ana", true)]);
    sim.emit_with_ack(ana, "typing:stop", typing()).unwrap();
    assert_eq!(sim.received(bob), [indicator("ana", false)]);
    // A connection whose last `typing:start` is too old does not keep the typing going.
    let tab = on_contact(&mut sim, "ana");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.advance(Duration::from_secs(9));
    sim.emit_with_ack(tab, "typing:start", typing()).unwrap();
    sim.advance(Duration::from_secs(9));
    sim.disconnect(tab);
    assert_eq!(sim.received(bob), [indicator("ana", true), indicator("ana", false)]);
}

#[test]
fn contact_is_forgotten_after_typing_ends() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "ANA");
    for (n, ends) in ["stops", "is silent", "unsubscribes"].iter().cycle().take(30).enumerate() {
        let contact = format!("k{n}");
        sim.emit_with_ack(ana, "typing:start", json!({"contactId": contact})).unwrap();
        match *ends {
            "stops" => drop(sim.emit_with_ack(ana, "typing:stop", json!({"contactId": contact})).unwrap()),
            "unsubscribes" => drop(sim.emit_with_ack(ana, "unsubscribe:contact", json!(contact)).unwrap()),
            _ => sim.advance(Duration::from_secs(10)),
        }
        sim.advance(Duration::from_secs(3600));
        assert!(!sim.exists(&format!("contact:{contact}")), "{contact} {ends}");
    }
}

#[test]
fn subscription_during_typing_outlasts_typing() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "ANA");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.emit_with_ack(ana, "subscribe:contact", json!("k1")).unwrap();
    sim.emit_with_ack(ana, "typing:stop", typing()).unwrap();
    assert!(sim.is_in(ana, "contact:k1"));
    let bob = on_contact(&mut sim, "bob");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.disconnect(ana);
    assert_eq!(sim.received(bob), [indicator("ana", true), indicator("ana", false)]);
}

#[test]
fn typing_of_unsubscribed_connection_ends_on_disconnect() {
    let mut sim = Sim::new();
    let bob = on_contact(&mut sim, "bob");
    let ana = sim.connect("ana", "ANA");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    assert!(!sim.is_in(ana, "contact:k1"));
    sim.disconnect(ana);
    assert_eq!(sim.received(bob), [indicator("ana", true), indicator("ana", false)]);
}

#[test]
fn stop_without_start_emits_nothing() {
    let mut sim = Sim::new();
    let ana = on_contact(&mut sim, "ana");
    let bob = on_contact(&mut sim, "bob");
    sim.emit_with_ack(ana, "typing:stop", typing()).unwrap();
    sim.emit_with_ack(bob, "typing:start", typing()).unwrap();
    sim.emit_with_ack(ana, "typing:stop", typing()).unwrap();
    assert!(names(&mut sim, bob).is_empty());
    assert_eq!(sim.received(ana), [indicator("bob", true)]);
}

#[test]
fn payload_name_is_used_only_without_identity_name() {
    let mut sim = Sim::new();
    let bob = on_contact(&mut sim, "bob");
    let nameless = |user_id: &str| Identity {
        user_id: user_id.to_owned(),
        name: None,
        roles: Vec::new(),
        claims: "{}".to_owned(),
    };
    let ana = sim.connect("ana", "Ana");
    let (eve, mia) = (sim.connect_as(nameless("eve")), sim.connect_as(nameless("mia")));
    for (who, data) in [
        (ana, json!({"contactId": "k1", "userName": "The Boss"})),
        (eve, json!({"contactId": "k1", "userName": "Eve Miller"})),
        (mia, json!("k1")),
    ] {
        sim.emit_with_ack(who, "typing:start", data).unwrap();
    }
    let shown: Vec<Value> = sim.received(bob).into_iter().map(|(_, data)| data["userName"].clone()).collect();
    assert_eq!(shown, ["Ana", "Eve Miller", "mia"]);
}

#[test]
fn concurrent_typists_are_bounded() {
    let mut sim = Sim::new();
    for n in 0..50 {
        let who = sim.connect(&format!("user-{n}"), "Somebody");
        sim.emit_with_ack(who, "typing:start", typing()).unwrap();
    }
    let bob = on_contact(&mut sim, "bob");
    let ana = sim.connect("ana", "Ana");
    assert_eq!(sim.emit_with_ack(ana, "typing:start", typing()).unwrap_err().code, "conflict");
    assert!(names(&mut sim, bob).is_empty());
    sim.advance(Duration::from_secs(10));
    assert_eq!(names(&mut sim, bob).len(), 50);
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
}
