//! Tokens of Socket.IO namespaces: acceptance, refusal and expiry.

use std::time::Duration;

use roundhouse_tests::{EngineSocket, InnerHost, Polling, SocketIoClient, TestHost};
use serde_json::{Value, json};

const CONFIG: &str = "auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n";

const MINUTE: Duration = Duration::from_secs(60);

/// The user of the connection with this id.
async fn user(host: &InnerHost, connected: &Value) -> String {
    let path = format!("/v1/connections/{}", connected["sid"].as_str().unwrap());
    host.call("GET", &path, "").await.body["userId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn invalid_token_is_refused_and_can_be_retried() {
    let host = InnerHost::start(CONFIG).await;
    let expired = host.token("ana", Some(MINUTE));
    host.advance(MINUTE);
    for mut client in [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await] {
        for (auth, why) in [
            (Value::Null, "a token is missing"),
            (json!({}), "a token is missing"),
            (json!({ "token": 7 }), "a token is missing"),
            (json!({ "token": "nonsense" }), "not valid"),
            (json!({ "token": expired }), "expired"),
        ] {
            let refused = client.connect("/", &auth).await.unwrap_err();
            let message = refused["message"].as_str().unwrap();
            assert!(message.contains(why), "{auth}: {refused}");
            assert_eq!(refused, json!({ "message": message, "data": { "code": "unauthorized", "message": message } }));
        }
        client.connect_as(&host.token("ana", None)).await;
        client.cut().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn token_is_taken_from_each_documented_place() {
    let host = InnerHost::start(&format!("{CONFIG}auth.jwt.cookie = \"session\"")).await;
    let token = host.token("ana", None);
    let bearer = format!("Bearer {token}");
    let cookie = format!("a=b; session={token}");
    let query = format!("&token={token}");
    for (query, headers, auth) in [
        ("", vec![], json!({ "token": token })),
        ("", vec![], json!({ "token": bearer })),
        ("", vec![("authorization", &*bearer)], Value::Null),
        (&*query, vec![], json!({ "more": 1 })),
        ("", vec![("cookie", &*cookie)], Value::Null),
    ] {
        let polling = Polling::open_with(&host.ws, query, &headers).await;
        let socket = EngineSocket::open_with(&host.ws, query, &headers).await;
        for mut client in [SocketIoClient::on_polling(polling), SocketIoClient::on_socket(socket)] {
            let connected = client.connect("/", &auth).await.unwrap();
            assert_eq!(user(&host, &connected).await, "ana", "{query} {headers:?} {auth}");
            client.cut().await;
        }
    }
    // The latest token is used, for its namespace alone.
    let socket = EngineSocket::open_with(&host.ws, &query, &[]).await;
    let mut client = SocketIoClient::on_socket(socket);
    let connected = client.connect("/", &json!({ "token": host.token("ben", None) })).await.unwrap();
    assert_eq!(user(&host, &connected).await, "ben");
    client.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn cookie_from_a_foreign_origin_is_ignored() {
    let origins = "auth.jwt.cookie = \"session\"\ncors.origins = [\"https://app.example\"]";
    let host = InnerHost::start(&format!("{CONFIG}{origins}")).await;
    let cookie = format!("session={}", host.token("ana", None));
    let from = |origin: &'static str| [("cookie", &*cookie), ("origin", origin)];
    let own = format!("http://{}", host.ws.trim_start_matches("ws://"));
    for origin in ["https://app.example", &*own] {
        let headers = [("cookie", &*cookie), ("origin", origin)];
        let mut client = SocketIoClient::on_polling(Polling::open_with(&host.ws, "", &headers).await);
        let connected = client.connect("/", &Value::Null).await.unwrap();
        assert_eq!(user(&host, &connected).await, "ana");
        client.cut().await;
    }
    let stranger = from("https://evil.example");
    let polling = SocketIoClient::on_polling(Polling::open_with(&host.ws, "", &stranger).await);
    let socket = SocketIoClient::on_socket(EngineSocket::open_with(&host.ws, "", &stranger).await);
    for mut client in [polling, socket] {
        let refused = client.connect("/", &Value::Null).await.unwrap_err();
        assert!(refused["message"].as_str().unwrap().contains("cors.origins"), "{refused}");
        assert_eq!(refused["data"]["code"], "unauthorized");
        // A client that sends a token itself, and not by cookie, may have any origin.
        client.connect_as(&host.token("ben", None)).await;
        client.cut().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn anonymous_connections_have_distinct_users() {
    let host = InnerHost::start(&format!("{CONFIG}auth.anonymous = true")).await;
    let mut users = Vec::new();
    let mut clients = [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await];
    for client in &mut clients {
        let connected = client.connect("/", &Value::Null).await.unwrap();
        users.push(user(&host, &connected).await);
    }
    assert_ne!(users[0], users[1]);
    // A token is checked even where anonymous clients are accepted.
    let mut third = SocketIoClient::socket(&host.ws).await;
    assert_eq!(third.connect("/", &json!({ "token": "nonsense" })).await.unwrap_err()["data"]["code"], "unauthorized");
    let connected = third.connect("/", &json!({ "token": host.token("ana", None) })).await.unwrap();
    assert_eq!(user(&host, &connected).await, "ana");
    for client in clients.into_iter().chain([third]) {
        client.cut().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn connections_per_user_are_limited() {
    let host = InnerHost::start(&format!("{CONFIG}limits.connections_per_user = 1")).await;
    let token = json!({ "token": host.token("ana", None) });
    let mut first = SocketIoClient::socket(&host.ws).await;
    first.connect("/", &token).await.unwrap();
    let mut second = SocketIoClient::polling(&host.ws).await;
    assert_eq!(second.connect("/", &token).await.unwrap_err()["data"]["code"], "too_many_connections");
    first.send_text("41").await;
    first.send_text("40/sync,").await;
    first.wait_for(|packet| packet.kind == '4').await;
    second.connect("/", &token).await.unwrap();
    first.cut().await;
    second.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn newer_token_of_another_user_is_refused() {
    let host = InnerHost::start(CONFIG).await;
    let mut client = SocketIoClient::socket(&host.ws).await;
    client.connect_as(&host.token("ana", Some(MINUTE / 6))).await;
    for (auth, code) in [
        (json!({ "token": host.token("ben", None) }), "forbidden"),
        (json!({ "token": "nonsense" }), "unauthorized"),
        (json!({ "tok": "x" }), "bad_request"),
        (json!("x"), "bad_request"),
    ] {
        assert_eq!(client.emit_refused("authenticate", json!([auth])).await, code, "{auth}");
    }
    let renewed = json!([{ "token": host.token("ana", Some(MINUTE / 3)) }]);
    assert_eq!(client.emit_with_ack("authenticate", renewed).await, json!([]));
    host.advance(MINUTE / 6);
    assert_eq!(client.emit_refused("no:such", json!([])).await, "unknown_event");
    host.advance(MINUTE / 6);
    assert_eq!(client.closed().await.code, Some(4002));
    host.shut_down().await;
}

#[tokio::test]
async fn session_of_an_expired_token_recovers_with_another() {
    let host = InnerHost::start(CONFIG).await;
    for is_polling in [false, true] {
        let connect = async || match is_polling {
            true => SocketIoClient::polling(&host.ws).await,
            false => SocketIoClient::socket(&host.ws).await,
        };
        let mut client = connect().await;
        let id = client.connect_as(&host.token("ana", Some(MINUTE / 6))).await;
        host.advance(MINUTE / 6);
        let closed = client.closed().await;
        assert!(is_polling || closed.code == Some(4002), "{closed:?}");
        assert_eq!(host.emit(json!({ "user": "ana" }), "meanwhile", json!(1)).await, 1);
        let mut back = connect().await;
        assert_eq!(back.recover(&client, &host.token("ana", None)).await, id);
        assert_eq!(back.expect_event("meanwhile").await.argument(), &json!(1));
        back.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn restarting_host_closes_transports_without_disconnect_packet() {
    let host = TestHost::start_with(&format!("{CONFIG}auth.anonymous = true"), &[]);
    let mut socket = SocketIoClient::socket(&host.ws).await;
    let mut polling = SocketIoClient::polling(&host.ws).await;
    for client in [&mut socket, &mut polling] {
        client.connect("/", &Value::Null).await.unwrap();
        client.drain().await;
    }
    host.terminate();
    // There must be no disconnect packet: a client does not reconnect by itself after one.
    let (first, second) = tokio::join!(socket.closed(), polling.closed());
    assert_eq!((first.code, &*second.reason), (Some(1012), "1"));
    assert_eq!((socket.kept(), polling.kept()), (vec![], vec![]));
}
