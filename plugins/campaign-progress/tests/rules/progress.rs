//! When progress events are emitted, and their figures.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Sim, ana, c1, names, processed, report, sent, snapshot, start, start_olgas, tell};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn progress_is_emitted_every_hundred_messages() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    for _ in 0..250 {
        tell(&mut sim, "campaign:message", json!({"campaignId": "c1", "status": "sent"})).unwrap();
    }
    assert_eq!(processed(&mut sim, ana), [100, 200]);
}

#[test]
fn crossing_several_multiples_emits_once() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    sent(&mut sim, 99);
    assert!(processed(&mut sim, ana).is_empty());
    sent(&mut sim, 251);
    assert_eq!(processed(&mut sim, ana), [350]);
    sent(&mut sim, 49);
    assert!(processed(&mut sim, ana).is_empty());
    sent(&mut sim, 1);
    assert_eq!(processed(&mut sim, ana), [400]);
}

#[test]
fn only_sent_and_failed_count_as_processed() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    sent(&mut sim, 60);
    report(&mut sim, "failed", 40).unwrap();
    assert_eq!(processed(&mut sim, ana), [100]);
    // These reports emit no progress: the multiple of a hundred was passed before.
    report(&mut sim, "delivered", 200).unwrap();
    report(&mut sim, "read", 200).unwrap();
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn report_without_count_is_one_message() {
    let mut sim = Sim::new();
    start(&mut sim);
    for data in
        [json!({"campaignId": "c1", "status": "sent"}), json!({"campaignId": "c1", "status": "sent", "count": null})]
    {
        tell(&mut sim, "campaign:message", data).unwrap();
    }
    sent(&mut sim, 97);
    let ana = ana(&mut sim);
    assert!(processed(&mut sim, ana).is_empty());
    sent(&mut sim, 1);
    assert_eq!(processed(&mut sim, ana), [100]);
}

#[test]
fn progress_interval_is_a_setting() {
    let mut sim = Sim::new().with_settings(json!({"progressEvery": 10}));
    start(&mut sim);
    let ana = ana(&mut sim);
    sent(&mut sim, 19);
    sent(&mut sim, 1);
    assert_eq!(processed(&mut sim, ana), [19, 20]);
    sim.set_settings(&json!({"progressEvery": 500}));
    sent(&mut sim, 479);
    sent(&mut sim, 1);
    assert_eq!(processed(&mut sim, ana), [500]);
}

#[test]
fn completion_and_failure_emit_final_progress() {
    for (event, data, state) in [
        ("campaign:completed", c1(), "completed"),
        ("campaign:failed", json!({"campaignId": "c1", "reason": "no credit"}), "failed"),
    ] {
        let mut sim = Sim::new();
        start(&mut sim);
        let ana = ana(&mut sim);
        sent(&mut sim, 1000);
        assert_eq!(processed(&mut sim, ana), [1000]);
        tell(&mut sim, event, data.clone()).unwrap();
        let received = sim.received(ana);
        assert_eq!(received[0].0, "campaign:progress");
        assert_eq!((&received[0].1["state"], &received[0].1["processed"]), (&json!(state), &json!(1000)));
        assert_eq!(received[1..], [(event.to_owned(), data)]);
    }
}

#[test]
fn room_and_owner_receive_progress_once_per_connection() {
    let mut sim = Sim::new();
    start_olgas(&mut sim);
    let ana = ana(&mut sim);
    let owners_page = sim.connect("olga", "Olga");
    let owners_other_page = sim.connect("olga", "Olga");
    sim.emit_with_ack(owners_page, "subscribe:campaign", c1()).unwrap();
    sim.received(owners_page);
    let stranger = sim.connect("eve", "Eve");
    sent(&mut sim, 100);
    for who in [ana, owners_page, owners_other_page] {
        assert_eq!(processed(&mut sim, who), [100]);
    }
    assert!(names(&mut sim, stranger).is_empty());
}

