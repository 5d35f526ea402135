//! Installed builds survive restarts, damaged files and a kill at any moment.

use std::fs;

use roundhouse_tests::guests::{hostile, relabelled, ticket_collision};
use roundhouse_tests::restarts::restarts;
use roundhouse_tests::{InnerHost, TestHost, eventually, metric};
use serde_json::{Value, json};

pub(super) const NAME: &str = "ticket-collision";

pub(super) async fn count(host: &TestHost, id: &str) -> Result<Value, Value> {
    host.client("ana")
        .await
        .emit_with_ack("hostile:count", json!({ "id": id }))
        .await
        .map(|answer| answer["count"].clone())
}

fn components(host: &TestHost) -> usize {
    let folder = fs::read_dir(host.dir().join(".roundhouse/components")).unwrap();
    folder.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "wasm")).count()
}

#[tokio::test]
async fn loaded_build_survives_a_restart_with_its_generation() {
    let mut host = TestHost::start();
    host.load(NAME, ticket_collision("0.1.1")).await;
    host.load(NAME, ticket_collision("0.1.2")).await;
    host.load("hostile", hostile("durable")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    host.kill();
    host.restart();
    let report = host.report(NAME).await;
    assert_eq!(
        (&report["version"], &report["generation"], &report["source"], &report["previous"]["version"]),
        (&json!("0.1.2"), &json!(3), &json!("api"), &json!("0.1.1")),
        "{report}"
    );
    assert_eq!(count(&host, "a").await, Ok(json!(2)));
    // Builds that were rolled back stay so, and their generation numbers are not used again.
    for version in ["0.1.1", "0.1.0"] {
        let (ok, output) = host.plugin(&["rollback", NAME]);
        assert!(ok && output.contains(version), "{output}");
    }
    host.kill();
    host.restart();
    let report = host.report(NAME).await;
    assert_eq!((&report["version"], &report["generation"]), (&json!("0.1.0"), &json!(1)), "{report}");
    assert_eq!(host.load(NAME, ticket_collision("0.1.1")).await["generation"], 4);
}

#[tokio::test]
async fn unload_lasts_until_a_load_or_reset() {
    let mut host = TestHost::start();
    host.load(NAME, ticket_collision("0.1.1")).await;
    assert_eq!(host.call("DELETE", &format!("/v1/plugins/{NAME}"), "").await.status, 200);
    host.kill();
    host.restart();
    assert_eq!(host.call("GET", &format!("/v1/plugins/{NAME}"), "").await.status, 404);
    let mut ana = host.client("ana").await;
    let view = json!({ "ticketId": "t1" });
    assert_eq!(ana.emit_refused("ticket:view", view.clone()).await, "feature_unavailable");
    assert_eq!(components(&host), 0, "an unloaded build is not kept");
    let (ok, output) = host.plugin(&["reset", NAME]);
    assert!(ok && output.contains("\"version\": \"0.1.0\"") && output.contains("\"generation\": 3"), "{output}");
    assert!(ana.emit_with_ack("ticket:view", view).await.is_ok());
    let (ok, listed) = host.plugin(&["list"]);
    assert!(ok && listed.lines().any(|line| line.contains(NAME) && line.contains("bundled")), "{listed}");
    let (ok, output) = host.plugin(&["reset", "hostile"]);
    assert!(!ok && output.contains("no build of hostile of its own"), "{output}");
}

#[tokio::test]
async fn only_needed_components_are_kept() {
    let host = TestHost::start();
    for n in 0..8 {
        host.load("hostile", relabelled(&hostile("normal"), &n.to_string())).await;
    }
    assert_eq!(components(&host), 4, "the one that runs, and three to roll back to");
    let text = host.call("GET", "/metrics", "").await.text;
    let shown =
        text.lines().filter(|line| line.contains("plugin_call_seconds_count") && line.contains("hostile")).count();
    assert_eq!(shown, 4, "{text}");
    // A refused load leaves no files and no metrics.
    assert_eq!(host.try_load("hostile", hostile("needs")).await.status, 422);
    assert_eq!(host.call("GET", "/metrics", "").await.text.lines().count(), text.lines().count());
    assert_eq!(components(&host), 4);
}

#[tokio::test]
async fn damaged_plugin_is_reported_and_others_start() {
    let mut host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    host.kill();
    // The only component of the plugin is damaged on disk.
    let folder = host.dir().join(".roundhouse/components");
    let damaged = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let damaged: Vec<_> = damaged.filter(|path| path.extension().is_some_and(|e| e == "wasm")).collect();
    assert_eq!(damaged.len(), 1);
    let component = fs::read(&damaged[0]).unwrap();
    fs::write(&damaged[0], "rot").unwrap();
    let check = TestHost::command(host.dir()).arg("check").output().unwrap();
    let stderr = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.code() == Some(1) && stderr.contains("hostile") && stderr.contains("damaged"), "{stderr}");
    host.restart();
    let report = host.report("hostile").await;
    assert_eq!((&report["state"], &report["generation"]), (&json!("failed"), &json!(1)), "{report}");
    assert!(report["errors"][0]["message"].as_str().unwrap().contains("damaged"), "{report}");
    assert_eq!(host.report(NAME).await["state"], "running");
    assert_eq!(metric(&host.api, "plugins_failed").await, 1);
    assert_eq!(count(&host, "a").await.unwrap_err()["code"], "feature_unavailable");
    let (ok, listed) = host.plugin(&["list"]);
    assert!(ok && listed.contains("failed") && listed.contains("damaged"), "{listed}");
    // The state of the plugin was kept.
    assert_eq!(host.load("hostile", component).await["generation"], 2);
    assert_eq!(count(&host, "a").await, Ok(json!(2)));
    assert_eq!(metric(&host.api, "plugins_failed").await, 0);
}

