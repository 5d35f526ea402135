//! Operators keep users, sessions and tokens out.

use std::time::Duration;

use roundhouse_tests::{Closed, InnerHost, SocketIoClient, TestClient, TestHost, eventually, metric, with_headers};
use serde_json::{Value, json};

const CONFIG: &str = "auth.jwt.secret = \"s\"\n";

/// The close of a connection with this token, which is refused.
async fn try_connect(ws: &str, token: &str) -> Closed {
    TestClient::open(with_headers(&format!("{ws}/ws?token={token}"), &[])).await.closed().await
}

async fn block(host: &TestHost, block: Value) -> Value {
    let answer = host.post("/v1/blocks", &block).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body
}

#[tokio::test]
async fn blocked_user_is_disconnected_and_refused_until_lifted() {
    let host = TestHost::start_with(CONFIG, &[]);
    let (mut tab, mut ben) = (host.client("ana").await, host.client("ben").await);
    let mut socketio = SocketIoClient::socket(&host.ws).await;
    socketio.connect_as(&host.token("ana")).await;
    let blocked = block(&host, json!({ "user": "ana", "forSeconds": 3600, "reason": "spam" })).await;
    assert_eq!((&blocked["user"], &blocked["disconnected"]), (&json!("ana"), &json!(2)), "{blocked}");
    let closed = tab.closed().await;
    assert_eq!(closed.code, Some(4010));
    assert!(closed.reason.starts_with("the user is blocked until 2") && !closed.reason.contains("spam"), "{closed:?}");
    socketio.closed().await;
    let refused = try_connect(&host.ws, &host.token("ana")).await;
    assert_eq!(refused.code, Some(4003));
    let mut again = SocketIoClient::socket(&host.ws).await;
    let refused = again.connect("/", &json!({ "token": host.token("ana") })).await.unwrap_err();
    assert_eq!(refused["data"]["code"], "forbidden", "{refused}");
    assert_eq!(ben.emit_refused("no:such", json!({})).await, "unknown_event", "others are not concerned");
    assert_eq!(metric(&host.api, "blocks").await, 1);
    let id = blocked["id"].as_str().unwrap();
    let listed = host.get("/v1/blocks").await;
    assert_eq!((&listed["blocks"][0]["id"], &listed["blocks"][0]["reason"]), (&json!(id), &json!("spam")), "{listed}");
    assert_eq!(host.call("DELETE", &format!("/v1/blocks/{id}"), "").await.status, 200);
    assert_eq!(host.call("DELETE", &format!("/v1/blocks/{id}"), "").await.status, 404);
    host.client("ana").await;
}

