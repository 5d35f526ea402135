//! The shutdown of a host.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use roundhouse_tests::guests::ticket_collision;
use roundhouse_tests::{ENGINE, InnerHost, Polling, SILENCE, TIMEOUT, TestClient, TestHost, eventually, http, metric};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONFIG: &str = "auth.jwt.secret = \"s\"\nshards = 1\n";

/// A heartbeat for tests that move the clock by minutes, in which the default one would end silent clients.
const LONG_HEARTBEAT: &str = "heartbeat = { interval = \"12h\", timeout = \"24h\" }\n";

/// Counts a client when it is closed with the code 1012, and answers the close.
fn count_close(mut client: TestClient, closed: &Arc<AtomicUsize>) {
    let closed = closed.clone();
    tokio::spawn(async move {
        assert_eq!(client.closed().await.code, Some(1012));
        closed.fetch_add(1, Ordering::Relaxed);
    });
}

#[tokio::test]
async fn shutdown_signals_close_clients_and_exit_cleanly() {
    for signal in ["TERM", "INT", "HUP"] {
        // The process that started this test may ignore some signals.
        let mut host = TestHost::start_under(&["env", "--default-signal=INT,HUP"], "");
        let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
        ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
        ben.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
        let (api, ws) = (host.api.clone(), host.ws.clone());
        host.signal(signal);
        let (first, second) = tokio::join!(ana.closed(), ben.closed());
        assert_eq!((first.code, second.code), (Some(1012), Some(1012)));
        let status = tokio::task::spawn_blocking(move || host.wait_for_exit()).await.unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(http(&api, "GET", "/readyz", &[], "").await.is_err());
        assert!(http(&ws, "GET", "/healthz", &[], "").await.is_err());
    }
}

#[tokio::test]
async fn running_load_does_not_delay_shutdown() {
    let mut host = TestHost::start();
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
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
    // The load may have finished, been refused, or lost its connection.
    drop(loading.await.unwrap());
}

