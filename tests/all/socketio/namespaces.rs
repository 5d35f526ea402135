//! Socket.IO 5: namespaces, events, acknowledgements and attachments. Who is let in is in `signing_in`, how a client goes
//! on after a loss in `recovery`.

use std::time::Duration;

use roundhouse_tests::guests::{conformance, hostile, relay};
use roundhouse_tests::{EngineSocket, InnerHost, Packet, Polling, Received, SocketIoClient, TestHost, eventually};
use serde_json::{Value, json};

use crate::socketio::engineio::{CONFIG, entered, refusal};

/// On a WebSocket, in the main namespace.
async fn client(host: &InnerHost) -> SocketIoClient {
    let mut client = SocketIoClient::socket(&host.ws).await;
    client.connect("/", &Value::Null).await.unwrap();
    client
}

/// What the scope `a` of the hostile guest was told.
async fn told(client: &mut SocketIoClient) -> Value {
    client.emit_with_ack("hostile:told", json!([{ "id": "a" }])).await[0].take()
}

fn invalid() -> Result<Value, Value> {
    Err(json!({ "message": "Invalid namespace" }))
}

#[tokio::test]
async fn connect_takes_an_object_or_nothing() {
    let host = InnerHost::start(CONFIG).await;
    host.load("conformance", conformance()).await;
    let said = json!({ "deep": { "n": [1.5, null] }, "text": "ü" });
    let mut ids = Vec::new();
    for mut client in [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await] {
        for (namespace, auth) in [("/", &Value::Null), ("/custom", &said)] {
            let entered = client.connect(namespace, auth).await.unwrap();
            let [sid, pid] = ["sid", "pid"].map(|key| entered[key].as_str().unwrap().to_owned());
            assert_eq!(entered.as_object().unwrap().len(), 2, "{entered}");
            ids.extend([sid, pid]);
            let heard = client.expect_event("auth").await;
            let expected = if auth.is_null() { &json!({}) } else { auth };
            assert_eq!((&*heard.namespace, heard.argument()), (namespace, expected));
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
        let entered = client.connect(namespace, &Value::Null).await;
        assert!(if is_there { entered.is_ok() } else { entered == invalid() }, "{namespace}: {entered:?}");
    }
    host.load("conformance", conformance()).await;
    // What looks like a query is none of the name.
    client.send_text("40/custom?a=b,{\"n\":1}").await;
    assert_eq!(client.expect_event("auth").await.data[0], json!({ "n": 1 }));
    assert_eq!(client.emit_with_ack_in("/custom", "message-with-ack", json!(["x"])).await, json!(["x"]));
    let gone = host.call("DELETE", "/v1/plugins/conformance", "").await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    let mut late = SocketIoClient::socket(&host.ws).await;
    assert_eq!(late.connect("/custom", &Value::Null).await, invalid());
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
async fn attachments_keep_their_placeholders_both_ways() {
    let host = InnerHost::start(CONFIG).await;
    host.load("conformance", conformance()).await;
    let placeholder = |n: u8| json!({ "_placeholder": true, "num": n });
    let arguments = json!([placeholder(1), { "deep": [placeholder(0), "x"] }]);
    let inner = arguments.to_string();
    let inner = &inner[1..inner.len() - 1];
    let bytes = [vec![1, 2, 3, 255], Vec::new()];
    let attachments = bytes.clone().map(Packet::Binary);
    let with = |text: String| [vec![Packet::Text(text)], attachments.to_vec()].concat();
    let is_it = |packet: &Received| (packet.data == arguments).then_some(&*packet.attachments) == Some(&bytes[..]);
    for mut client in [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await] {
        for (namespace, prefix) in [("/", ""), ("/custom", "/custom,")] {
            client.connect(namespace, &Value::Null).await.unwrap();
            client.send_packets(&with(format!("452-{prefix}[\"message\",{inner}]"))).await;
            let back = client.expect_event("message-back").await;
            assert!(is_it(&back) && back.namespace == namespace, "{back:?}");

            client.send_packets(&with(format!("452-{prefix}12[\"message-with-ack\",{inner}]"))).await;
            let answer = client.wait_for(|packet| packet.kind == '3').await;
            assert!(is_it(&answer) && answer.id == Some(12), "{answer:?}");

            client.send_packets(&with(format!("452-{prefix}[\"emit-with-ack\",{inner}]"))).await;
            let asked = client.expect_event("emit-with-ack").await;
            assert!(is_it(&asked), "{asked:?}");
            client.send_packets(&with(format!("462-{prefix}{}[{inner}]", asked.id.unwrap()))).await;
            let back = client.expect_event("emit-with-ack").await;
            assert!(is_it(&back) && back.id.is_none(), "{back:?}");
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
        let told = eventually("the scope is told", async || {
            let told = told(&mut leaving).await;
            told.to_string().contains(&user).then_some(told)
        })
        .await;
        assert_eq!(told.as_array().unwrap().last(), Some(&json!(format!("left {user} disconnected"))));
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
            // A client that polls has time to end its session itself.
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
    host.load("hostile", hostile("normal")).await;
    let mut client = client(&host).await;
    client.emit_with_ack("hostile:count", json!([{ "id": "a" }])).await;
    client.emit("hostile:do", json!([{ "id": "a", "how": "disconnect" }])).await;
    assert_eq!(client.wait_for(|packet| packet.kind == '1').await.namespace, "/");
    let closed = client.closed().await;
    assert_eq!((closed.code, &*closed.reason), (Some(4010), "because"));
    host.shut_down().await;
}

#[tokio::test]
async fn protocol_violations_end_the_session() {
    let host = InnerHost::start(CONFIG).await;
    let event = "451-[\"a\",{\"_placeholder\":true,\"num\":0}]";
    for packets in [
        &["4"][..],
        &["4x"],
        &["47"],
        &["40"],
        &["40[]"],
        &["40\"x\""],
        &["40{"],
        &["41[]"],
        &["41/custom,"],
        &["42"],
        &["42{}"],
        &["42[]"],
        &["42[{}]"],
        &["42[\"a\""],
        &["42[\"connect\"]"],
        &["42[\"disconnecting\"]"],
        &["42/custom,[\"a\"]"],
        &["42123456789012345678901[\"a\"]"],
        &["43[]"],
        &["431"],
        &["431{}"],
        &["43/custom,1[]"],
        &["44{\"message\":\"x\"}"],
        &["45[\"a\"]"],
        &["450-[\"a\"]"],
        &["451-[\"a\"]"],
        &["45x-[\"a\"]"],
        &[event, "42[\"a\"]"],
        &[event, "3", "42[\"a\"]"],
    ] {
        let mut socket = EngineSocket::open(&host.ws).await;
        socket.send("40").await;
        let polling = entered(&host).await;
        for packet in packets {
            socket.send(*packet).await;
        }
        assert_eq!(socket.closed().await.code, Some(1002), "{packets:?}");
        polling.post(&packets.join("\x1e")).await;
        let waited = polling.poll().await;
        assert!(waited.text == "1" || refusal(&waited) == (400, 1), "{packets:?}: {}", waited.text);
    }
    let mut socket = EngineSocket::open(&host.ws).await;
    socket.send("40").await;
    socket.send(Packet::Binary(vec![1])).await;
    assert_eq!(socket.closed().await.code, Some(1002));
    host.shut_down().await;
}

#[tokio::test]
async fn refusals_come_as_acknowledgement_or_error_event() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("normal")).await;
    let mut client = client(&host).await;
    let long = "x".repeat(257);
    let refuse = json!([{ "id": "a", "how": "failure" }]);
    for (event, arguments, code) in [
        ("no:such", json!([1, 2]), "unknown_event"),
        ("hostile:do", refuse, "conflict"),
        ("hostile:count", json!([{ "id": "a b" }]), "bad_request"),
        ("hostile:service", json!([{ "id": "a" }]), "forbidden"),
        (&long, json!([]), "bad_request"),
        ("", json!([]), "bad_request"),
    ] {
        let answer = client.emit_with_ack(event, arguments.clone()).await;
        let error = &answer[0]["error"];
        assert_eq!((answer.as_array().unwrap().len(), &error["code"]), (1, &json!(code)), "{answer}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer}");
        client.emit(event, arguments).await;
        let heard = client.expect_event("error").await.argument().clone();
        assert_eq!((&heard["code"], &heard["message"]), (&error["code"], &error["message"]), "{heard}");
        let named = if event == long || event.is_empty() { Value::Null } else { json!(event) };
        assert_eq!(heard["event"], named);
    }
    client.cut().await;
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
        assert_eq!(knocking.connect("/random", &Value::Null).await, invalid());
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
    assert_eq!(knocking.connect("/random", &Value::Null).await, invalid());
    host.advance(Duration::from_secs(1));
    assert_eq!(silent.closed().await.code, Some(4001));
    knocking.closed().await;
    assert_eq!(inside.emit_refused("no:such", json!([])).await, "unknown_event");
    inside.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn both_protocols_get_the_same_room_events() {
    let host = InnerHost::start(CONFIG).await;
    host.load("relay", relay()).await;
    let mut plain = host.client("ana").await;
    plain.emit_with_ack("join", json!({ "room": "a" })).await.unwrap();
    let mut clients = [client(&host).await, SocketIoClient::polling(&host.ws).await];
    clients[1].connect("/", &Value::Null).await.unwrap();
    for client in &mut clients {
        assert_eq!(client.emit_with_ack("join", json!([{ "room": "a" }])).await, json!([{}]));
    }
    let payload = json!({ "room": "a", "payload": [{ "_placeholder": true, "num": 0 }] });
    let arguments = json!([payload, "more", 2]);
    let sent = format!("451-[\"publish\",{payload},\"more\",2]");
    clients[0].send_packets(&[Packet::Text(sent), Packet::Binary(vec![1, 2, 3])]).await;
    for client in &mut clients {
        let heard = client.expect_event("message").await;
        assert_eq!((heard.data, heard.attachments), (arguments.clone(), vec![vec![1, 2, 3]]));
    }
    let heard = plain.next().await;
    let expected = json!({ "event": "message", "data": payload, "args": arguments, "attachments": ["AQID"] });
    assert_eq!(heard, expected);

    // And back, by the frame as it came.
    let mut sent = expected.clone();
    let sent = sent.as_object_mut().unwrap();
    sent.insert("event".to_owned(), json!("publish"));
    sent.remove("data");
    plain.send_text(json!(sent).to_string()).await;
    assert_eq!(plain.next().await, expected);
    for client in &mut clients {
        let heard = client.expect_event("message").await;
        assert_eq!((heard.data, heard.attachments), (arguments.clone(), vec![vec![1, 2, 3]]));
    }
    for client in clients {
        client.cut().await;
    }
    drop(plain);
    host.shut_down().await;
}

#[tokio::test]
async fn event_with_too_many_attachments_is_refused() {
    let host = InnerHost::start(CONFIG).await;
    host.load("conformance", conformance()).await;
    for mut client in [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await] {
        client.connect("/", &Value::Null).await.unwrap();
        let packets = |text: &str| [vec![Packet::Text(text.to_owned())], vec![Packet::Binary(vec![1]); 11]].concat();
        client.send_packets(&packets("4511-7[\"message-with-ack\",1]")).await;
        let answer = client.wait_for(|packet| packet.id == Some(7)).await;
        assert_eq!(answer.data[0]["error"]["code"], "too_large", "{answer:?}");
        assert!(answer.data[0]["error"]["message"].as_str().unwrap().contains("at most 10"), "{answer:?}");
        client.send_packets(&packets("4511-[\"message\",1]")).await;
        let error = client.expect_event("error").await;
        assert_eq!((&error.argument()["code"], &error.argument()["event"]), (&json!("too_large"), &json!("message")));
        assert_eq!(client.emit_with_ack("message-with-ack", json!([1])).await, json!([1]), "it goes on");
        client.cut().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn msgpack_client_is_refused_in_msgpack() {
    let host = InnerHost::start(CONFIG).await;
    let connect = b"\x83\xa4type\x00\xa4data\x80\xa3nsp\xa1/";
    let check = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer);
        assert!(answer.starts_with(b"\x83\xa4type\x04") && text.contains("leave the option parser out"), "{text}");
    };
    let mut socket = EngineSocket::open(&host.ws).await;
    socket.send(Packet::Binary(connect.to_vec())).await;
    let Ok(Packet::Binary(answer)) = socket.next().await else { panic!("it is binary") };
    check(&answer);
    let mut polling = Polling::open(&host.ws).await;
    polling.send(&[Packet::Binary(connect.to_vec())]).await;
    let Ok(Packet::Binary(answer)) = polling.next().await else { panic!("it is binary") };
    check(&answer);
    // It is theirs to end the session, for some time.
    host.advance(Duration::from_secs(45));
    assert_eq!(socket.closed().await.code, Some(4001));
    host.shut_down().await;
}

#[tokio::test]
async fn protocol_violation_is_reported_and_logged() {
    const N_CLIENTS: usize = 60;
    let host = TestHost::start_with(&format!("{CONFIG}shards = 1"), &[]);
    for n in 0..N_CLIENTS {
        let mut client = SocketIoClient::socket(&host.ws).await;
        client.connect("/", &Value::Null).await.unwrap();
        client.send_text("42[]").await;
        let error = client.expect_event("error").await;
        assert_eq!(error.argument()["code"], "bad_request", "{n}: {error:?}");
        assert!(client.closed().await.reason.contains("begins with its name"));
    }
    let lines = host.log().matches("a client broke the protocol").count();
    assert!((1..N_CLIENTS).contains(&lines), "{lines} lines");
    assert!(host.log().contains("begins with its name"));
}

#[tokio::test]
async fn unreadable_connect_logs_are_bounded() {
    let host = TestHost::start_with(CONFIG, &[]);
    host.load("hostile", hostile("greets")).await;
    for _ in 0..10 {
        let mut client = SocketIoClient::socket(&host.ws).await;
        client.connect("/", &json!({ "how": "misfit" })).await.unwrap();
        assert_eq!(client.emit_refused("no:such", json!([])).await, "unknown_event");
        assert_eq!(client.kept(), [], "it has done nothing wrong");
    }
    let lines = async || {
        let log = host.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("refused what the host told it")).collect();
        (lines.len() == 4).then(|| lines.join("\n"))
    };
    let logged = eventually("the first, second, fourth and eighth are logged", lines).await;
    assert!(logged.contains("plugin=hostile") && logged.contains("missing field `team`"), "{logged}");
}
