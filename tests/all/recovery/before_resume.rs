//! A new plain connection until its first frame, which may be `resume`.

use std::time::Duration;

use futures_util::StreamExt as _;
use roundhouse_tests::guests::hostile;
use roundhouse_tests::raw::client_frame;
use roundhouse_tests::{InnerHost, NOTHING, TIMEOUT, TestClient, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::recovery::plain::{begin_session, lose};
use crate::recovery::{CONFIG, SHARD, emit_number, occupy_shard, wait_for_detached};

/// Opens a WebSocket with `bytes` immediately after its handshake.
async fn open_with(host: &InnerHost, user: &str, bytes: &[u8]) -> WebSocketStream<TcpStream> {
    let mut socket = TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap();
    let handshake = format!(
        "GET /ws?token={} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        host.token(user, None)
    );
    socket.write_all(&[handshake.as_bytes(), bytes].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(TIMEOUT, socket.read_u8()).await.unwrap().unwrap());
    }
    WebSocketStream::from_raw_socket(socket, Role::Client, None).await
}

/// The next frame of a WebSocket.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Value {
    let frame = timeout(TIMEOUT, socket.next()).await.unwrap().unwrap().unwrap();
    serde_json::from_str(frame.to_text().unwrap()).unwrap()
}

fn resume_frame(session: &str, offset: u64) -> Vec<u8> {
    let data = json!({ "session": session, "offset": offset });
    client_frame(json!({ "event": "resume", "data": data, "id": 1 }).to_string().as_bytes())
}

#[tokio::test]
async fn resuming_from_any_shard_keeps_pipelined_events() {
    let host = InnerHost::start(&format!("{CONFIG}shards = 4")).await;
    let (ana, session) = begin_session(&host, "ana").await;
    let id = ana.id().to_owned();
    lose(&host, ana).await;
    let [mut n_frames, mut n_moves] = [0, 0];
    let mut occupying = Vec::new();
    let ask = |id: u64| client_frame(json!({ "event": "no:such", "data": {}, "id": id }).to_string().as_bytes());
    while n_moves < 4 {
        emit_number(&host, "ana", 1).await;
        occupying.push(occupy_shard(&host).await);
        assert!(occupying.len() < 50, "it always comes to the same shard");
        // The frames come with the handshake or after it; the last one is completed after the handoff.
        let (whole, parts) = ([resume_frame(&session, n_frames), ask(2)].concat(), ask(3));
        let (first, second) = parts.split_at(parts.len() / 2);
        let whole = [&whole, first].concat();
        let is_early = occupying.len() % 2 == 0;
        let mut socket = open_with(&host, "ana", if is_early { &whole } else { &[] }).await;
        let connected = next(&mut socket).await;
        if !is_early {
            socket.get_mut().write_all(&whole).await.unwrap();
        }
        let here = connected["data"]["connectionId"].as_str().unwrap();
        n_moves += u64::from(here[SHARD] != id[SHARD]);
        let resumed = next(&mut socket).await;
        assert_eq!((&resumed["data"]["connectionId"], &resumed["data"]["recovered"]), (&json!(id), &json!(true)));
        assert_eq!(next(&mut socket).await, json!({ "event": "number", "data": 1 }));
        assert_eq!(next(&mut socket).await["id"], 2);
        socket.get_mut().write_all(second).await.unwrap();
        assert_eq!(next(&mut socket).await["id"], 3);
        n_frames += 3;
        drop(socket);
        wait_for_detached(&host, 1).await;
    }
    drop(occupying);
    host.shut_down().await;
}

#[tokio::test]
async fn resuming_does_not_emit_connect() {
    let host = InnerHost::start(&format!("{CONFIG}shards = 1")).await;
    host.load("hostile", hostile("greets")).await;
    let mut eve = host.client("eve").await;
    eve.emit_with_ack("hostile:greeted", json!({})).await.unwrap();
    let (ana, session) = begin_session(&host, "ana").await;
    lose(&host, ana).await;
    for _ in 0..2 {
        let mut socket = open_with(&host, "ana", &resume_frame(&session, 0)).await;
        assert_eq!(next(&mut socket).await["event"], "connected");
        assert_eq!(next(&mut socket).await["data"]["recovered"], true);
        drop(socket);
        wait_for_detached(&host, 1).await;
    }
    // One shard reports its connections in order, so that zoe's notification comes last.
    let zoe = host.client("zoe").await;
    let notifications = eventually("the last is told of", async || {
        let notifications = eve.emit_with_ack("hostile:greeted", json!({})).await.unwrap();
        notifications.to_string().contains("zoe").then_some(notifications)
    })
    .await;
    assert_eq!(notifications, json!(["eve in / with {}", "ana in / with {}", "zoe in / with {}"]));
    drop((eve, zoe));
    host.shut_down().await;
}

