//! How a host ends.

use std::process::Command;
use std::time::{Duration, Instant};

use roundhouse_tests::{TestHost, http};
use serde_json::json;

#[tokio::test]
async fn a_host_that_is_told_to_end_tells_its_clients_flushes_and_ends() {
    for signal in ["-TERM", "-INT"] {
        let mut host = TestHost::start();
        let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
        ana.ask("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
        ben.ask("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
        let (api, ws) = (host.api.clone(), host.ws.clone());
        assert!(Command::new("kill").args([signal, &host.pid().to_string()]).status().unwrap().success());
        let (first, second) = tokio::join!(ana.closed(), ben.closed());
        assert_eq!((first.code, second.code), (Some(1012), Some(1012)));
        let status = tokio::task::spawn_blocking(move || host.wait_for_exit()).await.unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(http(&api, "GET", "/readyz", &[], "").await.is_err());
        assert!(http(&ws, "GET", "/healthz", &[], "").await.is_err());
    }
}

#[tokio::test]
async fn a_client_that_does_not_answer_holds_the_end_up_for_a_bounded_time() {
    let mut host = TestHost::start();
    // It never reads, and so never answers the close.
    let _deaf = host.client("ana").await;
    let started = Instant::now();
    host.terminate();
    let status = tokio::task::spawn_blocking(move || host.wait_for_exit()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}