#[tokio::test]
async fn unwritable_log_does_not_end_the_host() {
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
    assert!(ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok());
    // Killed by SIGKILL, because a shutdown would log its signal.
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn damaged_compilation_cache_is_rebuilt() {
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
async fn unresponsive_client_delays_shutdown_within_a_bound() {
    let mut host = TestHost::start();
    // A client that does not read, and so does not answer the close.
    let _deaf = host.client("ana").await;
    let started = Instant::now();
    host.terminate();
    let status = tokio::task::spawn_blocking(move || host.wait_for_exit()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[tokio::test]
async fn shutdown_delay_precedes_closing_listener_and_clients() {
    let mut host = InnerHost::start(&format!("{CONFIG}shutdown.delay = \"15s\"")).await;
    let mut ana = host.client("ana").await;
    let mut polling = Polling::open(&host.ws).await;
    let (api, ws) = (host.api.clone(), host.ws.clone());
    let get = async |base: &str, path: &str| http(base, "GET", path, &[], "").await;
    for base in [&api, &ws] {
        assert_eq!(get(base, "/readyz").await.unwrap().status, 200);
    }
    let ending = host.begin_shutdown();
    eventually("the host is not ready", async || (get(&api, "/readyz").await.unwrap().status == 503).then_some(()))
        .await;
    assert_eq!(get(&ws, "/readyz").await.unwrap().status, 503);
    assert_eq!((get(&api, "/healthz").await.unwrap().status, get(&ws, "/healthz").await.unwrap().status), (200, 200));
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let socket = format!("{ENGINE}&transport=websocket");
    let polled = format!("{ENGINE}&transport=polling");
    for (path, headers) in [("/ws?token=x", &upgrade[..]), (&socket, &upgrade[..]), (&polled, &[][..])] {
        let refused = http(&ws, "GET", path, headers, "").await.unwrap();
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{path}: {}", refused.text);
        assert_eq!(refused.header("connection"), "close", "a proxy keeps nothing open that ends soon");
    }
    // Connected clients are still served.
    assert!(ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok());
    assert_eq!(polling.post("40{\"token\":\"x\"}").await.status, 200);
    assert!(polling.next().await.is_ok(), "a refused namespace is an answer");
    host.advance(Duration::from_millis(14_999));
    assert!(ana.emit_with_ack("ticket:leave", json!({ "ticketId": "t1" })).await.is_ok());
    assert_eq!(get(&ws, "/healthz").await.unwrap().status, 200);
    host.advance(Duration::from_millis(1));
    assert_eq!(ana.closed().await.code, Some(1012));
    assert!(get(&ws, "/healthz").await.is_err(), "the listener is closed before the clients are");
    drop((ana, polling));
    timeout(TIMEOUT, ending).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn closes_are_paced_over_the_drain() {
    let mut host = InnerHost::start(&format!("{CONFIG}{LONG_HEARTBEAT}shutdown.drain = \"100s\"")).await;
    let (ws, api) = (host.ws.clone(), host.api.clone());
    for user in ["cara", "dan"] {
        let mut client = host.client(user).await;
        client.emit_with_ack("resume", json!({})).await.unwrap();
    }
    let is_away = async |n: u64| (metric(&api, "connections_away").await == n).then_some(());
    eventually("two clients are detached", async || is_away(2).await).await;
    let closed = Arc::new(AtomicUsize::new(0));
    for n in 0..10 {
        count_close(host.client(&format!("u{n}")).await, &closed);
    }
    let ending = host.begin_shutdown();
    eventually("the listener is closed", async || http(&ws, "GET", "/healthz", &[], "").await.is_err().then_some(()))
        .await;
    for step in 1..=10 {
        host.advance(Duration::from_secs(10));
        eventually("the next is closed", async || (closed.load(Ordering::Relaxed) >= step).then_some(())).await;
        assert_eq!(closed.load(Ordering::Relaxed), step, "one after another");
        match step {
            1..5 => assert!(is_away(2).await.is_some()),
            5..10 => eventually("detached connections are ended as well", async || is_away(1).await).await,
            _ => {}
        }
    }
    timeout(TIMEOUT, ending).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn drain_includes_polling_sessions() {
    let config = format!("{CONFIG}{LONG_HEARTBEAT}socketio.connect_timeout = \"1h\"\nshutdown.drain = \"100s\"");
    let mut host = InnerHost::start(&config).await;
    let polling = Polling::open(&host.ws).await;
    let mut poll = polling.begin("GET", "").await;
    let ws = host.ws.clone();
    // Connections are accepted in order: the answer shows that the one above is accepted.
    assert_eq!(http(&ws, "GET", "/healthz", &[], "").await.unwrap().status, 200);
    let ending = host.begin_shutdown();
    eventually("the listener is closed", async || http(&ws, "GET", "/healthz", &[], "").await.is_err().then_some(()))
        .await;
    host.advance(Duration::from_secs(99));
    let mut answer = String::new();
    assert!(timeout(SILENCE, poll.read_to_string(&mut answer)).await.is_err(), "its turn is at the end: {answer}");
    host.advance(Duration::from_secs(1));
    timeout(TIMEOUT, poll.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    assert!(answer.ends_with("\r\n\r\n1"), "the session is closed: {answer}");
    timeout(TIMEOUT, ending).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn drain_ends_early_without_clients() {
    let mut host = InnerHost::start(&format!("{CONFIG}shutdown.drain = \"100s\"")).await;
    timeout(TIMEOUT, host.begin_shutdown()).await.expect("nobody is waited for").unwrap();
}

#[tokio::test]
async fn shutdown_answers_running_api_calls() {
    let mut host = TestHost::start();
    let body = r#"{"to":{"all":true},"event":"news","data":{}}"#;
    let mut call = TcpStream::connect(host.api.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /v1/emit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        host.key,
        body.len()
    );
    call.write_all(format!("{head}{}", &body[..10]).as_bytes()).await.unwrap();
    // Connections are accepted in order: the answer shows that the one above is accepted.
    assert_eq!(http(&host.api, "GET", "/healthz", &[], "").await.unwrap().status, 200);
    host.terminate();
    eventually("the host ends", async || host.log().contains("shutting down").then_some(())).await;
    call.write_all(&body.as_bytes()[10..]).await.unwrap();
    let mut answer = String::new();
    timeout(TIMEOUT, call.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(tokio::task::spawn_blocking(move || host.wait_for_exit()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn immediately_repeated_signals_count_once() {
    let mut host = TestHost::start_under(&["env", "--default-signal=INT,HUP"], "");
    let mut ana = host.client("ana").await;
    host.signal("TERM");
    host.signal("TERM");
    host.signal("INT");
    assert_eq!(ana.closed().await.code, Some(1012));
    let status = tokio::task::spawn_blocking(move || host.wait_for_exit()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn second_signal_after_half_a_second_ends_host() {
    let mut host =
        TestHost::start_under(&["env", "--default-signal=INT,HUP"], "auth.jwt.secret = \"s\"\nshutdown.delay = \"1h\"");
    let started = Instant::now();
    host.signal("TERM");
    let status = eventually("the host ends at once", async || {
        host.signal("INT");
        host.exit_status()
    })
    .await;
    assert_eq!(status.code(), Some(1));
    assert!(started.elapsed() >= Duration::from_millis(500), "at first it is the same order");
    assert!(host.log().contains("a second signal"));
}

#[tokio::test]
async fn inherited_ignored_signals_stay_ignored() {
    for name in ["HUP", "INT"] {
        let ignore = format!("--ignore-signal={name}");
        let mut host = TestHost::start_under(&["env", &ignore], "");
        let mut ana = host.client("ana").await;
        host.signal(name);
        assert!(ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok());
        host.terminate();
        assert_eq!(ana.closed().await.code, Some(1012));
        let log = tokio::task::spawn_blocking(move || {
            assert_eq!(host.wait_for_exit().code(), Some(0));
            host.log()
        });
        let log = log.await.unwrap();
        assert!(log.contains("SIGTERM") && !log.contains(&format!("SIG{name}")), "{log}");
    }
}

#[test]
fn signal_during_startup_ends_the_host() {
    let host = TestHost::start();
    // Another host in this folder waits for the journal, which the first host has locked.
    let mut command = TestHost::command(host.dir());
    command.args(["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut second = command.spawn().unwrap();
    let status = format!("/proc/{}/status", second.id());
    let deadline = Instant::now() + TIMEOUT;
    let catches_sigterm = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() & (1 << 14) != 0
    };
    while !catches_sigterm() {
        assert!(Instant::now() < deadline, "it does not listen to SIGTERM");
    }
    let sent = std::process::Command::new("kill").args(["-TERM", &second.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut log = String::new();
    std::io::Read::read_to_string(&mut second.stderr.take().unwrap(), &mut log).unwrap();
    let code = second.wait().unwrap().code();
    assert!(code == Some(0) && log.contains("before the start was over"), "{code:?} {log}");
}
