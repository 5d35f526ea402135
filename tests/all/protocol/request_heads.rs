//! Heads of requests: one host and one length, so that each parser on the path reads the same request.

use roundhouse_tests::{ENGINE, TIMEOUT, TestHost, http};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const KEY: &str = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends raw bytes on a new connection. Returns all responses until its end.
async fn exchange(base: &str, bytes: &str) -> String {
    let address = base.trim_start_matches("ws://").trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The host may end the connection with a reset after its response, if unread bytes are left.
    let _ = timeout(TIMEOUT, socket.read_to_end(&mut answer)).await.expect("an end in time");
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.match_indices("HTTP/1.1 ").map(|(at, found)| &answers[at + found.len()..][..3]).collect()
}

#[tokio::test]
async fn conflicting_lengths_are_refused_and_close() {
    let host = TestHost::start();
    let get = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let post = "POST /v1/emit HTTP/1.1\r\nhost: x\r\n";
    let (chunked, sized) = ("transfer-encoding: chunked\r\n", "content-length: 6\r\n");
    let body = "0\r\n\r\nX";
    // The bad request follows others on its connection, one of which is chunked and read.
    let key = &host.key;
    let read = format!("{post}authorization: Bearer {key}\r\n{chunked}\r\n2\r\n{{}}\r\n0\r\n\r\n");
    for (base, before, wanted) in [
        (&host.ws, get.repeat(2), &["200", "200", "400"][..]),
        (&host.api, [get, &read, get].concat(), &["200", "400", "200", "400"]),
    ] {
        for lengths in [[chunked, sized].concat(), [sized, chunked].concat()] {
            // A request after the bad one must not be handled.
            let answers = exchange(base, &format!("{before}{post}{lengths}\r\n{body}{get}")).await;
            assert_eq!(statuses(&answers), wanted, "{answers}");
            assert!(answers.contains("and not both"), "{answers}");
        }
    }
}

#[tokio::test]
async fn requests_need_exactly_one_host() {
    let host = TestHost::start();
    for base in [&host.ws, &host.api] {
        for (head, status) in [
            ("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "200"),
            ("GET /healthz HTTP/1.1\r\n\r\n", "400"),
            ("GET /healthz HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", "400"),
            ("GET /healthz HTTP/1.1\r\nhost: x\r\nHost: y\r\n\r\n", "400"),
            ("GET /healthz HTTP/1.1\r\nhost: x, y\r\n\r\n", "400"),
            ("GET /healthz HTTP/1.1\r\nhost: x\r\norigin: http://a\r\norigin: http://b\r\n\r\n", "400"),
        ] {
            let answer = exchange(base, head).await;
            assert_eq!(statuses(&answer), [status], "{head}: {answer}");
        }
        // Probes by HTTP/1.0, which has no host header.
        let answer = exchange(base, "GET /healthz HTTP/1.0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }
}

#[tokio::test]
async fn handshakes_with_a_body_are_refused() {
    let host = TestHost::start();
    let token = host.token("ana");
    for path in [format!("/ws?token={token}"), format!("{ENGINE}&transport=websocket")] {
        for length in ["content-length: 6\r\n", "transfer-encoding: chunked\r\n"] {
            let head = format!(
                "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n{KEY}{length}\r\n"
            );
            // The frame of a WebSocket ping.
            let answer = exchange(&host.ws, &format!("{head}\u{9}\u{0}\u{0}\u{0}\u{0}\u{0}")).await;
            assert_eq!(statuses(&answer), ["400"], "{answer}");
            assert!(answer.contains("no body"), "{answer}");
        }
    }
}

/// Offers subprotocols in a handshake. Returns the head of the response.
async fn offer(host: &TestHost, offered: &str) -> String {
    let mut socket = TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap();
    let path = format!("/ws?token={}", host.token("ana"));
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n{KEY}sec-websocket-protocol: {offered}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(TIMEOUT, socket.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn only_the_known_subprotocol_is_selected() {
    let host = TestHost::start();
    let other = offer(&host, "access_token, a.b.c").await;
    assert!(other.starts_with("HTTP/1.1 101") && !other.contains("sec-websocket-protocol"), "{other}");
    let ours = offer(&host, "mqtt, roundhouse").await;
    assert!(ours.contains("sec-websocket-protocol: roundhouse\r\n"), "{ours}");
}

#[tokio::test]
async fn every_answer_forbids_content_sniffing() {
    let host = TestHost::start();
    for (base, method, path) in [
        (&host.ws, "GET", "/"),
        (&host.ws, "GET", "/healthz"),
        (&host.ws, "GET", "/nowhere"),
        (&host.ws, "GET", "/ws"),
        (&host.ws, "GET", &*format!("{ENGINE}&transport=polling")),
        (&host.ws, "OPTIONS", ENGINE),
        (&host.api, "GET", "/metrics"),
        (&host.api, "GET", "/v1/stats"),
        (&host.api, "POST", "/healthz"),
    ] {
        let answer = http(base, method, path, &[], "").await.unwrap();
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {path} {}", answer.status);
    }
}

#[tokio::test]
async fn heads_over_the_limit_are_refused() {
    let host = TestHost::start();
    for base in [&host.ws, &host.api] {
        for (length, status) in [(20_000, "200"), (40_000, "431")] {
            let head = format!(
                "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long: {}\r\n\r\n",
                "x".repeat(length)
            );
            let answer = exchange(base, &head).await;
            assert_eq!(statuses(&answer), [status], "{length}");
        }
    }
}

#[tokio::test]
async fn repeated_refusals_close_the_connection() {
    let host = TestHost::start();
    for base in [&host.ws, &host.api] {
        let answers = exchange(base, &"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n".repeat(150)).await;
        assert_eq!(statuses(&answers), ["404"; 100]);
        assert_eq!(answers.matches("connection: close").count(), 1);
    }
}
