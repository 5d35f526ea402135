//! A connection lives no longer than its token; its client is told before, and may send another token.

use std::time::Duration;

use roundhouse_tests::{InnerHost, SocketIoClient, TestClient};
use serde_json::{Value, json};

const CONFIG: &str = "auth.jwt.secret = \"s\"\nsocketio.namespaces = [\"/other\"]\n\
                      [heartbeat]\ninterval = \"12h\"\ntimeout = \"24h\"\n";

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn connect(host: &InnerHost, valid_for: u64) -> TestClient {
    TestClient::connect(&host.ws, &host.token("ana", Some(seconds(valid_for)))).await
}

/// Answers to an event that no feature handles, which shows that the connection lives.
async fn is_alive(client: &mut TestClient) {
    assert_eq!(client.emit_refused("no:such", json!({})).await, "unknown_event");
}

#[tokio::test]
async fn client_is_told_thirty_seconds_before_expiry() {
    // The tests' tokens have a leeway of a minute.
    let host = InnerHost::start(&format!("auth.jwt.leeway = \"0s\"\n{CONFIG}")).await;
    let mut ana = connect(&host, 100).await;
    host.advance(seconds(69));
    is_alive(&mut ana).await;
    assert_eq!(ana.drain_events().await, [""; 0], "not yet");
    host.advance(seconds(1));
    let told = ana.expect_event("auth:expiring").await;
    assert_eq!(told["inMs"], 30_000, "{told}");
    assert_eq!(told["expiresAt"].as_u64(), Some(host.clock.wall_ms() + 30_000), "{told}");
    host.advance(seconds(29));
    is_alive(&mut ana).await;
    assert_eq!(ana.drain_events().await, [""; 0], "told once");
    host.advance(seconds(1));
    assert_eq!(ana.closed().await.code, Some(4002));
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn new_token_extends_the_connection() {
    let host = InnerHost::start(&format!("auth.jwt.leeway = \"0s\"\n{CONFIG}")).await;
    let mut ana = connect(&host, 40).await;
    host.advance(seconds(10));
    ana.expect_event("auth:expiring").await;
    let other = json!({ "token": host.token("ben", Some(seconds(1000))) });
    assert_eq!(ana.emit_refused("authenticate", other).await, "forbidden");
    let renewed = json!({ "token": host.token("ana", Some(seconds(100))) });
    ana.emit_with_ack("authenticate", renewed).await.unwrap();
    host.advance(seconds(69));
    is_alive(&mut ana).await;
    assert_eq!(ana.drain_events().await, [""; 0]);
    host.advance(seconds(1));
    assert_eq!(ana.expect_event("auth:expiring").await["inMs"], 30_000, "told again for the new token");
    assert_eq!(ana.emit_refused("authenticate", json!({ "token": "nonsense" })).await, "unauthorized");
    host.advance(seconds(30));
    assert_eq!(ana.closed().await.code, Some(4002), "a bad token changes nothing");
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn short_token_is_told_at_once() {
    let host = InnerHost::start(&format!("auth.jwt.leeway = \"0s\"\n{CONFIG}")).await;
    let mut ana = connect(&host, 20).await;
    assert_eq!(ana.expect_event("auth:expiring").await["inMs"], 20_000);
    let mut ben = SocketIoClient::socket(&host.ws).await;
    ben.connect_as(&host.token("ben", Some(seconds(20)))).await;
    assert_eq!(ben.expect_event("auth:expiring").await.argument()["inMs"], 20_000);
    drop((ana, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn jump_of_the_clock_tells_clients() {
    let host = InnerHost::start(&format!("auth.jwt.leeway = \"0s\"\n{CONFIG}")).await;
    let mut ana = connect(&host, 1000).await;
    host.clock.suspend(seconds(980));
    host.advance(seconds(2));
    assert_eq!(ana.expect_event("auth:expiring").await["inMs"], 18_000);
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn only_the_expired_namespace_ends() {
    let host = InnerHost::start(&format!("auth.jwt.leeway = \"0s\"\n{CONFIG}")).await;
    let mut ana = SocketIoClient::socket(&host.ws).await;
    let auth = |seconds_: u64| json!({ "token": host.token("ana", Some(seconds(seconds_))) });
    ana.connect("/", &auth(1000)).await.unwrap();
    ana.connect("/other", &auth(100)).await.unwrap();
    host.advance(seconds(70));
    let told = ana.expect_event("auth:expiring").await;
    assert_eq!((told.namespace.as_str(), told.argument()["inMs"].as_u64()), ("/other", Some(30_000)));
    host.advance(seconds(30));
    let error = ana.expect_event("error").await;
    assert_eq!((error.namespace.as_str(), &error.argument()["code"]), ("/other", &json!("unauthorized")));
    let answer: Value = ana.emit_with_ack("no:such", json!([{}])).await;
    assert_eq!(answer[0]["error"]["code"], "unknown_event", "the main namespace lives");
    drop(ana);
    host.shut_down().await;
}