#[test]
fn progress_has_rate_and_remaining_time() {
    let mut sim = Sim::new();
    start(&mut sim);
    let ana = ana(&mut sim);
    sim.advance(40 * SECOND);
    sent(&mut sim, 100);
    let (_, data) = sim.received(ana).remove(0);
    let expected = json!({
        "campaignId": "c1",
        "state": "running",
        "total": 1000,
        "processed": 100,
        "sent": 100,
        "delivered": 0,
        "read": 0,
        "failed": 0,
        "percent": 10,
        "ratePerSecond": 2.5,
        "etaMs": 360_000,
    });
    assert_eq!(data, expected);
}

#[test]
fn service_replies_carry_progress_figures() {
    let mut sim = Sim::new();
    let data = json!({"campaignId": "c1", "name": "Autumn", "total": 8});
    let answer = tell(&mut sim, "campaign:started", data).unwrap();
    assert_eq!((&answer["campaignId"], &answer["state"]), (&json!("c1"), &json!("running")));
    sim.advance(2 * SECOND);
    let answer = report(&mut sim, "sent", 1).unwrap();
    assert_eq!(figures(&answer), (json!(12.5), json!(0.5), json!(14_000)));
    let answer = tell(&mut sim, "campaign:paused", c1()).unwrap();
    assert_eq!(answer["state"], "paused");
}

#[test]
fn pause_does_not_lower_the_rate() {
    let mut sim = Sim::new();
    start(&mut sim);
    sim.advance(10 * SECOND);
    sent(&mut sim, 100);
    tell(&mut sim, "campaign:paused", c1()).unwrap();
    sim.advance(3600 * SECOND);
    // A paused campaign has no estimate of its end.
    assert_eq!(figures(&snapshot(&mut sim)), (json!(10), json!(10), json!(null)));
    tell(&mut sim, "campaign:resumed", c1()).unwrap();
    assert_eq!(figures(&snapshot(&mut sim)), (json!(10), json!(10), json!(90_000)));
    sim.advance(10 * SECOND);
    sent(&mut sim, 300);
    assert_eq!(figures(&snapshot(&mut sim)), (json!(40), json!(20), json!(30_000)));
}

#[test]
fn figures_are_frozen_after_completion() {
    let mut sim = Sim::new();
    start(&mut sim);
    sim.advance(10 * SECOND);
    sent(&mut sim, 999);
    tell(&mut sim, "campaign:completed", c1()).unwrap();
    sim.advance(3600 * SECOND);
    assert_eq!(figures(&snapshot(&mut sim)), (json!(99.9), json!(99.9), json!(0)));
}

#[test]
fn percentage_is_rounded_down() {
    let mut sim = Sim::new();
    tell(&mut sim, "campaign:started", json!({"campaignId": "c1", "name": "Big", "total": 100_000})).unwrap();
    let answer = report(&mut sim, "sent", 99_999).unwrap();
    assert_eq!(answer["percent"], 99.99);
    assert_eq!(report(&mut sim, "failed", 1).unwrap()["percent"], 100);
}

#[test]
fn completed_campaign_without_messages_is_100_percent() {
    let mut sim = Sim::new();
    let answer = tell(&mut sim, "campaign:started", json!({"campaignId": "c1", "name": "Nobody", "total": 0})).unwrap();
    assert_eq!(figures(&answer), (json!(0), json!(0), json!(0)));
    assert_eq!(figures(&tell(&mut sim, "campaign:completed", c1()).unwrap()), (json!(100), json!(0), json!(0)));
}

#[test]
fn largest_campaign_does_not_overflow() {
    let mut sim = Sim::new();
    let most = 9_007_199_254_740_991_u64;
    tell(&mut sim, "campaign:started", json!({"campaignId": "c1", "name": "All", "total": most})).unwrap();
    sim.advance(SECOND);
    assert_eq!(report(&mut sim, "sent", 1).unwrap()["etaMs"], (most - 1) * 1000);
    let answer = report(&mut sim, "sent", most - 1).unwrap();
    assert_eq!(figures(&answer), (json!(100), json!(most), json!(0)));
}

/// Percent, messages per second, remaining milliseconds.
fn figures(progress: &Value) -> (Value, Value, Value) {
    (progress["percent"].clone(), progress["ratePerSecond"].clone(), progress["etaMs"].clone())
}
