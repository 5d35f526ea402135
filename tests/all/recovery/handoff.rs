//! Handoffs: clients that resume a session of another shard.

use std::time::Duration;

use roundhouse_tests::guests::conformance;
use roundhouse_tests::{EngineSocket, InnerHost, Packet, Polling, SocketIoClient, TestClient, TestHost};
use serde_json::{Value, json};

use crate::recovery::{
    CONFIG, SHARD, TRANSPORTS, Transport, client, emit_number, lose, occupy_shard, wait_for_departure,
    wait_for_detached,
};

#[tokio::test]
async fn each_namespace_is_recovered() {
    let host = InnerHost::start(&format!("{CONFIG}shards = 4\nsocketio.namespaces = [\"/other\"]")).await;
    for transport in TRANSPORTS {
        let mut ana = transport.open(&host).await;
        let token = json!({ "token": host.token("ana", None) });
        let mut ids = Vec::new();
        for namespace in ["/", "/other"] {
            ids.push(ana.connect(namespace, &token).await.unwrap()["sid"].clone());
        }
        let to = |n: usize| json!({ "connection": ids[n] });
        for n in 0..2 {
            host.emit(to(n), "number", json!(n)).await;
            ana.expect_event("number").await;
        }
        let mut sessions = ["/", "/other"].map(|namespace| ana.session(namespace));
        ana.cut().await;
        wait_for_detached(&host, 2).await;
        for n in 0..2 {
            host.emit(to(n), "number", json!(n + 10)).await;
        }
        // The new transport is accepted by another shard than the session's.
        let occupying = occupy_shard(&host).await;
        let mut back = transport.open(&host).await;
        for (n, namespace) in ["/", "/other"].into_iter().enumerate() {
            sessions[n]["token"] = token["token"].clone();
            assert_eq!(back.connect(namespace, &sessions[n]).await.unwrap()["sid"], ids[n], "{namespace}");
            let received = back.expect_event("number").await;
            assert_eq!((&*received.namespace, received.argument()), (namespace, &json!(n + 10)));
        }
        assert_eq!(back.drain().await, []);
        for packet in ["41", "41/other,"] {
            back.send_text(packet).await;
        }
        back.cut().await;
        drop(occupying);
    }
    host.shut_down().await;
}

