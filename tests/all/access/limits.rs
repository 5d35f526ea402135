//! The limits of requests, sockets and single event names, and the page that lists all limits.

use std::time::Duration;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{InnerHost, TIMEOUT, TestHost, eventually, http, metric};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::recovery::CONFIG;

/// How often a limit has refused or ended something.
async fn limited(api: &str, key: &str) -> u64 {
    metric(api, &format!("limited_total{{limit=\"{key}\"}}")).await
}

#[tokio::test]
async fn http_connections_per_address_are_limited() {
    let more = "limits.http_connections_per_ip = 2\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let host = InnerHost::start(&format!("{CONFIG}{more}")).await;
    let open = async |client: &str| {
        let mut socket = TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap();
        let head = format!("PROXY TCP4 {client} 10.0.0.1 1 2\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(TIMEOUT, socket.read_exact(&mut answer)).await.unwrap().unwrap();
        (socket, String::from_utf8_lossy(&answer[9..]).into_owned())
    };
    let (first, status) = open("192.0.2.7").await;
    let (_second, _) = open("192.0.2.7").await;
    assert_eq!(status, "200");
    let (mut third, status) = open("192.0.2.7").await;
    assert_eq!(status, "503");
    // The host ends the connection with the request unread, so that the end may be a reset.
    let _ = timeout(TIMEOUT, third.read_to_end(&mut Vec::new())).await.expect("the connection ends");
    assert_eq!(limited(&host.api, "http_connections_per_ip").await, 1);
    // Others are not affected, and neither is a proxy that names no client before TLS or HTTP.
    assert_eq!(open("192.0.2.8").await.1, "200");
    for _ in 0..4 {
        assert_eq!(http(&host.ws, "GET", "/healthz", &[], "").await.unwrap().status, 200);
    }
    drop(first);
    eventually("a place is free again", async || (open("192.0.2.7").await.1 == "200").then_some(())).await;
}

#[tokio::test]
async fn websocket_leaves_its_place_among_http_connections() {
    let host = InnerHost::start(&format!("{CONFIG}limits.http_connections_per_ip = 1")).await;
    let mut clients = Vec::new();
    for n in 0..3 {
        let url = format!("{}/ws?token={}", host.ws, host.token(&format!("user-{n}"), None));
        // The client before leaves its place when its handshake is answered.
        let client = eventually("a place is free", async || tokio_tungstenite::connect_async(&url).await.ok()).await;
        clients.push(client);
    }
}

#[tokio::test]
async fn requests_per_address_are_limited() {
    let more = "limits.requests_per_second_per_ip = 10\nlimits.request_burst_per_ip = 5\n\
                trusted_proxies = [\"127.0.0.0/8\"]";
    let host = InnerHost::start(&format!("{CONFIG}{more}")).await;
    let ask = async |client: &str, path: &str| {
        let answer = http(&host.ws, "GET", path, &[("x-forwarded-for", client)], "").await.unwrap();
        (answer.status, answer.header("retry-after").to_owned(), answer.body["code"].clone())
    };
    let poll = "/socket.io/?EIO=4&transport=polling";
    for _ in 0..5 {
        assert_eq!(ask("192.0.2.7", poll).await.0, 200);
    }
    for path in [poll, "/healthz", "/ws", "/nowhere"] {
        assert_eq!(ask("192.0.2.7", path).await, (429, "1".to_owned(), json!("rate_limited")), "{path}");
    }
    assert_eq!(ask("192.0.2.8", poll).await.0, 200, "another address");
    assert_eq!(limited(&host.api, "requests_per_second_per_ip").await, 4);
    host.advance(Duration::from_millis(100));
    assert_eq!((ask("192.0.2.7", poll).await.0, ask("192.0.2.7", poll).await.0), (200, 429));
    // Addresses of one IPv6 network count as one.
    for n in 0..5 {
        assert_eq!(ask(&format!("2001:db8::{n}"), "/healthz").await.0, 200);
    }
    assert_eq!(ask("2001:db8::9", "/healthz").await.0, 429);
}

#[tokio::test]
async fn client_that_stays_over_its_requests_is_disconnected() {
    let more = "limits.requests_per_second_per_ip = 1\nlimits.request_burst_per_ip = 1";
    let host = InnerHost::start(&format!("{CONFIG}{more}")).await;
    let mut socket = TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap();
    let requests = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
    socket.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    // The host resets the connection, because it has not read the rest.
    let _ = timeout(TIMEOUT, socket.read_to_end(&mut answers)).await.expect("the connection ends");
    let answers = String::from_utf8_lossy(&answers).into_owned();
    assert_eq!(answers.matches("HTTP/1.1 429").count(), 100, "{answers}");
}

#[tokio::test]
async fn event_names_have_limits_of_their_own() {
    let more = "limits.events.\"hostile:count\" = { per_second = 2, burst = 3 }";
    let host = InnerHost::start(&format!("{CONFIG}{more}")).await;
    host.load("hostile", hostile("normal")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    for _ in 0..3 {
        ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    }
    let refused = ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap_err();
    assert_eq!(refused["code"], "rate_limited");
    assert!(refused["message"].as_str().unwrap().contains("hostile:count"), "{refused}");
    assert_eq!(limited(&host.api, "events.hostile:count").await, 1);
    // Other events, and other clients.
    ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await.unwrap();
    ben.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    host.advance(Duration::from_millis(500));
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    // A client that goes on is disconnected in the end.
    for _ in 0..1100 {
        ana.emit("hostile:count", json!({ "id": "a" })).await;
    }
    assert_eq!(ana.closed().await.code, Some(1008));
    ben.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
}

#[tokio::test]
async fn user_over_its_rate_is_refused_and_then_disconnected() {
    const PER_SECOND: u64 = 40;
    let more = "auth.jwt.secret = \"s\"\nlimits.events_per_second_per_user = 1\nlimits.event_burst_per_user = 2";
    let host = InnerHost::start(more).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    let view = json!({ "ticketId": "507f1f77bcf86cd799439011" });
    ana.emit_with_ack("ticket:view", view.clone()).await.unwrap();
    ana.emit_with_ack("ticket:view", view.clone()).await.unwrap();
    assert_eq!(ana.emit_refused("ticket:view", view.clone()).await, "rate_limited");
    // Below the rate of the connection, and far over the user's.
    let mut seconds = 0;
    while metric(&host.api, "connections_cut_off_total").await == 0 {
        assert!(seconds < 60, "the client was not cut off");
        host.advance(Duration::from_secs(1));
        let before = limited(&host.api, "events_per_second_per_user").await;
        for _ in 0..PER_SECOND {
            ana.emit("ticket:view", view.clone()).await;
        }
        eventually("the events are judged", async || {
            let judged = limited(&host.api, "events_per_second_per_user").await - before;
            let is_cut_off = metric(&host.api, "connections_cut_off_total").await == 1;
            (judged >= PER_SECOND - 1 || is_cut_off).then_some(())
        })
        .await;
        seconds += 1;
    }
    assert!(seconds > 10, "after {seconds} s");
    assert_eq!(ana.closed().await.code, Some(1008));
    ben.emit_with_ack("ticket:view", view).await.unwrap();
}

#[tokio::test]
async fn heads_over_their_time_or_length_are_counted() {
    let more = "limits.handshake = \"200ms\"\nlimits.header_bytes = 8192";
    let host = TestHost::start_with(&format!("{CONFIG}{more}"), &[]);
    for (n, base) in [&host.ws, &host.api].into_iter().enumerate() {
        let address = base.split_once("://").unwrap().1;
        let (before, early) = (limited(&host.api, "header_bytes").await, limited(&host.api, "handshake").await);
        let mut long = TcpStream::connect(address).await.unwrap();
        let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(9000));
        long.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(TIMEOUT, long.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer[9..], b"431", "listener {n}");
        eventually("the long head is counted", async || {
            (limited(&host.api, "header_bytes").await == before + 1).then_some(())
        })
        .await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /healthz HTTP/1.1\r\nhos").await.unwrap();
        for socket in [&mut silent, &mut half] {
            let end = timeout(TIMEOUT, socket.read(&mut [0; 8])).await.expect("a slow head ends its connection");
            assert_eq!(end.unwrap_or(0), 0);
        }
        eventually("the slow heads are counted", async || {
            (limited(&host.api, "handshake").await >= early + 2).then_some(())
        })
        .await;
    }
}

/// The page, and the tests that it names.
const PAGE: &str = include_str!("../../../docs/limits.md");
const THREATS: &str = include_str!("../../../docs/threat-model.md");

#[test]
fn pages_name_existing_tests() {
    let mut sources = String::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/all"))];
    folders.push(concat!(env!("CARGO_MANIFEST_DIR"), "/../host/src").into());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.extension() {
                Some(extension) if extension == "rs" => sources += &std::fs::read_to_string(entry).unwrap(),
                None => folders.push(entry),
                Some(_) => {}
            }
        }
    }
    for name in THREATS
        .split("\n## Attacks and tests")
        .nth(1)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("| "))
        .flat_map(|row| row.trim_end_matches(" |").rsplit(" | ").next().unwrap().split('`').skip(1).step_by(2))
    {
        assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}, which the threat model names");
    }
    let rows: Vec<&str> = PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| limit ")).collect();
    assert!(rows.len() > 20, "the page has a table");
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}: {row}");
        }
    }
}