#[tokio::test]
async fn older_build_replaces_a_damaged_one() {
    let mut host = TestHost::start();
    host.load(NAME, ticket_collision("0.1.1")).await;
    let digest = host.load(NAME, ticket_collision("0.1.2")).await["digest"].as_str().unwrap().to_owned();
    host.kill();
    let component = host.dir().join(".roundhouse/components").join(digest).with_extension("wasm");
    let whole = fs::read(&component).unwrap();
    fs::write(&component, &whole[1..]).unwrap();
    host.restart();
    let report = host.report(NAME).await;
    assert_eq!((&report["version"], &report["generation"]), (&json!("0.1.1"), &json!(2)), "{report}");
    assert!(report["errors"][0]["message"].as_str().unwrap().contains("damaged"), "{report}");
    // The older build runs only while the newer one is damaged.
    host.kill();
    fs::write(&component, &whole).unwrap();
    host.restart();
    assert_eq!(host.report(NAME).await["version"], "0.1.2");
    // The older build stays if an operator has loaded it.
    host.kill();
    fs::write(&component, &whole[1..]).unwrap();
    host.restart();
    assert_eq!(host.load(NAME, ticket_collision("0.1.1")).await["unchanged"], true);
    host.kill();
    fs::write(&component, &whole).unwrap();
    host.restart();
    let report = host.report(NAME).await;
    assert_eq!((&report["version"], report.get("errors")), (&json!("0.1.1"), None), "{report}");
}

#[tokio::test]
async fn load_over_a_failed_plugin_keeps_its_history() {
    let mut host = TestHost::start();
    host.load("hostile", hostile("durable-both-ways")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    host.kill();
    let record = host.dir().join(".roundhouse/components/hostile.json");
    let mut installed: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    // A record whose current build has no component, and in which the first build was rolled back.
    installed["rolled_back"] = json!([installed["current"].clone()]);
    installed["current"]["digest"] = json!("0".repeat(64));
    fs::write(&record, installed.to_string()).unwrap();
    host.restart();
    assert_eq!(host.report("hostile").await["state"], "failed");
    host.load("hostile", hostile("durable")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(2)), "its state was migrated down by the build that was rolled back");
}

#[tokio::test]
async fn refused_settings_fail_their_plugin_alone() {
    let config = "auth.jwt.secret = \"s\"\n[plugins.ticket-collision.settings]\ntypingSecond = 1\n";
    let host = TestHost::start_with(config, &[]);
    let report = host.report(NAME).await;
    assert_eq!((&report["state"], &report["source"]), (&json!("failed"), &json!("bundled")), "{report}");
    assert!(report["errors"][0]["message"].as_str().unwrap().contains("typingSecond"), "{report}");
    assert_eq!(host.report("timeline").await["state"], "running");
}

#[tokio::test]
async fn state_of_newer_schema_fails_its_plugin_alone() {
    let mut host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    host.load("hostile", hostile("durable-forward")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    host.kill();
    // A record without the newer build.
    let record = host.dir().join(".roundhouse/components/hostile.json");
    let mut installed: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    installed["current"] = installed["previous"][0].take();
    installed["previous"] = json!([]);
    fs::write(&record, installed.to_string()).unwrap();
    let check = TestHost::command(host.dir()).arg("check").output().unwrap();
    let stderr = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.code() == Some(1) && stderr.contains("schema 2"), "{stderr}");
    host.restart();
    let report = host.report("hostile").await;
    assert!(report["errors"][0]["message"].as_str().unwrap().contains("schema 2"), "{report}");
    host.load("hostile", hostile("durable-forward")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(2)));
}

