//! Attacks of one client: what it sends is refused, and nobody else notices.

use jsonwebtoken::Algorithm;
use roundhouse::auth::sign;
use roundhouse_tests::issuer::IssuerKey;
use roundhouse_tests::raw::{client_frame, connect_raw, frame_of, open};
use roundhouse_tests::{
    EngineSocket, InnerHost, Packet, Polling, SocketIoClient, TIMEOUT, TestClient, TestHost, eventually, http, metric,
    with_headers,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::recovery::CONFIG;

/// The longest message of a client by default, in bytes.
const MEGABYTE: usize = 1_000_000;

fn address(base: &str) -> &str {
    base.split_once("://").unwrap().1
}

/// Sends bytes on a new connection. Returns all that comes until its end.
async fn exchange(base: &str, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address(base)).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    end_of(socket).await
}

/// All that comes until the end of a connection, which may be a reset.
async fn end_of(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(TIMEOUT, socket.read_to_end(&mut answer)).await.expect("the connection ends in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The code of the close frame with which a connection ends.
async fn close_code(mut socket: TcpStream) -> Option<u16> {
    let mut received = Vec::new();
    let end = async { while socket.read_buf(&mut received).await.is_ok_and(|n| n > 0) {} };
    timeout(TIMEOUT, end).await.expect("the connection ends in time");
    let close = received.windows(2).position(|head| head[0] == 0x88)?;
    Some(u16::from_be_bytes([received[close + 2], received[close + 3]]))
}

#[tokio::test]
async fn spoofed_agent_ids_are_refused() {
    let host = TestHost::start();
    let (mut eve, mut ana) = (host.client("eve").await, host.client("ana").await);
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    ana.drain().await;
    let as_ana = json!({ "ticketId": "t1", "agentId": "ana" });
    for event in ["ticket:view", "ticket:typing", "ticket:stop_typing", "ticket:leave"] {
        assert_eq!(eve.emit_refused(event, as_ana.clone()).await, "forbidden", "{event}");
    }
    let mut socketio = SocketIoClient::socket(&host.ws).await;
    socketio.connect_as(&host.token("mallory")).await;
    assert_eq!(socketio.emit_refused("ticket:view", json!([as_ana])).await, "forbidden");
    let entity = json!({ "entityType": "client", "entityId": "c", "userId": "ana" });
    assert_eq!(eve.emit_refused("timeline:subscribe", entity).await, "forbidden");
    assert_eq!(ana.drain_events().await, [""; 0]);
    // An id that is one's own is none of another.
    let viewers = eve.emit_with_ack("ticket:view", json!({ "ticketId": "t1", "agentId": "eve" })).await.unwrap();
    let ids: Vec<_> = viewers["viewers"].as_array().unwrap().iter().map(|viewer| viewer["agentId"].clone()).collect();
    assert_eq!(ids, ["ana", "eve"]);
}

#[tokio::test]
async fn another_companys_room_gives_no_history() {
    let rules = "auth.jwt.secret = \"s\"\n[[rooms]]\npattern = \"room:{id}\"\n\
                 allow = \"id.startsWith(identity.claims.companyId + '-')\"\n";
    let host = TestHost::start_with(rules, &[]);
    let of = |company: &str| host.token_with(company, &["--claim", &format!("companyId=\"{company}\"")]);
    let mut ours = TestClient::connect(&host.ws, &of("acme")).await;
    let room = json!({ "roomId": "acme-1" });
    ours.emit_with_ack("joinRoom", room.clone()).await.unwrap();
    ours.emit_with_ack("roomMessage", json!({ "roomId": "acme-1", "body": "a secret" })).await.unwrap();
    ours.expect_event("roomMessageConfirmed").await;
    let mut theirs = TestClient::connect(&host.ws, &of("evil")).await;
    for (event, data) in [
        ("roomHistory", json!({ "roomId": "acme-1", "limit": 100 })),
        ("joinRoom", room.clone()),
        ("roomMessage", json!({ "roomId": "acme-1", "body": "b" })),
        ("leaveRoom", room.clone()),
    ] {
        assert_eq!(theirs.emit_refused(event, data).await, "forbidden", "{event}");
    }
    assert!(theirs.drain().await.is_empty(), "nothing of the room was sent");
    let page = ours.emit_with_ack("roomHistory", json!({ "roomId": "acme-1" })).await.unwrap();
    assert_eq!(page["messages"].as_array().unwrap().len(), 1, "{page}");
}

#[tokio::test]
async fn megabyte_and_a_byte_is_refused_everywhere() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    let token = host.token("eve");
    // Declared: the head of the frame is enough.
    let mut declared = connect_raw(&host.ws, &token).await.unwrap();
    let head = client_frame(&vec![b' '; MEGABYTE + 1]);
    declared.write_all(&head[..14]).await.unwrap();
    assert_eq!(close_code(declared).await, Some(1009), "declared");
    // In fragments, of which none is too long.
    let mut fragmented = connect_raw(&host.ws, &token).await.unwrap();
    fragmented.write_all(&frame_of(0x01, &vec![b' '; MEGABYTE / 2])).await.unwrap();
    fragmented.write_all(&frame_of(0x00, &vec![b' '; MEGABYTE / 2])).await.unwrap();
    fragmented.write_all(&frame_of(0x80, b" ")).await.unwrap();
    assert_eq!(close_code(fragmented).await, Some(1009), "in fragments");
    let mut engine = EngineSocket::open(&host.ws).await;
    engine.send(&*format!("40{}", json!({ "token": token }))).await;
    engine.next().await.unwrap();
    engine.send(&*format!("4{}", " ".repeat(MEGABYTE))).await;
    assert_eq!(engine.closed().await.code, Some(1009), "by Engine.IO");
    // By polling: declared, and in a chunk. The host reads on without keeping it, because a client that still writes does
    // not read the answer.
    let polling = Polling::open(&host.ws).await;
    polling.send(&[Packet::from(&*format!("40{}", json!({ "token": token })))]).await;
    let long = " ".repeat(MEGABYTE + 1);
    for (what, header, body) in [
        ("declared by polling", format!("content-length: {}", MEGABYTE + 1), long.clone()),
        (
            "in a chunk by polling",
            "transfer-encoding: chunked".to_owned(),
            format!("{:x}\r\n{long}\r\n0\r\n\r\n", MEGABYTE + 1),
        ),
    ] {
        let mut socket = polling.begin("POST", &format!("{header}\r\nconnection: close\r\n")).await;
        socket.write_all(body.as_bytes()).await.unwrap();
        let answer = end_of(socket).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{what}: {answer}");
    }
    // A byte less is no mistake, and nobody else has noticed.
    let frame = |padding: usize| json!({ "event": "no:such", "data": "x".repeat(padding), "id": 7 }).to_string();
    let mut eve = host.client("eve").await;
    eve.send_text(frame(MEGABYTE - frame(0).len())).await;
    assert_eq!(eve.expect_ack(7).await.unwrap_err()["code"], "unknown_event");
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
}

#[tokio::test]
async fn deep_json_is_refused_before_signing_in() {
    let host = TestHost::start();
    let deep = format!("{}{}", "[".repeat(7000), "]".repeat(7000));
    let mut plain = TestClient::open(with_headers(&format!("{}/ws", host.ws), &[])).await;
    plain.send_text(format!(r#"{{"event":"authenticate","data":{{"token":{deep}}}}}"#)).await;
    assert_eq!(plain.closed().await.code, Some(4001));
    let mut engine = EngineSocket::open(&host.ws).await;
    engine.send(&*format!(r#"40{{"token":{deep}}}"#)).await;
    let answer = engine.next().await;
    assert!(matches!(&answer, Ok(Packet::Text(text)) if text.starts_with("44")), "{answer:?}");
    let polling = Polling::open(&host.ws).await;
    polling.post(&format!(r#"40{{"token":{deep}}}"#)).await;
    host.client("ana").await.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
}

/// Heads of a request behind which another parser may see a second request.
const SMUGGLED: [&str; 12] = [
    "transfer-encoding: xchunked\r\n",
    "transfer-encoding : chunked\r\n",
    "transfer-encoding: chunked, identity\r\n",
    "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
    "transfer-encoding: chunked\r\ncontent-length: 6\r\n",
    "content-length: +6\r\n",
    "content-length: -6\r\n",
    "content-length: 6, 7\r\n",
    "content-length: 0\r\ncontent-length: 6\r\n",
    "content-length: 18446744073709551622\r\n",
    "content-length: 6\r\n x\r\n",
    "content\0-length: 6\r\n",
];

#[tokio::test]
async fn smuggled_requests_are_never_answered() {
    let host = TestHost::start();
    for base in [&host.ws, &host.api] {
        for hidden in SMUGGLED {
            let request = format!(
                "POST /healthz HTTP/1.1\r\nhost: x\r\n{hidden}\r\n0\r\n\r\nXGET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"
            );
            let answers = exchange(base, request.as_bytes()).await;
            assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{hidden:?}: {answers}");
            assert!(answers.starts_with("HTTP/1.1 400"), "{hidden:?}: {answers}");
        }
        for garbage in
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
        {
            let answer = exchange(base, garbage).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{garbage:?}: {answer}");
        }
    }
    host.client("ana").await.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
}

#[tokio::test]
async fn paths_and_headers_cannot_be_injected() {
    let bundle = tempfile::tempdir().unwrap();
    std::fs::create_dir(bundle.path().join("js")).unwrap();
    std::fs::write(bundle.path().join("secret.js"), "a secret").unwrap();
    std::fs::write(bundle.path().join("js/socket.io.min.js"), "a bundle").unwrap();
    let config = format!("auth.jwt.secret = \"s\"\nsocketio.client = {:?}\n", bundle.path().join("js"));
    let host = TestHost::start_with(&config, &[]);
    for path in [
        "/../secret.js",
        "/socket.io/../secret.js",
        "/socket.io/../socket.io/../../secret.js",
        "/socket.io/..%2fsecret.js",
        "/socket.io/%2e%2e/secret.js",
        "/socket.io/..\\secret.js",
        "/socket.io/....//secret.js",
        "//secret.js",
        "/socket.io/socket.io.min.js%00.js",
        "/ws/../healthz",
        "/healthz%0d%0aset-cookie:%20a=b",
        "/socket.io/?EIO=4&transport=polling&sid=%0d%0aset-cookie:%20a=b",
        "/ws?token=%0d%0aset-cookie:%20a=b",
        "/nowhere?%0d%0a%0d%0a<script>",
    ] {
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n");
        let answer = exchange(&host.ws, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
        assert!(!answer.contains("secret") && !answer.to_lowercase().contains("\nset-cookie"), "{path}: {answer}");
        assert!(!answer.contains("<script>"), "{path}: {answer}");
    }
    let component = roundhouse_tests::guests::hostile("normal");
    for name in ["..%2f..%2fevil", "%2e%2e", "a%00b", "a%0d%0ab", "..", "a%2fb"] {
        let answer = host.call("PUT", &format!("/v1/plugins/{name}"), component.clone()).await;
        assert!(matches!(answer.status, 400 | 404 | 422), "{name}: {} {}", answer.status, answer.text);
    }
    let beside = std::fs::read_dir(host.dir().parent().unwrap()).unwrap().flatten();
    assert!(!beside.into_iter().any(|entry| entry.file_name() == "evil"), "nothing was written beside the host");
}

#[tokio::test]
async fn log_lines_cannot_be_forged() {
    const FORGED: &str = "\r\n2030-01-01T00:00:00Z ERROR forged: \u{1b}[31m\u{202e}";
    for format in ["text", "json"] {
        let config = format!("auth.jwt.secret = \"s\"\nauth.anonymous = false\nlog_format = \"{format}\"\n");
        let host = TestHost::start_with(&config, &[("RUST_LOG", "trace")]);
        let token = host.token_with("eve", &["--name", FORGED, "--role", FORGED, "--claim", "jti=\"\\nforged\""]);
        let mut eve = TestClient::connect(&host.ws, &token).await;
        eve.emit_refused(FORGED, json!({ FORGED: FORGED })).await;
        eve.emit_refused("ticket:view", json!({ "ticketId": FORGED })).await;
        eve.emit("authenticate", json!({ "token": FORGED })).await;
        eve.send_text(format!("nonsense {FORGED}")).await;
        let mut engine = EngineSocket::open(&host.ws).await;
        engine.send(&*format!("40/{FORGED},{}", json!({ "token": FORGED }))).await;
        assert_eq!(engine.closed().await.code, Some(1002));
        let mut engine = EngineSocket::open(&host.ws).await;
        engine.send(&*format!("40{FORGED}")).await;
        let bad = sign(&json!({ "sub": "eve", "roles": { FORGED: 1 } }), "s").unwrap();
        TestClient::open(with_headers(&format!("{}/ws?token={bad}", host.ws), &[])).await.closed().await;
        let forged = "%0d%0a2030-01-01T00:00:00Z%20ERROR%20forged:%20%1b";
        for path in [format!("/{forged}"), format!("/ws?token={forged}"), format!("/socket.io/?EIO={forged}")] {
            let _ =
                http(&host.ws, "GET", &path, &[("user-agent", "forged:\u{e9}"), ("x-forwarded-for", "forged:")], "")
                    .await;
        }
        host.call("PUT", &format!("/v1/plugins/{forged}"), "x").await;
        host.call("POST", "/v1/events", json!({ "event": FORGED, "data": FORGED }).to_string()).await;
        let block = json!({ "user": "nobody", "reason": FORGED, "until": "2090-01-01T00:00:00Z" });
        host.call("POST", "/v1/blocks", block.to_string()).await;
        eve.close().await;
        eventually("the log has it", async || host.log().contains("forged:").then_some(())).await;
        let log = host.log();
        for line in log.lines() {
            assert!(!line.starts_with("2030"), "{line}");
            assert!(!line.contains(['\u{1b}', '\r', '\u{202e}']), "{line:?}");
            assert!(format == "text" || serde_json::from_str::<Value>(line).is_ok(), "{line}");
        }
    }
}

#[tokio::test]
async fn refused_tokens_use_up_their_senders_rate() {
    // Fewer than the burst of 200 messages, which would all be checked if they counted as messages alone.
    const TRIES: usize = 150;
    let key = IssuerKey::new(Algorithm::ES384);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key.pem"), &key.public_pem).unwrap();
    let config = format!("auth.jwt.public_key_file = {:?}\n", dir.path().join("key.pem"));
    // The clock stands still, so that the rate allows no more than its burst.
    let host = InnerHost::start(&format!("{}{config}", CONFIG.replace("limits.events_per_second = 0\n", ""))).await;
    let forged = IssuerKey::new(Algorithm::ES384).sign(&json!({ "sub": "eve" }), None);
    let mut eve = EngineSocket::open_with(&host.ws, &format!("&token={forged}&token={forged}"), &[]).await;
    for _ in 0..TRIES {
        eve.send(&*format!("40{}", json!({ "token": forged }))).await;
    }
    let (mut checked, mut limited) = (0, 0);
    while checked + limited < TRIES {
        let Ok(Packet::Text(text)) = eve.next().await else { panic!("the session goes on") };
        checked += usize::from(text.contains("\"unauthorized\""));
        limited += usize::from(text.contains("\"rate_limited\""));
    }
    assert!((1..100).contains(&checked), "{checked} tokens were checked, and each by three signatures");
    let good = key.sign(&json!({ "sub": "ana" }), None);
    let mut ana = TestClient::connect(&host.ws, &good).await;
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    // The rate of the client itself goes on as it was, a second later.
    host.advance(std::time::Duration::from_secs(1));
    eve.send(&*format!("40{}", json!({ "token": good }))).await;
    let answer = eve.next().await;
    assert!(matches!(&answer, Ok(Packet::Text(text)) if text.starts_with("40{")), "{answer:?}");
    host.shut_down().await;
}

#[tokio::test]
async fn churn_leaves_nothing_behind() {
    let host = TestHost::start();
    let token = host.token("eve");
    for n in 0..200 {
        let mut socket = TcpStream::connect(address(&host.ws)).await.unwrap();
        match n % 4 {
            0 => {}
            1 => socket.write_all(b"GET /ws HTTP/1.1\r\nhost: x\r\n").await.unwrap(),
            2 => open(&mut socket, "/ws", &mut Vec::new()).await.unwrap(),
            _ => drop(connect_raw(&host.ws, &token).await.unwrap()),
        }
        // Half of them end with a reset.
        if n % 8 < 4 {
            socket.set_zero_linger().unwrap();
        }
    }
    eventually("all are gone", async || {
        let stats = host.get("/v1/stats").await;
        (stats["sockets"] == 0 && stats["connections"] == 0 && stats["rooms"] == 0).then_some(())
    })
    .await;
    assert_eq!(metric(&host.api, "unfinished_bytes").await, 0);
}
