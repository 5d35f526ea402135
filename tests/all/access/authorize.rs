//! Rooms about which the operator's backend decides (`authorize`).

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use roundhouse_tests::{InnerHost, StubAnswer, StubTable, TestHost, eventually};
use serde_json::{Value, json};

/// A backend that answers by room.
fn start_backend() -> StubTable {
    StubTable::start("/rooms", 403, |request| {
        let asked: Value = serde_json::from_str(&request.body).unwrap();
        asked["room"].as_str().unwrap().to_owned()
    })
}

/// A configuration whose tickets this backend decides.
fn config(backend: &StubTable, more: &str) -> String {
    format!(
        "auth.jwt.secret = \"s\"\n[[rooms]]\npattern = \"ticket:{{id}}\"\nauthorize = \"{}\"\n{more}\n\
         [[rooms]]\npattern = \"*\"\nallow = \"true\"\n",
        backend.server.url
    )
}

fn ticket(id: &str) -> Value {
    json!({ "ticketId": id })
}

#[tokio::test]
async fn backend_decides_who_uses_a_room() {
    let backend = start_backend();
    backend.set("ticket:ours", &json!({ "allow": true }));
    let host = TestHost::start_with(&config(&backend, "allow = \"id != 'secret'\""), &[]);
    let mut ana = host.client_with("ana", &["--role", "agent", "--claim", "companyId=\"acme\""]).await;
    ana.emit_with_ack("ticket:view", ticket("ours")).await.unwrap();
    let refused = ana.emit_with_ack("ticket:view", ticket("theirs")).await.unwrap_err();
    assert_eq!(refused["code"], "forbidden", "{refused}");
    assert_eq!(ana.emit_refused("ticket:view", ticket("secret")).await, "forbidden", "the condition comes first");
    // One question served the event, the join and the subscription, and further events.
    ana.emit_with_ack("ticket:typing", ticket("ours")).await.unwrap();
    let requests = backend.server.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    let asked: Value = serde_json::from_str(&requests[0].body).unwrap();
    assert_eq!((&asked["room"], &asked["values"]["id"]), (&json!("ticket:ours"), &json!("ours")));
    assert_eq!(asked["user"]["id"], "ana");
    assert_eq!((&asked["user"]["roles"], &asked["user"]["claims"]["companyId"]), (&json!(["agent"]), &json!("acme")));
}

#[tokio::test]
async fn events_keep_order_while_backend_is_asked() {
    let backend = start_backend();
    backend.set("ticket:t", &json!({ "allow": true }));
    let host = TestHost::start_with(&config(&backend, ""), &[]);
    let mut ana = host.client("ana").await;
    // Typing is refused unless the view before it was handled.
    let mut ids = Vec::new();
    for event in ["ticket:view", "ticket:typing", "ticket:stop_typing", "ticket:leave"] {
        ids.push(ana.emit_with_id(event, ticket("t")).await);
    }
    for id in ids {
        ana.expect_ack(id).await.unwrap();
    }
    assert_eq!(backend.server.n_requests(), 1, "the events shared a question");
    assert_eq!(host.call("GET", "/v1/rooms/ticket:t", "").await.status, 404, "she has left");
}

#[tokio::test]
async fn client_leaving_before_the_answer_leaves_no_ghost() {
    let backend = start_backend();
    backend.set_raw("ticket:t", StubAnswer::Silence);
    let host = TestHost::start_with(&config(&backend, "timeout = \"500ms\""), &[]);
    let mut ana = host.client("ana").await;
    ana.emit("ticket:view", ticket("t")).await;
    eventually("the backend is asked", async || (backend.server.n_requests() == 1).then_some(())).await;
    ana.close().await;
    backend.set("ticket:t", &json!({ "allow": true }));
    let mut ben = host.client("ben").await;
    let viewed =
        eventually("the backend answers", async || ben.emit_with_ack("ticket:view", ticket("t")).await.ok()).await;
    assert_eq!(viewed["viewers"].as_array().unwrap().len(), 1, "{viewed}");
}

