//! The three ways to load plugins: the folder, the HTTP API, the command line.

use std::fs;

use roundhouse_tests::guests::{hostile, ticket_collision};
use roundhouse_tests::smith::load_forged;
use roundhouse_tests::{TestHost, eventually};
use serde_json::json;

const NAME: &str = "ticket-collision";

#[tokio::test]
async fn folder_loads_swaps_and_unloads() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    let folder = host.dir().join("plugins.d");

    fs::write(folder.join("hostile.wasm"), hostile("normal")).unwrap();
    host.wait_for_report("hostile", |report| report["source"] == "folder").await;
    assert!(ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.is_ok());

    // A file replaces a bundled feature. It is put in place by an atomic rename.
    fs::write(folder.join("tc.partial"), ticket_collision("0.1.1")).unwrap();
    fs::rename(folder.join("tc.partial"), folder.join("tc.wasm")).unwrap();
    let report = host.wait_for_report(NAME, |report| report["version"] == "0.1.1").await;
    assert_eq!((&report["generation"], &report["previous"]["version"]), (&json!(2), &json!("0.1.0")));

    // A broken file changes nothing, and is logged.
    fs::write(folder.join("tc.wasm"), b"broken").unwrap();
    fs::write(folder.join("hostile.wasm"), hostile("loop")).unwrap();
    eventually("both files are refused", async || (host.log().matches("was refused").count() >= 2).then_some(())).await;
    assert_eq!(host.report(NAME).await["version"], "0.1.1");
    assert!(ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.is_ok());

    fs::write(folder.join("tc.wasm"), ticket_collision("0.1.2")).unwrap();
    host.wait_for_report(NAME, |report| report["version"] == "0.1.2").await;

    // The earlier file again, which is a rollback through the folder.
    fs::write(folder.join("tc.wasm"), ticket_collision("0.1.1")).unwrap();
    host.wait_for_report(NAME, |report| report["version"] == "0.1.1").await;

    // A newer build under another file name, then the older file removed: a swap that keeps the members of scopes.
    fs::write(folder.join("tc-2.wasm"), ticket_collision("0.1.2")).unwrap();
    fs::remove_file(folder.join("tc.wasm")).unwrap();
    host.wait_for_report(NAME, |report| report["version"] == "0.1.2").await;

    // When its file is removed, a bundled feature is restored; any other feature is unloaded.
    fs::remove_file(folder.join("tc-2.wasm")).unwrap();
    fs::remove_file(folder.join("hostile.wasm")).unwrap();
    host.wait_for_report(NAME, |report| report["source"] == "bundled").await;
    host.wait_for_report("hostile", |report| report["code"] == "not_found").await;
    assert_eq!(ana.emit_refused("hostile:count", json!({ "id": "a" })).await, "feature_unavailable");
    let viewers = ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(viewers["viewers"].as_array().unwrap().len(), 1, "she has been there all the time");
}

#[tokio::test]
async fn folder_is_loaded_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hostile.wasm"), hostile("normal")).unwrap();
    fs::write(dir.path().join("broken.wasm"), b"broken").unwrap();
    fs::write(dir.path().join("notes.txt"), b"not a component").unwrap();
    let path = dir.path().to_str().unwrap();
    let host = TestHost::start_with("", &[("ROUNDHOUSE_PLUGINS__DIR", path)]);
    assert_eq!(host.report("hostile").await["source"], "folder");
    assert!(host.log().contains("broken.wasm"));
}

