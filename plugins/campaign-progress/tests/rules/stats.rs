//! The stats for operators.

use std::time::Duration;

use serde_json::json;

use super::{Sim, ana, tell};

#[test]
fn stats_count_campaigns_by_status() {
    let mut sim = Sim::new();
    let nothing = json!({"active": 0, "paused": 0, "completed": 0, "failed": 0, "campaigns": []});
    assert_eq!(sim.stats().unwrap(), nothing);
    // A subscription to a campaign that was not started does not count.
    ana(&mut sim);
    assert_eq!(sim.stats().unwrap(), nothing);
    for (id, end) in [
        ("a", Some("campaign:completed")),
        ("b", Some("campaign:failed")),
        ("c", Some("campaign:paused")),
        ("d", None),
        ("c1", None),
    ] {
        let about = json!({"campaignId": id, "name": "Autumn", "total": 40, "status": "sent", "reason": "enough"});
        tell(&mut sim, "campaign:started", about.clone()).unwrap();
        tell(&mut sim, "campaign:message", about.clone()).unwrap();
        if let Some(end) = end {
            tell(&mut sim, end, about).unwrap();
        }
    }
    let shown =
        |id: &str, state: &str| json!({"campaignId": id, "state": state, "total": 40, "processed": 1, "percent": 2.5});
    assert_eq!(
        sim.stats().unwrap(),
        json!({
            "active": 2,
            "paused": 1,
            "completed": 1,
            "failed": 1,
            "campaigns": [
                shown("c1", "running"),
                shown("d", "running"),
                shown("c", "paused"),
                shown("b", "failed"),
                shown("a", "completed"),
            ],
        })
    );
}

#[test]
fn stats_list_is_truncated_to_1000_entries() {
    let mut sim = Sim::new();
    for n in 0..1005 {
        let id = format!("{n:𝄞>128}");
        tell(&mut sim, "campaign:started", json!({"campaignId": id, "name": "Autumn", "total": 40})).unwrap();
    }
    let stats = sim.stats().unwrap();
    assert_eq!((&stats["active"], &stats["omitted"]), (&json!(1005), &json!(5)));
    assert_eq!(stats["campaigns"].as_array().unwrap().len(), 1000);
    assert!(stats.to_string().len() < 1_000_000);
}

#[test]
fn campaign_is_forgotten_after_four_idle_weeks() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut sim = Sim::new();
    tell(&mut sim, "campaign:started", json!({"campaignId": "c1", "name": "Autumn", "total": 40})).unwrap();
    sim.advance(27 * DAY);
    assert_eq!(sim.stats().unwrap()["active"], 1);
    sim.advance(DAY);
    assert_eq!(sim.stats().unwrap()["active"], 0);
}