#[tokio::test]
async fn missing_verdict_is_told_and_asked_for_again() {
    let backend = start_backend();
    let host = InnerHost::start(&config(&backend, "timeout = \"200ms\"")).await;
    let mut ana = host.client("ana").await;
    for answer in [
        StubAnswer::Raw(500, String::new()),
        StubAnswer::Raw(200, "{}".to_owned()),
        StubAnswer::Raw(200, "x".repeat(100_000)),
        StubAnswer::Silence,
    ] {
        backend.set_raw("ticket:t", answer);
        let refused = ana.emit_with_ack("ticket:view", ticket("t")).await.unwrap_err();
        assert_eq!(refused["code"], "feature_unavailable", "{refused}");
        let before = backend.server.n_requests();
        assert_eq!(ana.emit_refused("ticket:view", ticket("t")).await, "feature_unavailable");
        assert_eq!(backend.server.n_requests(), before, "the failure counts for two seconds");
        host.advance(Duration::from_secs(2));
    }
    backend.set("ticket:t", &json!({ "allow": true }));
    ana.emit_with_ack("ticket:view", ticket("t")).await.unwrap();
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn verdicts_count_for_the_stated_time_alone() {
    let backend = start_backend();
    backend.set("ticket:t", &json!({ "join": true, "subscribe": true, "publish": true }));
    let host = InnerHost::start(&config(&backend, "cache = \"60s\"")).await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("ticket:view", ticket("t")).await.unwrap();
    backend.set("ticket:t", &json!({ "allow": false }));
    host.advance(Duration::from_secs(59));
    ana.emit_with_ack("ticket:view", ticket("t")).await.unwrap();
    host.advance(Duration::from_secs(2));
    assert_eq!(ana.emit_refused("ticket:view", ticket("t")).await, "forbidden");
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn backend_is_asked_again_when_the_identity_changes() {
    let backend = start_backend();
    backend.set("ticket:t", &json!({ "allow": true }));
    let host = InnerHost::start(&config(&backend, "timeout = \"200ms\"")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    for client in [&mut ana, &mut ben] {
        client.emit_with_ack("ticket:view", ticket("t")).await.unwrap();
    }
    // Without a verdict she stays, and the backend is asked again.
    backend.set_raw("ticket:t", StubAnswer::Raw(503, String::new()));
    let token = host.token_of(&json!({ "sub": "ana", "roles": ["intern"] }));
    ana.emit_with_ack("authenticate", json!({ "token": token })).await.unwrap();
    eventually("the backend is asked", async || (backend.server.n_requests() == 3).then_some(())).await;
    backend.set("ticket:t", &json!({ "allow": false }));
    eventually("ana is out of the room", async || {
        host.advance(Duration::from_secs(5));
        (host.call("GET", "/v1/rooms/ticket:t", "").await.body["connectionCount"] == 1).then_some(())
    })
    .await;
    ben.expect_event("agent:left").await;
    drop((ana, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn changed_identity_asks_once_for_each_room() {
    let backend = start_backend();
    let rooms: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
    for room in &rooms {
        backend.set(&format!("ticket:{room}"), &json!({ "allow": true }));
    }
    let host = TestHost::start_with(&config(&backend, "cache = \"10m\""), &[]);
    let mut ana = host.client("ana").await;
    for room in &rooms {
        ana.emit_with_ack("ticket:view", ticket(room)).await.unwrap();
    }
    assert_eq!(backend.server.n_requests(), 12);
    backend.set("ticket:t3", &json!({ "allow": false }));
    let token = host.token_with("ana", &["--role", "intern"]);
    for _ in 0..3 {
        ana.emit_with_ack("authenticate", json!({ "token": token })).await.unwrap();
    }
    eventually("ana is out of the room", async || {
        (host.call("GET", "/v1/rooms/ticket:t3", "").await.status == 404).then_some(())
    })
    .await;
    assert_eq!(backend.server.n_requests(), 24, "one question for each room, however many answers came before");
    assert_eq!(host.get("/v1/rooms/ticket:t4").await["connectionCount"], 1);
}

#[test]
fn explain_asks_the_backend() {
    let backend = start_backend();
    backend.set("ticket:t", &json!({ "join": true }));
    let host = TestHost::start_with(&config(&backend, ""), &[]);
    // The token is read from standard input, so that it is no argument that others see.
    let explain = |room: &str| {
        let mut command = TestHost::command(host.dir());
        command.args(["check", "--config", "roundhouse.toml", "--explain", "-", room]);
        let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(running.stdin.take().unwrap(), "{}", host.token("ana")).unwrap();
        let output = running.wait_with_output().unwrap();
        (output.status.success(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (may_join, told) = explain("ticket:t");
    assert!(may_join, "{told}");
    assert_eq!(told["decisions"]["join"]["because"]["authorize"], true, "{told}");
    assert_eq!(told["decisions"]["publish"]["allowed"], false, "{told}");
    assert!(!explain("ticket:other").0);
}
