//! Refused messages, which change and emit nothing.

use serde_json::{Value, json};

use super::{ROOM, Sim, ana, c1, names, snapshot, start, tell};

#[test]
fn foreign_sender_id_is_forbidden() {
    let mut sim = Sim::new();
    start(&mut sim);
    for event in ["subscribe:campaign", "unsubscribe:campaign"] {
        for field in ["agentId", "userId", "senderId"] {
            let ana = ana(&mut sim);
            let claim = json!({"campaignId": "c1", field: "bob"});
            assert_eq!(sim.emit_with_ack(ana, event, claim).unwrap_err().code, "forbidden");
            assert!(names(&mut sim, ana).is_empty());
            assert!(sim.is_in(ana, ROOM));
            sim.emit_with_ack(ana, event, json!({"campaignId": "c1", field: "ana"})).unwrap();
        }
    }
}

#[test]
fn clients_cannot_send_service_events() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    let before = snapshot(&mut sim);
    for event in ["campaign:message", "campaign:paused", "campaign:resumed", "campaign:completed", "campaign:failed"] {
        let data = json!({"campaignId": "c1", "status": "sent", "reason": "fun"});
        assert_eq!(sim.emit_with_ack(ana, event, data).unwrap_err().code, "forbidden", "{event}");
    }
    let start = json!({"campaignId": "c2", "name": "Mine", "total": 5});
    assert_eq!(sim.emit_with_ack(ana, "campaign:started", start).unwrap_err().code, "forbidden");
    for event in ["campaign:progress", "campaign:snapshot"] {
        assert_eq!(sim.emit_with_ack(ana, event, c1()).unwrap_err().code, "unknown_event");
    }
    assert!(names(&mut sim, ana).is_empty());
    assert_eq!(snapshot(&mut sim), before);
}

#[test]
fn services_cannot_subscribe() {
    let mut sim = Sim::new();
    for event in ["subscribe:campaign", "unsubscribe:campaign"] {
        assert_eq!(tell(&mut sim, event, c1()).unwrap_err().code, "forbidden");
    }
}

#[test]
fn invalid_campaign_id_is_bad_request() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    for data in [json!(null), json!(7), json!(""), json!("a b"), json!({}), json!({"campaignId": 7})] {
        let failure = sim.emit_with_ack(ana, "subscribe:campaign", data).unwrap_err();
        assert_eq!(failure.code, "bad_request");
        assert!(failure.message.contains("campaignId"), "{failure}");
    }
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn malformed_field_is_named_in_bad_request() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    let before = snapshot(&mut sim);
    let message = |status: Value, count: Value| json!({"campaignId": "c1", "status": status, "count": count});
    let started = |field: &str, value: Value| {
        let mut data = json!({"campaignId": "c2", "name": "Winter", "total": 5});
        data[field] = value;
        data
    };
    for (event, data, named) in [
        ("campaign:message", c1(), "status"),
        ("campaign:message", message(json!("lost"), json!(1)), "status"),
        ("campaign:message", message(json!("sent"), json!(0)), "count"),
        ("campaign:message", message(json!("sent"), json!(-1)), "count"),
        ("campaign:message", message(json!("sent"), json!(1.5)), "count"),
        ("campaign:message", message(json!("sent"), json!("1")), "count"),
        ("campaign:failed", c1(), "reason"),
        ("campaign:failed", json!({"campaignId": "c1", "reason": 7}), "reason"),
        ("campaign:started", json!({"campaignId": "c2", "total": 5}), "name"),
        ("campaign:started", json!({"campaignId": "c2", "name": "Winter"}), "total"),
        ("campaign:started", started("name", json!("")), "name"),
        ("campaign:started", started("name", json!("a\u{0}b")), "name"),
        ("campaign:started", started("name", json!("x".repeat(257))), "name"),
        ("campaign:started", started("total", json!(-1)), "total"),
        ("campaign:started", started("total", json!(9_007_199_254_740_992_u64)), "total"),
        ("campaign:started", started("ownerId", json!("o w")), "ownerId"),
        ("campaign:started", started("ownerId", json!(7)), "ownerId"),
    ] {
        let failure = tell(&mut sim, event, data.clone()).unwrap_err();
        assert_eq!(failure.code, "bad_request", "{event} {data}");
        assert!(failure.message.contains(named), "{data}: {failure}");
    }
    assert!(names(&mut sim, ana).is_empty());
    assert_eq!(snapshot(&mut sim), before);
    assert!(sim.state("campaign:c2").is_none());
}

#[test]
fn longest_names_and_reasons_fit_state_limit() {
    let mut sim = Sim::new();
    let owner = "é".repeat(128);
    let data = json!({"campaignId": "c1", "name": "𝄞".repeat(256), "total": 5, "ownerId": owner});
    tell(&mut sim, "campaign:started", data).unwrap();
    let ana = ana(&mut sim);
    // The simulator panics if the state exceeds its limit.
    let reason = "𝄞".repeat(100_000);
    tell(&mut sim, "campaign:failed", json!({"campaignId": "c1", "reason": reason})).unwrap();
    // Present subscribers receive the whole reason; the state, and so later subscribers, its beginning.
    assert_eq!(sim.received(ana)[1].1["reason"], reason);
    assert_eq!(snapshot(&mut sim)["reason"], "𝄞".repeat(1000));
}

#[test]
fn invalid_settings_are_named() {
    for (settings, named) in
        [(json!({"progressEach": 3}), "progressEach"), (json!({"progressEvery": 0}), "progressEvery")]
    {
        let mut sim = Sim::new().with_settings(settings);
        let ana = sim.connect("ana", "Ana");
        let failure = sim.emit_with_ack(ana, "subscribe:campaign", c1()).unwrap_err();
        assert_eq!(failure.code, "feature_unavailable");
        assert!(failure.message.contains(named), "{failure}");
    }
}
