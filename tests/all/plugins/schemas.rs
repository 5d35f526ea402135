//! Rollbacks and loads over a change of the state's schema lose nothing unless an operator accepts it.

use std::fs;

use roundhouse_tests::guests::{hostile, relabelled};
use roundhouse_tests::{TestHost, metric};
use serde_json::json;

use crate::plugins::installed::count;

#[tokio::test]
async fn down_migrating_build_rolls_back_without_loss() {
    let mut host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    for id in ["a", "b"] {
        assert_eq!(count(&host, id).await, Ok(json!(1)));
    }
    host.load("hostile", hostile("durable-both-ways")).await;
    for n in 2..5 {
        assert_eq!(count(&host, "a").await, Ok(json!(n)));
    }
    let (ok, output) = host.plugin(&["rollback", "hostile"]);
    assert!(ok && !output.contains("lostScopes"), "{output}");
    // Also after a restart: the scope has handled no event since.
    host.kill();
    host.restart();
    assert_eq!(host.report("hostile").await["state"], "running", "{}", host.log());
    assert_eq!((count(&host, "a").await, count(&host, "b").await), (Ok(json!(5)), Ok(json!(2))));
    assert_eq!(metric(&host.api, "plugin_lost_states_total").await, 0);
}

#[tokio::test]
async fn rollback_after_a_restart_restores_pre_swap_state() {
    let mut host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    host.load("hostile", hostile("durable-forward")).await;
    for n in 2..4 {
        assert_eq!(count(&host, "a").await, Ok(json!(n)));
    }
    host.kill();
    host.restart();
    let (ok, output) = host.plugin(&["rollback", "hostile"]);
    assert!(!ok && output.contains("1 scope would lose what happened since the swap"), "{output}");
    let (ok, output) = host.plugin(&["rollback", "hostile", "--lose-writes"]);
    assert!(ok && output.contains("\"lostScopes\": 1"), "{output}");
    assert_eq!(count(&host, "a").await, Ok(json!(2)));
}

#[tokio::test]
async fn accepted_loss_survives_a_restart() {
    let mut host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    host.load("hostile", hostile("durable-forward")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(2)));
    assert_eq!(count(&host, "b").await, Ok(json!(1)));
    let (ok, output) = host.plugin(&["rollback", "hostile", "--lose-writes"]);
    assert!(ok && output.contains("\"lostScopes\": 2"), "{output}");
    host.kill();
    host.restart();
    assert_eq!((count(&host, "a").await, count(&host, "b").await), (Ok(json!(2)), Ok(json!(1))));
}

/// Makes the running build fail until the host rolls it back.
async fn fail(host: &TestHost) {
    for id in ["a", "b", "c", "d", "e", "f"] {
        // Faults of several users count against the feature. The first event changes the scope, and the second fails.
        let mut client = host.client(&format!("user-{id}")).await;
        let _ = client.emit_with_ack("hostile:count", json!({ "id": id })).await;
        let _ = client.emit_with_ack("hostile:count", json!({ "id": id })).await;
    }
}

#[tokio::test]
async fn automatic_rollback_prefers_a_lossless_build() {
    let host = TestHost::start();
    host.load("hostile", hostile("durable-forward")).await;
    host.load("hostile", hostile("durable")).await;
    host.load("hostile", hostile("durable-traps-2")).await;
    fail(&host).await;
    // Generation 2 has the older schema, so the rollback goes to generation 1.
    host.wait_for_report("hostile", |report| report["generation"] == 1).await;
    assert_eq!(metric(&host.api, "plugin_lost_states_total").await, 0);
    assert_eq!(count(&host, "a").await, Ok(json!(2)));
}

#[tokio::test]
async fn lossy_automatic_rollback_is_reported() {
    let host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    host.load("hostile", relabelled(&hostile("durable-traps"), "same-schema")).await;
    host.load("hostile", hostile("durable-traps-2")).await;
    fail(&host).await;
    // All earlier builds have the older schema: the newer states are lost, and the log says so.
    let report = host.wait_for_report("hostile", |report| report["generation"] != 3).await;
    assert!(host.log().contains("lost what a newer build had written"), "{report}");
    assert!(metric(&host.api, "plugin_lost_states_total").await > 0);
    assert!(metric(&host.api, "plugin_rollbacks_total").await > 0);
    let errors = host.report("hostile").await["errors"].to_string();
    assert!(errors.contains("was rolled back") && errors.contains("scopes lost"), "{errors}");
    assert!(errors.contains("odd counts"), "the reasons of the faults are there: {errors}");
}

#[tokio::test]
async fn load_of_an_older_schema_needs_lose_writes() {
    let host = TestHost::start();
    host.load("hostile", hostile("durable-forward")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    let refused = host.try_load("hostile", hostile("durable")).await;
    assert_eq!((refused.status, &refused.body["step"]), (422, &json!("migrate")), "{}", refused.text);
    let path = host.dir().join("older.wasm");
    fs::write(&path, hostile("durable")).unwrap();
    let (ok, output) = host.plugin(&["load", path.to_str().unwrap(), "--lose-writes"]);
    assert!(ok && output.contains("\"lostScopes\": 1"), "{output}");
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
}