#[tokio::test]
async fn api_loads_rolls_back_and_unloads() {
    let host = TestHost::start();
    let list = host.get("/v1/plugins").await;
    assert!(list["plugins"].as_array().unwrap().iter().any(|plugin| plugin["name"] == NAME), "{list}");
    assert_eq!(
        host.call("POST", "/v1/plugins/ticket-collision/rollback", "").await.status,
        409,
        "there is none before"
    );

    let loaded = host.load(NAME, ticket_collision("0.1.1")).await;
    assert_eq!(
        (&loaded["name"], &loaded["version"], &loaded["generation"]),
        (&json!(NAME), &json!("0.1.1"), &json!(2))
    );
    assert_eq!(loaded["digest"].as_str().unwrap().len(), 64);
    let mut again = host.load(NAME, ticket_collision("0.1.1")).await;
    assert_eq!(again["unchanged"].take(), true);
    assert_eq!(again["digest"], loaded["digest"], "the same bytes again change nothing");
    assert_eq!(again["generation"], loaded["generation"]);

    let back = host.call("POST", "/v1/plugins/ticket-collision/rollback", "").await;
    assert_eq!((back.status, &back.body["version"], &back.body["generation"]), (200, &json!("0.1.0"), &json!(1)));
    let next = host.load(NAME, ticket_collision("0.1.2")).await;
    assert_eq!(next["generation"], 3, "a number is never used again");

    let mut ana = host.client("ana").await;
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(host.call("DELETE", "/v1/plugins/ticket-collision", "").await.status, 200);
    assert_eq!(ana.emit_refused("ticket:view", json!({ "ticketId": "t1" })).await, "feature_unavailable");
    for (method, path) in [
        ("GET", "/v1/plugins/ticket-collision"),
        ("DELETE", "/v1/plugins/ticket-collision"),
        ("POST", "/v1/plugins/ticket-collision/rollback"),
    ] {
        let answer = host.call(method, path, "").await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("not_found")), "{method} {path}");
    }
    assert_eq!(host.call("PATCH", "/v1/plugins/ticket-collision", "").await.status, 405);
    let again = host.load(NAME, ticket_collision("0.1.1")).await;
    assert_eq!(again["generation"], 4, "not even after an unload");
    let viewers = ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(viewers["viewers"].as_array().unwrap().len(), 1);
    assert_eq!(ana.drain_events().await.iter().filter(|event| *event == "viewers:updated").count(), 2);
}

#[tokio::test]
async fn command_line_manages_plugins() {
    let host = TestHost::start();
    let file = host.dir().join("new.wasm");
    fs::write(&file, ticket_collision("0.1.1")).unwrap();
    let path = file.to_str().unwrap();

    let (ok, listed) = host.plugin(&["list"]);
    assert!(ok && listed.contains(NAME) && listed.contains("0.1.0"), "{listed}");
    let inspect = TestHost::command(host.dir()).args(["plugin", "inspect", path]).output().unwrap();
    let inspected = String::from_utf8_lossy(&inspect.stdout);
    assert!(
        inspect.status.success() && inspected.contains("ticket:typing") && inspected.contains("0.1.1"),
        "{inspected}"
    );

    let (ok, loaded) = host.plugin(&["load", path]);
    assert!(ok && loaded.contains("\"generation\": 2"), "{loaded}");
    let (ok, back) = host.plugin(&["rollback", NAME]);
    assert!(ok && back.contains("\"generation\": 1"), "{back}");
    let (ok, output) = host.plugin(&["rollback", NAME]);
    assert!(!ok && output.contains("no generation of ticket-collision before"), "{output}");
    let (ok, _) = host.plugin(&["unload", NAME]);
    assert!(ok);
    let (ok, output) = host.plugin(&["unload", NAME]);
    assert!(!ok && output.contains("the plugin ticket-collision is unloaded"), "{output}");

    fs::write(&file, b"broken").unwrap();
    let (ok, output) = host.plugin(&["load", path]);
    assert!(!ok && output.contains("compile"), "{output}");
    let (ok, output) = host.plugin(&["list", "--key", "wrong"]);
    assert!(!ok && output.contains("API key"), "{output}");
}

#[tokio::test]
async fn components_that_nobody_wrote_are_refused_with_a_reason() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n", &[]);
    let outcomes = load_forged(&host, 1, |n| n < 60).await;
    assert!(outcomes.contains_key("compile") && outcomes.len() > 1, "{outcomes:?}");
    assert!(!host.log().contains("panicked at host"), "{}", host.log());
}