#[tokio::test]
async fn block_outlives_a_restart() {
    let mut host = TestHost::start_with(CONFIG, &[]);
    let [kept, lifted] = ["ana", "ben"].map(|user| json!({ "user": user, "forSeconds": 3600 }));
    block(&host, kept).await;
    let lifted = block(&host, lifted).await;
    host.call("DELETE", &format!("/v1/blocks/{}", lifted["id"].as_str().unwrap()), "").await;
    host.kill();
    host.restart();
    assert_eq!(try_connect(&host.ws, &host.token("ana")).await.code, Some(4003));
    host.client("ben").await;
    assert_eq!(host.get("/v1/blocks").await["blocks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn block_of_a_token_or_session_spares_others() {
    let host = TestHost::start_with(CONFIG, &[]);
    let token = |jti: &str, sid: &str| {
        host.token_with("ana", &["--claim", &format!("jti=\"{jti}\""), "--claim", &format!("sid=\"{sid}\"")])
    };
    let mut first = TestClient::connect(&host.ws, &token("1", "a")).await;
    let mut second = TestClient::connect(&host.ws, &token("2", "a")).await;
    let mut third = TestClient::connect(&host.ws, &token("3", "b")).await;
    let blocked = block(&host, json!({ "tokenId": "1", "forSeconds": 60 })).await;
    assert_eq!(blocked["disconnected"], 1);
    assert_eq!(first.closed().await.code, Some(4010));
    assert_eq!(second.emit_refused("no:such", json!({})).await, "unknown_event");
    assert_eq!(block(&host, json!({ "sessionId": "a", "forSeconds": 60 })).await["disconnected"], 1);
    assert_eq!(second.closed().await.code, Some(4010));
    assert_eq!(third.emit_refused("authenticate", json!({ "token": token("1", "b") })).await, "forbidden");
    assert_eq!(third.emit_refused("no:such", json!({})).await, "unknown_event");
}

#[tokio::test]
async fn block_by_time_of_issue_revokes_older_tokens() {
    let host = InnerHost::start(CONFIG).await;
    let now = host.clock.wall_ms();
    let token = |issued_ms: Option<u64>| match issued_ms {
        Some(ms) => host.token_of(&json!({ "sub": "ana", "iat": ms / 1000 })),
        None => host.token_of(&json!({ "sub": "ana" })),
    };
    let mut old = TestClient::connect(&host.ws, &token(Some(now - 10_000))).await;
    let mut undated = TestClient::connect(&host.ws, &token(None)).await;
    let mut new = TestClient::connect(&host.ws, &token(Some(now))).await;
    let request = json!({ "user": "ana", "issuedBefore": now - 5000, "forSeconds": 3600 });
    let answer = host.call("POST", "/v1/blocks", request.to_string()).await;
    assert_eq!((answer.status, &answer.body["disconnected"]), (200, &json!(2)), "{}", answer.text);
    assert_eq!(old.closed().await.code, Some(4010));
    assert_eq!(undated.closed().await.code, Some(4010));
    assert_eq!(new.emit_refused("no:such", json!({})).await, "unknown_event");
    assert_eq!(try_connect(&host.ws, &token(Some(now - 10_000))).await.code, Some(4003));
    host.advance(Duration::from_secs(3600));
    drop(TestClient::connect(&host.ws, &token(Some(now - 10_000))).await);
    drop((old, undated, new));
    host.shut_down().await;
}

#[tokio::test]
async fn detached_connection_of_a_blocked_user_ends() {
    let host = TestHost::start_with(CONFIG, &[]);
    let mut lost = SocketIoClient::socket(&host.ws).await;
    lost.connect_as(&host.token("ana")).await;
    lost.cut().await;
    eventually("the connection is detached", async || (metric(&host.api, "connections_away").await == 1).then_some(()))
        .await;
    assert_eq!(block(&host, json!({ "user": "ana", "forSeconds": 60 })).await["disconnected"], 1);
    assert_eq!(host.call("GET", "/v1/users/ana", "").await.status, 404);
}

#[tokio::test]
async fn malformed_blocks_are_refused_with_the_field() {
    let host = TestHost::start_with(CONFIG, &[]);
    for (block, field) in [
        (json!({ "forSeconds": 1 }), "user"),
        (json!({ "user": "a", "tokenId": "b", "forSeconds": 1 }), "one of"),
        (json!({ "user": "a b", "forSeconds": 1 }), "whitespace"),
        (json!({ "user": "a" }), "until"),
        (json!({ "user": "a", "until": 1_900_000_000 }), "milliseconds"),
        (json!({ "user": "a", "forSeconds": 0 }), "forSeconds"),
        (json!({ "user": "a", "forSeconds": 1.5 }), "whole"),
        (json!({ "tokenId": "a", "issuedBefore": 1_900_000_000_000_u64, "forSeconds": 1 }), "issuedBefore"),
        (json!({ "user": "a", "forSeconds": 1, "reason": "a\nb" }), "reason"),
        (json!({ "user": "a", "forSecond": 1 }), "did you mean forSeconds"),
    ] {
        let (status, code, message) = host.post_refused("/v1/blocks", &block).await;
        assert_eq!((status, code.as_str()), (400, "bad_request"), "{block}");
        assert!(message.contains(field), "{block}: {message}");
    }
}
