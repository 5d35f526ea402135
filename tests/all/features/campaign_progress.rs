//! campaign-progress over real sockets: its section of the contract once, and restarts. Each rule has a native test
//! too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use roundhouse_tests::{NOTHING, TIMEOUT, TestClient, TestHost, http};
use serde_json::{Value, json};

/// Starts campaign `c1` of owen.
async fn start(host: &TestHost, total: u64) -> Value {
    let started = json!({ "campaignId": "c1", "name": "Spring", "total": total, "ownerId": "owen", "list": "all" });
    host.post_event("campaign:started", started.clone()).await.expect("the campaign starts");
    started
}

/// Reports messages of `c1`. Returns the progress in the answer.
async fn report(host: &TestHost, status: &str, count: u64) -> Value {
    let report = json!({ "campaignId": "c1", "status": status, "count": count });
    host.post_event("campaign:message", report).await.expect("the messages are counted")
}

/// The snapshot of `c1` for a new subscriber.
async fn snapshot(host: &TestHost) -> Value {
    let mut page = host.client("page").await;
    let snapshot = page.emit_with_ack("subscribe:campaign", json!("c1")).await.expect("a snapshot");
    assert_eq!(page.expect_event("campaign:snapshot").await, snapshot);
    snapshot
}

/// State, sent, delivered, read, failed.
fn figures(of: &Value) -> Value {
    json!([of["state"], of["sent"], of["delivered"], of["read"], of["failed"]])
}

/// Checks that the page and the owner have received exactly these events, and `eve` none. Returns the events' data.
async fn expect_same(
    host: &TestHost,
    page: &mut TestClient,
    owner: &mut TestClient,
    eve: &mut TestClient,
    events: &[&str],
) -> Vec<Value> {
    let [on_page, by_owner, by_eve] = host.received([page, owner, eve]).await;
    let names: Vec<&str> = on_page.iter().map(|frame| frame["event"].as_str().unwrap()).collect();
    assert_eq!((names.as_slice(), &by_owner, by_eve), (events, &on_page, vec![]));
    on_page.into_iter().map(|mut frame| frame["data"].take()).collect()
}

