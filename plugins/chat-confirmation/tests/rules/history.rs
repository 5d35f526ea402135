//! Reading what was said.

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
fn the_newest_come_first_each_as_its_confirmation_showed_it() {
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
fn pages_go_back_from_a_message() {
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
fn a_page_has_fifty_messages_unless_said_otherwise() {
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
fn a_room_without_messages_has_an_empty_history() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    assert_eq!(read(&mut sim, ana, &json!({})), json!({"messages": [], "hasMore": false}));
}

#[test]
fn what_is_not_stored_yet_or_never_will_be_is_not_history() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    say(&mut sim, ana, "one");
    say(&mut sim, ana, "two");
    let save = sim.saves().remove(0);
    sim.not_stored(&save, away());
    assert_eq!(read(&mut sim, ana, &json!({}))["messages"], json!([]));
}

#[test]
fn a_page_of_long_messages_is_cut_and_goes_on_where_it_was_cut() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    // The longest there are: characters of six bytes each in JSON.
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
fn who_asks_learns_that_the_store_is_away() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    sim.fail_fetches(Some(away()));
    let failure = sim.emit_with_ack(ana, "roomHistory", super::r1()).unwrap_err();
    assert_eq!(failure, away().failure);
}

#[test]
fn a_page_before_a_message_that_does_not_exist_is_not_found() {
    let mut sim = Sim::new();
    let ana = joined(&mut sim, "ana");
    let data = json!({"roomId": "r1", "before": "nothing"});
    assert_eq!(sim.emit_with_ack(ana, "roomHistory", data).unwrap_err().code, "not_found");
}
