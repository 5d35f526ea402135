//! States that outlive a host, and service during an outage of the store.

use std::time::Duration;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{InnerHost, SILENCE, TestHost, TestPostgres, skip};
use serde_json::{Value, json};

const INNER: &str = "[limits]\nevents_per_second = 0\n[heartbeat]\ninterval = \"1h\"\ntimeout = \"2h\"\n";

async fn load_durable(host: &InnerHost) {
    let loaded = host.call("PUT", "/v1/plugins/hostile", hostile("durable")).await;
    assert_eq!(loaded.status, 200, "{}", loaded.text);
}

async fn count(host: &InnerHost, id: &str) -> Value {
    host.client("ana").await.emit_with_ack("hostile:count", json!({ "id": id })).await.unwrap()["count"].clone()
}

#[tokio::test]
async fn state_and_timers_survive_a_restart() {
    let host = InnerHost::start(INNER).await;
    load_durable(&host).await;
    let mut ana = host.client("ana").await;
    for (after, how) in [(5_000, "soon"), (45_000, "late")] {
        let timer = json!({ "after": after, "how": how });
        let doing = json!({ "id": how, "how": "timer", "with": timer });
        ana.emit_with_ack("hostile:do", doing).await.unwrap();
    }
    assert_eq!(count(&host, "late").await, 2);
    ana.close().await;

    // One timer was due during the restart, and the other is due later.
    let host = host.restart(Duration::from_secs(30)).await;
    load_durable(&host).await;
    let timer_notifications = async |id: &str| {
        let timer_notifications =
            host.client("ana").await.emit_with_ack("hostile:told", json!({ "id": id })).await.unwrap();
        timer_notifications
            .as_array()
            .unwrap()
            .iter()
            .filter(|timer_notifications| **timer_notifications == format!("timer {id}"))
            .count()
    };
    assert_eq!((timer_notifications("soon").await, timer_notifications("late").await), (1, 0));
    assert_eq!(count(&host, "late").await, 3);
    host.advance(Duration::from_secs(14));
    assert_eq!(timer_notifications("late").await, 0);
    host.advance(Duration::from_secs(1));
    assert_eq!(timer_notifications("late").await, 1);
    host.shut_down().await;
}

#[tokio::test]
async fn scope_survives_an_unload_until_idle_time() {
    let host = InnerHost::start(INNER).await;
    load_durable(&host).await;
    assert_eq!((count(&host, "a").await, count(&host, "b").await), (json!(1), json!(1)));
    assert_eq!(host.call("DELETE", "/v1/plugins/hostile", "").await.status, 200);
    load_durable(&host).await;
    assert_eq!(count(&host, "a").await, 2);

    // The guest's idle time is one minute. Only `b` has been idle for longer.
    let host = host.restart(Duration::from_secs(50)).await;
    load_durable(&host).await;
    assert_eq!(count(&host, "a").await, 3);
    let host = host.restart(Duration::from_secs(50)).await;
    load_durable(&host).await;
    assert_eq!((count(&host, "a").await, count(&host, "b").await), (json!(4), json!(1)));
    host.shut_down().await;
}

#[tokio::test]
async fn subscribing_renews_idle_time_over_a_restart() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let host = InnerHost::start("auth.jwt.secret = \"s\"\n").await;
    let started = json!({ "campaignId": "c1", "name": "Spring", "total": 10 });
    let event = json!({ "event": "campaign:started", "data": started }).to_string();
    assert_eq!(host.call("POST", "/v1/events", event).await.status, 200);
    host.advance(20 * DAY);
    let mut page = host.client("page").await;
    page.emit_with_ack("subscribe:campaign", json!("c1")).await.unwrap();
    page.emit_with_ack("unsubscribe:campaign", json!("c1")).await.unwrap();
    drop(page);
    // The campaign changed 29 days ago, and had its last subscriber 9 days ago.
    let host = host.restart(9 * DAY).await;
    let mut page = host.client("page").await;
    assert_eq!(page.emit_with_ack("subscribe:campaign", json!("c1")).await.unwrap()["name"], "Spring");
    drop(page);
    host.shut_down().await;
}