#[tokio::test]
async fn subscribers_and_owner_receive_all_campaign_progress() {
    let host = TestHost::start();
    let [mut page, mut tab, mut owner, mut eve] =
        [host.client("pia").await, host.client("pia").await, host.client("owen").await, host.client("eve").await];
    let early = page.emit_with_ack("subscribe:campaign", json!("c1")).await.unwrap();
    assert_eq!((&early["campaignId"], figures(&early)), (&json!("c1"), json!(["pending", 0, 0, 0, 0])));
    assert_eq!(page.expect_event("campaign:snapshot").await, early);
    // The owner has subscribed too, and still gets each event once.
    owner.emit_with_ack("subscribe:campaign", json!({ "campaignId": "c1" })).await.unwrap();
    owner.expect_event("campaign:snapshot").await;

    let started = start(&host, 1000).await;
    assert_eq!(expect_same(&host, &mut page, &mut owner, &mut eve, &["campaign:started"]).await, [started]);
    report(&host, "sent", 99).await;
    report(&host, "delivered", 50).await;
    report(&host, "read", 50).await;
    expect_same(&host, &mut page, &mut owner, &mut eve, &[]).await;
    let answer = report(&host, "failed", 1).await;
    let progress = expect_same(&host, &mut page, &mut owner, &mut eve, &["campaign:progress"]).await.remove(0);
    assert_eq!(figures(&progress), json!(["running", 99, 50, 50, 1]));
    assert_eq!(
        (&progress["total"], &progress["processed"], &progress["percent"]),
        (&json!(1000), &json!(100), &json!(10))
    );
    assert!(progress["ratePerSecond"].as_f64().unwrap() > 0.0 && progress["etaMs"].as_u64().is_some(), "{progress}");
    assert_eq!(figures(&answer), figures(&progress), "the service is told the same");
    // One report crosses several multiples of 100.
    report(&host, "sent", 351).await;
    expect_same(&host, &mut page, &mut owner, &mut eve, &["campaign:progress"]).await;

    for step in ["campaign:paused", "campaign:resumed"] {
        let data = json!({ "campaignId": "c1", "by": "owen" });
        host.post_event(step, data.clone()).await.unwrap();
        assert_eq!(expect_same(&host, &mut page, &mut owner, &mut eve, &[step]).await, [data]);
    }
    page.emit_with_ack("unsubscribe:campaign", json!({ "campaignId": "c1" })).await.unwrap();
    tab.emit_with_ack("subscribe:campaign", json!("c1")).await.unwrap();
    let late = tab.expect_event("campaign:snapshot").await;
    assert_eq!((figures(&late), &late["name"]), (json!(["running", 450, 50, 50, 1]), &json!("Spring")));

    host.post_event("campaign:completed", json!({ "campaignId": "c1" })).await.unwrap();
    let end = expect_same(&host, &mut tab, &mut owner, &mut page, &["campaign:progress", "campaign:completed"]).await;
    assert_eq!(figures(&end[0]), json!(["completed", 450, 50, 50, 1]));
    tab.close().await;
    report(&host, "delivered", 1).await;

    host.post_event("campaign:started", json!({ "campaignId": "c2", "name": "Summer", "total": 5 })).await.unwrap();
    eve.emit_with_ack("subscribe:campaign", json!("c2")).await.unwrap();
    eve.expect_event("campaign:snapshot").await;
    let failed = json!({ "campaignId": "c2", "reason": "no credit" });
    host.post_event("campaign:failed", failed.clone()).await.unwrap();
    assert_eq!(eve.expect_event("campaign:progress").await["state"], "failed");
    assert_eq!(eve.expect_event("campaign:failed").await, failed);
    let stats = host.stats("campaign-progress").await;
    let counts = json!([stats["active"], stats["paused"], stats["completed"], stats["failed"]]);
    assert_eq!(counts, json!([0, 0, 1, 1]));
    let of_c1 = json!({ "campaignId": "c1", "state": "completed", "total": 1000, "processed": 451, "percent": 45.1 });
    assert!(stats["campaigns"].as_array().unwrap().contains(&of_c1), "{stats}");
}

#[tokio::test]
async fn invalid_or_forbidden_events_change_nothing() {
    let host = TestHost::start();
    let [mut page, mut eve] = [host.client("pia").await, host.client("eve").await];
    let on_c1 = json!({ "campaignId": "c1" });
    let sent = json!({ "campaignId": "c1", "status": "sent" });
    for event in ["campaign:paused", "campaign:resumed", "campaign:completed"] {
        assert_eq!(host.post_event_refused(event, on_c1.clone()).await, "conflict");
    }
    assert_eq!(host.post_event_refused("campaign:message", sent.clone()).await, "conflict");
    start(&host, 10).await;
    assert_eq!(host.post_event_refused("campaign:resumed", on_c1.clone()).await, "conflict");
    assert_eq!(
        host.post_event_refused("campaign:message", json!({ "campaignId": "c1", "status": "lost" })).await,
        "bad_request"
    );
    assert_eq!(host.post_event_refused("campaign:failed", on_c1.clone()).await, "bad_request");
    assert_eq!(host.post_event_refused("subscribe:campaign", json!("c1")).await, "forbidden");

    page.emit_with_ack("subscribe:campaign", json!("c1")).await.unwrap();
    page.expect_event("campaign:snapshot").await;
    for event in ["campaign:started", "campaign:paused", "campaign:completed", "campaign:failed"] {
        assert_eq!(eve.emit_refused(event, json!({ "campaignId": "c1", "reason": "r" })).await, "forbidden");
    }
    assert_eq!(eve.emit_refused("campaign:message", sent.clone()).await, "forbidden");
    assert_eq!(
        eve.emit_refused("subscribe:campaign", json!({ "campaignId": "c1", "userId": "pia" })).await,
        "forbidden"
    );
    assert_eq!(eve.emit_refused("subscribe:campaign", json!({})).await, "bad_request");
    assert_eq!(host.received([&mut page, &mut eve]).await, [NOTHING, NOTHING]);
    assert_eq!(figures(&snapshot(&host).await), json!(["running", 0, 0, 0, 0]));

    host.post_event("campaign:completed", on_c1.clone()).await.unwrap();
    host.received([&mut page]).await;
    for event in ["campaign:paused", "campaign:resumed", "campaign:completed"] {
        assert_eq!(host.post_event_refused(event, on_c1.clone()).await, "conflict");
    }
    assert_eq!(host.post_event_refused("campaign:message", sent).await, "conflict");
    assert_eq!(host.received([&mut page]).await, [NOTHING]);
}

