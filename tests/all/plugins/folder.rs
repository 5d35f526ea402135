//! The plugin folder: which of its files run, and when it is read again.

use std::fs;
use std::process::Command;
use std::time::Duration;

use roundhouse_tests::guests::{hostile, relabelled, ticket_collision};
use roundhouse_tests::{TestHost, eventually, skip};
use serde_json::json;

use crate::plugins::installed::NAME;

#[tokio::test]
async fn quickly_replaced_file_does_not_unload_the_plugin() {
    let host = TestHost::start();
    let file = host.dir().join("plugins.d/hostile.wasm");
    fs::write(&file, hostile("normal")).unwrap();
    host.wait_for_report("hostile", |report| report["source"] == "folder").await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    let second = relabelled(&hostile("normal"), "second");
    fs::remove_file(&file).unwrap();
    // Long enough for the host to notice the deletion, and shorter than the time after which it unloads the plugin.
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
    // While the newer file is overwritten, the older one does not take over.
    fs::write(host.dir().join("plugins.d/tc-0.10.0.wasm"), b"broken").unwrap();
    eventually("it is refused", async || host.log().contains("was refused").then_some(())).await;
    assert_eq!(host.report(NAME).await["version"], "0.10.0");
    // Once the newer file is removed, the older one takes over.
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
    // A removed file that is put back is loaded.
    fs::write(host.dir().join("plugins.d/tc.wasm"), ticket_collision("0.1.1")).unwrap();
    host.wait_for_report(NAME, |report| report["version"] == "0.1.1").await;
}

#[tokio::test]
async fn file_refused_for_a_transient_reason_is_retried() {
    let host = TestHost::start();
    // The event of this component belongs to another plugin.
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
    // A user namespace of its own, in which no inotify instance can be created (namespaces(7)).
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
