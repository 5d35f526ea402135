//! Behaviour over time, on a clock that the test moves.

use std::time::Duration;

use roundhouse_tests::guests::{hostile, relabelled};
use roundhouse_tests::{InnerHost, TestClient, eventually, faults_of_many};
use serde_json::{Value, json};

const CONFIG: &str = "auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n";

/// Waits until scope `a` has received a notification. Returns all notifications.
async fn notifications(client: &mut TestClient) -> Value {
    eventually("the scope is told", async || {
        let notifications = client.emit_with_ack("hostile:told", json!({ "id": "a" })).await.unwrap();
        (notifications != json!([])).then_some(notifications)
    })
    .await
}

async fn view(client: &mut TestClient) -> Value {
    client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.expect("a view is acknowledged")
}

#[tokio::test]
async fn typing_expires_after_ten_seconds() {
    let host = InnerHost::start(CONFIG).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    view(&mut ana).await;
    view(&mut ben).await;
    ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
    ana.expect_event("agent:typing").await;
    host.advance(Duration::from_secs(8));
    ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
    host.advance(Duration::from_millis(9_999));
    ana.drain().await;
    assert_eq!(host.call("GET", "/v1/plugins/ticket-collision", "").await.body["stats"]["typingCount"], 1);
    host.advance(Duration::from_millis(1));
    assert_eq!(ana.expect_event("agent:stopped_typing").await["agentId"], "ben");
    drop((ana, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn inactive_viewers_leave_after_half_an_hour() {
    // The clock is moved by minutes, in which the default heartbeat would end silent clients.
    let host = InnerHost::start(&format!("{CONFIG}[heartbeat]\ninterval = \"12h\"\ntimeout = \"24h\"")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    view(&mut ana).await;
    view(&mut ben).await;
    for _ in 0..6 {
        host.advance(Duration::from_secs(5 * 60));
        ben.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
        ana.emit_with_ack("no:such", json!({})).await.unwrap_err();
    }
    let left = ben.expect_event("agent:left").await;
    assert_eq!((left["agentId"].as_str(), left["reason"].as_str()), (Some("ana"), Some("stale")));
    let viewers = view(&mut ben).await;
    assert_eq!(viewers["viewers"].as_array().unwrap().len(), 1, "{viewers}");
    let back = view(&mut ana).await;
    assert_eq!(back["viewers"].as_array().unwrap().len(), 2, "she is still connected, and may come back: {back}");
    drop((ana, ben));
    host.shut_down().await;
}

/// A heartbeat for tests that move the clock by hours, in which the default one would end silent clients.
const LONG_HEARTBEAT: &str = "[heartbeat]\ninterval = \"12h\"\ntimeout = \"24h\"";

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn typing_expires_with_the_clock_set_back() {
    let host = InnerHost::start(CONFIG).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    view(&mut ana).await;
    view(&mut ben).await;
    // First right after the clock was put back, then while the features' clock runs slower to approach the system's.
    for already_slow in [false, true] {
        if already_slow {
            host.advance(Duration::from_secs(2));
            view(&mut ana).await;
        }
        ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
        ana.expect_event("agent:typing").await;
        if !already_slow {
            host.clock.put_wall(-HOUR_MS);
        }
        host.advance(Duration::from_secs(8));
        let mut received = ana.drain_events().await;
        assert!(!received.contains(&"agent:stopped_typing".to_owned()));
        for _ in 0..4 {
            host.advance(Duration::from_secs(1));
            received.extend(ana.drain_events().await);
        }
        assert!(received.contains(&"agent:stopped_typing".to_owned()), "{received:?}");
    }
    drop((ana, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn active_viewers_stay_with_the_clock_set_ahead() {
    let host = InnerHost::start(&format!("{CONFIG}{LONG_HEARTBEAT}")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    view(&mut ana).await;
    view(&mut ben).await;
    host.advance(Duration::from_secs(60));
    host.clock.put_wall(HOUR_MS);
    for _ in 0..4 {
        host.advance(Duration::from_secs(5 * 60));
        ben.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    }
    assert!(!ben.drain_events().await.contains(&"agent:left".to_owned()));
    let viewers = view(&mut ana).await;
    assert_eq!(viewers["viewers"].as_array().unwrap().len(), 2, "{viewers}");
    drop((ana, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn token_expires_while_the_machine_sleeps() {
    let host = InnerHost::start(&format!("{CONFIG}{LONG_HEARTBEAT}")).await;
    let hour = Duration::from_secs(3600);
    let connect = async |valid: Option<Duration>| TestClient::connect(&host.ws, &host.token("ana", valid)).await;
    let (mut short, mut long, mut lasting) =
        (connect(Some(hour / 2)).await, connect(Some(2 * hour)).await, connect(None).await);
    host.clock.suspend(hour);
    host.advance(Duration::from_secs(2));
    assert_eq!(short.closed().await.code, Some(4002));
    view(&mut long).await;
    // A clock that is put ahead counts as well.
    host.clock.put_wall(HOUR_MS);
    host.advance(Duration::from_secs(2));
    assert_eq!(long.closed().await.code, Some(4002));
    view(&mut lasting).await;
    drop((short, long, lasting));
    host.shut_down().await;
}

#[tokio::test]
async fn token_lasts_longer_with_the_clock_set_back() {
    let host = InnerHost::start(&format!("{CONFIG}{LONG_HEARTBEAT}")).await;
    let mut ana = TestClient::connect(&host.ws, &host.token("ana", Some(Duration::from_secs(30)))).await;
    host.clock.put_wall(-HOUR_MS);
    host.advance(Duration::from_secs(31));
    view(&mut ana).await;
    host.advance(Duration::from_secs(3600));
    assert_eq!(ana.closed().await.code, Some(4002));
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn stored_timer_fires_with_the_clock_set_back() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("durable")).await;
    let mut ana = host.client("ana").await;
    let timer = json!({ "id": "a", "how": "timer", "with": { "after": 5000, "how": "x" } });
    ana.emit_with_ack("hostile:do", timer).await.unwrap();
    drop(ana);
    host.clock.put_wall(-HOUR_MS);
    let host = host.restart(Duration::ZERO).await;
    host.load("hostile", hostile("durable")).await;
    let mut ana = host.client("ana").await;
    host.advance(Duration::from_secs(4));
    assert_eq!(ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await, Ok(json!([])));
    host.advance(Duration::from_secs(1));
    assert_eq!(notifications(&mut ana).await, json!(["timer x"]));
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn trapping_timer_is_dropped_after_three_attempts() {
    let host = InnerHost::start(CONFIG).await;
    let loaded = host.call("PUT", "/v1/plugins/hostile", hostile("normal")).await;
    assert_eq!(loaded.status, 200, "{}", loaded.text);
    let mut ana = host.client("ana").await;
    let timer = |how: &str| json!({ "id": "a", "how": "timer", "with": { "after": 5000, "how": how } });
    // The host tries a failing timer three times before it gives up, because no client would send its event again.
    ana.emit_with_ack("hostile:do", timer("panic")).await.unwrap();
    for (after, traps) in [(5, 1), (1, 2), (1, 3)] {
        host.advance(Duration::from_secs(after));
        eventually("the timer traps", async || {
            (host.call("GET", "/v1/plugins/hostile", "").await.body["traps"] == traps).then_some(())
        })
        .await;
    }
    host.advance(Duration::from_secs(5));
    assert_eq!(ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await, Ok(json!([])));
    assert_eq!(host.call("GET", "/v1/plugins/hostile", "").await.body["traps"], 3);
    ana.emit_with_ack("hostile:do", timer("first")).await.unwrap();
    host.advance(Duration::from_secs(4));
    ana.emit_with_ack("hostile:do", timer("second")).await.unwrap();
    host.advance(Duration::from_secs(4));
    assert_eq!(ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await, Ok(json!([])), "it was set anew");
    host.advance(Duration::from_secs(1));
    let notifications = notifications(&mut ana).await;
    assert_eq!(notifications, json!(["timer second"]));
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn paused_departures_reach_the_next_generation() {
    let host = InnerHost::start(CONFIG).await;
    host.call("PUT", "/v1/plugins/hostile", hostile("normal")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    ben.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    faults_of_many(&host, 10).await;
    ben.close().await;
    assert_eq!(ana.emit_refused("hostile:told", json!({ "id": "a" })).await, "feature_unavailable");
    // The plugin stays paused while the clock stands still, but the swap ends the pause.
    let loaded = host.call("PUT", "/v1/plugins/hostile", relabelled(&hostile("normal"), "mended")).await;
    assert_eq!(loaded.status, 200, "{}", loaded.text);
    assert_eq!(notifications(&mut ana).await, json!(["left ben disconnected"]));
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn missing_acknowledgement_times_out() {
    let host = InnerHost::start(CONFIG).await;
    host.call("PUT", "/v1/plugins/hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("hostile:do", json!({ "id": "a", "how": "ask" })).await.unwrap();
    let asked = ana.next().await;
    host.advance(Duration::from_secs(30));
    let notifications = notifications(&mut ana).await;
    assert_eq!(notifications, json!(["acknowledged question timeout"]));
    ana.send_text(json!({ "id": asked["id"], "data": "too late" }).to_string()).await;
    assert_eq!(ana.emit_with_ack("hostile:told", json!({ "id": "a" })).await.unwrap(), notifications);
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn idle_scope_is_dropped() {
    let host = InnerHost::start(CONFIG).await;
    host.call("PUT", "/v1/plugins/hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    let scopes = async || host.call("GET", "/v1/plugins/hostile", "").await.body["stats"].as_array().map(Vec::len);
    // This event changes the scope's state, and joins no member.
    ana.emit_with_ack("hostile:do", json!({ "id": "empty", "how": "flood-room", "with": 1 })).await.unwrap();
    // This event leaves no scope behind.
    ana.emit_with_ack("hostile:told", json!({ "id": "nothing" })).await.unwrap();
    ana.emit_with_ack("hostile:count", json!({ "id": "joined" })).await.unwrap();
    ana.emit_with_ack("hostile:do", json!({ "id": "timed", "how": "timer", "with": { "after": 600_000, "how": "x" } }))
        .await
        .unwrap();
    assert_eq!(scopes().await, Some(3));
    host.advance(Duration::from_secs(59));
    ana.emit_with_ack("no:such", json!({})).await.unwrap_err();
    assert_eq!(scopes().await, Some(3), "not yet");
    host.advance(Duration::from_secs(1));
    eventually("the empty scope is gone", async || (scopes().await == Some(2)).then_some(())).await;
    for _ in 0..5 {
        host.advance(Duration::from_secs(50));
        ana.emit_with_ack("no:such", json!({})).await.unwrap_err();
    }
    assert_eq!(scopes().await, Some(2), "a member and a timer keep a scope");
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn connection_ends_with_its_token_unless_renewed() {
    let host = InnerHost::start(CONFIG).await;
    let minute = Duration::from_secs(60);
    let mut ana = TestClient::connect(&host.ws, &host.token("ana", Some(minute / 2))).await;
    let mut ben = TestClient::connect(&host.ws, &host.token("ben", Some(minute / 2))).await;
    ben.emit_with_ack("authenticate", json!({ "token": host.token("ben", Some(minute)) })).await.unwrap();
    host.advance(minute / 2);
    assert_eq!(ana.closed().await.code, Some(4002));
    assert!(ben.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok());
    drop((ana, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn connection_without_pong_ends_after_a_minute() {
    let host = InnerHost::start(CONFIG).await;
    let (mut ana, mut silent) = (host.client("ana").await, host.client("ben").await);
    view(&mut ana).await;
    view(&mut silent).await;
    ana.drain().await;
    for _ in 0..2 {
        host.advance(Duration::from_secs(25));
        // Reading answers the ping. The other client does not read.
        view(&mut ana).await;
    }
    assert!(!ana.drain_events().await.contains(&"agent:left".to_owned()));
    host.advance(Duration::from_secs(10));
    assert_eq!(ana.expect_event("agent:left").await["reason"], "disconnected");
    assert_eq!(silent.closed().await.code, Some(1001));
    drop((ana, silent));
    host.shut_down().await;
}
