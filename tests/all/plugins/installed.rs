//! What is installed is there tomorrow: over restarts, rollbacks, broken builds and a kill at any moment.

use std::fs;
use std::process::Command;
use std::time::Duration;

use roundhouse_tests::guests::{hostile, relabelled, ticket_collision};
use roundhouse_tests::restarts::restarts;
use roundhouse_tests::{InnerHost, TestHost, eventually, metric, skip};
use serde_json::{Value, json};

const NAME: &str = "ticket-collision";

async fn count(host: &TestHost, id: &str) -> Result<Value, Value> {
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
    // What was rolled back stays so, and the number of what was rolled back is not used again.
    for version in ["0.1.1", "0.1.0"] {
        let (ok, said) = host.plugin(&["rollback", NAME]);
        assert!(ok && said.contains(version), "{said}");
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
    let (ok, said) = host.plugin(&["reset", NAME]);
    assert!(ok && said.contains("\"version\": \"0.1.0\"") && said.contains("\"generation\": 3"), "{said}");
    assert!(ana.emit_with_ack("ticket:view", view).await.is_ok());
    let (ok, listed) = host.plugin(&["list"]);
    assert!(ok && listed.lines().any(|line| line.contains(NAME) && line.contains("bundled")), "{listed}");
    let (ok, said) = host.plugin(&["reset", "hostile"]);
    assert!(!ok && said.contains("no build of hostile of its own"), "{said}");
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
    // A refused load leaves nothing either.
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
    // Its only component is damaged on disk.
    let folder = host.dir().join(".roundhouse/components");
    let damaged = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let damaged: Vec<_> = damaged.filter(|path| path.extension().is_some_and(|e| e == "wasm")).collect();
    assert_eq!(damaged.len(), 1);
    let component = fs::read(&damaged[0]).unwrap();
    fs::write(&damaged[0], "rot").unwrap();
    let check = TestHost::command(host.dir()).arg("check").output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.code() == Some(1) && said.contains("hostile") && said.contains("damaged"), "{said}");
    host.restart();
    let report = host.report("hostile").await;
    assert_eq!((&report["state"], &report["generation"]), (&json!("failed"), &json!(1)), "{report}");
    assert!(report["errors"][0]["message"].as_str().unwrap().contains("damaged"), "{report}");
    assert_eq!(host.report(NAME).await["state"], "running");
    assert_eq!(metric(&host.api, "plugins_failed").await, 1);
    assert_eq!(count(&host, "a").await.unwrap_err()["code"], "feature_unavailable");
    let (ok, listed) = host.plugin(&["list"]);
    assert!(ok && listed.contains("failed") && listed.contains("damaged"), "{listed}");
    // Its state was kept.
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
    // It only stood in.
    host.kill();
    fs::write(&component, &whole).unwrap();
    host.restart();
    assert_eq!(host.report(NAME).await["version"], "0.1.2");
    // Unless an operator wants it to stay.
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
    // As if a later build had run last, which is gone, and this one had been rolled back.
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
async fn newer_schema_fails_its_plugin_alone() {
    let mut host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    host.load("hostile", hostile("durable-forward")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    host.kill();
    // As if another host had lost what is installed, and only had the older build.
    let record = host.dir().join(".roundhouse/components/hostile.json");
    let mut installed: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    installed["current"] = installed["previous"][0].take();
    installed["previous"] = json!([]);
    fs::write(&record, installed.to_string()).unwrap();
    let check = TestHost::command(host.dir()).arg("check").output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.code() == Some(1) && said.contains("schema 2"), "{said}");
    host.restart();
    let report = host.report("hostile").await;
    assert!(report["errors"][0]["message"].as_str().unwrap().contains("schema 2"), "{report}");
    host.load("hostile", hostile("durable-forward")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(2)));
}

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
    let (ok, said) = host.plugin(&["rollback", "hostile"]);
    assert!(ok && !said.contains("lostScopes"), "{said}");
    // Over a restart, too: nothing has come for the scope since.
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
    let (ok, said) = host.plugin(&["rollback", "hostile"]);
    assert!(!ok && said.contains("1 scope would lose what happened since the swap"), "{said}");
    let (ok, said) = host.plugin(&["rollback", "hostile", "--lose-writes"]);
    assert!(ok && said.contains("\"lostScopes\": 1"), "{said}");
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
    let (ok, said) = host.plugin(&["rollback", "hostile", "--lose-writes"]);
    assert!(ok && said.contains("\"lostScopes\": 2"), "{said}");
    host.kill();
    host.restart();
    assert_eq!((count(&host, "a").await, count(&host, "b").await), (Ok(json!(2)), Ok(json!(1))));
}

