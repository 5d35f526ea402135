//! File descriptors: the host keeps some for itself when clients have taken all others.

use std::fmt::Write as _;

use roundhouse_tests::raw::connect_raw;
use roundhouse_tests::{TestHost, eventually, http, metric};
use serde_json::json;
use tokio::net::TcpStream;

const CONFIG: &str = "auth.jwt.secret = \"s\"\nshards = 1\nplugins.threads = 1\n";

/// A host whose limit of open descriptors is set by `ulimit`.
fn host_with(limit: &str) -> TestHost {
    TestHost::start_under(&["sh", "-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")], CONFIG)
}

#[tokio::test]
async fn health_and_api_answer_without_free_descriptors() {
    let host = host_with("-n 96");
    let mut ana = host.client("ana").await;
    let token = host.token("ben");
    let mut clients = Vec::new();
    // Each of 200 clients is answered without waiting for another's time-out.
    let mut refusals = String::new();
    for _ in 0..200 {
        match connect_raw(&host.ws, &token).await {
            Ok(client) => clients.push(client),
            Err(error) => writeln!(refusals, "{error}").unwrap(),
        }
    }
    assert!(!clients.is_empty() && clients.len() < 90, "{} clients were let in", clients.len());
    assert!(refusals.contains("503") && refusals.contains("retry-after: 1"), "{refusals}");
    // Silent connections do not delay clients that send.
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap());
    }
    for _ in 0..20 {
        for (base, path, status) in
            [(&host.ws, "/healthz", 200), (&host.api, "/healthz", 200), (&host.api, "/readyz", 200)]
        {
            let answer = http(base, "GET", path, &[], "").await.unwrap();
            assert_eq!((answer.status, answer.header("connection")), (status, "close"), "{path}");
        }
    }
    assert_eq!(http(&host.ws, "GET", "/readyz", &[], "").await.unwrap().status, 503, "it takes no new clients");
    assert!(ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok(), "who is here goes on");
    assert_eq!(host.get("/v1/connections?user=ana").await["connections"].as_array().unwrap().len(), 1);
    let refused = metric(&host.api, "connections_refused_total").await;
    assert!(refused as usize > 200 - clients.len(), "{refused}");
    let log = host.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(lines.len() < 5, "{lines:?}");
    assert!(log.contains("no file descriptors are left for clients") && log.contains("ulimit -n"), "{log}");

    drop((clients, silent));
    eventually("there is room again", async || connect_raw(&host.ws, &token).await.ok()).await;
}

#[tokio::test]
async fn soft_limit_is_raised_and_logged() {
    let host = host_with("-Sn 96");
    assert!(host.log().contains("raised_from=\"96\""), "{}", host.log());
    let token = host.token("ana");
    let mut clients = Vec::new();
    for _ in 0..150 {
        clients.push(connect_raw(&host.ws, &token).await.unwrap());
    }
}
