//! Handshakes of the plain protocol: tokens, refusals and limits.

use roundhouse_tests::{TestClient, TestHost, http};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::Request;

const SECRET: &str = "auth.jwt.secret = \"a secret for this test\"\n";

fn request(host: &TestHost, headers: &[(&'static str, &str)]) -> Request<()> {
    let mut request = format!("{}/ws", host.ws).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn token_is_taken_from_each_documented_place() {
    let host = TestHost::start_with(&format!("{SECRET}auth.jwt.cookie = \"session\""), &[]);
    let token = host.token_with("ana", &["--name", "Ana"]);

    let by_query = TestClient::connect(&host.ws, &token).await;
    let by_header = TestClient::connect_with(request(&host, &[("authorization", &format!("Bearer {token}"))])).await;
    let by_cookie = TestClient::connect_with(request(&host, &[("cookie", &format!("a=b; session={token}"))])).await;
    let mut by_message = TestClient::open(request(&host, &[])).await;
    by_message.emit("authenticate", json!({ "token": token })).await;
    by_message.connected = by_message.expect_event("connected").await;

    let mut ids = Vec::new();
    for client in [by_query, by_header, by_cookie, by_message] {
        assert_eq!(client.connected["userId"], "ana");
        assert_eq!(client.connected["heartbeatMs"], 25_000);
        assert_eq!(client.connected["maxMessageBytes"], 1_000_000);
        ids.push(client.id().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 4, "each connection has an id of its own");
}

#[tokio::test]
async fn cookie_from_a_foreign_origin_is_ignored() {
    let config = format!("{SECRET}auth.jwt.cookie = \"session\"\ncors.origins = [\"https://app.example\"]");
    let host = TestHost::start_with(&config, &[]);
    let cookie = format!("session={}", host.token("ana"));
    TestClient::connect_with(request(&host, &[("cookie", &cookie), ("origin", "https://app.example")])).await;
    let headers = [
        ("cookie", cookie.as_str()),
        ("origin", "https://evil.example"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = http(&host.ws, "GET", "/ws", &headers, "").await.unwrap();
    assert_eq!(answer.status, 403);
    assert!(answer.body["message"].as_str().unwrap().contains("cors.origins"), "{}", answer.text);
}

#[tokio::test]
async fn refused_clients_get_a_close_code() {
    let host = TestHost::start_with(&format!("{SECRET}auth.grace = \"200ms\""), &[]);
    for (token, code, reason) in [
        ("nonsense".to_owned(), 4001, "not a JSON Web Token"),
        (host.token_with("ana", &["--ttl", "0s"]), 4002, "expired"),
    ] {
        let mut client = TestClient::open(format!("{}/ws?token={token}", host.ws).into_client_request().unwrap()).await;
        let closed = client.closed().await;
        assert_eq!(closed.code, Some(code));
        assert!(closed.reason.contains(reason), "{closed:?}");
    }
    let stranger = TestHost::start_with("auth.jwt.secret = \"another\"", &[]).token("ana");
    let mut forged = TestClient::open(format!("{}/ws?token={stranger}", host.ws).into_client_request().unwrap()).await;
    assert_eq!(forged.closed().await.code, Some(4001));
    let mut silent = TestClient::open(request(&host, &[])).await;
    assert_eq!(silent.closed().await.code, Some(4001), "the time to authenticate is over");
    let mut impatient = TestClient::open(request(&host, &[])).await;
    impatient.emit("ticket:view", json!({ "ticketId": "t1" })).await;
    assert_eq!(impatient.closed().await.code, Some(4001), "the first message must authenticate");
}

#[tokio::test]
async fn anonymous_connections_are_accepted_where_configured() {
    let host = TestHost::start_with("auth.anonymous = true", &[]);
    let mut first = TestClient::connect_with(request(&host, &[])).await;
    let second = TestClient::connect_with(request(&host, &[])).await;
    assert_ne!(first.connected["userId"], second.connected["userId"]);
    assert!(first.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok());
}

#[tokio::test]
async fn newer_token_of_another_user_is_refused() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    assert!(ana.emit_with_ack("authenticate", json!({ "token": host.token("ana") })).await.is_ok());
    assert_eq!(ana.emit_refused("authenticate", json!({ "token": host.token("ben") })).await, "forbidden");
    assert_eq!(ana.emit_refused("authenticate", json!({ "token": "nonsense" })).await, "unauthorized");
    assert_eq!(ana.emit_refused("authenticate", json!({ "tok": "x" })).await, "bad_request");
    assert!(ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok(), "it is still there");
}

#[tokio::test]
async fn connections_per_user_and_address_are_limited() {
    let config = format!("{SECRET}[limits]\nconnections_per_user = 2\nconnections = 4\nconnections_per_ip = 3");
    let host = TestHost::start_with(&config, &[]);
    let open = async |user: &str| {
        let url = format!("{}/ws?token={}", host.ws, host.token(user));
        TestClient::open(url.into_client_request().unwrap()).await
    };
    let mut first = open("ana").await;
    first.expect_event("connected").await;
    let mut second = open("ana").await;
    second.expect_event("connected").await;
    let third = open("ana").await.closed().await;
    assert_eq!(third.code, Some(4009));
    assert!(third.reason.contains("user"), "{third:?}");
    let mut ben = open("ben").await;
    ben.expect_event("connected").await;
    let from_this_address = open("cara").await.closed().await;
    assert_eq!(from_this_address.code, Some(4009));
    assert!(from_this_address.reason.contains("address"), "{from_this_address:?}");
    first.close().await;
    open("ana").await.expect_event("connected").await;
}

#[tokio::test]
async fn full_host_closes_connections_with_try_again() {
    let host = TestHost::start_with(&format!("{SECRET}limits.connections = 1"), &[]);
    let first = host.client("ana").await;
    let url = format!("{}/ws?token={}", host.ws, host.token("ben"));
    let mut second = TestClient::open(url.as_str().into_client_request().unwrap()).await;
    assert_eq!(second.closed().await.code, Some(1013));
    drop(second);
    first.close().await;
    TestClient::connect_to(&url).await;
}

#[tokio::test]
async fn pings_and_closes_are_answered() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    ana.send_message(Message::Ping("hello".into())).await;
    assert!(ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok());
    ana.close().await;
}

#[tokio::test]
async fn malformed_handshake_is_refused_with_the_reason() {
    let host = TestHost::start();
    let plain = http(&host.ws, "GET", "/ws", &[], "").await.unwrap();
    assert_eq!(plain.status, 426);
    assert!(plain.text.contains("WebSocket"), "{}", plain.text);
    assert_eq!(http(&host.ws, "GET", "/healthz", &[], "").await.unwrap().status, 200);
    assert_eq!(http(&host.ws, "GET", "/nothing", &[], "").await.unwrap().status, 404);
    assert_eq!(http(&host.ws, "POST", "/ws", &[], "").await.unwrap().status, 404);
}

#[tokio::test]
async fn demo_is_served_only_in_development_mode() {
    let development = TestHost::start();
    let page = http(&development.ws, "GET", "/", &[], "").await.unwrap();
    assert_eq!(page.status, 200);
    assert!(page.text.contains("<html"), "{}", page.text);
    let token = http(&development.ws, "GET", "/demo/token?user=ana", &[], "").await.unwrap();
    TestClient::connect(&development.ws, token.body["token"].as_str().unwrap()).await;
    assert_eq!(http(&development.ws, "GET", "/demo/token", &[], "").await.unwrap().status, 400);

    let configured = TestHost::start_with(SECRET, &[]);
    for path in ["/", "/demo/token?user=ana", "/demo/plugins"] {
        assert_eq!(http(&configured.ws, "GET", path, &[], "").await.unwrap().status, 404, "{path}");
    }
}