/// Lets a build fail so often that it is rolled back.
async fn fail(host: &TestHost) {
    for id in ["a", "b", "c", "d", "e", "f"] {
        // Several users meet it. The first event changes the scope, and the second fails.
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
    // The one before is of the older schema.
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
    // All builds before are of the older schema: what it has written is lost, and that is said.
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
    let (ok, said) = host.plugin(&["load", path.to_str().unwrap(), "--lose-writes"]);
    assert!(ok && said.contains("\"lostScopes\": 1"), "{said}");
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
}

#[tokio::test]
async fn load_waiting_for_the_store_blocks_no_other() {
    let host = TestHost::start();
    host.load("hostile", hostile("durable")).await;
    assert_eq!(count(&host, "a").await, Ok(json!(1)));
    // What it was when it was unloaded waits to be written, and is read when it is loaded again.
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
    // 100 KB of state, which is more than others may have.
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
async fn kill_during_a_change_leaves_old_or_new() {
    let outcome = restarts(12, 7).await;
    assert_eq!(outcome.starts, 12, "{outcome:?}");
}

#[tokio::test]
async fn load_of_the_running_build_is_unchanged() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\n", &[]);
    let file = host.dir().join("new.wasm");
    fs::write(&file, ticket_collision("0.1.1")).unwrap();
    let load = || {
        let args = ["plugin", "load", file.to_str().unwrap(), "--api", &host.api];
        let output = TestHost::command(host.dir()).args(args).output().unwrap();
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (loaded, said) = load();
    assert!(loaded.contains("\"generation\": 2") && !loaded.contains("unchanged") && said.is_empty(), "{loaded}{said}");
    let (loaded, said) = load();
    assert!(
        loaded.contains("\"unchanged\": true") && said.contains("settings are read when the host starts"),
        "{said}"
    );
    assert!(!said.contains("roundhouse.toml"), "{said}");
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

#[tokio::test]
async fn file_deleted_and_replaced_unloads_nothing() {
    let host = TestHost::start();
    let file = host.dir().join("plugins.d/hostile.wasm");
    fs::write(&file, hostile("normal")).unwrap();
    host.wait_for_report("hostile", |report| report["source"] == "folder").await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    let second = relabelled(&hostile("normal"), "second");
    fs::remove_file(&file).unwrap();
    // Seen to be gone, and long before it is unloaded or an older file takes over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    fs::write(&file, &second).unwrap();
    host.wait_for_report("hostile", |report| report["generation"] == 2).await;
    assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await, Ok(json!({ "count": 2 })));
    assert!(!host.log().contains("a plugin was unloaded"));
}

#[tokio::test]
async fn highest_version_in_the_folder_runs() {
    let mut host = TestHost::start();
    let folder = host.dir().join("plugins.d");
    fs::write(folder.join("tc-0.10.0.wasm"), ticket_collision("0.10.0")).unwrap();
    host.wait_for_report(NAME, |report| report["version"] == "0.10.0").await;
    fs::write(folder.join("tc-0.9.0.wasm"), ticket_collision("0.9.0")).unwrap();
    eventually("it is passed over", async || host.log().contains("has a newer version").then_some(())).await;
    assert_eq!(host.report(NAME).await["version"], "0.10.0");
    host.kill();
    host.restart();
    assert_eq!(
        (&host.report(NAME).await["version"], &host.report(NAME).await["generation"]),
        (&json!("0.10.0"), &json!(2))
    );
    // While the newer one is overwritten, the older one does not take over.
    fs::write(host.dir().join("plugins.d/tc-0.10.0.wasm"), b"broken").unwrap();
    eventually("it is refused", async || host.log().contains("was refused").then_some(())).await;
    assert_eq!(host.report(NAME).await["version"], "0.10.0");
    // Where the newer one is taken away, the older one takes over.
    fs::remove_file(host.dir().join("plugins.d/tc-0.10.0.wasm")).unwrap();
    host.wait_for_report(NAME, |report| report["version"] == "0.9.0").await;
}

#[tokio::test]
async fn rolled_back_file_stays_out_after_restart() {
    let mut host = TestHost::start();
    fs::write(host.dir().join("plugins.d/tc.wasm"), ticket_collision("0.1.1")).unwrap();
    host.wait_for_report(NAME, |report| report["version"] == "0.1.1").await;
    assert!(host.plugin(&["rollback", NAME]).0);
    host.kill();
    host.restart();
    assert_eq!(host.report(NAME).await["version"], "0.1.0");
    // It is, when it is put there again.
    fs::write(host.dir().join("plugins.d/tc.wasm"), ticket_collision("0.1.1")).unwrap();
    host.wait_for_report(NAME, |report| report["version"] == "0.1.1").await;
}

#[tokio::test]
async fn file_refused_for_a_transient_reason_is_retried() {
    let host = TestHost::start();
    // Another plugin has the event that it wants.
    fs::write(host.dir().join("plugins.d/hostile.wasm"), hostile("route")).unwrap();
    eventually("it is refused", async || host.log().contains("was refused").then_some(())).await;
    assert_eq!(host.call("DELETE", &format!("/v1/plugins/{NAME}"), "").await.status, 200);
    host.wait_for_report("hostile", |report| report["source"] == "folder").await;
    assert_eq!(host.log().matches("was refused").count(), 1, "{}", host.log());
}

#[tokio::test]
async fn slow_copy_is_logged_at_most_once() {
    let host = TestHost::start();
    let component = hostile("normal");
    let mut file = fs::File::create(host.dir().join("plugins.d/hostile.wasm")).unwrap();
    for part in component.chunks(component.len() / 8 + 1) {
        std::io::Write::write_all(&mut file, part).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    drop(file);
    host.wait_for_report("hostile", |report| report["source"] == "folder").await;
    assert_eq!(host.log().matches("was refused").count(), 0, "{}", host.log());
}

#[tokio::test]
async fn unwatchable_folder_is_polled() {
    let dir = tempfile::tempdir().unwrap();
    // A user namespace of its own, in which no inotify instance is to be had (namespaces(7)).
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let mut probe = Command::new("unshare");
    if !probe.args(["-U", "-r", "true"]).status().is_ok_and(|status| status.success()) {
        return skip("unwatchable_folder_is_polled", "user namespaces are not to be had");
    }
    let mut command = TestHost::in_folder(Command::new("unshare"), dir.path());
    command.args(["-U", "-r", "sh", "-c", script]).arg(TestHost::binary());
    let host = TestHost::start_by(command, dir, &[]);
    assert!(host.log().contains("cannot be watched, and is read every 5s"), "{}", host.log());
    fs::write(host.dir().join("plugins.d/hostile.wasm"), hostile("normal")).unwrap();
    host.wait_for_report("hostile", |report| report["source"] == "folder").await;
}