/// The numbers that a client has received and that arrive within a short time.
async fn drain_numbers(client: &mut TestClient) -> Vec<Value> {
    let frames = client.drain().await;
    frames.into_iter().filter(|frame| frame["event"] == "number").map(|mut frame| frame["data"].take()).collect()
}

#[tokio::test]
async fn events_before_resume_are_delivered_once_in_order() {
    for shards in [1, 4] {
        let host = InnerHost::start(&format!("shards = {shards}\n{CONFIG}")).await;
        let to_ana = json!({ "user": "ana" });
        let (old, session) = begin_session(&host, "ana").await;
        let mut old = Some(old);
        let mut n_frames = 0;
        for is_lost in [true, false, true, false] {
            if is_lost {
                lose(&host, old.take().unwrap()).await;
            }
            host.emit(to_ana.clone(), "number", json!(n_frames)).await;
            let mut back = host.client("ana").await;
            assert_eq!(host.emit(to_ana.clone(), "number", json!(n_frames + 1)).await, 2);
            let resumed =
                back.emit_with_ack("resume", json!({ "session": session, "offset": n_frames })).await.unwrap();
            assert_eq!(resumed["recovered"], true);
            host.emit(to_ana.clone(), "number", json!(n_frames + 2)).await;
            let expected: Vec<_> = (n_frames..n_frames + 3).map(Value::from).collect();
            assert_eq!(drain_numbers(&mut back).await, expected);
            n_frames += 3;
            old = Some(back);
        }
        drop(old);
        host.shut_down().await;
    }
}

#[tokio::test]
async fn held_events_reach_clients_that_do_not_resume() {
    let host = InnerHost::start(&format!("shards = 4\n{CONFIG}")).await;
    let (mut first, session) = begin_session(&host, "ana").await;
    let to_ana = json!({ "user": "ana" });
    let mut speaks = host.client("ana").await;
    let mut listens = host.client("ana").await;
    let mut begins = host.client("ana").await;
    let mut fails = host.client("ana").await;
    assert_eq!(host.emit(to_ana.clone(), "number", json!(1)).await, 5);
    speaks.emit_with_ack("no:such", json!({})).await.unwrap_err();
    begins.emit_with_ack("resume", json!({})).await.unwrap();
    let failed = json!({ "session": session.replace(|c: char| c.is_ascii_digit(), "0"), "offset": 0 });
    assert_eq!(fails.emit_with_ack("resume", failed).await.unwrap()["recovered"], false);
    for client in [&mut first, &mut speaks, &mut begins, &mut fails] {
        assert_eq!(drain_numbers(client).await, [1]);
    }
    assert_eq!(drain_numbers(&mut listens).await, NOTHING);
    host.advance(Duration::from_secs(2));
    assert_eq!(drain_numbers(&mut listens).await, [1]);
    host.emit(to_ana, "number", json!(2)).await;
    for client in [&mut first, &mut speaks, &mut begins, &mut fails, &mut listens] {
        assert_eq!(drain_numbers(client).await, [2]);
    }
    drop((first, speaks, begins, fails, listens));
    host.shut_down().await;
}

#[tokio::test]
async fn slow_resume_does_not_emit_connect() {
    let host = InnerHost::start(&format!("shards = 1\n{CONFIG}")).await;
    host.load("hostile", hostile("greets")).await;
    let mut eve = host.client("eve").await;
    eve.emit_with_ack("hostile:greeted", json!({})).await.unwrap();
    let (ana, session) = begin_session(&host, "ana").await;
    lose(&host, ana).await;
    let mut back = host.client("ana").await;
    let zoe = host.client("zoe").await;
    let greeted = eventually("the last is told of", async || {
        let greeted = eve.emit_with_ack("hostile:greeted", json!({})).await.unwrap();
        greeted.to_string().contains("zoe").then_some(greeted)
    })
    .await;
    assert_eq!(greeted, json!(["eve in / with {}", "ana in / with {}", "zoe in / with {}"]));
    back.emit_with_ack("resume", json!({ "session": session, "offset": 0 })).await.unwrap();
    assert_eq!(eve.emit_with_ack("hostile:greeted", json!({})).await.unwrap(), greeted);
    drop((back, eve, zoe));
    host.shut_down().await;
}
