//! Queries of services, and the stats for operators.

use std::time::Duration;

use serde_json::json;

use super::{ROOM, Sim, client, subscriber};

#[test]
fn services_query_number_of_viewers() {
    let mut sim = Sim::new();
    assert_eq!(sim.query("subscribers", client()).unwrap(), json!({"count": 0}));
    subscriber(&mut sim, "ana");
    subscriber(&mut sim, "ana");
    subscriber(&mut sim, "bob");
    assert_eq!(sim.query("subscribers", client()).unwrap(), json!({"count": 2}));
    for data in [json!({}), json!({"entityType": "client"}), json!({"entityType": "planet", "entityId": "123"})] {
        assert_eq!(sim.query("subscribers", data).unwrap_err().code, "bad_request");
    }
}

#[test]
fn stats_count_connections_once_and_users_by_timeline() {
    let mut sim = Sim::new();
    let nothing = json!({"totalSockets": 0, "totalEntities": 0, "entities": []});
    assert_eq!(sim.stats().unwrap(), nothing);
    let ana = subscriber(&mut sim, "ana");
    subscriber(&mut sim, "ana");
    subscriber(&mut sim, "bob");
    sim.emit_with_ack(ana, "timeline:subscribe", json!({"entityType": "case", "entityId": "7"})).unwrap();
    let gone = sim.connect("carl", "Carl");
    for event in ["timeline:subscribe", "timeline:unsubscribe"] {
        sim.emit_with_ack(gone, event, json!({"entityType": "lead", "entityId": "9"})).unwrap();
    }
    assert_eq!(
        sim.stats().unwrap(),
        json!({
            "totalSockets": 3,
            "totalEntities": 2,
            "entities": [
                {"entityType": "client", "entityId": "123", "subscribers": 2},
                {"entityType": "case", "entityId": "7", "subscribers": 1},
            ],
        })
    );
}

#[test]
fn stats_include_subscribers_not_kept_in_state() {
    let mut sim = Sim::new();
    for n in 0..300 {
        subscriber(&mut sim, &format!("{n:x>128}"));
    }
    let stats = sim.stats().unwrap();
    assert_eq!((&stats["totalSockets"], &stats["entities"][0]["subscribers"]), (&json!(300), &json!(300)));
}

#[test]
fn stats_list_is_truncated_to_1000_entries() {
    let mut sim = Sim::new();
    let ana = subscriber(&mut sim, "ana");
    subscriber(&mut sim, "bob");
    for n in 0..1004 {
        let id = format!("{n:𝄞>128}");
        sim.emit_with_ack(ana, "timeline:subscribe", json!({"entityType": "ticket", "entityId": id})).unwrap();
    }
    let stats = sim.stats().unwrap();
    assert_eq!((&stats["totalSockets"], &stats["totalEntities"]), (&json!(2), &json!(1005)));
    assert_eq!((stats["entities"].as_array().unwrap().len(), &stats["omitted"]), (1000, &json!(5)));
    assert_eq!(stats["entities"][0]["entityId"], "123");
    assert!(stats.to_string().len() < 1_000_000);
}

#[test]
fn timeline_without_subscribers_is_forgotten_within_a_minute() {
    let mut sim = Sim::new();
    let ana = subscriber(&mut sim, "ana");
    sim.advance(Duration::from_secs(3600));
    assert!(sim.exists(ROOM));
    sim.disconnect(ana);
    sim.advance(Duration::from_secs(60));
    assert!(!sim.exists(ROOM));
}