#[tokio::test]
async fn client_recovers_from_any_shard() {
    let host = InnerHost::start(&format!("{CONFIG}shards = 4")).await;
    for transport in TRANSPORTS {
        let (mut ana, id) = client(&host, transport, "ana").await;
        emit_number(&host, "ana", 0).await;
        ana.expect_event("number").await;
        let mut occupying = Vec::new();
        let mut n_moves = 0;
        let mut last = 0;
        while n_moves < 3 {
            let session = lose(&host, ana, "ana").await;
            last += 1;
            emit_number(&host, "ana", last).await;
            // A new client goes to the shard with the fewest connections.
            occupying.push(occupy_shard(&host).await);
            assert!(occupying.len() < 50, "it always comes to the same shard");
            ana = transport.open(&host).await;
            // This connection is closed again.
            let here = ana.connect_as(&host.token("ben", None)).await;
            ana.send_text("41").await;
            // A polling client has a pending request, which the handoff moves too.
            assert_eq!(ana.drain().await, []);
            n_moves += usize::from(here[SHARD] != id[SHARD]);
            assert_eq!(ana.connect("/", &session).await.unwrap()["sid"], id, "by {transport:?} from {here}");
            assert_eq!(ana.expect_event("number").await.argument(), &json!(last));
            if transport == Transport::Polling && n_moves == 1 {
                ana = ana.upgrade().await;
            }
            // The new transport works in both directions, and its heartbeat does.
            assert_eq!(ana.emit_refused("no:such", json!([])).await, "unknown_event");
            host.advance(Duration::from_secs(25));
            ana.drain().await;
        }
        ana.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn upgrade_opened_before_a_handoff_completes() {
    let host = InnerHost::start(&format!("{CONFIG}shards = 4")).await;
    let token = host.token("ana", None);
    for attempt in 0.. {
        let (mut ana, id) = client(&host, Transport::Polling, "ana").await;
        emit_number(&host, "ana", 0).await;
        ana.expect_event("number").await;
        let session = lose(&host, ana, "ana").await;
        let occupying = occupy_shard(&host).await;
        let polling = Polling::open(&host.ws).await;
        let enter = |auth: &Value| Packet::Text(format!("40{auth}"));
        polling.send(&[enter(&json!({ "token": host.token("ben", None) }))]).await;
        let here = polling.poll().await.text;
        assert!(here.starts_with("40{\"sid\":\""), "{here}");
        let is_elsewhere = here[10..][SHARD] != id[SHARD];
        let mut socket = EngineSocket::for_upgrade(&polling).await;
        polling.send(&["41".into(), enter(&session)]).await;
        socket.send("2probe").await;
        assert_eq!(socket.next().await, Ok("3probe".into()));
        assert!(polling.poll().await.text.starts_with(&format!("40{{\"sid\":\"{id}\"")));
        socket.send("5").await;
        emit_number(&host, "ana", 1).await;
        assert!(matches!(socket.next().await, Ok(packet) if packet.encode().starts_with("42[\"number\",1,")));
        socket.send("41").await;
        drop((socket, occupying));
        // The handoff leaves no connection behind.
        wait_for_departure(&host, "ana").await;
        if is_elsewhere {
            break;
        }
        assert!(attempt < 50, "it always comes to the same shard");
    }
    let mut ana = SocketIoClient::socket(&host.ws).await;
    ana.connect_as(&token).await;
    emit_number(&host, "ana", 2).await;
    ana.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn sessions_of_other_hosts_are_not_recovered() {
    let mut host = TestHost::start_with(&format!("{CONFIG}shards = 2"), &[]);
    let token = host.token("ana");
    let pids = ["00", "01", "02", "ff"].map(|shard| format!("000{shard}{}", "0".repeat(43)));
    for pid in &pids {
        let auth = json!({ "token": token, "pid": pid, "offset": "1" });
        let [socket, polling] = [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await];
        for mut client in [socket, polling] {
            assert_ne!(client.connect("/", &auth).await.unwrap()["pid"], *pid);
            client.cut().await;
        }
        let mut plain = TestClient::connect(&host.ws, &token).await;
        let resumed = plain.emit_with_ack("resume", json!({ "session": pid, "offset": 1 })).await.unwrap();
        assert_eq!(resumed["recovered"], false);
    }
    let mut ana = SocketIoClient::socket(&host.ws).await;
    ana.connect_as(&token).await;
    host.terminate();
    assert_eq!(ana.closed().await.code, Some(1012));
    let auth = ana.session_with(&token);
    let mut host = tokio::task::spawn_blocking(move || {
        assert!(host.wait_for_exit().success());
        host.restart();
        host
    })
    .await
    .unwrap();
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_ne!(back.connect("/", &auth).await.unwrap()["pid"], auth["pid"]);
    host.kill();
}

#[tokio::test]
async fn pipelined_packets_move_with_the_session() {
    let host = InnerHost::start(&format!("{CONFIG}shards = 4")).await;
    host.load("conformance", conformance()).await;
    for transport in TRANSPORTS {
        for attempt in 0.. {
            let (mut ana, id) = client(&host, transport, "ana").await;
            ana.expect_event("auth").await;
            let session = lose(&host, ana, "ana").await;
            let occupying = occupy_shard(&host).await;
            let (mut ana, here) = client(&host, transport, "ben").await;
            ana.send_packets(&[
                "41".into(),
                Packet::Text(format!("40{session}")),
                Packet::Text(format!("40/custom,{}", json!({ "token": session["token"] }))),
                "451-[\"message\",{\"_placeholder\":true,\"num\":0}]".into(),
                Packet::Binary(vec![1, 2, 3]),
                "42/custom,7[\"message-with-ack\",\"x\"]".into(),
            ])
            .await;
            let connected = async |client: &mut SocketIoClient, namespace: &str| {
                client.wait_for(|packet| packet.kind == '0' && packet.namespace == namespace).await.data["sid"].clone()
            };
            assert_eq!(connected(&mut ana, "/").await, id);
            let other = connected(&mut ana, "/custom").await;
            assert_eq!(other.as_str().unwrap()[SHARD], id[SHARD], "it is on the shard of the first");
            let back = ana.expect_event("message-back").await;
            assert_eq!((&back.data[0]["num"], back.attachments), (&json!(0), vec![vec![1, 2, 3]]));
            let answer = ana.wait_for(|packet| packet.kind == '3').await;
            assert_eq!((&*answer.namespace, answer.id, answer.data), ("/custom", Some(7), json!(["x"])));
            ana.send_text("41/custom,").await;
            ana.disconnect().await;
            drop(occupying);
            if here[SHARD] != id[SHARD] {
                break;
            }
            assert!(attempt < 50, "it always comes to the same shard");
        }
    }
    host.shut_down().await;
}