#[tokio::test]
async fn progress_survives_shutdown_and_kill() {
    let mut host = TestHost::start();
    start(&host, 1000).await;
    report(&host, "sent", 150).await;
    host.terminate();
    assert!(host.wait_for_exit().success());
    host.restart();
    report(&host, "failed", 30).await;
    host.post_event("campaign:paused", json!({ "campaignId": "c1" })).await.unwrap();
    host.kill();
    host.restart();
    assert_eq!(figures(&snapshot(&host).await), json!(["paused", 150, 0, 0, 30]));
    // Progress goes on after the restart: the owner and the last emitted multiple were stored.
    let mut owner = host.client("owen").await;
    host.post_event("campaign:resumed", json!({ "campaignId": "c1" })).await.unwrap();
    report(&host, "sent", 19).await;
    assert_eq!(host.received([&mut owner]).await[0].len(), 1, "campaign:resumed alone");
    report(&host, "sent", 1).await;
    assert_eq!(owner.expect_event("campaign:progress").await["processed"], 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_messages_count_once_after_power_loss() {
    const REPORTERS: usize = 8;
    let mut host = TestHost::start();
    start(&host, 1_000_000).await;
    let (tried, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let reporting: Vec<_> = (0..REPORTERS)
        .map(|_| {
            let (tried, acknowledged) = (tried.clone(), acknowledged.clone());
            let (api, authorization) = (host.api.clone(), format!("Bearer {}", host.key));
            tokio::spawn(async move {
                let headers = [("authorization", authorization.as_str())];
                loop {
                    let report = one_sent(tried.fetch_add(1, Ordering::SeqCst));
                    // The call fails when the host is killed.
                    let Ok(answer) = http(&api, "POST", "/v1/events", &headers, report.to_string()).await else {
                        return;
                    };
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while acknowledged.load(Ordering::SeqCst) < 300 {
        assert!(tokio::time::Instant::now() < deadline, "the host acknowledges too slowly");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.kill();
    for reporter in reporting {
        reporter.await.expect("a reporter ends with the host");
    }
    host.restart();
    let counted = snapshot(&host).await["sent"].as_u64().unwrap();
    let (tried, acknowledged) = (tried.load(Ordering::SeqCst), acknowledged.load(Ordering::SeqCst));
    assert!((acknowledged..=tried).contains(&counted), "{counted} of {acknowledged} acknowledged, {tried} tried");
    // A service that lost the answers repeats all reports.
    for number in 0..tried {
        let answer = host.post("/v1/events", &one_sent(number)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(snapshot(&host).await["sent"], tried, "each report is counted once");
}

/// A report of one sent message under an idempotency key.
fn one_sent(number: u64) -> Value {
    let data = json!({ "campaignId": "c1", "status": "sent" });
    json!({ "event": "campaign:message", "data": data, "idempotencyKey": number.to_string() })
}
