//! Engine.IO sessions that begin with polling and are upgraded to a WebSocket.

use std::time::Duration;

use roundhouse_tests::guests::conformance;
use roundhouse_tests::{EngineSocket, InnerHost, Packet, Polling, SocketIoClient, eventually, metric};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::socketio::{CONFIG, connected_polling};

/// Opens a WebSocket and probes it, as a client does before the upgrade.
async fn probe(polling: &Polling) -> EngineSocket {
    let mut socket = EngineSocket::for_upgrade(polling).await;
    socket.send("2probe").await;
    assert_eq!(socket.next().await, Ok("3probe".into()));
    socket
}

/// Checks that the session answers a packet on its WebSocket.
async fn is_alive(socket: &mut EngineSocket) {
    socket.send("40/nowhere,").await;
    assert_eq!(socket.next().await, Ok("44/nowhere,{\"message\":\"Invalid namespace\"}".into()));
}

/// Checks that the session answers a packet by polling. Noop packets are skipped.
async fn still_polls(polling: &mut Polling) {
    polling.send(&["40/nowhere,".into()]).await;
    loop {
        match polling.next().await {
            Ok(Packet::Text(text)) if text == "6" => {}
            packet => return assert_eq!(packet, Ok("44/nowhere,{\"message\":\"Invalid namespace\"}".into())),
        }
    }
}

#[tokio::test]
async fn probed_session_upgrades_and_ends_its_polls() {
    let host = InnerHost::start(CONFIG).await;
    let polling = connected_polling(&host).await;
    let waiting = polling.begin_poll();
    let mut socket = probe(&polling).await;
    let waited = waiting.await.unwrap();
    assert_eq!((waited.status, &*waited.text), (200, "6"), "the client may stop polling");
    socket.send("5").await;
    is_alive(&mut socket).await;
    for answer in [polling.poll().await, polling.post("3").await] {
        assert_eq!(answer.status, 400, "{}", answer.text);
    }
    host.advance(Duration::from_secs(25));
    assert_eq!(socket.next().await, Ok("2".into()), "heartbeats go on");
    drop(socket);
    host.shut_down().await;
}

#[tokio::test]
async fn upgrade_keeps_packets_complete_and_in_order() {
    let host = InnerHost::start(&format!("{CONFIG}shards = 3")).await;
    host.load("conformance", conformance()).await;
    for round in 0..5 {
        let mut client = SocketIoClient::polling(&host.ws).await;
        let id = client.connect("/", &Value::Null).await.unwrap()["sid"].as_str().unwrap().to_owned();
        let to_client = async {
            for n in 0..100 {
                assert_eq!(host.emit(json!({ "connection": id }), "number", json!(n)).await, 1);
            }
        };
        let from_client = async {
            for n in 0..30 {
                client.emit("message", json!([n])).await;
            }
            client.expect_event("number").await;
            let mut client = client.upgrade().await;
            for n in 30..60 {
                client.emit("message", json!([n])).await;
            }
            let (mut numbers, mut messages) = (vec![json!(0)], Vec::new());
            while numbers.len() < 100 || messages.len() < 60 {
                let packet = client.next().await;
                match &*packet.event {
                    "number" => numbers.push(packet.argument().clone()),
                    "message-back" => messages.push(packet.argument().clone()),
                    other => assert_eq!(other, "auth"),
                }
            }
            let counted = |to: i32| (0..to).map(Value::from).collect::<Vec<_>>();
            assert_eq!((numbers, messages), (counted(100), counted(60)), "in round {round}");
            assert_eq!(client.drain().await, []);
        };
        tokio::join!(to_client, from_client);
    }
    host.shut_down().await;
}

#[tokio::test]
async fn failed_probe_leaves_polling_unchanged() {
    let host = InnerHost::start(CONFIG).await;
    let mut polling = connected_polling(&host).await;
    // WebSockets that end before an upgrade: one is silent, one only probes, and others send malformed packets.
    drop(EngineSocket::for_upgrade(&polling).await);
    still_polls(&mut polling).await;
    drop(probe(&polling).await);
    still_polls(&mut polling).await;
    for packets in
        [&["5".into()][..], &["40".into()], &["2".into()], &[Packet::Binary(vec![4])], &["2probe".into(), "40".into()]]
    {
        let mut socket = EngineSocket::for_upgrade(&polling).await;
        for packet in packets {
            socket.send(packet.clone()).await;
        }
        assert_eq!(socket.closed().await.code, Some(1002), "{packets:?}");
        still_polls(&mut polling).await;
    }
    let counted = async |n| {
        eventually(&format!("{n} are counted"), async || (metric(&host.api, "connections").await == n).then_some(()))
            .await;
    };
    counted(1).await;
    let mut socket = EngineSocket::upgrade(polling).await;
    is_alive(&mut socket).await;
    counted(1).await;
    drop(socket);
    counted(0).await;
    host.shut_down().await;
}

#[tokio::test]
async fn upgrade_times_out_after_ten_seconds() {
    let host = InnerHost::start(CONFIG).await;
    let mut polling = connected_polling(&host).await;
    let mut untried = EngineSocket::for_upgrade(&polling).await;
    let mut tried = probe(&polling).await;
    untried.sync().await;
    host.advance(Duration::from_millis(9_999));
    still_polls(&mut polling).await;
    host.advance(Duration::from_millis(1));
    assert_eq!((untried.closed().await.code, tried.closed().await.code), (Some(1000), Some(1000)));
    still_polls(&mut polling).await;
    let mut socket = EngineSocket::upgrade(polling).await;
    is_alive(&mut socket).await;
    drop((socket, tried, untried));
    host.shut_down().await;
}

#[tokio::test]
async fn second_websocket_of_a_session_is_refused() {
    let host = InnerHost::start(CONFIG).await;
    let polling = connected_polling(&host).await;
    let mut late = EngineSocket::for_upgrade(&polling).await;
    let mut early = probe(&polling).await;
    early.send("5").await;
    is_alive(&mut early).await;
    late.send("2probe").await;
    assert_eq!(late.closed().await.code, Some(1002));
    assert_eq!(EngineSocket::for_upgrade(&polling).await.closed().await.code, Some(1002));
    is_alive(&mut early).await;

    // A session that began on a WebSocket cannot be given another one.
    let whole = EngineSocket::open(&host.ws).await;
    let sid = whole.open["sid"].as_str().unwrap();
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    assert_eq!(roundhouse_tests::http(&host.ws, "GET", &path, &[], "").await.unwrap().status, 400);
    drop((early, whole));
    host.shut_down().await;
}

#[tokio::test]
async fn upgrade_works_between_any_shards() {
    let host = InnerHost::start(&format!("{CONFIG}shards = 4")).await;
    let mut parked = Vec::new();
    for _ in 0..8 {
        let polling = connected_polling(&host).await;
        // This connection goes to the shard with the fewest connections, so that the WebSocket goes to another shard
        // than the requests.
        parked.push(TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap());
        let mut socket = EngineSocket::upgrade(polling).await;
        is_alive(&mut socket).await;
    }
    drop(parked);
    host.shut_down().await;
}
