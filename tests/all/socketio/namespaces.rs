//! Socket.IO 5: namespaces, and the events and acknowledgements in each.

use std::time::Duration;

use roundhouse_tests::guests::{conformance, hostile};
use roundhouse_tests::{EngineSocket, InnerHost, SocketIoClient, eventually};
use serde_json::{Value, json};

use crate::socketio::{CONFIG, client};

/// The notifications of scope `a` of the hostile guest.
async fn notifications(client: &mut SocketIoClient) -> Value {
    client.emit_with_ack("hostile:told", json!([{ "id": "a" }])).await[0].take()
}

fn invalid_namespace() -> Result<Value, Value> {
    Err(json!({ "message": "Invalid namespace" }))
}

#[tokio::test]
async fn connect_accepts_an_auth_object_or_none() {
    let host = InnerHost::start(CONFIG).await;
    host.load("conformance", conformance()).await;
    let object = json!({ "deep": { "n": [1.5, null] }, "text": "ü" });
    let mut ids = Vec::new();
    for mut client in [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await] {
        for (namespace, auth) in [("/", &Value::Null), ("/custom", &object)] {
            let connected = client.connect(namespace, auth).await.unwrap();
            let [sid, pid] = ["sid", "pid"].map(|key| connected[key].as_str().unwrap().to_owned());
            assert_eq!(connected.as_object().unwrap().len(), 2, "{connected}");
            ids.extend([sid, pid]);
            let received = client.expect_event("auth").await;
            let expected = if auth.is_null() { &json!({}) } else { auth };
            assert_eq!((&*received.namespace, received.argument()), (namespace, expected));
        }
        client.cut().await;
    }
    let n_ids = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), n_ids, "each has its own");
    host.shut_down().await;
}

#[tokio::test]
async fn namespaces_come_from_configuration_and_plugins() {
    let host = InnerHost::start(&format!("{CONFIG}socketio.namespaces = [\"/admin\"]")).await;
    let mut client = SocketIoClient::socket(&host.ws).await;
    for (namespace, is_there) in [("/", true), ("/admin", true), ("/custom", false), ("/random", false)] {
        let connected = client.connect(namespace, &Value::Null).await;
        assert!(
            if is_there { connected.is_ok() } else { connected == invalid_namespace() },
            "{namespace}: {connected:?}"
        );
    }
    host.load("conformance", conformance()).await;
    // A query string is not part of a namespace's name.
    client.send_text("40/custom?a=b,{\"n\":1}").await;
    assert_eq!(client.expect_event("auth").await.data[0], json!({ "n": 1 }));
    assert_eq!(client.emit_with_ack_in("/custom", "message-with-ack", json!(["x"])).await, json!(["x"]));
    let gone = host.call("DELETE", "/v1/plugins/conformance", "").await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    let mut late = SocketIoClient::socket(&host.ws).await;
    assert_eq!(late.connect("/custom", &Value::Null).await, invalid_namespace());
    late.cut().await;
    client.cut().await;

    let mut raw = EngineSocket::open(&host.ws).await;
    raw.send("40/random,{}").await;
    assert_eq!(raw.next().await, Ok("44/random,{\"message\":\"Invalid namespace\"}".into()));
    drop(raw);
    host.shut_down().await;
}

