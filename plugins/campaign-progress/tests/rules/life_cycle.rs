//! A campaign from its start to its end.

use serde_json::{Value, json};

use super::{ROOM, Sim, ana, c1, names, report, sent, snapshot, start, start_olgas, tell};

#[test]
fn lifecycle_events_reach_room_and_owner() {
    let mut sim = Sim::new();
    let ana = ana(&mut sim);
    let olga = sim.connect("olga", "Olga");
    start_olgas(&mut sim);
    for event in ["campaign:paused", "campaign:resumed", "campaign:completed"] {
        tell(&mut sim, event, c1()).unwrap();
    }
    let expected =
        ["campaign:started", "campaign:paused", "campaign:resumed", "campaign:progress", "campaign:completed"];
    assert_eq!(names(&mut sim, ana), expected);
    assert_eq!(names(&mut sim, olga), expected);
}

#[test]
fn service_payload_is_forwarded_unchanged() {
    let mut sim = Sim::new();
    let ana = ana(&mut sim);
    let started = json!({"campaignId": "c1", "name": "Autumn", "total": 3, "ownerId": "olga", "tags": [1.5]});
    let failed = json!({"campaignId": "c1", "reason": "no credit", "code": 402});
    tell(&mut sim, "campaign:started", started.clone()).unwrap();
    tell(&mut sim, "campaign:failed", failed.clone()).unwrap();
    let received = sim.received(ana);
    assert_eq!(received[0], ("campaign:started".to_owned(), started));
    assert_eq!(received[2], ("campaign:failed".to_owned(), failed));
}

#[test]
fn bare_id_is_forwarded_as_object() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    tell(&mut sim, "campaign:paused", json!("c1")).unwrap();
    assert_eq!(sim.received(ana), [("campaign:paused".to_owned(), c1())]);
}

#[test]
fn campaign_survives_host_restart() {
    let mut sim = Sim::new();
    start_olgas(&mut sim);
    sent(&mut sim, 150);
    sim.restart();
    let olga = sim.connect("olga", "Olga");
    let ana = ana(&mut sim);
    sent(&mut sim, 50);
    for who in [olga, ana] {
        let (name, progress) = sim.received(who).remove(0);
        assert_eq!((name.as_str(), &progress["processed"]), ("campaign:progress", &json!(200)));
    }
}

#[test]
fn in_flight_messages_count_during_pause() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    tell(&mut sim, "campaign:paused", c1()).unwrap();
    sent(&mut sim, 100);
    let (_, progress) = sim.received(ana).remove(1);
    assert_eq!((&progress["state"], &progress["processed"]), (&json!("paused"), &json!(100)));
}

#[test]
fn paused_unfinished_campaign_can_be_completed() {
    let mut sim = Sim::new();
    start(&mut sim);
    sent(&mut sim, 500);
    tell(&mut sim, "campaign:paused", c1()).unwrap();
    assert_eq!(tell(&mut sim, "campaign:completed", c1()).unwrap()["percent"], 50);
}

#[test]
fn only_delivered_and_read_count_after_end() {
    for end in ["campaign:completed", "campaign:failed"] {
        let mut sim = Sim::new();
        start(&mut sim);
        sent(&mut sim, 10);
        tell(&mut sim, end, json!({"campaignId": "c1", "reason": "enough"})).unwrap();
        let ana = ana(&mut sim);
        assert_eq!(report(&mut sim, "delivered", 7).unwrap()["delivered"], 7);
        assert_eq!(report(&mut sim, "read", 5).unwrap()["read"], 5);
        let before = snapshot(&mut sim);
        refuses(
            &mut sim,
            &[
                ("campaign:message", json!({"campaignId": "c1", "status": "sent"})),
                ("campaign:message", json!({"campaignId": "c1", "status": "failed"})),
                ("campaign:started", json!({"campaignId": "c1", "name": "Again", "total": 5})),
                ("campaign:paused", c1()),
                ("campaign:resumed", c1()),
                ("campaign:completed", c1()),
                ("campaign:failed", json!({"campaignId": "c1", "reason": "again"})),
            ],
        );
        assert_eq!(snapshot(&mut sim), before);
        assert!(names(&mut sim, ana).is_empty());
    }
}

#[test]
fn service_events_before_start_are_conflicts() {
    let mut sim = Sim::new();
    let ana = ana(&mut sim);
    refuses(
        &mut sim,
        &[
            ("campaign:message", json!({"campaignId": "c1", "status": "sent"})),
            ("campaign:message", json!({"campaignId": "c1", "status": "read"})),
            ("campaign:paused", c1()),
            ("campaign:resumed", c1()),
            ("campaign:completed", c1()),
            ("campaign:failed", json!({"campaignId": "c1", "reason": "no credit"})),
        ],
    );
    assert!(sim.state(ROOM).is_none());
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn illegal_transitions_are_refused() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    let again = ("campaign:started", json!({"campaignId": "c1", "name": "Again", "total": 5}));
    refuses(&mut sim, &[again.clone(), ("campaign:resumed", c1())]);
    tell(&mut sim, "campaign:paused", c1()).unwrap();
    refuses(&mut sim, &[again, ("campaign:paused", c1())]);
    assert_eq!(names(&mut sim, ana), ["campaign:paused"]);
    assert_eq!(snapshot(&mut sim)["name"], "Autumn");
}

#[test]
fn counts_never_exceed_total() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    sent(&mut sim, 990);
    sim.received(ana);
    for (status, most) in [("sent", 10), ("failed", 10), ("delivered", 1000), ("read", 1000)] {
        let failure = report(&mut sim, status, most + 1).unwrap_err();
        assert_eq!(failure.code, "conflict", "{status}");
        assert!(failure.message.contains(&format!("{most} are left")), "{failure}");
    }
    assert!(names(&mut sim, ana).is_empty());
    for (status, most) in [("failed", 10), ("delivered", 1000), ("read", 1000)] {
        report(&mut sim, status, most).unwrap();
    }
}

fn refuses(sim: &mut Sim, messages: &[(&str, Value)]) {
    for (event, data) in messages {
        let failure = tell(sim, event, data.clone()).unwrap_err();
        assert_eq!(failure.code, "conflict", "{event} {data}");
    }
}
