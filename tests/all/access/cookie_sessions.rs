//! Sessions in a cookie: the operator's endpoint says whose they are, and until when.

use std::time::Duration;

use roundhouse_tests::{
    EngineSocket, InnerHost, Polling, Script, SocketIoClient, StubAnswer, StubTable, TestClient, TestHost, eventually,
    metric, skip, with_headers,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::http::Request;

/// An endpoint that knows the sessions in a table, by the value of the cookie `auth_session`.
fn start_endpoint() -> StubTable {
    StubTable::start("/session", 401, |request| {
        request.header("cookie").strip_prefix("auth_session=").unwrap_or_default().to_owned()
    })
}

/// A configuration with this endpoint, and more.
fn config(endpoint: &StubTable, session: &str, more: &str) -> String {
    format!("auth.jwt.secret = \"s\"\n{more}\n[auth.session]\nurl = \"{}\"\n{session}\n", endpoint.server.url)
}

fn agent(user: &str) -> Value {
    json!({ "user": { "id": user, "name": user.to_uppercase(), "role": "agent" }, "session": { "id": format!("{user}-1") } })
}

fn request(ws: &str, headers: &[(&str, &str)]) -> Request<()> {
    with_headers(&format!("{ws}/ws"), headers)
}

async fn connect(ws: &str, cookies: &str) -> TestClient {
    TestClient::connect_with(request(ws, &[("cookie", cookies)])).await
}

/// The close of a client with these headers.
async fn refused(ws: &str, headers: &[(&str, &str)]) -> (Option<u16>, String) {
    let closed = TestClient::open(request(ws, headers)).await.closed().await;
    (closed.code, closed.reason)
}

#[tokio::test]
async fn session_becomes_the_identity_on_each_transport() {
    let endpoint = start_endpoint();
    endpoint.set("good", &agent("ana"));
    let rules = "[[rooms]]\npattern = \"ticket:{id}\"\nallow = \"'agent' in identity.roles && \
                 identity.claims.user.role == 'agent'\"\n";
    let host = TestHost::start_with(&(config(&endpoint, "", "") + rules), &[]);
    let headers = [("cookie", "theme=dark; auth_session=good; other=x")];
    let mut plain = connect(&host.ws, headers[0].1).await;
    assert_eq!(plain.connected["userId"], "ana");
    plain.emit_with_ack("ticket:view", json!({ "ticketId": "t" })).await.unwrap();
    let polling = Polling::open_with(&host.ws, "", &headers).await;
    let mut polling = SocketIoClient::on_polling(polling);
    polling.connect("/", &Value::Null).await.unwrap();
    let mut socket = SocketIoClient::on_socket(EngineSocket::open_with(&host.ws, "", &headers).await);
    socket.connect("/", &Value::Null).await.unwrap();
    assert_eq!(host.get("/v1/users/ana").await["connectionCount"], 3);
    // Only the session's cookie is sent, and one question served all three.
    let requests = endpoint.server.requests();
    assert_eq!(requests.len(), 1, "the answer is cached");
    assert_eq!(requests[0].header("cookie"), "auth_session=good");
    assert!(!host.log().contains("good"), "{}", host.log());
}

#[tokio::test]
async fn clients_without_a_session_are_refused() {
    let endpoint = start_endpoint();
    endpoint.set("nobody", &json!({ "user": null }));
    let host = TestHost::start_with(&config(&endpoint, "", ""), &[]);
    for cookie in ["auth_session=stale", "auth_session=nobody"] {
        let (code, reason) = refused(&host.ws, &[("cookie", cookie)]).await;
        assert_eq!(code, Some(4001), "{reason}");
        assert!(reason.contains("has ended, or there is none"), "{reason}");
    }
    let mut socketio =
        SocketIoClient::on_polling(Polling::open_with(&host.ws, "", &[("cookie", "auth_session=stale")]).await);
    let error = socketio.connect("/", &Value::Null).await.unwrap_err();
    assert_eq!(error["data"]["code"], "unauthorized", "{error}");
    // An empty cookie is none, and the client may still send a token.
    let mut late = TestClient::open(request(&host.ws, &[("cookie", "auth_session=")])).await;
    late.emit_with_ack("authenticate", json!({ "token": host.token("ana") })).await.unwrap();
}

#[tokio::test]
async fn one_good_credential_is_enough() {
    let endpoint = start_endpoint();
    endpoint.set("good", &agent("ana"));
    let host = TestHost::start_with(&config(&endpoint, "", "auth.jwt.cookie = \"jwt\""), &[]);
    let token = host.token("ben");
    let bearer = format!("Bearer {token}");
    for (user, headers) in [
        ("ana", vec![("cookie", "auth_session=stale; auth_session=good")]),
        ("ana", vec![("authorization", "Bearer nonsense"), ("cookie", "jwt=stale; auth_session=good")]),
        ("ben", vec![("authorization", &bearer), ("cookie", "auth_session=good")]),
        ("ben", vec![("authorization", &bearer), ("cookie", "auth_session=stale")]),
    ] {
        let client = TestClient::connect_with(request(&host.ws, &headers)).await;
        assert_eq!(client.connected["userId"], user, "{headers:?}");
    }
    // For a client with a good token, nobody asks about the cookie.
    let asked = endpoint.server.requests().iter().filter(|request| request.header("cookie").contains("stale")).count();
    assert_eq!(asked, 1);
    let (code, reason) = refused(&host.ws, &[("cookie", "jwt=nonsense; auth_session=stale")]).await;
    assert_eq!(code, Some(4001));
    assert!(reason.contains("in the cookie: it is not") && reason.contains("in the session cookie: the"), "{reason}");
}

#[tokio::test]
async fn sessions_count_from_allowed_origins_alone() {
    let endpoint = start_endpoint();
    endpoint.set("good", &agent("ana"));
    let host = TestHost::start_with(&config(&endpoint, "", "cors.origins = [\"https://*.app.example\"]"), &[]);
    let cookie = ("cookie", "auth_session=good");
    let headers = [cookie, ("origin", "https://crm.app.example")];
    TestClient::connect_with(request(&host.ws, &headers)).await;
    let hostile = [cookie, ("origin", "https://evil.example")];
    let polling = Polling::open_with(&host.ws, "", &hostile).await;
    let error = SocketIoClient::on_polling(polling).connect("/", &Value::Null).await.unwrap_err();
    assert!(error["message"].as_str().unwrap().contains("cors.origins"), "{error}");
    assert_eq!(endpoint.server.n_requests(), 1, "nobody asks for a hostile page");
}

#[tokio::test]
async fn ended_session_closes_its_connections() {
    let endpoint = start_endpoint();
    for user in ["ana", "ben"] {
        endpoint.set(user, &agent(user));
    }
    let host = InnerHost::start(&config(&endpoint, "recheck = \"20s\"", "")).await;
    let mut ana = connect(&host.ws, "auth_session=ana").await;
    ana.emit_with_ack("resume", json!({})).await.unwrap();
    let mut ben = connect(&host.ws, "auth_session=ben").await;
    let headers = [("cookie", "auth_session=ana")];
    let mut socketio = SocketIoClient::on_socket(EngineSocket::open_with(&host.ws, "", &headers).await);
    socketio.connect("/", &Value::Null).await.unwrap();
    endpoint.remove("ana");
    host.advance(Duration::from_secs(21));
    let closed = ana.closed().await;
    assert_eq!(closed.code, Some(4002), "{closed:?}");
    assert!(closed.reason.contains("log in"), "{closed:?}");
    assert_eq!(socketio.expect_event("error").await.argument()["code"], "unauthorized");
    assert_eq!(socketio.closed().await.code, Some(4002));
    assert_eq!(host.call("GET", "/v1/users/ana", "").await.status, 404, "none is kept to be resumed");
    assert_eq!(ben.emit_refused("no:such", json!({})).await, "unknown_event", "other sessions go on");
    drop((ana, ben, socketio));
    host.shut_down().await;
}

#[tokio::test]
async fn changed_session_changes_its_connections() {
    let endpoint = start_endpoint();
    endpoint.set("c", &agent("ana"));
    let rules = "[[rooms]]\npattern = \"ticket:{id}\"\nallow = \"'agent' in identity.roles\"\n";
    let host = InnerHost::start(&(config(&endpoint, "recheck = \"20s\"", "") + rules)).await;
    let mut ana = connect(&host.ws, "auth_session=c").await;
    let view = json!({ "ticketId": "t" });
    ana.emit_with_ack("ticket:view", view.clone()).await.unwrap();
    endpoint.set("c", &json!({ "user": { "id": "ana" } }));
    host.advance(Duration::from_secs(21));
    eventually("ana has lost her role", async || {
        (host.call("GET", "/v1/rooms/ticket:t", "").await.body["connectionCount"] != 1).then_some(())
    })
    .await;
    assert_eq!(ana.emit_refused("ticket:view", view).await, "forbidden");
    // The cookie is another user's now: the connection is not handed over.
    endpoint.set("c", &agent("ben"));
    host.advance(Duration::from_secs(21));
    assert_eq!(ana.closed().await.code, Some(4002));
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn connection_lives_no_longer_than_its_session() {
    let endpoint = start_endpoint();
    let host = InnerHost::start(&config(
        &endpoint,
        "recheck = \"1h\"",
        "heartbeat = { interval = \"12h\", timeout = \"24h\" }",
    ))
    .await;
    let until = |seconds: u64| json!({ "id": "ana", "expiresAt": host.clock.wall_ms() + seconds * 1000 });
    endpoint.set("c", &until(100));
    let mut ana = connect(&host.ws, "auth_session=c").await;
    // Servers prolong sessions in use: the host asks once more before the end.
    endpoint.set("c", &until(300));
    host.advance(Duration::from_secs(62));
    eventually("the host asks again", async || (endpoint.server.n_requests() == 2).then_some(())).await;
    host.advance(Duration::from_secs(30));
    assert_eq!(ana.emit_refused("no:such", json!({})).await, "unknown_event");
    host.advance(Duration::from_secs(30));
    assert_eq!(ana.emit_refused("no:such", json!({})).await, "unknown_event", "beyond the first end");
    host.advance(Duration::from_secs(150));
    ana.expect_event("auth:expiring").await;
    host.advance(Duration::from_secs(60));
    assert_eq!(ana.closed().await.code, Some(4002));
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn failing_endpoint_is_said_clearly_and_keeps_connections() {
    let endpoint = start_endpoint();
    endpoint.set("good", &agent("ana"));
    let host = InnerHost::start(&config(&endpoint, "recheck = \"20s\"\ntimeout = \"200ms\"\ncache = \"0s\"", "")).await;
    let mut ana = connect(&host.ws, "auth_session=good").await;
    for (answer, reason) in [
        (StubAnswer::Raw(500, String::new()), "500"),
        (StubAnswer::Raw(200, "<html>".to_owned()), "no JSON"),
        (StubAnswer::Raw(200, "x".repeat(100_000)), "longer than 65536 bytes"),
        (StubAnswer::Raw(200, json!({ "error": "down" }).to_string()), "user id"),
        (StubAnswer::Silence, "no answer within 200ms"),
    ] {
        endpoint.set_raw("good", answer);
        let (code, said) = refused(&host.ws, &[("cookie", "auth_session=good")]).await;
        assert_eq!(code, Some(1013), "{said}");
        assert!(said.contains(reason), "{reason}: {said}");
    }
    let polling = Polling::open_with(&host.ws, "", &[("cookie", "auth_session=good")]).await;
    let error = SocketIoClient::on_polling(polling).connect("/", &Value::Null).await.unwrap_err();
    assert_eq!(error["data"]["code"], "feature_unavailable", "{error}");
    assert!(error["data"]["retryAfterMs"].is_u64(), "{error}");
    host.advance(Duration::from_secs(21));
    eventually("the check again has failed", async || {
        (metric(&host.api, "session_checks_total{outcome=\"failed\"}").await >= 7).then_some(())
    })
    .await;
    assert_eq!(ana.emit_refused("no:such", json!({})).await, "unknown_event", "nobody is closed for it");
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn missing_answer_outweighs_an_ended_session() {
    let endpoint = start_endpoint();
    endpoint.set_raw("slow", StubAnswer::Raw(503, String::new()));
    let host = TestHost::start_with(&config(&endpoint, "", ""), &[]);
    // The browser sends one cookie for each path: the good one may be the one that was not checked.
    for cookies in ["auth_session=stale; auth_session=slow", "auth_session=slow; auth_session=stale"] {
        let (code, reason) = refused(&host.ws, &[("cookie", cookies)]).await;
        assert_eq!(code, Some(1013), "{cookies}: {reason}");
    }
}

#[tokio::test]
async fn endpoint_is_left_alone_after_failures() {
    let endpoint = start_endpoint();
    endpoint.set_raw("c", StubAnswer::Raw(503, String::new()));
    let host = InnerHost::start(&config(&endpoint, "", "")).await;
    for _ in 0..8 {
        assert_eq!(refused(&host.ws, &[("cookie", "auth_session=c")]).await.0, Some(1013));
    }
    assert_eq!(endpoint.server.n_requests(), 5, "the circuit breaker is open");
    endpoint.set("c", &agent("ana"));
    host.advance(Duration::from_secs(2));
    connect(&host.ws, "auth_session=c").await;
    host.shut_down().await;
}

#[tokio::test]
async fn storm_of_connections_waits_its_turn() {
    let endpoint = start_endpoint();
    for n in 0..60 {
        endpoint.set(&format!("c{n}"), &agent(&format!("user{n}")));
    }
    let host = TestHost::start_with(&config(&endpoint, "max_concurrent = 2\ncache = \"0s\"", ""), &[]);
    let connecting = (0..60).map(|n| {
        let ws = host.ws.clone();
        tokio::spawn(async move { connect(&ws, &format!("auth_session=c{n}")).await })
    });
    for client in connecting.collect::<Vec<_>>() {
        client.await.expect("each came in");
    }
}

#[tokio::test]
async fn visitors_without_a_session_may_be_anonymous() {
    let endpoint = start_endpoint();
    endpoint.set("good", &agent("ana"));
    let toml = format!("auth.anonymous = true\n[auth.session]\nurl = \"{}\"\n", endpoint.server.url);
    let host = TestHost::start_with(&toml, &[]);
    let visitor = connect(&host.ws, "auth_session=of-a-visitor").await;
    assert!(visitor.connected["userId"].as_str().unwrap().starts_with("anonymous-"));
    assert_eq!(connect(&host.ws, "auth_session=good").await.connected["userId"], "ana");
}

#[tokio::test]
async fn blocked_session_is_disconnected_and_refused() {
    let endpoint = start_endpoint();
    endpoint.set("good", &agent("ana"));
    let host = TestHost::start_with(&config(&endpoint, "", ""), &[]);
    let mut ana = connect(&host.ws, "auth_session=good").await;
    let answer = host.post("/v1/blocks", &json!({ "sessionId": "ana-1", "forSeconds": 600 })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(ana.closed().await.code, Some(4010));
    assert_eq!(refused(&host.ws, &[("cookie", "auth_session=good")]).await.0, Some(4003));
}

#[test]
fn socketio_client_logs_in_with_a_cookie() {
    let mut backend = match Script::on_node("session-backend.mjs") {
        Ok(script) => script.serve(&[]),
        Err(missing) => return skip("cookie-session.mjs", missing),
    };
    let url = backend.read_line().expect("the back-end serves")["url"].as_str().expect("a URL").to_owned();
    let toml = format!(
        "auth.session.url = \"{url}/session\"\nauth.session.cookie = \"connect.sid\"\nauth.session.recheck = \"1s\"\n\
         cors.origins = [\"{url}\"]\n"
    );
    let host = TestHost::start_with(&toml, &[]);
    for transport in ["polling", "websocket", "upgrade"] {
        let script = Script::on_node("cookie-session.mjs").expect("the back-end runs on it, too");
        script.expect_success(&host, &[&url, transport]);
    }
}