#[tokio::test]
async fn events_and_acknowledgements_work_in_each_namespace() {
    let host = InnerHost::start(CONFIG).await;
    host.load("conformance", conformance()).await;
    for mut client in [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await] {
        for namespace in ["/", "/custom"] {
            client.connect(namespace, &Value::Null).await.unwrap();
            for arguments in [json!([]), json!([null]), json!(["text"]), json!([1, "2", { "3": [true, 1.5] }])] {
                client.emit_in(namespace, "message", arguments.clone(), None).await;
                let back = client.expect_event("message-back").await;
                assert_eq!((&*back.namespace, &back.data, back.id), (namespace, &arguments, None));
                assert_eq!(client.emit_with_ack_in(namespace, "message-with-ack", arguments.clone()).await, arguments);

                client.emit_in(namespace, "emit-with-ack", arguments.clone(), None).await;
                let asked = client.expect_event("emit-with-ack").await;
                assert_eq!((&*asked.namespace, &asked.data), (namespace, &arguments));
                let prefix = if namespace == "/" { "" } else { "/custom," };
                client.send_text(&format!("43{prefix}{}[1,\"a\"]", asked.id.unwrap())).await;
                let back = client.expect_event("emit-with-ack").await;
                assert_eq!((&*back.namespace, back.data, back.id), (namespace, json!([1, "a"]), None));
            }
        }
        client.cut().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn disconnect_leaves_one_namespace_at_once() {
    let host = InnerHost::start(&format!("{CONFIG}socketio.namespaces = [\"/other\"]")).await;
    host.load("hostile", hostile("normal")).await;
    for mut leaving in [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await] {
        leaving.connect("/", &Value::Null).await.unwrap();
        let first = leaving.connect("/other", &Value::Null).await.unwrap();
        let path = format!("/v1/connections/{}", first["sid"].as_str().unwrap());
        leaving.emit_with_ack_in("/other", "hostile:count", json!([{ "id": "a" }])).await;
        let user = host.call("GET", &path, "").await.body["userId"].as_str().unwrap().to_owned();
        leaving.send_text("41/other,").await;
        let notifications = eventually("the scope is told", async || {
            let notifications = notifications(&mut leaving).await;
            notifications.to_string().contains(&user).then_some(notifications)
        })
        .await;
        assert_eq!(notifications.as_array().unwrap().last(), Some(&json!(format!("left {user} disconnected"))));
        assert_eq!(host.call("GET", &path, "").await.status, 404);
        let again = leaving.connect("/other", &Value::Null).await.unwrap();
        assert_ne!((&again["sid"], &again["pid"]), (&first["sid"], &first["pid"]));
        leaving.cut().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn api_shows_and_disconnects_by_namespace() {
    let host = InnerHost::start(&format!("{CONFIG}socketio.namespaces = [\"/other\"]")).await;
    let clients = [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await];
    for (mut client, is_polling) in clients.into_iter().zip([false, true]) {
        let token = json!({ "token": host.token("ana", None) });
        let mut paths = Vec::new();
        for namespace in ["/other", "/"] {
            let sid = client.connect(namespace, &token).await.unwrap()["sid"].clone();
            let path = format!("/v1/connections/{}", sid.as_str().unwrap());
            let shown = host.call("GET", &path, "").await.body;
            assert_eq!((&shown["connectionId"], &shown["userId"]), (&sid, &json!("ana")));
            paths.push(path);
        }
        client.emit_with_ack("ticket:view", json!([{ "ticketId": "t1" }])).await;
        let shown = host.call("GET", &paths[1], "").await.body;
        assert_eq!(shown["rooms"], json!(["ticket:t1", "user:ana"]));

        assert_eq!(host.call("DELETE", &paths[0], "").await.body, json!({ "disconnected": 1 }));
        let out = client.wait_for(|packet| packet.kind == '1').await;
        assert_eq!((&*out.namespace, out.data), ("/other", Value::Null));
        client.emit_with_ack("ticket:leave", json!([{ "ticketId": "t1" }])).await;
        assert_eq!(host.call("DELETE", &paths[1], "").await.body, json!({ "disconnected": 1 }));
        let out = client.wait_for(|packet| packet.kind == '1').await;
        assert_eq!((&*out.namespace, out.data), ("/", Value::Null));
        if is_polling {
            // A polling client is given time to end its session itself.
            host.advance(Duration::from_secs(10));
        }
        let closed = client.closed().await;
        assert!(closed.code == Some(4010) || is_polling, "with the last namespace its transport goes: {closed:?}");
        if !is_polling {
            client.cut().await;
        }
    }
    host.shut_down().await;
}

#[tokio::test]
async fn plugin_disconnects_a_client() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("disconnects")).await;
    let mut client = client(&host).await;
    client.emit_with_ack("hostile:count", json!([{ "id": "a" }])).await;
    client.emit("hostile:do", json!([{ "id": "a", "how": "disconnect" }])).await;
    assert_eq!(client.wait_for(|packet| packet.kind == '1').await.namespace, "/");
    let closed = client.closed().await;
    assert_eq!((closed.code, &*closed.reason), (Some(4010), "because"));
    host.shut_down().await;
}

#[tokio::test]
async fn events_over_the_rate_keep_the_session() {
    let limits = "[limits]\nevents_per_second = 1\nevent_burst = 4";
    let host = InnerHost::start(&format!("auth.anonymous = true\nauth.jwt.secret = \"s\"\n{limits}")).await;
    for mut client in [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await] {
        client.connect("/", &Value::Null).await.unwrap();
        for _ in 0..3 {
            assert_eq!(client.emit_refused("no:such", json!([])).await, "unknown_event");
        }
        assert_eq!(client.emit_refused("no:such", json!([])).await, "rate_limited");
        client.emit("no:such", json!([])).await;
        let error = client.expect_event("error").await;
        assert_eq!(
            (&error.argument()["code"], &error.argument()["event"]),
            (&json!("rate_limited"), &json!("no:such"))
        );
        host.advance(Duration::from_secs(1));
        assert_eq!(client.emit_refused("no:such", json!([])).await, "unknown_event");
        client.cut().await;
    }
    let mut knocking = SocketIoClient::socket(&host.ws).await;
    for _ in 0..4 {
        assert_eq!(knocking.connect("/random", &Value::Null).await, invalid_namespace());
    }
    let refused = knocking.connect("/", &Value::Null).await.unwrap_err();
    assert_eq!(refused["data"]["code"], "rate_limited");
    knocking.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn connect_timeout_closes_sessions_without_namespace() {
    let host = InnerHost::start(&format!("{CONFIG}socketio.connect_timeout = \"20s\"")).await;
    let mut silent = EngineSocket::open(&host.ws).await;
    let mut knocking = SocketIoClient::polling(&host.ws).await;
    let mut inside = client(&host).await;
    host.advance(Duration::from_secs(19));
    assert_eq!(knocking.connect("/random", &Value::Null).await, invalid_namespace());
    host.advance(Duration::from_secs(1));
    assert_eq!(silent.closed().await.code, Some(4001));
    knocking.closed().await;
    assert_eq!(inside.emit_refused("no:such", json!([])).await, "unknown_event");
    inside.cut().await;
    host.shut_down().await;
}
