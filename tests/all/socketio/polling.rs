//! Engine.IO 4 over HTTP: the payloads of requests, and the requests that end a session.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roundhouse_tests::guests::conformance;
use roundhouse_tests::{Answer, EngineSocket, InnerHost, Packet, Polling, TIMEOUT, eventually, http};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::socketio::{CONFIG, connected_polling, error_code, expect_session_gone};

/// Waits for the response to a request that the test wrote itself.
async fn answer_to(mut socket: TcpStream) -> String {
    let mut answer = String::new();
    timeout(TIMEOUT, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn payloads_separate_packets_both_ways() {
    let host = InnerHost::start(CONFIG).await;
    let polling = Polling::open(&host.ws).await;
    let posted = polling.post("40/a,\x1e3\x1e40/b,\x1e40/c,").await;
    assert_eq!((posted.status, &*posted.text), (200, "ok"));
    let answer = polling.poll().await;
    assert!(answer.header("content-type").starts_with("text/plain"), "{:?}", answer.headers);
    assert_eq!(answer.header("cache-control"), "no-store");
    let refused = |namespace: &str| format!("44/{namespace},{{\"message\":\"Invalid namespace\"}}");
    assert_eq!(answer.text, ["a", "b", "c"].map(refused).join("\x1e"));
    host.shut_down().await;
}

#[tokio::test]
async fn binary_messages_are_base64_or_binary_frames() {
    let host = InnerHost::start(CONFIG).await;
    host.load("conformance", conformance()).await;
    let event =
        |name: &str| format!("452-[\"{name}\",{{\"_placeholder\":true,\"num\":0}},{{\"_placeholder\":true,\"num\":1}}");
    let polling = connected_polling(&host).await;
    let sent = format!("{}]\x1ebAQIDBA==\x1eb", event("message"));
    assert_eq!(polling.post(&sent).await.text, "ok");
    let answer = eventually("the event is back", async || {
        let answer = polling.poll().await.text;
        answer.contains("452").then_some(answer)
    })
    .await;
    assert!(answer.contains(&event("message-back")), "{answer}");
    assert!(answer.ends_with("]\x1ebAQIDBA==\x1eb"), "{answer}");

    let mut socket = EngineSocket::open(&host.ws).await;
    let attachments = [Packet::Binary(vec![1, 2, 3, 4]), Packet::Binary(vec![])];
    socket.send("40").await;
    socket.send(&*format!("{}]", event("message"))).await;
    for attachment in &attachments {
        socket.send(attachment.clone()).await;
    }
    let text = loop {
        match socket.next().await.unwrap() {
            Packet::Text(text) if text.starts_with("452") => break text,
            _ => {}
        }
    };
    assert!(text.starts_with(&event("message-back")), "{text}");
    for attachment in attachments {
        assert_eq!(socket.next().await, Ok(attachment));
    }

    // Raw binary bodies belong to an earlier version of the protocol.
    let path = polling.path();
    let answer = http(&host.ws, "POST", &path, &[("content-type", "application/octet-stream")], "3").await.unwrap();
    assert_eq!(error_code(&answer), (400, 3));
    assert_eq!(error_code(&polling.poll().await), (400, 1), "the session is gone");
    drop(socket);
    host.shut_down().await;
}

#[tokio::test]
async fn malformed_payload_ends_the_session() {
    let host = InnerHost::start(CONFIG).await;
    for payload in [&b""[..], b"abc", b"7", b"4a\x1e", b"0{}", b"b%%%", b"4\xff\xfe"] {
        let polling = connected_polling(&host).await;
        let waiting = polling.begin_poll();
        let answer = http(&host.ws, "POST", &polling.path(), &[], payload.to_vec()).await.unwrap();
        assert_eq!(error_code(&answer), (400, 3), "{payload:?}");
        expect_session_gone(&polling).await;
        // The poll may have arrived after the end of the session. If a packet was malformed, the reason precedes the
        // close packet.
        let waited = waiting.await.unwrap();
        assert!(
            waited.text == "1" || waited.text.ends_with("\u{1e}1") || error_code(&waited) == (400, 1),
            "{payload:?}: {}",
            waited.text
        );
    }
    for packet in [Packet::from("abc"), "".into(), "0{}".into(), "2".into(), Packet::Binary(vec![1])] {
        let mut socket = EngineSocket::open(&host.ws).await;
        socket.send("40").await;
        socket.send(packet.clone()).await;
        assert_eq!(socket.closed().await.code, Some(1002), "{packet:?}");
    }
    host.shut_down().await;
}

#[tokio::test]
async fn request_over_the_limit_keeps_the_session() {
    let host = InnerHost::start(&format!("{CONFIG}limits.message_bytes = 1000")).await;
    let polling = Polling::open(&host.ws).await;
    let refused = |answer: &Answer| (answer.status, answer.text.clone());
    let answer = polling.post(&format!("4{}", "x".repeat(1000))).await;
    assert_eq!(refused(&answer), (413, String::new()));
    let mut chunked = polling.begin("POST", "transfer-encoding: chunked\r\nconnection: close\r\n").await;
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    chunked.write_all(chunk.as_bytes()).await.unwrap();
    let answer = answer_to(chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let whole = format!("40/{},", "x".repeat(996));
    assert_eq!(whole.len(), 1000);
    assert_eq!(polling.post(&whole).await.text, "ok", "exactly the limit is not too much");

    let mut socket = EngineSocket::open(&host.ws).await;
    socket.send(&*"x".repeat(1001)).await;
    assert_eq!(socket.closed().await.code, Some(1009));
    polling.poll().await;
    host.shut_down().await;
}

#[tokio::test]
async fn concurrent_polls_end_the_session() {
    let host = InnerHost::start(CONFIG).await;
    let polling = connected_polling(&host).await;
    let (one, other) = tokio::join!(polling.begin_poll(), polling.begin_poll());
    let (one, other) = (one.unwrap(), other.unwrap());
    let (first, second) = if one.status == 200 { (one, other) } else { (other, one) };
    assert_eq!((first.status, &*first.text), (200, "1"));
    assert_eq!(error_code(&second), (400, 3));
    assert_eq!(error_code(&polling.poll().await), (400, 1));
    host.shut_down().await;
}

#[tokio::test]
async fn concurrent_posts_end_the_session() {
    let host = InnerHost::start(CONFIG).await;
    let polling = connected_polling(&host).await;
    let mut first = polling.begin_post().await;
    assert_eq!(error_code(&polling.post("3").await), (400, 3));
    assert_eq!(error_code(&polling.poll().await), (400, 1));
    first.write_all(b"3").await.unwrap();
    let answer = answer_to(first).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    host.shut_down().await;
}

#[tokio::test]
async fn interrupted_request_ends_the_session() {
    let host = InnerHost::start(&format!("{CONFIG}shards = 1")).await;
    let polling = connected_polling(&host).await;
    let waiting = polling.begin("GET", "").await;
    // One shard handles requests in the order of arrival: when these posts are answered, the poll is pending.
    for _ in 0..2 {
        assert_eq!(polling.post("3").await.text, "ok");
    }
    drop(waiting);
    expect_session_gone(&polling).await;

    let polling = connected_polling(&host).await;
    let first = polling.begin_post().await;
    let waiting = polling.begin_poll();
    drop(first);
    let waited = waiting.await.unwrap();
    assert!(waited.text == "1" || error_code(&waited) == (400, 1), "{}", waited.text);
    expect_session_gone(&polling).await;
    host.shut_down().await;
}

#[tokio::test]
async fn one_keep_alive_connection_carries_a_session() {
    let host = InnerHost::start(CONFIG).await;
    let polling = Polling::open(&host.ws).await;
    let (path, address) = (polling.path(), host.ws.trim_start_matches("ws://").to_owned());
    let mut socket = TcpStream::connect(&address).await.unwrap();
    for n in 0..5 {
        let packet = format!("40/{n},");
        let post = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{packet}", packet.len());
        for (request, wanted) in [
            (post, "\r\n\r\nok".to_owned()),
            (
                format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"),
                format!("\r\n\r\n44/{n},{{\"message\":\"Invalid namespace\"}}"),
            ),
        ] {
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let read = async {
                while !answer.ends_with(wanted.as_bytes()) {
                    assert!(socket.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
                }
            };
            assert!(timeout(TIMEOUT, read).await.is_ok(), "{}", String::from_utf8_lossy(&answer));
        }
    }
    host.shut_down().await;
}

#[tokio::test]
async fn polling_requests_work_on_any_shard() {
    let host = InnerHost::start(&format!("{CONFIG}shards = 4")).await;
    let polling = connected_polling(&host).await;
    let mut parked = Vec::new();
    for n in 0..12 {
        // This connection goes to the shard with the fewest connections, so that the next one goes to another.
        parked.push(TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap());
        assert_eq!(polling.post(&format!("42[\"no:such\",{n}]")).await.text, "ok");
        let answer = polling.poll().await;
        assert!(answer.text.starts_with("42[\"error\",{\"code\":\"unknown_event\""), "{}", answer.text);
    }
    drop(parked);
    host.shut_down().await;
}

#[tokio::test]
async fn python_clients_get_at_most_sixteen_packets() {
    const N_EVENTS: usize = 40;
    let host = InnerHost::start(CONFIG).await;
    let polling = Polling::open(&host.ws).await;
    polling.send(&["40".into()]).await;
    for (agent, most) in [("python-requests/2.32", 16), ("Python/3.13 aiohttp/3.14", 16), ("Mozilla/5.0", N_EVENTS + 1)]
    {
        for n in 0..N_EVENTS {
            assert_eq!(host.emit(json!({ "all": true }), "n", json!(n)).await, 1);
        }
        let mut numbers: Vec<usize> = Vec::new();
        while numbers.len() < N_EVENTS {
            let answer = http(&host.ws, "GET", &polling.path(), &[("user-agent", agent)], "").await.unwrap();
            let packets: Vec<_> = answer.text.split('\x1e').map(str::to_owned).collect();
            assert!(packets.len() <= most, "{agent}: {}", packets.len());
            numbers.extend(
                packets
                    .iter()
                    .filter_map(|packet| packet.strip_prefix("42[\"n\",")?.split(',').next()?.parse::<usize>().ok()),
            );
        }
        assert_eq!(numbers, (0..N_EVENTS).collect::<Vec<_>>(), "{agent}");
    }
    drop(polling);
    host.shut_down().await;
}

#[tokio::test]
async fn binary_message_is_measured_decoded() {
    const LIMIT: usize = 3000;
    let host = InnerHost::start(&format!("{CONFIG}limits.message_bytes = {LIMIT}")).await;
    host.load("conformance", conformance()).await;
    let base64 = |length: usize| format!("b{}", STANDARD.encode(vec![7; length]));
    let event = "451-[\"message\",{\"_placeholder\":true,\"num\":0}]";
    let polling = connected_polling(&host).await;
    assert_eq!(polling.post(event).await.text, "ok");
    assert_eq!(polling.post(&base64(LIMIT + 1)).await.status, 413);
    assert_eq!(polling.post(&base64(LIMIT)).await.text, "ok");
    eventually("the event is back", async || polling.poll().await.text.contains(&base64(LIMIT)).then_some(())).await;
    // The sizes of the packets of one payload are added up.
    assert_eq!(polling.post(&format!("{event}\x1e{}", base64(LIMIT))).await.status, 413);
    assert_eq!(polling.post(&format!("{event}\x1e{}", base64(LIMIT - 100))).await.text, "ok");

    let mut socket = EngineSocket::open(&host.ws).await;
    socket.send("40").await;
    socket.send(event).await;
    socket.send(&*base64(LIMIT)).await;
    while socket.next().await.unwrap() != Packet::Binary(vec![7; LIMIT]) {}
    for too_long in
        [Packet::Text(base64(LIMIT + 1)), Packet::Binary(vec![7; LIMIT + 1]), Packet::Text("4".repeat(LIMIT + 1))]
    {
        let mut socket = EngineSocket::open(&host.ws).await;
        socket.send("40").await;
        socket.send(event).await;
        socket.send(too_long).await;
        assert_eq!(socket.closed().await.code, Some(1009));
    }
    drop(socket);
    host.shut_down().await;
}
