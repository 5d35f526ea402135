//! Socket.IO 5: attachments, refusals and packets that break the protocol.

use std::time::Duration;

use roundhouse_tests::guests::{conformance, hostile, relay};
use roundhouse_tests::{EngineSocket, InnerHost, Packet, Polling, Received, SocketIoClient, TestHost, eventually};
use serde_json::{Value, json};

use crate::socketio::{CONFIG, client, connected_polling, error_code};

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
        let polling = connected_polling(&host).await;
        for packet in packets {
            socket.send(*packet).await;
        }
        assert_eq!(socket.closed().await.code, Some(1002), "{packets:?}");
        polling.post(&packets.join("\x1e")).await;
        let waited = polling.poll().await;
        assert!(waited.text == "1" || error_code(&waited) == (400, 1), "{packets:?}: {}", waited.text);
    }
    let mut socket = EngineSocket::open(&host.ws).await;
    socket.send("40").await;
    socket.send(Packet::Binary(vec![1])).await;
    assert_eq!(socket.closed().await.code, Some(1002));
    host.shut_down().await;
}

#[tokio::test]
async fn refusals_are_sent_as_acknowledgement_or_error_event() {
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
        let received = client.expect_event("error").await.argument().clone();
        assert_eq!((&received["code"], &received["message"]), (&error["code"], &error["message"]), "{received}");
        let named = if event == long || event.is_empty() { Value::Null } else { json!(event) };
        assert_eq!(received["event"], named);
    }
    client.cut().await;
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
        let received = client.expect_event("message").await;
        assert_eq!((received.data, received.attachments), (arguments.clone(), vec![vec![1, 2, 3]]));
    }
    let received = plain.next().await;
    let expected = json!({ "event": "message", "data": payload, "args": arguments, "attachments": ["AQID"] });
    assert_eq!(received, expected);

    // The same arguments back to the client, in the frame as it was received.
    let mut sent = expected.clone();
    let sent = sent.as_object_mut().unwrap();
    sent.insert("event".to_owned(), json!("publish"));
    sent.remove("data");
    plain.send_text(json!(sent).to_string()).await;
    assert_eq!(plain.next().await, expected);
    for client in &mut clients {
        let received = client.expect_event("message").await;
        assert_eq!((received.data, received.attachments), (arguments.clone(), vec![vec![1, 2, 3]]));
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
    // The client is given some time to end the session itself.
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
