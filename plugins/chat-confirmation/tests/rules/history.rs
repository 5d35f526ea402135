//! The history of stored messages.

use serde_json::{Value, json};

use super::{Sim, away, joined, say, store};

fn read(sim: &mut Sim, who: roundhouse_sdk::simulator::Connection, data: &Value) -> Value {
    let mut asked = json!({"roomId": "r1"});
    asked.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
    sim.emit_with_ack(who, "roomHistory", asked).unwrap()
}

fn bodies(page: &Value) -> Vec<&str> {
    page["messages"].as_array().unwrap().iter().map(|message| message["body"].as_str().unwrap()).collect()
}

#[test]
fn history_is_newest_first_in_confirmed_form() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    say(&mut sim, ana, "one");
    say(&mut sim, ana, "two");
    sim.received(ana);
    store(&mut sim);
    let mut confirmed: Vec<Value> = sim.received(ana).into_iter().map(|(_, data)| data).collect();
    confirmed.reverse();
    assert_eq!(read(&mut sim, ana, &json!({})), json!({"messages": confirmed, "hasMore": false}));
}

#[test]
fn before_id_pages_backwards_through_history() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    for body in ["1", "2", "3", "4", "5"] {
        say(&mut sim, ana, body);
    }
    store(&mut sim);
    let page = read(&mut sim, ana, &json!({"limit": 2}));
    assert_eq!((bodies(&page), &page["hasMore"]), (vec!["5", "4"], &json!(true)));
    let page = read(&mut sim, ana, &json!({"limit": 2, "before": page["messages"][1]["_id"]}));
    assert_eq!((bodies(&page), &page["hasMore"]), (vec!["3", "2"], &json!(true)));
    let page = read(&mut sim, ana, &json!({"limit": 2, "before": page["messages"][1]["_id"]}));
    assert_eq!((bodies(&page), &page["hasMore"]), (vec!["1"], &json!(false)));
}

#[test]
fn default_page_has_fifty_messages() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    for n in 0..60 {
        say(&mut sim, ana, &n.to_string());
    }
    store(&mut sim);
    let page = read(&mut sim, ana, &json!({}));
    assert_eq!((bodies(&page).len(), &page["hasMore"]), (50, &json!(true)));
    assert_eq!(bodies(&read(&mut sim, ana, &json!({"limit": 100}))).len(), 60);
}

#[test]
fn empty_room_has_empty_history() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    assert_eq!(read(&mut sim, ana, &json!({})), json!({"messages": [], "hasMore": false}));
}

#[test]
fn pending_and_failed_messages_are_not_history() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    say(&mut sim, ana, "one");
    say(&mut sim, ana, "two");
    let save = sim.saves().remove(0);
    sim.not_stored(&save, away());
    assert_eq!(read(&mut sim, ana, &json!({}))["messages"], json!([]));
}

#[test]
fn oversized_history_page_is_truncated_and_resumable() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    // The longest bodies: each character takes six bytes in JSON.
    for _ in 0..25 {
        say(&mut sim, ana, &"\u{1}".repeat(16_384));
    }
    store(&mut sim);
    let page = read(&mut sim, ana, &json!({"limit": 100}));
    let messages = page["messages"].as_array().unwrap();
    assert_eq!((messages.len(), &page["hasMore"]), (9, &json!(true)));
    let next = read(&mut sim, ana, &json!({"limit": 100, "before": messages[8]["_id"]}));
    assert_eq!(next["messages"][0]["_id"], "d16");
}

#[test]
fn store_outage_is_reported_to_requester() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    sim.fail_fetches(Some(away()));
    let failure = sim.emit_with_ack(ana, "roomHistory", super::r1()).unwrap_err();
    assert_eq!(failure, away().failure);
}

#[test]
fn history_before_an_unknown_id_is_not_found() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let data = json!({"roomId": "r1", "before": "nothing"});
    assert_eq!(sim.emit_with_ack(ana, "roomHistory", data).unwrap_err().code, "not_found");
}
