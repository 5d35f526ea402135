//! The metrics of plugins: what each uses, in series whose number does not grow with loads.

use roundhouse_tests::guests::{hostile, relabelled};
use roundhouse_tests::{TestHost, http};
use serde_json::json;

/// All metrics, a line each.
async fn metrics(host: &TestHost) -> Vec<String> {
    let answer = http(&host.api, "GET", "/metrics", &[], "").await.unwrap();
    answer.text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// The value of a plugin's metric.
fn value(metrics: &[String], name: &str) -> f64 {
    let start = format!("roundhouse_plugin_{name}{{plugin=\"hostile\"}} ");
    let line = metrics.iter().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("there is no {start}")).parse().unwrap()
}

#[tokio::test]
async fn metrics_tell_what_a_plugin_uses() {
    let config = "auth.jwt.secret = \"s\"\nplugins.hostile.grants = { audiences = [\"all\"], actions = [\"save\"] }\n";
    let host = TestHost::start_with(config, &[]);
    host.load("hostile", hostile("greedy")).await;
    let mut ana = host.client("ana").await;
    for _ in 0..3 {
        ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    }
    let timers = json!({ "id": "a", "how": "timers", "with": { "from": 0, "to": 5 } });
    ana.emit_with_ack("hostile:do", timers).await.unwrap();
    let noise = json!({ "id": "a", "how": "flood-room", "with": 1000 });
    ana.emit_with_ack("hostile:do", noise).await.unwrap();
    let saves = json!({ "id": "a", "how": "save-many", "with": { "count": 2, "bytes": 10 } });
    ana.emit_with_ack("hostile:do", saves).await.unwrap();
    let memory = value(&metrics(&host).await, "memory_bytes");
    assert!(memory > 0.0 && memory % 65_536.0 == 0.0, "an instance has whole pages: {memory}");
    ana.emit_with_ack("hostile:do", json!({ "id": "a", "how": "panic" })).await.expect_err("it fails");
    let metrics = metrics(&host).await;
    let of = |name: &str| value(&metrics, name);
    assert!(of("handled_total") >= 7.0 && of("traps_total") == 1.0, "{metrics:?}");
    assert_eq!((of("timers"), of("saves_total"), of("queued_events")), (5.0, 2.0, 0.0));
    // Of each count a join and a reply, five timers, an emit and two documents, at least.
    assert!(of("effects_total") >= 14.0 && of("emitted_bytes_total") >= 1000.0, "{metrics:?}");
    assert!(of("time_seconds_total") > 0.0 && of("waiting_seconds_total") > 0.0, "{metrics:?}");
}

#[tokio::test]
async fn loads_leave_no_metrics_behind() {
    let host = TestHost::start();
    let before = metrics(&host).await.len();
    let load = async |n: usize| drop(host.load("hostile", relabelled(&hostile("normal"), &n.to_string())).await);
    for n in 0..5 {
        load(n).await;
    }
    let loaded = metrics(&host).await.len();
    for n in 5..15 {
        load(n).await;
        for refused in ["panic", "version", "route"] {
            assert_eq!(host.try_load("hostile", hostile(refused)).await.status, 422);
        }
        let other = host.call("POST", "/v1/trials", hostile("noisy")).await;
        assert_eq!(other.status, 200, "{}", other.text);
    }
    assert_eq!(metrics(&host).await.len(), loaded);
    let refused = relabelled(&roundhouse_tests::guests::relay(), "refused");
    assert_eq!(host.try_load("hostile", refused).await.status, 422);
    assert_eq!(host.call("DELETE", "/v1/plugins/hostile", "").await.status, 200);
    assert_eq!(metrics(&host).await.len(), before);
}
