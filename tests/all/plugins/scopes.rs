//! A look at one scope: its state, members, timers and events, now and before, and what another build would have done.

use std::fs;

use roundhouse_tests::TestHost;
use roundhouse_tests::guests::{hostile, relabelled};
use serde_json::{Value, json};

/// Runs `roundhouse scope …` against a host. Returns whether it succeeded, and its output.
fn scope(host: &TestHost, args: &[&str]) -> (bool, String) {
    let output = TestHost::command(host.dir()).arg("scope").args(args).args(["--api", &host.api]).output().unwrap();
    let text = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    (output.status.success(), text.into_owned())
}

/// A host whose scope `hostile:a` has counted to three.
async fn host_with_a_past() -> TestHost {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    for _ in 0..3 {
        ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    }
    ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await.unwrap();
    ana.close().await;
    host.wait_for_report("hostile", |report| report["calls"].as_u64().unwrap() >= 5).await;
    host
}

#[tokio::test]
async fn scope_shows_state_members_timers_and_events() {
    let host = TestHost::start();
    let (mut ana, _ben) = (host.client("ana").await, host.client("ben").await);
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    ana.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
    let report = host.get("/v1/scopes/ticket%3At1").await;
    assert_eq!((&report["build"]["name"], &report["durable"]), (&json!("ticket-collision"), &json!(false)), "{report}");
    assert_eq!((&report["members"][0]["user"], &report["members"][0]["inRoom"]), (&json!("ana"), &json!(true)));
    assert!(!report["timers"].as_array().unwrap().is_empty(), "typing ends by a timer: {report}");
    assert!(report["state"].to_string().contains("ana"), "{report}");
    let events = report["events"].as_array().unwrap();
    let names: Vec<_> = events.iter().map(|event| &event["case"]["event"]["message"]["event"]).collect();
    assert_eq!(names, ["ticket:view", "ticket:typing"], "{report}");
    let (ok, said) = scope(&host, &["ticket:t1"]);
    assert!(ok && said.contains("ticket:t1 of ticket-collision"), "{said}");
    for words in ["volatile", "of ana, in the room", "2 events are remembered", "ticket:typing of ana, by generation 1"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (ok, said) = scope(&host, &["ticket:nobody-was-here"]);
    assert!(!ok && said.contains("there is no scope ticket:nobody-was-here in memory"), "{said}");
    let (ok, said) = scope(&host, &["nonsense"]);
    assert!(!ok && said.contains("no running plugin has a scope of the form of nonsense"), "{said}");
}

#[tokio::test]
async fn past_of_a_scope_is_stepped_through() {
    let host = host_with_a_past().await;
    let now = host.get("/v1/scopes/hostile%3Aa").await;
    let events = now["events"].as_array().unwrap();
    let time = |n: usize| events[n]["case"]["context"]["now"].as_u64().unwrap();
    let then = host.get(&format!("/v1/scopes/hostile%3Aa?at={}", time(2))).await;
    // Events of the same millisecond are all of that time.
    let first = &then["events"][0]["case"];
    let before =
        first["state"]["bytes"]["text"].as_str().map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
    assert_eq!(then["state"], before, "the state before the event: {then}");
    assert_eq!(then["sequence"], first["context"]["sequence"].as_u64().unwrap() - 1);
    let (ok, said) = scope(&host, &["hostile:a", "--at", "-10m", "--step"]);
    assert!(ok && said.contains("state then: null"), "ten minutes ago there was no such scope: {said}");
    for words in [r#"replies [{"count":3}]"#, "hostile:told of ana", "left of ana"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let far = host.call("GET", "/v1/scopes/hostile%3Aa?at=soon", "").await;
    assert_eq!(far.status, 400, "{}", far.text);
}

#[tokio::test]
async fn another_build_is_replayed_on_a_scope() {
    let host = host_with_a_past().await;
    let replay = |component: Vec<u8>| {
        let path = host.dir().join("other.wasm");
        fs::write(&path, component).unwrap();
        scope(&host, &["hostile:a", "--with", path.to_str().unwrap(), "--step"])
    };
    let (ok, said) = replay(relabelled(&hostile("normal"), "the same"));
    assert!(ok && said.contains("events 0 differ"), "{said}");
    let (ok, said) = replay(hostile("noisy"));
    assert!(ok && said.contains("events 1 differ"), "{said}");
    assert!(said.contains("instead: it also emits hostile:noise"), "{said}");
    let (ok, said) = replay(hostile("traps"));
    assert!(ok && said.contains("instead it failed: it trapped"), "{said}");
    let (ok, said) = replay(roundhouse_tests::guests::bundled("timeline").unwrap());
    assert!(!ok && said.contains("the component calls itself \"timeline\", not \"hostile\""), "{said}");
    let report: Value = host.report("hostile").await;
    assert_eq!((&report["traps"], &report["generation"]), (&json!(0), &json!(1)), "nothing was applied");
}

#[tokio::test]
async fn redacted_fields_are_not_shown() {
    let config = "auth.jwt.secret = \"s\"\nplugins.hostile.cases.redact = [\"with\", \"told\"]\n";
    let host = TestHost::start_with(config, &[]);
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    let told = json!({ "id": "a", "how": "panic", "with": "a secret" });
    ana.emit_with_ack("hostile:do", told).await.expect_err("it fails");
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    ana.close().await;
    host.wait_for_report("hostile", |report| report["calls"].as_u64().unwrap() >= 3).await;
    let report = host.get("/v1/scopes/hostile%3Aa").await;
    assert!(!report.to_string().contains("a secret") && !report.to_string().contains("left ana"), "{report}");
    assert_eq!(report["state"]["told"], "(redacted)", "{report}");
    let cases = host.get("/v1/cases").await;
    let name = cases["cases"][0]["name"].as_str().unwrap();
    assert_eq!(name, "hostile-1");
    let case = host.get(&format!("/v1/cases/{name}")).await;
    assert_eq!(case["event"]["message"]["event"], "hostile:do", "{case}");
    assert_eq!(host.call("GET", "/v1/cases/hostile-9", "").await.status, 404);
}
