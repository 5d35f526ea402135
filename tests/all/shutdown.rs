//! How a host ends.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use roundhouse_tests::guests::ticket_collision;
use roundhouse_tests::{TestClient, TestHost, eventually, http};
use serde_json::json;

#[tokio::test]
async fn a_host_that_is_told_to_end_tells_its_clients_flushes_and_ends() {
    for signal in ["-TERM", "-INT", "-HUP"] {
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
async fn a_load_that_is_under_way_does_not_hold_the_end_up() {
    let mut host = TestHost::start();
    let mut ana = host.client("ana").await;
    ana.ask("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    ana.close().await;
    let component = ticket_collision("0.1.1");
    let (api, authorization) = (host.api.clone(), format!("Bearer {}", host.key));
    let loading = tokio::spawn(async move {
        http(&api, "PUT", "/v1/plugins/ticket-collision", &[("authorization", &authorization)], component).await
    });
    eventually("the load has begun", async || host.log().contains("asked to load").then_some(())).await;
    host.terminate();
    let status = tokio::task::spawn_blocking(move || host.wait_for_exit()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    // It may have been in time, or have been refused, or have found nobody.
    drop(loading.await.unwrap());
}

#[tokio::test]
async fn a_log_that_cannot_be_written_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = TestHost::command(dir.path());
    command.args(["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(full);
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let ws = line["listening"].as_str().unwrap();
    let token = http(ws, "GET", "/demo/token?user=ana", &[], "").await.unwrap();
    let mut ana = TestClient::connect(ws, token.body["token"].as_str().unwrap()).await;
    assert!(ana.ask("ticket:view", json!({ "ticketId": "t1" })).await.is_ok());
    // What ends it is said in the log.
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_damaged_cache_of_compiled_components_is_made_anew() {
    let cache = tempfile::tempdir().unwrap();
    std::fs::set_permissions(cache.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let env = [("ROUNDHOUSE_PLUGINS__CACHE", cache.path().to_str().unwrap())];
    drop(TestHost::start_with("", &env));
    let file = std::fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    let mut code = std::fs::read(&file).unwrap();
    let middle = code.len() / 2;
    code[middle..].fill(0);
    std::fs::write(&file, &code).unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert!(TestHost::command(dir.path()).arg("check").envs(env).output().unwrap().status.success());
    assert_eq!(std::fs::read(&file).unwrap(), code, "to check changes nothing");
    drop(TestHost::start_with("", &env));
    assert_ne!(std::fs::read(&file).unwrap(), code, "it was written again");
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
