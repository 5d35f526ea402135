//! Fairness: one client or feature delays the others by one turn at most. Order is tested here, latency by `abuse`.

use std::time::Duration;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{InnerHost, TestClient, TestHost, eventually, faults_of_many, metric};
use serde_json::{Value, json};

/// A host with one plugin thread, which all scopes share.
const ONE_THREAD: &str = "auth.jwt.secret = \"s\"
limits = { events_per_second = 0, call_time_per_user = \"0s\" }
plugins = { threads = 1, call_deadline = \"10s\" }
";

/// The iterations of a loop that takes some hundredths of a second.
const BURN: u64 = 20_000_000;

async fn host(config: &str) -> TestHost {
    let host = TestHost::start_with(config, &[]);
    host.load("hostile", hostile("normal")).await;
    host
}

fn burning(id: &str) -> Value {
    json!({ "id": id, "how": "burn", "with": BURN })
}

/// Sends `n` slow events, and waits until the first was handled.
async fn flood(client: &mut TestClient, n: u64, event: impl Fn(u64) -> Value) {
    let mut ids = Vec::new();
    for n in 0..n {
        ids.push(client.emit_with_id("hostile:do", event(n)).await);
    }
    client.expect_ack(ids[0]).await.expect("it is handled");
}

async fn count(client: &mut TestClient, id: &str) -> u64 {
    let answer = client.emit_with_ack("hostile:count", json!({ "id": id })).await.expect("it counts");
    answer["count"].as_u64().expect("a count")
}

#[tokio::test]
async fn senders_share_one_scopes_time_fairly() {
    let host = host(ONE_THREAD).await;
    let (mut mal, mut ana) = (host.client("mal").await, host.client("ana").await);
    flood(&mut mal, 60, |_| burning("a")).await;
    let n_before = count(&mut ana, "a").await;
    assert!(n_before < 30, "{n_before} of 60 events came first that were sent by somebody else");
}

#[tokio::test]
async fn many_scopes_give_no_more_thread_time() {
    let host = host(ONE_THREAD).await;
    let (mut mal, mut ana) = (host.client("mal").await, host.client("ana").await);
    flood(&mut mal, 60, |n| burning(&format!("s{n}"))).await;
    count(&mut ana, "a").await;
    // A query of all scopes, sent after ana's event and before most of mal's.
    let asked = host.query("hostile", "stats", json!({})).await.unwrap();
    let n_handled = asked.as_array().expect("a list of counts").len();
    assert!(n_handled < 30, "{n_handled} of 60 events came before a question");
}

#[tokio::test]
async fn plugins_share_a_thread_fairly() {
    let host = host(ONE_THREAD).await;
    let (mut mal, mut ana) = (host.client("mal").await, host.client("ana").await);
    flood(&mut mal, 60, |_| burning("a")).await;
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.expect("another feature handles it");
    let n_before = count(&mut ana, "a").await;
    assert!(n_before < 30, "{n_before} of 60 events of another feature came first");
}

#[tokio::test]
async fn self_renewing_timers_starve_no_sender() {
    let host = host(ONE_THREAD).await;
    let (mut mal, mut ana) = (host.client("mal").await, host.client("ana").await);
    for n in 0..50 {
        let timer = json!({ "after": 0, "how": "again" });
        mal.emit_with_ack("hostile:do", json!({ "id": format!("s{n}"), "how": "timer", "with": timer })).await.unwrap();
    }
    count(&mut ana, "a").await;
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.expect("another feature handles it");
}

#[tokio::test]
async fn faults_of_one_sender_pause_no_plugin() {
    let host = host("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0").await;
    let fixed = host.load("hostile", roundhouse_tests::guests::relabelled(&hostile("normal"), "fixed")).await;
    let (mut mal, mut ana) = (host.client("mal").await, host.client("ana").await);
    for n in 0..60 {
        let code = mal.emit_refused("hostile:do", json!({ "id": "a", "how": "panic" })).await;
        assert_eq!(code, if n < 3 { "internal" } else { "rate_limited" }, "the event {n}");
        count(&mut ana, "a").await;
    }
    let report = host.report("hostile").await;
    assert_eq!((&report["generation"], &report["state"]), (&fixed["generation"], &json!("running")));
    assert_eq!(report["traps"], 3);
    mal.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.expect("other features take what it sends");
    assert!(metric(&host.api, "senders_refused_total").await >= 57);
    assert!(host.log().contains("a client makes a plugin fail again and again"));
}

#[tokio::test]
async fn sender_of_repeated_faults_is_disconnected() {
    let host = InnerHost::start("[heartbeat]\ninterval = \"1h\"\ntimeout = \"2h\"\n").await;
    host.load("hostile", hostile("normal")).await;
    let (mut mal, mut tab) = (host.client("mal").await, host.client("mal").await);
    let panic = json!({ "id": "a", "how": "panic" });
    for _ in 0..3 {
        assert_eq!(mal.emit_refused("hostile:do", panic.clone()).await, "internal");
    }
    assert_eq!(tab.emit_refused("hostile:count", json!({ "id": "a" })).await, "rate_limited", "it counts by user");
    host.advance(Duration::from_secs(10));
    mal.emit("hostile:do", panic.clone()).await;
    let closed = mal.closed().await;
    assert_eq!(closed.code, Some(1008));
    assert!(closed.reason.contains("made the feature hostile fail"), "{}", closed.reason);
    assert_eq!(tab.closed().await.code, Some(1008), "and so are its other connections");
    let mut again = host.client("mal").await;
    assert_eq!(again.emit_refused("hostile:count", json!({ "id": "a" })).await, "rate_limited");
    host.advance(Duration::from_secs(20));
    again.emit_with_ack("hostile:count", json!({ "id": "a" })).await.expect("the refusal is over");
    host.shut_down().await;
}

#[tokio::test]
async fn faults_of_many_senders_pause_the_plugin() {
    let host = host("auth.jwt.secret = \"s\"\nlimits.events_per_second = 0").await;
    faults_of_many(&host, 10).await;
    let mut ana = host.client("ana").await;
    assert_eq!(ana.emit_refused("hostile:count", json!({ "id": "a" })).await, "feature_unavailable");
}

#[tokio::test]
async fn call_time_is_bounded_per_user() {
    let config = "limits = { events_per_second = 0, call_time_per_user = \"1ms\" }
heartbeat = { interval = \"1h\", timeout = \"2h\" }
plugins = { call_deadline = \"10s\" }
";
    let host = InnerHost::start(config).await;
    host.load("hostile", hostile("normal")).await;
    let (mut mal, mut ana) = (host.client("mal").await, host.client("ana").await);
    // The call takes many times the user's allowance, on any machine.
    let burning = json!({ "id": "a", "how": "burn", "with": 20 * BURN });
    mal.emit_with_ack("hostile:do", burning).await.expect("the first is paid afterwards");
    assert_eq!(mal.emit_refused("hostile:count", json!({ "id": "a" })).await, "rate_limited");
    count(&mut ana, "a").await;
    host.advance(Duration::from_secs(10 * 60));
    count(&mut mal, "a").await;
    host.shut_down().await;
}

#[tokio::test]
async fn pending_events_are_bounded_per_user() {
    let limits = "events_per_second = 50\nevent_burst = 200\nevents_per_second_per_user = 5\nevent_burst_per_user = 20";
    let host = InnerHost::start(&format!("[limits]\n{limits}\n")).await;
    host.load("hostile", hostile("normal")).await;
    let mut tabs = Vec::new();
    for _ in 0..4 {
        tabs.push(host.client("mal").await);
    }
    for n in 0..20 {
        count(&mut tabs[n % 4], "a").await;
    }
    for tab in &mut tabs {
        assert_eq!(tab.emit_refused("hostile:count", json!({ "id": "a" })).await, "rate_limited");
    }
    count(&mut host.client("ana").await, "a").await;
    host.shut_down().await;
}

#[tokio::test]
async fn client_over_its_read_share_is_paused() {
    const FRAMES: usize = 45;
    let limits = "limits = { events_per_second = 0, message_bytes = 2_000_000 }";
    let host = InnerHost::start(&format!("{limits}\nheartbeat = {{ interval = \"1h\", timeout = \"2h\" }}\n")).await;
    host.load("hostile", hostile("normal")).await;
    let (mut mal, mut ana) = (host.client("mal").await, host.client("ana").await);
    let sending = tokio::spawn(async move {
        for _ in 0..FRAMES {
            mal.emit("nothing", json!("x".repeat(1024 * 1024))).await;
        }
        mal
    });
    eventually("it is not read any more", async || (metric(&host.api, "reads_paused_total").await > 0).then_some(()))
        .await;
    count(&mut ana, "a").await;
    let mut n_refused = 0;
    let refused = async {
        let mut mal = sending.await.expect("all is sent");
        while n_refused < FRAMES {
            mal.expect_event("error").await;
            n_refused += 1;
        }
    };
    // The share refills as the clock moves.
    let clock = async {
        loop {
            host.advance(Duration::from_millis(100));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = refused => {}
        () = clock => {}
    }
    host.shut_down().await;
}
