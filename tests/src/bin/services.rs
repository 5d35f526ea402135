//! Figures for back-end services: `cargo build --release && cargo run --release --bin services [campaign|emit]`.
//!
//! `campaign`: a million counts of one campaign through the API in batches, without and with idempotency keys, then
//! with the host killed in the middle and all batches repeated. `emit`: requests per second for `/v1/emit` to one user,
//! in turn with a bare hyper server that answers "hello"; it needs `wrk`.

use std::convert::Infallible;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use roundhouse_tests::bench::{LIMITS, SECRET, median, say, token};
use roundhouse_tests::raw::{connect_raw, take_frames};
use roundhouse_tests::{TestClient, TestHost};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

const TOTAL: u64 = 1_000_000;
const BATCH: u64 = 50;
const IN_FLIGHT: usize = 64;
/// The feature's setting `progressEvery`.
const PROGRESS_EVERY: u64 = 100;
const ROUNDS: usize = 3;
const ROUND: &str = "5s";

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wanted = std::env::args().nth(1);
    let is_wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    LocalSet::new().block_on(&runtime, async {
        if is_wanted("campaign") {
            campaign().await?;
        }
        if is_wanted("emit") {
            emit().await?;
        }
        Ok(())
    })
}

fn host() -> TestHost {
    let config = format!(
        "auth.jwt.secret = \"{SECRET}\"\n{LIMITS}[[api_keys]]\nname = \"figures\"\n\
         key = \"figures\"\nscopes = [\"publish\", \"admin\"]\n"
    );
    TestHost::start_with(&config, &[])
}