#[tokio::test]
async fn acknowledgements_but_not_emits_await_the_disk() {
    let host = TestHost::start();
    let mut page = host.client("page").await;
    let started = json!({ "campaignId": "c1", "name": "Spring", "total": 1000 });
    host.post_event("campaign:started", started).await.unwrap();
    page.emit_with_ack("subscribe:campaign", json!("c1")).await.unwrap();

    let lock = host.lock_store();
    let message = json!({
        "event": "campaign:message",
        "data": { "campaignId": "c1", "status": "sent", "count": 100 },
        "idempotencyKey": "k1"
    });
    let call = || host.call("POST", "/v1/events", message.to_string());
    let mut waiting = Box::pin(async { tokio::join!(call(), call()) });
    let progress = tokio::select! {
        answers = &mut waiting => panic!("it is acknowledged before it is on disk: {answers:?}"),
        progress = page.expect_event("campaign:progress") => progress,
    };
    assert_eq!(progress["processed"], 100);
    assert!(tokio::time::timeout(SILENCE, &mut waiting).await.is_err(), "it is acknowledged before it is on disk");
    drop(lock);
    let (first, repeated) = waiting.await;
    assert_eq!((first.status, &first.body["processed"]), (200, &json!(100)), "{}", first.text);
    assert_eq!(repeated.text, first.text, "a repetition is answered as the first, and not counted");
}

#[tokio::test]
async fn host_survives_a_postgresql_restart() {
    let mut server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("host_survives_a_postgresql_restart", &why),
    };
    let config = format!("auth.jwt.secret = \"s\"\nstore.url = \"{}\"\n", server.url());
    let mut host = TestHost::start_with(&config, &[("RUST_LOG", "debug")]);
    let mut ana = host.client("ana").await;
    let room = json!({ "roomId": "r1" });
    ana.emit_with_ack("joinRoom", room.clone()).await.unwrap();
    let started = json!({ "campaignId": "c1", "name": "Spring", "total": 1000 });
    host.post_event("campaign:started", started).await.unwrap();

    server.stop();
    let sent = ana.emit_with_ack("roomMessage", json!({ "roomId": "r1", "body": "hello" })).await.unwrap();
    assert_eq!(ana.expect_event("roomMessageRecieved").await["tempId"], sent["tempId"]);
    // Events of scopes that have to be read first are refused; scopes in memory go on.
    assert_eq!(ana.emit_refused("subscribe:campaign", json!("c2")).await, "feature_unavailable");
    assert_eq!(ana.emit_with_ack("subscribe:campaign", json!("c1")).await.unwrap()["name"], "Spring");
    assert_eq!(ana.emit_refused("roomHistory", room.clone()).await, "feature_unavailable");

    server.resume();
    assert_eq!(ana.expect_event("roomMessageConfirmed").await["tempId"], sent["tempId"]);
    assert_eq!(ana.emit_with_ack("subscribe:campaign", json!("c2")).await.unwrap()["state"], "pending");
    assert!(!host.log().contains("hello"), "what people write is in no log: {}", host.log());

    host.kill();
    host.restart();
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("joinRoom", room.clone()).await.unwrap();
    let history = ana.emit_with_ack("roomHistory", room).await.unwrap();
    assert_eq!(history["messages"].as_array().unwrap().len(), 1, "{history}");
    assert_eq!(ana.emit_with_ack("subscribe:campaign", json!("c1")).await.unwrap()["name"], "Spring");
}

#[tokio::test]
async fn second_host_in_a_folder_is_refused() {
    let host = TestHost::start();
    let mut second = TestHost::command(host.dir());
    let second = second.args(["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert!(stderr.contains("another host uses the journal"), "{stderr}");
}
