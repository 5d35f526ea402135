//! HTTP on either port: clients' addresses behind proxies, idle connections, methods and upgrades.

use std::time::Duration;

use roundhouse_tests::{ENGINE, Polling, TIMEOUT, TestClient, TestHost, http, with_headers};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMITED: &str = "auth.jwt.secret = \"s\"\nlimits.connections_per_ip = 1\n";
const TRUSTING: &str = "trusted_proxies = [\"127.0.0.0/8\"]\n";

/// Whether the host accepts a client whose request has this header.
async fn is_accepted(host: &TestHost, token: &str, header: (&str, &str), kept: &mut Vec<TestClient>) -> bool {
    let mut client = TestClient::open(with_headers(&format!("{}/ws?token={token}", host.ws), &[header])).await;
    let first = timeout(TIMEOUT, client.next_or_closed()).await.expect("a frame in time");
    match first {
        Ok(_) => kept.push(client),
        Err(ref closed) => assert_eq!(closed.code, Some(4009)),
    }
    first.is_ok()
}

/// Sends raw bytes on a new connection. Returns all bytes until its end.
async fn exchange(address: &str, bytes: &[u8]) -> String {
    let mut socket =
        TcpStream::connect(address.trim_start_matches("ws://").trim_start_matches("http://")).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    timeout(TIMEOUT, socket.read_to_end(&mut answer)).await.expect("an end in time").unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn forwarded_clients_count_by_their_own_address() {
    let host = TestHost::start_with(&format!("{TRUSTING}{LIMITED}"), &[]);
    let token = host.token("ana");
    let mut kept = Vec::new();
    for (name, value, wanted) in [
        ("x-forwarded-for", "192.0.2.1", true),
        ("x-forwarded-for", "192.0.2.1", false),
        ("x-forwarded-for", "192.0.2.2, 127.0.0.9", true),
        ("x-forwarded-for", "6.6.6.6, 192.0.2.2", false),
        ("forwarded", "for=192.0.2.1", false),
        ("forwarded", "for=\"[2001:db8:0:1::1]:4711\"", true),
        // Another address of the same /64 network, which counts as the same client.
        ("x-forwarded-for", "2001:db8:0:1:ffff::2", false),
        ("x-forwarded-for", "2001:db8:0:2::1", true),
        ("x-forwarded-for", "::ffff:192.0.2.1", false),
        // A malformed header counts as the proxy's own address.
        ("x-forwarded-for", "nonsense", true),
        ("x-forwarded-for", "unknown", false),
    ] {
        assert_eq!(is_accepted(&host, &token, (name, value), &mut kept).await, wanted, "{name}: {value}");
    }
    // Polling sessions count as connections too.
    let poll = format!("{ENGINE}&transport=polling");
    for (client, status) in [("192.0.2.1", 503), ("192.0.2.9", 200), ("192.0.2.9", 503)] {
        let answer = http(&host.ws, "GET", &poll, &[("x-forwarded-for", client)], "").await.unwrap();
        assert_eq!(answer.status, status, "{client}: {}", answer.text);
    }
    assert!(!host.log().contains("trusted_proxies"), "{}", host.log());
}

#[tokio::test]
async fn untrusted_forwarded_headers_are_ignored_with_one_warning() {
    let host = TestHost::start_with(LIMITED, &[]);
    let token = host.token("ana");
    let mut kept = Vec::new();
    assert!(is_accepted(&host, &token, ("x-forwarded-for", "192.0.2.1"), &mut kept).await);
    for client in ["192.0.2.2", "192.0.2.3"] {
        assert!(!is_accepted(&host, &token, ("x-forwarded-for", client), &mut kept).await, "{client}");
    }
    let log = host.log();
    assert_eq!(log.matches("belongs in trusted_proxies").count(), 1, "{log}");
}

#[tokio::test]
async fn refusals_from_one_address_log_a_proxy_warning() {
    let host = TestHost::start_with(LIMITED, &[]);
    let token = host.token("ana");
    let mut kept = Vec::new();
    for wanted in [true, false, false] {
        assert_eq!(is_accepted(&host, &token, ("x-other", "x"), &mut kept).await, wanted);
    }
    assert_eq!(host.log().matches("all clients come from one address").count(), 1, "{}", host.log());
}

#[tokio::test]
async fn trusted_proxy_protocol_header_gives_client_address() {
    let host = TestHost::start_with(&format!("{TRUSTING}{LIMITED}"), &[]);
    let poll = format!("GET {ENGINE}&transport=polling HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let v1 = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 4711 80\r\n").into_bytes();
    let v2 = |command: u8, client: [u8; 4]| {
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11, 0, 12][..], &client, &[127, 0, 0, 1, 18, 103, 0, 80]].concat()
    };
    for (header, status) in [
        (v1("192.0.2.1"), 200),
        (v1("192.0.2.1"), 503),
        (v2(0x21, [192, 0, 2, 1]), 503),
        (v2(0x21, [192, 0, 2, 2]), 200),
        (b"PROXY UNKNOWN\r\n".to_vec(), 200),
        // A connection of the proxy itself.
        (v2(0x20, [192, 0, 2, 3]), 503),
        (Vec::new(), 503),
    ] {
        let answer = exchange(&host.ws, &[&header, poll.as_bytes()].concat()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{header:?}: {answer}");
    }
    assert_eq!(exchange(&host.ws, b"PROXY TCP4 nonsense\r\n").await, "", "what is malformed has no answer");
    // The PROXY header in pieces, as a network may deliver it.
    let mut socket = TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in [&v1("192.0.2.4")[..], poll.as_bytes()].concat() {
        socket.write_all(&[byte]).await.unwrap();
    }
    let mut answer = String::new();
    timeout(TIMEOUT, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let host = TestHost::start_with(LIMITED, &[]);
    let answer = exchange(&host.ws, &[&v1("192.0.2.1")[..], poll.as_bytes()].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "who is not trusted speaks HTTP: {answer}");
}

/// Sends one request on a connection that stays open. Returns the head of the response.
async fn request(socket: &mut TcpStream, head: &str) -> String {
    socket.write_all(format!("{head} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        answer.push(timeout(TIMEOUT, socket.read_u8()).await.expect("an answer in time").expect("an answer"));
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn idle_connections_live_for_keep_alive() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.keep_alive = \"12s\"", &[]);
    let addresses = [host.ws.trim_start_matches("ws://"), host.api.trim_start_matches("http://")];
    let used = addresses.map(async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        assert!(request(&mut socket, "HEAD /healthz").await.starts_with("HTTP/1.1 200"));
        // Longer than the time-out of a new connection's first request.
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(request(&mut socket, "HEAD /healthz").await.starts_with("HTTP/1.1 200"));
        let ended = timeout(TIMEOUT, socket.read_u8()).await.expect("an end in time");
        assert!(ended.is_err(), "an idle connection ends");
    });
    let [clients, api] = used;
    tokio::join!(clients, api);
}

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let host = TestHost::start();
    for (base, path) in [(&host.ws, "/healthz"), (&host.ws, "/readyz"), (&host.ws, "/"), (&host.ws, "/ws")]
        .into_iter()
        .chain(["/healthz", "/readyz", "/metrics", "/openapi.json"].map(|path| (&host.api, path)))
    {
        // The demo page is served under names of this machine alone.
        let get = http(base, "GET", path, &[], "").await.unwrap();
        let head = http(base, "HEAD", path, &[], "").await.unwrap();
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
    let answer = http(&host.ws, "HEAD", &format!("{ENGINE}&transport=polling"), &[], "").await.unwrap();
    assert_eq!(answer.status, 400, "a session is opened by GET alone, as in the reference");
}

#[tokio::test]
async fn other_upgrade_offers_are_ignored() {
    let host = TestHost::start();
    let h2c = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")];
    for (base, path) in [
        (&host.ws, format!("{ENGINE}&transport=polling")),
        (&host.ws, "/healthz".to_owned()),
        (&host.api, "/readyz".into()),
    ] {
        let answer = http(base, "GET", &path, &h2c, "").await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    let answer = http(&host.ws, "GET", "/ws", &h2c, "").await.unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (426, "websocket"));
}

#[tokio::test]
async fn slow_posts_keep_their_polling_session() {
    let host =
        TestHost::start_with("auth.jwt.secret = \"s\"\nheartbeat = { interval = \"2s\", timeout = \"5s\" }", &[]);
    let polling = Polling::open(&host.ws).await;
    let packet = format!("40{}", serde_json::json!({ "token": host.token("ana") }));
    let mut post = polling.begin("POST", &format!("content-length: {}\r\n", packet.len())).await;
    // The post takes longer than the heartbeat's time-out. The client cannot answer pings meanwhile, because it sends
    // one request at a time.
    let pieces: Vec<&[u8]> = packet.as_bytes().chunks(packet.len().div_ceil(16)).collect();
    for piece in pieces {
        post.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut answer = vec![0; 12];
    timeout(TIMEOUT, post.read_exact(&mut answer)).await.expect("an answer in time").unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 200");
}
