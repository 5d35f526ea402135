//! Unfinished input is held within a budget: the oldest and slowest is ended first, and each has a deadline.

use std::time::Duration;

use futures_util::future::select_all;
use roundhouse_tests::raw::connect_raw;
use roundhouse_tests::{
    EngineSocket, InnerHost, Packet, Polling, SocketIoClient, TIMEOUT, TestHost, eventually, http, metric,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The smallest budget that may be configured.
const BUDGET: u64 = 4_000_000;
const CONFIG: &str = "auth.jwt.secret = \"s\"\nlimits.unfinished_bytes = 4000000\n";

async fn connect(base: &str) -> TcpStream {
    TcpStream::connect(base.trim_start_matches("ws://").trim_start_matches("http://")).await.unwrap()
}

/// All bytes of a connection until its end.
async fn rest_of(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // The host ends the connection with a reset if unread bytes are left.
    let _ = timeout(TIMEOUT, socket.read_to_end(&mut answer)).await.expect("an end in time");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn held(host: &TestHost) -> u64 {
    metric(&host.api, "unfinished_bytes").await
}

#[tokio::test]
async fn oldest_unfinished_posts_end_first() {
    let host = TestHost::start_with(CONFIG, &[]);
    let mut posts = Vec::new();
    for _ in 0..20 {
        let polling = Polling::open(&host.ws).await;
        let mut post = polling.begin("POST", "content-length: 1000000\r\n").await;
        post.write_all(&vec![b'4'; 500_000]).await.unwrap();
        posts.push((polling, post));
    }
    let (oldest, post) = &mut posts[0];
    let answer = rest_of(post).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after"), "{answer}");
    assert_eq!(oldest.poll().await.status, 400, "its session is gone with what was lost");
    assert!(held(&host).await <= BUDGET);
    assert!(metric(&host.api, "unfinished_evicted_total").await > 0);
    // A client that completes its messages is served throughout.
    let mut ana = SocketIoClient::polling(&host.ws).await;
    ana.connect_as(&host.token("ana")).await;
    ana.emit_with_ack("ticket:leave", json!([{ "ticketId": "t", "more": "x".repeat(400_000) }])).await;
    drop((posts, ana));
    eventually("all is given back", async || (held(&host).await == 0).then_some(())).await;
}

#[tokio::test]
async fn oldest_unfinished_heads_end_first() {
    let host = TestHost::start_with(CONFIG, &[]);
    let mut heads = Vec::new();
    for _ in 0..200 {
        let mut socket = connect(&host.ws).await;
        socket.write_all(format!("GET /ws HTTP/1.1\r\nhost: x\r\nx: {}", "x".repeat(30_000)).as_bytes()).await.unwrap();
        heads.push(socket);
    }
    assert_eq!(rest_of(&mut heads[0]).await, "", "it ends without an answer");
    assert!(held(&host).await <= BUDGET);
    assert!(host.client("ana").await.emit_with_ack("ticket:leave", json!({ "ticketId": "t" })).await.is_ok());
}

#[tokio::test]
async fn oldest_unauthenticated_clients_are_evicted() {
    let host = TestHost::start_with(CONFIG, &[]);
    let authorization = format!("Bearer {}", "x".repeat(20_000));
    let headers = [("authorization", &*authorization)];
    let first = Polling::open_with(&host.ws, "", &headers).await;
    for _ in 0..250 {
        Polling::open_with(&host.ws, "", &headers).await;
    }
    assert_eq!(first.poll().await.status, 400, "the oldest session is gone");
    assert!(held(&host).await <= BUDGET);
}

#[tokio::test]
async fn oldest_unfinished_frames_are_evicted() {
    let host = TestHost::start_with(CONFIG, &[]);
    let token = host.token("ana");
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let mut socket = connect_raw(&host.ws, &token).await.unwrap();
        let head = [0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0x0e, 0, 0, 0, 0, 0, 0];
        socket.write_all(&[&head[..], &vec![b'x'; 900_000]].concat()).await.unwrap();
        sockets.push(socket);
    }
    let mut close = Vec::new();
    let _ = timeout(TIMEOUT, sockets[0].read_to_end(&mut close)).await.expect("an end in time");
    assert_eq!(&close[..4], &[0x88, close[1], 0x03, 0xf5], "1013: try again later");
    assert!(held(&host).await <= BUDGET);
}

/// Announces two attachments, and sends one of `bytes` bytes.
async fn send_half(client: &mut EngineSocket, bytes: usize) {
    client.send("452-[\"x\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]").await;
    client.send(Packet::Binary(vec![0; bytes])).await;
}

async fn connected(ws: &str, token: &str) -> EngineSocket {
    let mut client = EngineSocket::open(ws).await;
    client.send(&*format!("40{}", json!({ "token": token }))).await;
    client.next().await.unwrap();
    client
}

#[tokio::test]
async fn oldest_unfinished_attachments_are_evicted() {
    let host = TestHost::start_with(CONFIG, &[]);
    let token = host.token("ana");
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = connected(&host.ws, &token).await;
        send_half(&mut client, 900_000).await;
        clients.push(client);
    }
    assert_eq!(clients[0].closed().await.code, Some(1013));
    assert!(held(&host).await <= BUDGET);
    let mut ben = SocketIoClient::socket(&host.ws).await;
    ben.connect_as(&host.token("ben")).await;
    ben.emit_with_ack("ticket:leave", json!([{ "ticketId": "t" }])).await;
}

