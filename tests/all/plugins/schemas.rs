//! Rollbacks and loads over a change of the state's schema lose nothing unless an operator accepts it.

use std::fs;

use roundhouse_tests::guests::{hostile, relabelled};
use roundhouse_tests::{TestHost, eventually, metric};
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
    host.wait_for_report("hostile", |report| report["errors"].to_string().contains("was rolled back")).await;
    eventually("the log says it, too", async || {
        host.log().contains("lost what a newer build had written").then_some(())
    })
    .await;
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

/// How many durable scopes of the hostile guest are stored with a state of this schema.
fn n_stored(host: &TestHost, schema: u32) -> u32 {
    let database = rusqlite::Connection::open(host.dir().join("roundhouse.db")).unwrap();
    let sql = "SELECT count(*) FROM scopes WHERE plugin = 'hostile' AND version = ?1";
    database.query_row(sql, [schema], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn untouched_scopes_are_migrated_in_the_background_without_loss() {
    let mut host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    let ids: Vec<_> = (0..50).map(|n| format!("s{n}")).collect();
    for id in &ids {
        assert_eq!(count(&host, id).await, Ok(json!(1)));
    }
    host.load("hostile", hostile("durable-forward")).await;
    eventually("all are migrated", async || (n_stored(&host, 2) == 50).then_some(())).await;
    assert_eq!(metric(&host.api, "plugin_migrated_states_total").await, 50);
    // Nothing has changed since, which is known after a restart, too: the build cannot migrate down, and need not.
    host.kill();
    host.restart();
    let (ok, output) = host.plugin(&["rollback", "hostile"]);
    assert!(ok && !output.contains("lostScopes"), "{output}");
    eventually("all are migrated back", async || (n_stored(&host, 1) == 50).then_some(())).await;
    host.kill();
    host.restart();
    for id in &ids {
        assert_eq!(count(&host, id).await, Ok(json!(2)));
    }
    assert_eq!(metric(&host.api, "plugin_lost_states_total").await, 0);
}

#[tokio::test]
async fn rollback_passes_over_builds_and_schemas_without_loss() {
    // The last build knows no schema but its own, or is of a third one.
    for last in ["durable-schema", "durable-third"] {
        let mut host = TestHost::start();
        host.load("hostile", hostile("durable")).await;
        assert_eq!(count(&host, "a").await, Ok(json!(1)));
        host.load("hostile", hostile("durable-forward")).await;
        eventually("it is migrated", async || (n_stored(&host, 2) == 1).then_some(())).await;
        host.load("hostile", hostile(last)).await;
        let (ok, output) = host.plugin(&["rollback", "hostile", "--to", "1"]);
        assert!(ok && !output.contains("lostScopes"), "{last}: {output}");
        host.kill();
        host.restart();
        assert_eq!(count(&host, "a").await, Ok(json!(2)), "{last}");
        assert_eq!(metric(&host.api, "plugin_lost_states_total").await, 0, "{last}");
    }
}

#[tokio::test]
async fn scopes_that_stay_end_no_canary() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nplugins.canary_scopes = 1\n", &[]);
    host.load("hostile", hostile("durable")).await;
    for n in 1..3 {
        assert_eq!(count(&host, "b").await, Ok(json!(n)));
    }
    host.load("hostile", hostile("durable-partly")).await;
    host.wait_for_report("hostile", |report| report["stayingScopes"] == 1).await;
    let candidate = relabelled(&hostile("durable-partly"), "candidate");
    assert_eq!(host.call("POST", "/v1/canaries?percent=100", candidate).await.status, 200);
    assert_eq!((count(&host, "b").await, count(&host, "c").await), (Ok(json!(3)), Ok(json!(1))));
    let report = host.get("/v1/plugins/hostile/rollout").await;
    assert_eq!((report.get("ended"), &report["pinnedScopes"]), (None, &json!(0)), "{report}");
}

#[tokio::test]
async fn build_need_not_know_a_schema_that_no_scope_has_any_more() {
    let host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    host.load("hostile", hostile("durable-forward")).await;
    eventually("it is migrated", async || (n_stored(&host, 2) == 1).then_some(())).await;
    // It knows nothing of schema 1.
    host.load("hostile", hostile("durable-schema")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(2)));
}

#[tokio::test]
async fn scopes_that_cannot_be_migrated_stay_on_the_previous_build() {
    let mut host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    assert_eq!((count(&host, "a").await, count(&host, "b").await), (Ok(json!(1)), Ok(json!(1))));
    assert_eq!(count(&host, "b").await, Ok(json!(2)));
    // It refuses states that have counted to 2, and is loaded all the same.
    host.load("hostile", hostile("durable-partly")).await;
    let report = host.wait_for_report("hostile", |report| report["stayingScopes"] == 1).await;
    let reason = report["staying"][0]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("hostile:b stays on generation 1, because generation 2 cannot go on from its state")
            && reason.contains("told to refuse 2"),
        "{reason}"
    );
    assert_eq!(metric(&host.api, "plugin_pinned_scopes_total").await, 1);
    host.kill();
    host.restart();
    host.wait_for_report("hostile", |report| report["generation"] == 2 && report["stayingScopes"] == 1).await;
    assert_eq!((count(&host, "a").await, count(&host, "b").await), (Ok(json!(2)), Ok(json!(3))));
    let versions = [host.get("/v1/scopes/hostile:a").await, host.get("/v1/scopes/hostile:b").await];
    assert_eq!(versions.map(|scope| scope["schema"].clone()), [json!(2), json!(1)]);
    let report = host.report("hostile").await;
    assert_eq!((&report["traps"], &report["state"]), (&json!(0), &json!("running")), "{report}");
    // A build that can take it over does.
    host.load("hostile", hostile("durable-forward")).await;
    eventually("it is migrated", async || (n_stored(&host, 2) == 2).then_some(())).await;
    assert_eq!(host.report("hostile").await.get("stayingScopes"), None);
    assert_eq!((count(&host, "a").await, count(&host, "b").await), (Ok(json!(3)), Ok(json!(4))));
}

#[tokio::test]
async fn build_on_which_scopes_stay_is_not_dropped() {
    let host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    for n in 1..3 {
        assert_eq!(count(&host, "b").await, Ok(json!(n)));
    }
    let partly = hostile("durable-partly");
    for label in ["one", "two", "three"] {
        host.load("hostile", relabelled(&partly, label)).await;
    }
    // Three generations are kept, and generation 1, on which the scope stays, would be the fourth.
    let refused = host.try_load("hostile", relabelled(&partly, "four")).await;
    assert_eq!((refused.status, &refused.body["step"]), (422, &json!("migrate")), "{}", refused.text);
    assert!(refused.text.contains("1 scope would lose its whole state"), "{}", refused.text);
    assert_eq!(count(&host, "b").await, Ok(json!(3)));
}
