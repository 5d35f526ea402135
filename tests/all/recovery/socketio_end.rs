//! Socket.IO sessions that have ended: their clients get new sessions.

use std::time::Duration;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{InnerHost, SocketIoClient, TestHost, eventually, metric};
use serde_json::{Value, json};

use crate::recovery::{CONFIG, TRANSPORTS, Transport, WINDOW, client, emit_number, lose, wait_for_detached};

/// Tries to recover a session, and must get a new one.
async fn expect_new_session(host: &InnerHost, namespace: &str, auth: &Value) -> SocketIoClient {
    let mut client = SocketIoClient::socket(&host.ws).await;
    let connected = client.connect(namespace, auth).await.unwrap();
    assert!(connected["sid"].is_string() && connected["pid"].is_string(), "{connected}");
    assert_ne!(connected["pid"], auth["pid"]);
    assert_ne!(connected["sid"].as_str(), auth["pid"].as_str().unwrap().get(..16));
    assert_eq!(client.drain().await, [], "nothing that was the old one's");
    client
}

#[tokio::test]
async fn expired_session_is_not_recovered() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("normal")).await;
    for transport in TRANSPORTS {
        let (ben, _) = client(&host, Transport::Socket, "ben").await;
        let scope = json!([{ "id": format!("{transport:?}") }]);
        let (mut ana, _) = client(&host, transport, "ana").await;
        ana.emit_with_ack("hostile:count", scope.clone()).await;
        let session = lose(&host, ana, "ana").await;
        host.advance(WINDOW - Duration::from_millis(1));
        // Ben disconnects first: the heartbeat would end his silent transport when the clock moves.
        ben.cut().await;
        let (mut eve, _) = client(&host, Transport::Socket, "eve").await;
        assert_eq!(eve.emit_with_ack("hostile:told", scope.clone()).await, json!([[]]));
        host.advance(Duration::from_millis(1));
        eve.expect_notifications(&format!("{transport:?}"), &["left ana disconnected"]).await;
        let mut ana = expect_new_session(&host, "/", &session).await;
        assert_eq!(ana.emit_with_ack("hostile:count", scope).await, json!([{ "count": 2 }]));
        for client in [ana, eve] {
            client.disconnect().await;
        }
        host.advance(WINDOW);
        wait_for_detached(&host, 0).await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn foreign_sessions_are_not_recovered() {
    let host = InnerHost::start(&format!("{CONFIG}socketio.namespaces = [\"/other\"]")).await;
    let (mut ana, id) = client(&host, Transport::Socket, "ana").await;
    emit_number(&host, "ana", 1).await;
    ana.expect_event("number").await;
    let session = lose(&host, ana, "ana").await;
    emit_number(&host, "ana", 2).await;
    let with = |key: &str, value: Value| {
        let mut changed = session.clone();
        changed[key] = value;
        changed
    };
    let pid = session["pid"].as_str().unwrap();
    let flipped = if pid.ends_with('0') { "1" } else { "0" };
    let wrong_secret = json!(format!("{}{flipped}", &pid[..pid.len() - 1]));
    for (namespace, auth) in [
        ("/", with("pid", wrong_secret)),
        ("/", with("token", json!(host.token("eve", None)))),
        ("/other", session.clone()),
        ("/", with("pid", json!(pid[..pid.len() - 1]))),
        ("/", with("pid", json!("x"))),
    ] {
        expect_new_session(&host, namespace, &auth).await.cut().await;
    }
    // The failed attempts did not end the session.
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
    assert_eq!(back.next().await.argument(), &json!(2));
    back.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn impossible_offset_ends_session_and_starts_another() {
    let host = InnerHost::start(CONFIG).await;
    for offset in ["ffffffffffffff", "nonsense", ""] {
        let (mut ana, id) = client(&host, Transport::Socket, "ana").await;
        emit_number(&host, "ana", 1).await;
        ana.expect_event("number").await;
        let mut session = lose(&host, ana, "ana").await;
        session["offset"] = json!(offset);
        let new = expect_new_session(&host, "/", &session).await;
        eventually("the old one is gone", async || {
            (host.call("GET", &format!("/v1/connections/{id}"), "").await.status == 404).then_some(())
        })
        .await;
        new.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn zero_window_disables_recovery() {
    let host = InnerHost::start(&format!("{CONFIG}recovery.window = \"0s\"")).await;
    host.load("hostile", hostile("normal")).await;
    let (mut ana, id) = client(&host, Transport::Socket, "ana").await;
    emit_number(&host, "ana", 1).await;
    assert_eq!(ana.expect_event("number").await.data, json!([1]), "there is no offset");
    ana.emit_with_ack("hostile:count", json!([{ "id": "a" }])).await;
    ana.cut().await;
    let mut eve = SocketIoClient::polling(&host.ws).await;
    // A `pid` that the client chose is ignored.
    let auth = json!({ "token": host.token("eve", None), "pid": format!("{id}{}", "0".repeat(32)), "offset": "1" });
    let connected = eve.connect("/", &auth).await.unwrap();
    assert_eq!(connected, json!({ "sid": connected["sid"] }), "there is no pid");
    eve.expect_notifications("a", &["left ana disconnected"]).await;
    eve.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn overflowing_replay_buffer_ends_the_session() {
    let host = InnerHost::start(&format!("{CONFIG}limits.outbox_bytes = 20000")).await;
    host.load("hostile", hostile("normal")).await;
    let (mut ana, _) = client(&host, Transport::Socket, "ana").await;
    ana.emit_with_ack("hostile:count", json!([{ "id": "a" }])).await;
    let session = lose(&host, ana, "ana").await;
    let mut eve = host.client("eve").await;
    for _ in 0..20 {
        host.emit(json!({ "user": "ana" }), "much", json!("x".repeat(2_000))).await;
    }
    eve.expect_notifications("a", &["left ana disconnected"]).await;
    assert_eq!(metric(&host.api, "connections_away").await, 0);
    expect_new_session(&host, "/", &session).await.cut().await;
    drop(eve);
    host.shut_down().await;
}

#[tokio::test]
async fn deliberate_close_ends_the_session_at_once() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("normal")).await;
    let mut eve = host.client("eve").await;
    // Deliberate ends: a close with the code 1000, one with 1001 of a page that goes away, and disconnect packets.
    let ends = [
        (Transport::Socket, Some(1000)),
        (Transport::Socket, Some(1001)),
        (Transport::Socket, None),
        (Transport::Polling, None),
    ];
    for (n, (transport, code)) in ends.into_iter().enumerate() {
        let scope = n.to_string();
        let (mut ana, _) = client(&host, transport, "ana").await;
        ana.emit_with_ack("hostile:count", json!([{ "id": scope }])).await;
        let session = ana.session_with(&host.token("ana", None));
        if code.is_some() {
            ana.close(code).await;
        } else {
            ana.disconnect().await;
        }
        eve.expect_notifications(&scope, &["left ana disconnected"]).await;
        let new = expect_new_session(&host, "/", &session).await;
        new.disconnect().await;
    }
    // After a close without a code, or Engine.IO's close packet, the session may be recovered.
    for (transport, packet) in
        [(Transport::Socket, None), (Transport::Socket, Some("1")), (Transport::Polling, Some("1"))]
    {
        let (mut ana, id) = client(&host, transport, "ana").await;
        let session = ana.session_with(&host.token("ana", None));
        match packet {
            Some(packet) => {
                ana.send_text(packet).await;
                ana.closed().await;
            }
            None => ana.close(None).await,
        }
        wait_for_detached(&host, 1).await;
        let mut back = SocketIoClient::socket(&host.ws).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        back.disconnect().await;
    }
    drop(eve);
    host.shut_down().await;
}

#[tokio::test]
async fn operator_disconnects_a_detached_connection() {
    let host = InnerHost::start(CONFIG).await;
    let (ana, id) = client(&host, Transport::Socket, "ana").await;
    let session = lose(&host, ana, "ana").await;
    let path = format!("/v1/connections/{id}");
    assert_eq!(host.call("GET", &path, "").await.body["userId"], "ana");
    assert_eq!(host.call("DELETE", &path, "").await.body, json!({ "disconnected": 1 }));
    assert_eq!(metric(&host.api, "connections_away").await, 0);
    expect_new_session(&host, "/", &session).await.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn replay_memory_of_all_clients_is_bounded() {
    let host = TestHost::start_with(&format!("{CONFIG}shards = 1\nrecovery.memory_bytes = 200000"), &[]);
    let mut clients = [SocketIoClient::socket(&host.ws).await, SocketIoClient::socket(&host.ws).await];
    let mut ids = Vec::new();
    for (client, user) in clients.iter_mut().zip(["ana", "ben"]) {
        ids.push(client.connect_as(&host.token(user)).await);
    }
    let [ana, mut ben] = clients;
    let sessions = [ana.session_with(&host.token("ana")), ben.session_with(&host.token("ben"))];
    ana.cut().await;
    let away = async |n| {
        eventually("it is so", async || (metric(&host.api, "connections_away").await == n).then_some(())).await;
    };
    away(1).await;
    for _ in 0..10 {
        let emit = json!({ "to": { "all": true }, "event": "much", "data": "x".repeat(50_000) });
        assert_eq!(host.post("/v1/emit", &emit).await.status, 200);
        ben.expect_event("much").await;
    }
    // The detached client loses its session first: detached connections end before a replay buffer is shortened.
    away(0).await;
    let mut new = SocketIoClient::socket(&host.ws).await;
    assert_ne!(new.connect("/", &sessions[0]).await.unwrap()["pid"], sessions[0]["pid"]);
    let session = ben.session_with(&host.token("ben"));
    ben.cut().await;
    away(1).await;
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], ids[1], "it had everything");
    back.cut().await;
    away(1).await;
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_ne!(back.connect("/", &sessions[1]).await.unwrap()["pid"], session["pid"], "this is not kept any more");
}
