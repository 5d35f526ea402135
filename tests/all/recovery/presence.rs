//! The notifications `away` and `back`, of connections that were detached and may resume.

use std::time::Duration;

use roundhouse_tests::guests::{hostile, relabelled};
use roundhouse_tests::{InnerHost, SocketIoClient, eventually, faults_of_many};
use serde_json::{Value, json};

use crate::recovery::{CONFIG, TRANSPORTS, Transport, WINDOW, client, lose, wait_for_detached};

/// The default time after which a detached agent leaves for the others.
const AWAY: Duration = Duration::from_secs(10);

/// The number of events that ticket-collision has handled.
async fn calls(host: &InnerHost) -> u64 {
    let plugins = host.call("GET", "/v1/plugins", "").await.body;
    let plugin = plugins["plugins"].as_array().unwrap().iter().find(|plugin| plugin["name"] == "ticket-collision");
    plugin.unwrap()["calls"].as_u64().unwrap()
}

/// Breaks the connection of a client on a ticket, and waits until the ticket was notified, which starts its timer.
async fn lose_on_ticket(host: &InnerHost, client: SocketIoClient, user: &str) -> Value {
    let before = calls(host).await;
    let session = lose(host, client, user).await;
    eventually("the ticket is told", async || (calls(host).await > before).then_some(())).await;
    session
}

/// The names of the received events.
async fn names(client: &mut SocketIoClient) -> Vec<String> {
    client.drain().await.into_iter().map(|packet| packet.event).collect()
}

fn agents(viewers: &Value) -> Vec<&str> {
    viewers["viewers"].as_array().unwrap().iter().map(|viewer| viewer["agentId"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn subscribed_scope_gets_away_and_back() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("presence")).await;
    for transport in TRANSPORTS {
        let mut eve = host.client("eve").await;
        let scope = format!("{transport:?}");
        let (mut ana, id) = client(&host, transport, "ana").await;
        // The connection is in the room of one scope, and another scope only watches it.
        ana.emit_with_ack("hostile:count", json!([{ "id": scope }])).await;
        ana.emit_with_ack("hostile:do", json!([{ "id": format!("{scope}-watched"), "how": "watch" }])).await;
        host.emit(json!({ "user": "ana" }), "number", json!(1)).await;
        ana.expect_event("number").await;
        let session = lose(&host, ana, "ana").await;
        for scope in [&scope, &format!("{scope}-watched")] {
            eve.expect_notifications(scope, &["away ana"]).await;
        }
        let mut back = transport.open(&host).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        // The scope's emits at `away` and at `back` arrive once, and in order.
        for noise in ["away", "back"] {
            assert_eq!(back.expect_event("hostile:noise").await.argument()["noise"], noise);
        }
        assert_eq!(names(&mut back).await, [""; 0]);
        // The scope is notified before the client's next event.
        let notifications = back.emit_with_ack("hostile:told", json!([{ "id": scope }])).await;
        assert_eq!(notifications, json!([["away ana", "back ana "]]));
        lose(&host, back, "ana").await;
        // Eve closes first: the heartbeat would end her silent transport when the clock moves.
        eve.close().await;
        host.advance(WINDOW);
        let mut eve = host.client("eve").await;
        for scope in [&scope, &format!("{scope}-watched")] {
            eve.expect_notifications(scope, &["away ana", "back ana ", "away ana", "left ana disconnected"]).await;
        }
        eve.close().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn resumed_plain_session_is_reported_back() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("presence")).await;
    let (mut eve, mut ana) = (host.client("eve").await, host.client("ana").await);
    let begun = ana.emit_with_ack("resume", json!({})).await.unwrap();
    ana.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    drop(ana);
    eve.expect_notifications("a", &["away ana"]).await;
    let mut back = host.client("ana").await;
    let resumed = back.emit_with_ack("resume", json!({ "session": begun["session"], "offset": 1 })).await.unwrap();
    assert_eq!(resumed["recovered"], true);
    assert_eq!(back.drain_events().await, ["hostile:noise", "hostile:noise"]);
    eve.expect_notifications("a", &["away ana", "back ana "]).await;
    // A close is a departure, without `away` before it.
    back.close().await;
    eve.expect_notifications("a", &["away ana", "back ana ", "left ana disconnected"]).await;
    drop(eve);
    host.shut_down().await;
}

#[tokio::test]
async fn scope_without_presence_gets_no_away() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("normal")).await;
    let mut eve = host.client("eve").await;
    let (mut ana, id) = client(&host, Transport::Socket, "ana").await;
    ana.emit_with_ack("hostile:count", json!([{ "id": "a" }])).await;
    let session = lose(&host, ana, "ana").await;
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
    assert_eq!(back.emit_with_ack("hostile:told", json!([{ "id": "a" }])).await, json!([[]]));
    // A build without presence gets no notification, though the build before got some in this scope.
    host.load("hostile", hostile("presence")).await;
    let session = lose(&host, back, "ana").await;
    eve.expect_notifications("a", &["away ana"]).await;
    host.load("hostile", relabelled(&hostile("normal"), "again")).await;
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
    assert_eq!(back.emit_with_ack("hostile:told", json!([{ "id": "a" }])).await, json!([["away ana"]]));
    drop(eve);
    back.disconnect().await;
    host.shut_down().await;
}