#[tokio::test]
async fn attachments_and_frames_have_a_deadline() {
    let config = "auth.jwt.secret = \"s\"\nshards = 1\nheartbeat = { interval = \"1h\", timeout = \"2h\" }\n";
    let host = InnerHost::start(config).await;
    let token = host.token("ana", None);
    let mut waiting = connected(&host.ws, &token).await;
    let mut trickling = connect_raw(&host.ws, &token).await.unwrap();
    let mut fine = connected(&host.ws, &token).await;
    send_half(&mut waiting, 100).await;
    waiting.sync().await;
    // A text frame of ten bytes, sent byte by byte.
    trickling.write_all(&[0x81, 0x8a, 0, 0, 0, 0]).await.unwrap();
    for _ in 0..7 {
        host.advance(Duration::from_secs(5));
        // Neither heartbeats nor single bytes extend the deadline of unfinished input.
        waiting.send("3").await;
        fine.sync().await;
        let _ = trickling.write_all(b"x").await;
    }
    assert_eq!(waiting.closed().await.code, Some(1001));
    let mut close = Vec::new();
    timeout(TIMEOUT, trickling.read_buf(&mut close)).await.expect("a close in time").unwrap();
    assert_eq!(close.get(2..4), Some(&[0x03, 0xe9][..]), "1001");
    fine.sync().await;
    drop((waiting, trickling, fine));
    host.shut_down().await;
}

#[tokio::test]
async fn slowest_unfinished_api_uploads_are_evicted() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.api_bytes = 4000000\n", &[]);
    let mut uploads = Vec::new();
    for _ in 0..8 {
        let mut socket = connect(&host.api).await;
        let head = format!(
            "PUT /v1/plugins/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 8000000\r\n\r\n",
            host.key
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&vec![0; 7_900_000]).await.unwrap();
        uploads.push(socket);
    }
    // All are as fast as the host reads, so any may be the slowest.
    let (answer, ..) = select_all(uploads.iter_mut().map(|upload| Box::pin(rest_of(upload)))).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("the slowest"), "{answer}");
    // Two components of the greatest size, a little over 16 MiB each.
    assert!(metric(&host.api, "api_bytes").await <= 40_000_000);
    assert!(metric(&host.api, "api_evicted_total").await > 0);
    assert_eq!(http(&host.api, "GET", "/healthz", &[], "").await.unwrap().status, 200);
    let emit = json!({ "to": { "user": "ana" }, "event": "x", "data": "x".repeat(900_000) });
    assert_eq!(host.post("/v1/emit", &emit).await.status, 200);
}
