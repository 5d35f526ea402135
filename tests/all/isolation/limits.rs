//! Limits of sizes and rates, and of memory for clients that do not read.

use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use roundhouse_tests::guests::hostile;
use roundhouse_tests::{InnerHost, TIMEOUT, TestClient, TestHost, metric};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

#[tokio::test]
async fn owner_of_most_scopes_loses_scopes_first() {
    const MAX_SCOPES: usize = 100_000;
    const EXCESS: usize = 1000;
    let config = "auth.jwt.secret = \"s\"\nplugins.threads = 1\nlimits.events_per_second = 0\n\
                  limits.user.scopes = 0\nlimits.user.timers = 0\nlimits.user.timer_bytes = 0\n";
    // The clock stands still, so that no scope becomes idle however busy the machine is.
    let host = InnerHost::start(config).await;
    host.load("hostile", hostile("normal")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    // The oldest scope, without members, and a scope with a member.
    ben.emit_with_ack("hostile:do", json!({ "id": "idle", "how": "flood-room", "with": 1 })).await.unwrap();
    ben.emit_with_ack("hostile:count", json!({ "id": "used" })).await.unwrap();
    let mut flood = async |how: &str, with: Value| {
        for n in 0..MAX_SCOPES + EXCESS {
            let event = json!({ "id": n.to_string(), "how": how, "with": with });
            // Every thousandth event waits for its acknowledgement, which bounds the queue.
            if n % 1000 == 999 {
                // Events over the limit of scopes are refused.
                let _ = ana.emit_with_ack("hostile:do", event).await;
            } else {
                ana.emit("hostile:do", event).await;
            }
        }
    };
    let count = async |id: &str| {
        let query = json!({ "id": id }).to_string();
        host.call("POST", "/v1/query/hostile/count", query).await.body["count"].clone()
    };
    flood("flood-room", json!(1)).await;
    let dropped = metric(&host.api, "plugin_dropped_total").await;
    assert!(dropped >= EXCESS as u64, "{dropped} were dropped");
    let last = (MAX_SCOPES + EXCESS - 1).to_string();
    for id in [last.as_str(), "idle", "used"] {
        assert_eq!(count(id).await, 1, "{id}");
    }

    // All scopes of ana have timers now, so none can be dropped.
    flood("timer", json!({ "after": 3_600_000 })).await;
    assert_eq!(ana.emit_refused("hostile:count", json!({ "id": "one-more" })).await, "feature_unavailable");
    assert_eq!((count("idle").await, count("used").await), (json!(1), json!(1)), "nobody loses any to who has more");
    for n in 0..100 {
        ben.emit_with_ack("hostile:count", json!({ "id": format!("ben-{n}") })).await.expect("ben has his share left");
    }
    drop((ana, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn message_over_the_limit_closes_only_its_connection() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.message_bytes = 1000", &[]);
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    assert_eq!(ana.connected["maxMessageBytes"], 1000);
    let frame = |padding: usize| {
        json!({ "event": "ticket:leave", "data": { "ticketId": "t", "x": "x".repeat(padding) } }).to_string()
    };
    let overhead = frame(0).len();
    ana.send_text(frame(1000 - overhead)).await;
    assert!(
        ana.emit_with_ack("ticket:leave", json!({ "ticketId": "t" })).await.is_ok(),
        "exactly the limit is not too much"
    );
    ana.send_text(frame(1001 - overhead)).await;
    assert_eq!(ana.closed().await.code, Some(1009));
    assert!(ben.emit_with_ack("ticket:leave", json!({ "ticketId": "t" })).await.is_ok());
}

#[tokio::test]
async fn protocol_violations_close_with_their_code() {
    let host = TestHost::start();
    let token = host.token("ana");
    // Raw bytes after a handshake, which client libraries would not send.
    for (bytes, code) in [
        (&[0x81, 0x01, b'a'][..], 1002u16),
        (&[0xc1, 0x80, 0, 0, 0, 0][..], 1002),
        (&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28][..], 1007),
        (&[0x83, 0x80, 0, 0, 0, 0][..], 1002),
    ] {
        let mut socket = TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap();
        let handshake = format!(
            "GET /ws?token={token} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        // In one write: frames may follow the handshake immediately.
        socket.write_all(&[handshake.as_bytes(), bytes].concat()).await.unwrap();
        let mut answer = Vec::new();
        let close = [0x88].into_iter().chain([]).collect::<Vec<u8>>();
        let read = async {
            let mut buffer = [0; 4096];
            loop {
                let n = socket.read(&mut buffer).await.unwrap();
                answer.extend_from_slice(&buffer[..n]);
                let at = answer.windows(4).position(|w| w[0] == close[0] && w[2..4] == code.to_be_bytes());
                if at.is_some() || n == 0 {
                    return at.is_some();
                }
            }
        };
        let closed = tokio::time::timeout(TIMEOUT, read).await.unwrap();
        assert!(closed, "{bytes:?}: {:?}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn events_over_the_rate_are_refused_without_closing() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\n[limits]\nevents_per_second = 1\nevent_burst = 5", &[]);
    let mut ana = host.client("ana").await;
    let mut refused = 0;
    let started = Instant::now();
    for _ in 0..20 {
        match ana.emit_with_ack("ticket:leave", json!({ "ticketId": "t" })).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error["code"], "rate_limited");
                refused += 1;
            }
        }
    }
    let allowed = 5 + started.elapsed().as_secs() as i32 + 1;
    assert!(refused >= 20 - allowed, "{refused} were refused");
    let mut ben = host.client("ben").await;
    assert!(ben.emit_with_ack("ticket:leave", json!({ "ticketId": "t" })).await.is_ok(), "each connection has its own");
}

#[tokio::test]
async fn every_frame_kind_counts_towards_its_senders_rate() {
    let host = TestHost::start();
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    for n in 0..130 {
        // Acknowledgements that were not asked for, malformed frames, and binary ones.
        ana.send_text(format!("{{\"id\":{n}}}")).await;
        ana.send_text("nonsense").await;
        ana.send_message(Message::binary(vec![0])).await;
    }
    assert!(ben.emit_with_ack("ticket:leave", json!({ "ticketId": "t" })).await.is_ok());
    let codes: Vec<_> =
        ana.drain().await.iter().map(|frame| frame["data"]["code"].as_str().unwrap().to_owned()).collect();
    assert!(codes.iter().filter(|code| *code == "rate_limited").count() > 150, "{}", codes.len());
}

#[tokio::test]
async fn unauthenticated_messages_are_limited() {
    let host = TestHost::start();
    let request = format!("{}/ws", host.ws).into_client_request().unwrap();
    let mut stranger = TestClient::open(request.clone()).await;
    stranger.emit("authenticate", json!({ "token": "x".repeat(20_000) })).await;
    assert_eq!(stranger.closed().await.code, Some(1009));
    for frame in [Message::binary(vec![1]), Message::text("{\"id\":1}"), Message::text("nonsense")] {
        let mut stranger = TestClient::open(request.clone()).await;
        stranger.send_message(frame).await;
        assert_eq!(stranger.closed().await.code, Some(4001));
    }
}

#[tokio::test]
async fn rooms_per_connection_are_bounded() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.rooms_per_connection = 2", &[]);
    let mut ana = host.client("ana").await;
    for ticket in ["t1", "t2"] {
        ana.emit_with_ack("ticket:view", json!({ "ticketId": ticket })).await.unwrap();
    }
    assert_eq!(ana.emit_refused("ticket:view", json!({ "ticketId": "t3" })).await, "conflict");
    let stats = host.report("ticket-collision").await["stats"].clone();
    assert_eq!(stats["activeTickets"], 2, "the refused view has left nothing behind: {stats}");
    ana.emit_with_ack("ticket:leave", json!({ "ticketId": "t1" })).await.unwrap();
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t3" })).await.unwrap();
}

