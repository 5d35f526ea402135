//! Who writes to a contact, and who hears of it.

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
fn the_others_are_told_who_types_and_when_it_stops() {
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
fn typing_ends_by_itself_ten_seconds_after_it_was_last_said() {
    let mut sim = Sim::new();
    let ana = on_contact(&mut sim, "ana");
    let bob = on_contact(&mut sim, "bob");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.advance(Duration::from_millis(9_999));
    // Saying it again prolongs it and tells nobody anything.
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.advance(Duration::from_millis(9_999));
    assert_eq!(sim.received(bob), [indicator("ana", true)]);
    sim.advance(Duration::from_millis(1));
    assert_eq!(sim.received(bob), [indicator("ana", false)]);
    assert!(sim.state("contact:k1").is_none());
}

#[test]
fn how_long_typing_lasts_is_a_setting_that_may_change_meanwhile() {
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
fn typing_ends_when_its_connection_goes_or_unsubscribes() {
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
fn typing_goes_on_where_another_tab_goes() {
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
fn typing_goes_on_where_the_tab_that_typed_last_goes_and_another_typed_a_moment_ago() {
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
    // One that has been silent for too long does not count.
    let tab = on_contact(&mut sim, "ana");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    sim.advance(Duration::from_secs(9));
    sim.emit_with_ack(tab, "typing:start", typing()).unwrap();
    sim.advance(Duration::from_secs(9));
    sim.disconnect(tab);
    assert_eq!(sim.received(bob), [indicator("ana", true), indicator("ana", false)]);
}

#[test]
fn whoever_types_to_ever_more_contacts_is_watched_for_none_that_it_has_done_with() {
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
fn a_page_that_subscribes_while_it_types_stays_subscribed_when_it_stops() {
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
fn who_types_need_not_have_subscribed_and_its_end_is_noticed() {
    let mut sim = Sim::new();
    let bob = on_contact(&mut sim, "bob");
    let ana = sim.connect("ana", "ANA");
    sim.emit_with_ack(ana, "typing:start", typing()).unwrap();
    assert!(!sim.is_in(ana, "contact:k1"));
    sim.disconnect(ana);
    assert_eq!(sim.received(bob), [indicator("ana", true), indicator("ana", false)]);
}

#[test]
fn stopping_what_was_not_begun_tells_nobody_anything() {
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
fn a_name_comes_from_the_payload_only_where_the_identity_has_none() {
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
fn a_bounded_number_of_people_type_at_a_time() {
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