/// A keep-alive connection to the API.
async fn open(api: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let socket = TcpStream::connect(api.trim_start_matches("http://")).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Posts an event, under an idempotency key if one is given. Returns the answer.
async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    event: &str,
    data: &Value,
    key: Option<u64>,
) -> anyhow::Result<Value> {
    let key = key.map(|key| key.to_string());
    let body = json!({ "event": event, "data": data, "idempotencyKey": key }).to_string();
    let request = Request::post("/v1/events")
        .header("host", "x")
        .header("authorization", "Bearer figures")
        .header("content-type", "application/json")
        .body(Full::from(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(serde_json::from_slice(&body)?)
}

/// Posts batches until all are acknowledged, each under an idempotency key of its own if `with_keys`. Adds the messages
/// of acknowledged batches to `acknowledged`. Fails when the host is killed.
async fn count(
    api: &str,
    batches: &Arc<Batches>,
    acknowledged: &Arc<AtomicU64>,
    with_keys: bool,
) -> anyhow::Result<()> {
    let posts: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (api, batches, acknowledged) = (api.to_owned(), batches.clone(), acknowledged.clone());
            spawn_local(async move {
                let mut sender = open(&api).await?;
                let data = json!({ "campaignId": "c", "status": "sent", "count": BATCH });
                while let Some(batch) = batches.next() {
                    post(&mut sender, "campaign:message", &data, with_keys.then_some(batch)).await?;
                    acknowledged.fetch_add(BATCH, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for post in posts {
        post.await??;
    }
    Ok(())
}

/// The next batch's number.
#[derive(Default)]
struct Batches(AtomicU64);

impl Batches {
    fn next(&self) -> Option<u64> {
        Some(self.0.fetch_add(1, Ordering::Relaxed)).filter(|batch| *batch < TOTAL / BATCH)
    }
}

async fn campaign() -> anyhow::Result<()> {
    for with_keys in [false, true] {
        let host = host();
        let watched = Arc::new(AtomicUsize::new(0));
        watch(&host, &watched).await?;
        let mut sender = open(&host.api).await?;
        start(&mut sender).await?;
        let started = Instant::now();
        count(&host.api, &Arc::default(), &Arc::default(), with_keys).await?;
        let took = started.elapsed();
        let figures = post(&mut sender, "campaign:completed", &json!({ "campaignId": "c" }), None).await?;
        ensure!(figures["processed"] == TOTAL, "{figures}");
        let expected = (TOTAL / PROGRESS_EVERY) as usize + 1;
        let deadline = Instant::now() + Duration::from_secs(10);
        while watched.load(Ordering::Relaxed) < expected && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        say(&format!(
            "campaign{}: {TOTAL} counts in batches of {BATCH}, {IN_FLIGHT} requests in flight, each acknowledged on disk: \
             {:.1} s, {:.0} counts/s, {:.0} requests/s; {} progress events of {expected}; the feature says {}/s",
            if with_keys { ", each batch with an idempotency key" } else { "" },
            took.as_secs_f64(),
            TOTAL as f64 / took.as_secs_f64(),
            (TOTAL / BATCH) as f64 / took.as_secs_f64(),
            watched.load(Ordering::Relaxed),
            figures["ratePerSecond"]
        ))?;
    }
    killed_campaign().await
}

async fn start(sender: &mut SendRequest<Full<Bytes>>) -> anyhow::Result<()> {
    let started = json!({ "campaignId": "c", "name": "C", "total": TOTAL });
    post(sender, "campaign:started", &started, None).await.map(drop)
}

/// Kills the host in the middle. Acknowledged batches survive, and when the service repeats all batches under the same
/// keys, each is counted once.
async fn killed_campaign() -> anyhow::Result<()> {
    let mut host = host();
    start(&mut open(&host.api).await?).await?;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let counting = spawn_local({
        let (api, acknowledged) = (host.api.clone(), acknowledged.clone());
        async move { count(&api, &Arc::default(), &acknowledged, true).await }
    });
    while acknowledged.load(Ordering::Relaxed) < TOTAL / 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    host.kill();
    // The task ends with the connections.
    let _ = counting.await?;
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    host.restart();
    let mut client = TestClient::connect(&host.ws, &token("late")?).await;
    let snapshot =
        client.emit_with_ack("subscribe:campaign", json!("c")).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let counted = snapshot["processed"].as_u64().context("processed")?;
    ensure!(counted >= acknowledged, "{acknowledged} counts were acknowledged, and {counted} are there");
    count(&host.api, &Arc::default(), &Arc::default(), true).await?;
    let figures = post(&mut open(&host.api).await?, "campaign:completed", &json!({ "campaignId": "c" }), None).await?;
    ensure!(figures["processed"] == TOTAL, "said again, each batch counts once: {figures}");
    say(&format!(
        "campaign, killed in the middle: {acknowledged} counts acknowledged before SIGKILL, {counted} there after the \
         restart: none missing, {} more that were under way; all said again under the same keys: {} in the end",
        counted - acknowledged,
        figures["processed"]
    ))
}

/// Subscribes to the campaign, and counts its progress events.
async fn watch(host: &TestHost, watched: &Arc<AtomicUsize>) -> anyhow::Result<()> {
    let mut socket = connect_raw(&host.ws, &token("watcher")?).await?;
    let subscribe = roundhouse_tests::raw::client_frame(b"{\"event\":\"subscribe:campaign\",\"data\":\"c\",\"id\":1}");
    tokio::io::AsyncWriteExt::write_all(&mut socket, &subscribe).await?;
    let watched = watched.clone();
    spawn_local(async move {
        let mut received = Vec::new();
        while let Ok(1..) = socket.read_buf(&mut received).await {
            take_frames(&mut received, |frame| {
                if frame.starts_with(b"{\"event\":\"campaign:progress\"") {
                    watched.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    Ok(())
}

/// Starts a server that answers each request with "hello", on a thread of its own as the API is.
fn hello() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                tokio::spawn(async move {
                    let service = service_fn(|_: Request<Incoming>| async {
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
                    });
                    // The end of a client's connection is not a failure.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
            #[expect(unreachable_code, reason = "it names the error's type")]
            anyhow::Ok(())
        })
    });
    Ok(format!("http://{address}"))
}

async fn emit() -> anyhow::Result<()> {
    let host = host();
    let mut socket = connect_raw(&host.ws, &token("ana")?).await?;
    spawn_local(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(1..) = socket.read(&mut buffer).await {}
    });
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("emit.lua");
    std::fs::write(
        &script,
        "wrk.method = \"POST\"\nwrk.headers[\"Authorization\"] = \"Bearer figures\"\n\
         wrk.headers[\"Content-Type\"] = \"application/json\"\n\
         wrk.body = '{\"to\":{\"user\":\"ana\"},\"event\":\"note\",\"data\":{\"text\":\"hello\"}}'\n",
    )?;
    let hello = hello()?;
    let (mut emits, mut hellos) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (url, rates) in [(format!("{}/v1/emit", host.api), &mut emits), (hello.clone(), &mut hellos)] {
            let script = script.clone();
            let rate = tokio::task::spawn_blocking(move || wrk(&url, &script)).await??;
            rates.push(rate);
        }
    }
    let (emit, hello) = (median(emits), median(hellos));
    say(&format!(
        "/v1/emit to one user: {emit:.0} requests/s; a bare hyper \"hello\" to the same requests: {hello:.0}/s; \
         ratio {:.2} (wrk, 1 thread, 32 connections, median of {ROUNDS})",
        emit / hello
    ))
}

fn wrk(url: &str, script: &std::path::Path) -> anyhow::Result<f64> {
    let output = Command::new("wrk")
        .args(["-t1", "-c32", "-d", ROUND, "-s"])
        .arg(script)
        .arg(url)
        .output()
        .context("wrk cannot be run: is it installed?")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(!text.contains("Non-2xx"), "the server refuses: {text}");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")).context("wrk says nothing")?;
    Ok(line.trim().parse()?)
}