#[tokio::test]
async fn join_handled_after_the_loss_gets_away() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("presence")).await;
    let mut eve = host.client("eve").await;
    let (mut ana, id) = client(&host, Transport::Socket, "ana").await;
    // The scope is busy for two deadlines when the join arrives.
    for _ in 0..2 {
        eve.emit_with_id("hostile:do", json!({ "id": "a", "how": "spin" })).await;
    }
    ana.emit("hostile:count", json!([{ "id": "a" }])).await;
    let session = lose(&host, ana, "ana").await;
    eve.expect_notifications("a", &["away ana"]).await;
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
    eve.expect_notifications("a", &["away ana", "back ana "]).await;
    drop(eve);
    back.disconnect().await;
    host.shut_down().await;
}

#[tokio::test]
async fn opposite_changes_cancel_in_a_paused_plugin() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("presence")).await;
    let mut eve = host.client("eve").await;
    let (mut ana, id) = client(&host, Transport::Socket, "ana").await;
    ana.emit_with_ack("hostile:count", json!([{ "id": "a" }])).await;
    faults_of_many(&host, 10).await;
    // `away` and `back` during the pause cancel each other, however often they occur.
    let mut session = lose(&host, ana, "ana").await;
    for _ in 0..2 {
        let mut back = SocketIoClient::socket(&host.ws).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        session = lose(&host, back, "ana").await;
    }
    host.load("hostile", relabelled(&hostile("presence"), "mended")).await;
    eve.expect_notifications("a", &["away ana"]).await;
    drop(eve);
    host.shut_down().await;
}

#[tokio::test]
async fn away_agent_leaves_the_viewers_until_back() {
    let host = InnerHost::start(CONFIG).await;
    for transport in TRANSPORTS {
        let ticket = json!([{ "ticketId": format!("{transport:?}") }]);
        let mut ben = host.client("ben").await;
        let (mut ana, id) = client(&host, transport, "ana").await;
        ana.emit_with_ack("ticket:view", ticket.clone()).await;
        ben.emit_with_ack("ticket:view", ticket[0].clone()).await.unwrap();
        ana.drain().await;
        ben.drain().await;
        let session = lose_on_ticket(&host, ana, "ana").await;
        host.advance(AWAY - Duration::from_millis(1));
        assert_eq!(ben.drain_events().await, [""; 0]);
        host.advance(Duration::from_millis(1));
        let left = ben.expect_event("agent:left").await;
        assert_eq!((&left["agentId"], &left["reason"]), (&json!("ana"), &json!("disconnected")));
        assert_eq!(agents(&ben.expect_event("viewers:updated").await), ["ben"]);
        ben.emit_with_ack("ticket:typing", ticket[0].clone()).await.unwrap();
        ben.drain().await;

        let mut back = transport.open(&host).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        let received = back.drain().await;
        let names: Vec<&str> = received.iter().map(|packet| packet.event.as_str()).collect();
        assert_eq!(names, ["agent:typing", "viewers:updated"], "what it missed, then the list");
        assert_eq!(agents(received[1].argument()), ["ana", "ben"]);
        assert_eq!(ben.expect_event("agent:joined").await["agentId"], "ana");
        assert_eq!(agents(&ben.expect_event("viewers:updated").await), ["ana", "ben"]);

        // The others are not told of a short absence, and at once of a deliberate departure.
        let session = lose_on_ticket(&host, back, "ana").await;
        let mut back = transport.open(&host).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        host.advance(AWAY);
        ben.drain().await.iter().for_each(|frame| assert_ne!(frame["event"], "agent:left"));
        back.disconnect().await;
        assert_eq!(ben.expect_event("agent:left").await["reason"], "disconnected");
        ben.close().await;
        host.advance(WINDOW);
        wait_for_detached(&host, 0).await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn away_outlasts_a_swap() {
    let host = InnerHost::start(CONFIG).await;
    let mut ben = host.client("ben").await;
    let (mut ana, id) = client(&host, Transport::Socket, "ana").await;
    let ticket = json!([{ "ticketId": "t1" }]);
    ana.emit_with_ack("ticket:view", ticket.clone()).await;
    ben.emit_with_ack("ticket:view", ticket[0].clone()).await.unwrap();
    let session = lose_on_ticket(&host, ana, "ana").await;
    host.advance(AWAY);
    assert_eq!(ben.expect_event("agent:left").await["agentId"], "ana");
    let swapped = host.call("PUT", "/v1/plugins/ticket-collision", roundhouse_tests::guests::ticket_collision("9.9.9"));
    assert_eq!(swapped.await.status, 200);
    ben.drain().await;
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
    assert_eq!(ben.expect_event("agent:joined").await["agentId"], "ana");
    drop(ben);
    back.disconnect().await;
    host.shut_down().await;
}