#[tokio::test]
async fn non_reading_client_is_disconnected_alone() {
    let host =
        TestHost::start_with("auth.jwt.secret = \"s\"\n[limits]\nevents_per_second = 0\noutbox_bytes = 100000", &[]);
    host.load("hostile", hostile("normal")).await;
    let (mut ana, mut slow) = (host.client("ana").await, host.client("ben").await);
    let mut reader = host.client("cara").await;
    for client in [&mut ana, &mut slow, &mut reader] {
        client.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    }
    // All three clients receive these events, and one does not read. The kernel's buffers take the first MiBs.
    let deadline = Instant::now() + TIMEOUT;
    let mut sent = 0;
    while host.get("/v1/stats").await["slowConnections"] == 0 {
        assert!(Instant::now() < deadline, "{sent} events of 50 kB did not fill the outbox");
        for _ in 0..20 {
            ana.emit_with_ack("hostile:do", json!({ "id": "a", "how": "flood-room", "with": 50_000 })).await.unwrap();
            ana.expect_event("hostile:noise").await;
            reader.expect_event("hostile:noise").await;
            sent += 1;
        }
    }
    let closed = slow.closed().await;
    assert_eq!(closed.code, Some(4008), "{closed:?}");
    assert!(ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.is_ok());
    assert!(reader.emit_with_ack("hostile:count", json!({ "id": "a" })).await.is_ok());
    let notifications = ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await.unwrap();
    assert_eq!(notifications, json!(["left ben disconnected"]));
}

#[tokio::test]
async fn burst_over_the_outbox_reaches_a_reading_client() {
    let host =
        TestHost::start_with("auth.jwt.secret = \"s\"\n[limits]\nevents_per_second = 0\noutbox_bytes = 60000", &[]);
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    for _ in 0..20 {
        ana.emit("hostile:do", json!({ "id": "a", "how": "flood-room", "with": 50_000 })).await;
    }
    for _ in 0..20 {
        ana.expect_event("hostile:noise").await;
    }
    assert_eq!(host.get("/v1/stats").await["slowConnections"], 0);
}

#[tokio::test]
async fn unfinished_handshakes_and_frames_delay_no_client() {
    let host = TestHost::start();
    let address = host.ws.trim_start_matches("ws://").to_owned();
    let mut half_open = Vec::new();
    for _ in 0..50 {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        socket.write_all(b"GET /ws HTTP/1.1\r\nhost:").await.unwrap();
        half_open.push(socket);
    }
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("{}/ws?token={}", host.ws, host.token("ben"))).await.unwrap();
    socket.send(Message::Ping("x".into())).await.unwrap();
    let mut ana = tokio::time::timeout(Duration::from_secs(5), host.client("ana")).await.unwrap();
    assert!(ana.emit_with_ack("ticket:leave", json!({ "ticketId": "t" })).await.is_ok());
    drop(TestClient::connect(&host.ws, &host.token("cara")).await);
}