#[tokio::test]
async fn load_waiting_for_the_store_blocks_no_other() {
    let host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    // The state at the unload is in the queue to be written when the next load reads it.
    let lock = host.lock_store();
    let mut ana = host.client("ana").await;
    ana.emit_with_id("hostile:count", json!({ "id": "a" })).await;
    ana.drain().await;
    assert_eq!(host.call("DELETE", "/v1/plugins/hostile", "").await.status, 200);
    let mut loading = Box::pin(host.try_load("hostile", hostile("durable")));
    let others = async {
        host.load(NAME, ticket_collision("0.1.1")).await;
        host.call("POST", &format!("/v1/plugins/{NAME}/rollback"), "").await.status
    };
    let first = tokio::select! {
        _ = &mut loading => "the load that waits",
        status = others => { assert_eq!(status, 200); "the others" }
    };
    assert_eq!(first, "the others");
    drop(lock);
    assert_eq!(loading.await.status, 200);
    eventually("the scope is there again", async || (count(&host, "a").await == Ok(json!(3))).then_some(())).await;
}

#[tokio::test]
async fn limits_are_set_per_plugin() {
    let config = "[plugins.hostile]\ncall_deadline = \"2s\"\nstate_bytes = 200000\ncomponent_bytes = 20000000\n\
                  [plugins.ticket-collision]\ncomponent_bytes = 1000\n";
    let host = InnerHost::start(&format!("auth.jwt.secret = \"s\"\n{config}")).await;
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    // A state of 100 KB, which exceeds the default limit.
    let fat = ana.emit_with_ack("hostile:do", json!({ "id": "a", "how": "fat-state" })).await;
    assert!(fat.is_ok(), "{fat:?}");
    let spun = ana.emit_with_ack("hostile:do", json!({ "id": "a", "how": "spin" })).await.unwrap_err();
    assert_eq!(spun["code"], "internal");
    let report = host.call("GET", "/v1/plugins/hostile", "").await.body;
    assert!(report["errors"][0]["message"].as_str().unwrap().contains("2000 ms"), "{report}");
    let report = host.call("GET", &format!("/v1/plugins/{NAME}"), "").await.body;
    assert!(report["errors"][0]["message"].as_str().unwrap().contains("may be 1000"), "{report}");
    drop(ana);
    host.shut_down().await;
    let bad = "[plugins.hostile]\ncall_deadline = \"1ms\"";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), bad).unwrap();
    let check = TestHost::command(dir.path()).args(["check", "--config", "c.toml"]).output().unwrap();
    assert!(String::from_utf8_lossy(&check.stderr).contains("plugins.hostile.call_deadline"));
}

#[tokio::test]
async fn kill_during_change_leaves_old_or_new_build() {
    let outcome = restarts(12, 7).await;
    assert_eq!(outcome.starts, 12, "{outcome:?}");
}

#[tokio::test]
async fn reloading_the_running_build_changes_nothing() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\n", &[]);
    let file = host.dir().join("new.wasm");
    fs::write(&file, ticket_collision("0.1.1")).unwrap();
    let load = || {
        let args = ["plugin", "load", file.to_str().unwrap(), "--api", &host.api];
        let output = TestHost::command(host.dir()).args(args).output().unwrap();
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (loaded, stderr) = load();
    assert!(
        loaded.contains("\"generation\": 2") && !loaded.contains("unchanged") && stderr.is_empty(),
        "{loaded}{stderr}"
    );
    let (loaded, stderr) = load();
    assert!(
        loaded.contains("\"unchanged\": true") && stderr.contains("settings are read when the host starts"),
        "{stderr}"
    );
    assert!(!stderr.contains("roundhouse.toml"), "{stderr}");
    let changed = "auth.jwt.secret = \"s\"\n[plugins.ticket-collision.settings]\ntypingSeconds = 1\n";
    fs::write(host.dir().join("roundhouse.toml"), changed).unwrap();
    assert!(load().1.contains("roundhouse.toml has changed since the host started"));
    assert!(host.plugin(&["list"]).1.contains("roundhouse.toml has changed"));
}

#[tokio::test]
async fn inspect_with_configuration_agrees_with_load() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("new.wasm"), ticket_collision("0.1.1")).unwrap();
    fs::write(dir.path().join("needs.wasm"), hostile("needs")).unwrap();
    fs::write(dir.path().join("c.toml"), "auth.jwt.secret = \"s\"\n").unwrap();
    let inspect = |file: &str| {
        let args = ["plugin", "inspect", file, "--config", "c.toml"];
        TestHost::command(dir.path()).args(args).output().unwrap()
    };
    let taken = inspect("new.wasm");
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let refused = inspect("needs.wasm");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the room ticket:*"));
}
