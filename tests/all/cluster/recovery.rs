//! A client that lost its transport goes on at another host: nothing is lost, nothing comes twice, and nobody notices.

use std::time::Duration;

use roundhouse_tests::{ClusterOptions, SILENCE, SocketIoClient, TestClient, TestCluster, eventually, metric, skip};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::cluster;
use super::presence::view;

/// The time in which hosts have surely seen each other's connections to Redis.
const SEEN: Duration = Duration::from_millis(800);

/// How often a client changes its host while events are sent.
const HOPS: usize = 24;

/// How many events a client of Socket.IO reads at a host, of those that may have come.
const READ: usize = 5;

/// For how long a client reads at a host, so that some of what was sent is still on its way when it leaves.
const READING: Duration = Duration::from_millis(20);

/// A client of the plain protocol that goes from host to host.
struct Hopper {
    client: TestClient,
    session: Value,
    /// The frames of the session that came.
    frames: Vec<Value>,
}

impl Hopper {
    /// Begins a session at a host.
    async fn begin(cluster: &TestCluster, node: usize, user: &str) -> Self {
        let mut client = cluster.client(node, user).await;
        let begun = client.emit_with_ack("resume", json!({})).await.unwrap();
        Self { client, session: begun["session"].clone(), frames: Vec::new() }
    }

    /// Breaks the connection, and comes back to a host. Returns the host's answer.
    async fn hop(&mut self, cluster: &TestCluster, node: usize, user: &str) -> Value {
        self.frames.extend(self.client.frames_within(READING).await);
        // The old connection breaks without a close.
        self.client = cluster.client(node, user).await;
        let wanted = json!({ "session": self.session, "offset": self.frames.len() });
        self.client.emit_with_ack("resume", wanted).await.unwrap()
    }
}

async fn emit_number(cluster: &TestCluster, node: usize, to: &Value, n: usize) {
    let emit = json!({ "to": to, "event": "number", "data": n });
    let emitted = cluster.host(node).call("POST", "/v1/emit", emit.to_string()).await;
    assert_eq!(emitted.status, 200, "{}", emitted.text);
}

fn numbers(frames: &[Value]) -> Vec<u64> {
    let numbers = frames.iter().filter(|frame| frame["event"] == "number");
    numbers.map(|frame| frame["data"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn plain_client_goes_on_at_another_host() {
    let Some(cluster) = cluster("plain_client_goes_on_at_another_host", 3).await else { return };
    let mut ben = cluster.client(1, "ben").await;
    assert_eq!(view(&mut ben).await, ["ben"]);
    let mut ana = Hopper::begin(&cluster, 0, "ana").await;
    let id = ana.client.id().to_owned();
    let viewed = ana.client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(viewed["viewers"].as_array().unwrap().len(), 2);
    ana.frames.push(viewed);
    ben.expect_event("agent:joined").await;
    let resumed = ana.hop(&cluster, 2, "ana").await;
    assert_eq!((&resumed["recovered"], resumed["connectionId"].as_str()), (&json!(true), Some(&*id)));
    ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(ana.client.expect_event("agent:typing").await["agentId"], "ben");
    ana.client.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(ben.expect_event("agent:typing").await["agentId"], "ana");
    let told = timeout(2 * SILENCE, ben.expect_event("agent:left")).await;
    assert!(told.is_err(), "nobody notices: {told:?}");
    for node in 0..3 {
        let page = cluster.host(node).get("/v1/connections?user=ana").await;
        let found = page["connections"].as_array().unwrap();
        assert_eq!((found.len(), found[0]["connectionId"].as_str()), (1, Some(&*id)), "at host {node}: {page}");
    }
    assert_eq!(metric(&cluster.host(2).api, "connections_recovered_total").await, 1);
}

/// Emits numbers through all hosts until `stopped`, each when the one before it was answered: to a user on all hosts, to a room
/// whose owner knows where its members are, and to all. Returns how many.
async fn emit_numbers(cluster: &TestCluster, mut stopped: watch::Receiver<bool>) -> usize {
    let targets = [json!({ "user": "ana" }), json!({ "room": "timeline:client:c1" }), json!({ "all": true })];
    let mut n = 0;
    while !*stopped.borrow_and_update() {
        emit_number(cluster, n % cluster.len(), &targets[n / 2 % targets.len()], n).await;
        n += 1;
    }
    n
}

fn subscription() -> Value {
    json!({ "entityType": "client", "entityId": "c1" })
}

#[tokio::test]
async fn hopping_client_gets_each_event_once() {
    let Some(cluster) = cluster("hopping_client_gets_each_event_once", 3).await else { return };
    let mut ana = Hopper::begin(&cluster, 0, "ana").await;
    let subscribed = ana.client.emit_with_ack("timeline:subscribe", subscription()).await.unwrap();
    ana.frames.push(subscribed);
    let (stop, stopped) = watch::channel(false);
    let hopping = async {
        for hop in 0..HOPS {
            let resumed = ana.hop(&cluster, (hop + 1) % 3, "ana").await;
            assert_eq!(resumed["recovered"], true, "hop {hop}");
        }
        stop.send_replace(true);
    };
    let (n, ()) = tokio::join!(emit_numbers(&cluster, stopped), hopping);
    let all = eventually("all have come", async || {
        ana.frames.extend(ana.client.frames_within(READING).await);
        let numbers = numbers(&ana.frames);
        (numbers.len() >= n).then_some(numbers)
    })
    .await;
    assert_eq!(all, (0..n as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn hopping_socketio_client_gets_each_event_once() {
    let Some(cluster) = cluster("hopping_socketio_client_gets_each_event_once", 3).await else { return };
    let mut ana = cluster.socketio_client(0, "ana").await;
    ana.emit_with_ack("timeline:subscribe", json!([subscription()])).await;
    let (stop, stopped) = watch::channel(false);
    let mut all = Vec::new();
    let hopping = async {
        for hop in 0..HOPS {
            for _ in 0..READ {
                all.push(ana.expect_event("number").await.argument().as_u64().unwrap());
            }
            let session = ana.session_with(&TestCluster::token("ana"));
            let next = SocketIoClient::socket(&cluster.host((hop + 1) % 3).ws).await;
            std::mem::replace(&mut ana, next).cut().await;
            let entered = ana.connect("/", &session).await.unwrap();
            assert_eq!(entered["pid"], session["pid"], "hop {hop}");
        }
        stop.send_replace(true);
    };
    let (n, ()) = tokio::join!(emit_numbers(&cluster, stopped), hopping);
    while all.len() < n {
        all.push(ana.expect_event("number").await.argument().as_u64().unwrap());
    }
    assert_eq!(all, (0..n as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn socketio_client_recovers_at_another_host() {
    let Some(cluster) = cluster("socketio_client_recovers_at_another_host", 2).await else { return };
    for (n, is_polling) in [false, true].into_iter().enumerate() {
        let (ticket, token) = (format!("t{n}"), TestCluster::token("ana"));
        let mut ben = cluster.client(0, "ben").await;
        ben.emit_with_ack("ticket:view", json!({ "ticketId": ticket })).await.unwrap();
        let mut ana = cluster.socketio_client(0, "ana").await;
        ana.emit_with_ack("ticket:view", json!([{ "ticketId": ticket }])).await;
        emit_number(&cluster, 0, &json!({ "user": "ana" }), 1).await;
        ana.expect_event("number").await;
        let session = ana.session_with(&token);
        ana.cut().await;
        eventually("her connection is away", async || {
            (metric(&cluster.host(0).api, "connections_away").await == 1).then_some(())
        })
        .await;
        emit_number(&cluster, 1, &json!({ "user": "ana" }), 2).await;
        let ws = &cluster.host(1).ws;
        let mut back = if is_polling { SocketIoClient::polling(ws).await } else { SocketIoClient::socket(ws).await };
        let entered = back.connect("/", &session).await.unwrap();
        assert_eq!(entered["pid"], session["pid"], "it is the same session");
        assert_eq!(*back.expect_event("number").await.argument(), 2);
        ben.emit_with_ack("ticket:typing", json!({ "ticketId": ticket })).await.unwrap();
        assert_eq!(back.expect_event("agent:typing").await.argument()["agentId"], "ben");
        back.emit_with_ack("ticket:leave", json!([{ "ticketId": ticket }])).await;
        assert_eq!(ben.expect_event("agent:left").await["reason"], "left");
        assert_eq!(metric(&cluster.host(0).api, "connections_away").await, 0);
        back.disconnect().await;
    }
}

#[tokio::test]
async fn moved_connection_outlives_its_first_host() {
    let Some(mut cluster) = cluster("moved_connection_outlives_its_first_host", 3).await else { return };
    let mut ben = cluster.client(1, "ben").await;
    view(&mut ben).await;
    let mut ana = Hopper::begin(&cluster, 0, "ana").await;
    let viewed = ana.client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    ana.frames.push(viewed);
    assert_eq!(ana.hop(&cluster, 2, "ana").await["recovered"], true);
    cluster.kill(0);
    cluster.wait_until_whole().await;
    ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(ana.client.expect_event("agent:typing").await["agentId"], "ben");
    assert_eq!(view(&mut ben).await, ["ben", "ana"], "she is still there");
    // The host that has her now dies, too.
    cluster.kill(2);
    assert_eq!(ben.expect_event("agent:left").await["agentId"], "ana");
}

#[tokio::test]
async fn session_of_another_user_stays_where_it_is() {
    let Some(cluster) = cluster("session_of_another_user_stays_where_it_is", 2).await else { return };
    let mut ana = Hopper::begin(&cluster, 0, "ana").await;
    let mut eva = cluster.client(1, "eva").await;
    let wanted = json!({ "session": ana.session, "offset": 0 });
    assert_eq!(eva.emit_with_ack("resume", wanted).await.unwrap()["recovered"], false);
    let forged = format!("{}{:032x}", &ana.session.as_str().unwrap()[..16], 7);
    let mut forger = cluster.client(1, "ana").await;
    let wanted = json!({ "session": forged, "offset": 0 });
    assert_eq!(forger.emit_with_ack("resume", wanted).await.unwrap()["recovered"], false);
    ana.client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.expect("she is undisturbed");
}

#[tokio::test]
async fn clients_of_a_stopping_host_go_on_elsewhere() {
    let Some(mut cluster) = cluster("clients_of_a_stopping_host_go_on_elsewhere", 2).await else { return };
    let mut ben = cluster.client(1, "ben").await;
    view(&mut ben).await;
    let mut ana = Hopper::begin(&cluster, 0, "ana").await;
    let viewed = ana.client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    ana.frames.push(viewed);
    ben.expect_event("agent:joined").await;
    cluster.host(0).signal("TERM");
    assert_eq!(ana.client.closed().await.code, Some(1012));
    emit_number(&cluster, 1, &json!({ "user": "ana" }), 1).await;
    ana.client = cluster.client(1, "ana").await;
    let wanted = json!({ "session": ana.session, "offset": ana.frames.len() });
    assert_eq!(ana.client.emit_with_ack("resume", wanted).await.unwrap()["recovered"], true);
    assert_eq!(ana.client.expect_event("number").await, 1);
    cluster.wait_for_exit(0);
    cluster.wait_until_whole().await;
    assert_eq!(view(&mut ben).await, ["ben", "ana"]);
    let told = timeout(2 * SILENCE, ben.expect_event("agent:left")).await;
    assert!(told.is_err(), "nobody notices: {told:?}");
}

#[tokio::test]
async fn agent_of_a_dead_host_returns_unnoticed() {
    let Some(mut cluster) = cluster("agent_of_a_dead_host_returns_unnoticed", 3).await else { return };
    let mut ben = cluster.client(1, "ben").await;
    view(&mut ben).await;
    let mut ana = Hopper::begin(&cluster, 0, "ana").await;
    let id = ana.client.id().to_owned();
    ana.client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    let mut cara = cluster.socketio_client(0, "cara").await;
    cara.emit_with_ack("ticket:view", json!([{ "ticketId": "t1" }])).await;
    let mut eva = cluster.client(0, "eva").await;
    assert_eq!(view(&mut eva).await, ["ben", "ana", "cara", "eva"]);
    let session = cara.session_with(&TestCluster::token("cara"));
    // The end of a host's connection to Redis says something to hosts that have seen it: they look four times a second.
    ana.frames.extend(ana.client.frames_within(SEEN).await);
    cluster.kill(0);
    // What they had not received is gone with their host, so they are told to ask for what they show.
    let resumed = ana.hop(&cluster, 2, "ana").await;
    assert_eq!((&resumed["recovered"], resumed["connectionId"].as_str()), (&json!(false), Some(&*id)));
    let mut back = SocketIoClient::socket(&cluster.host(1).ws).await;
    let entered = back.connect("/", &session).await.unwrap();
    assert_ne!(entered["pid"], session["pid"], "it does not take its session for recovered");
    // What a page shows is in Redis, with the scopes: it asks for that as after any new connection.
    let viewed = ana.client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(viewed["viewers"].as_array().unwrap().len(), 4, "{viewed}");
    // Eva does not come back.
    assert_eq!(ben.expect_event("agent:left").await["agentId"], "eva");
    assert_eq!(view(&mut ben).await, ["ben", "ana", "cara"]);
    let told = timeout(2 * SILENCE, ben.expect_event("agent:left")).await;
    assert!(told.is_err(), "nobody notices: {told:?}");
    ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(ana.client.expect_event("agent:typing").await["agentId"], "ben");
    assert_eq!(back.expect_event("agent:typing").await.argument()["agentId"], "ben");
    // They are members still, who leave.
    back.disconnect().await;
    assert_eq!(ben.expect_event("agent:left").await["agentId"], "cara");
}

#[tokio::test]
async fn others_do_not_inherit_a_connection() {
    let Some(mut cluster) = cluster("others_do_not_inherit_a_connection", 2).await else { return };
    let mut ana = Hopper::begin(&cluster, 0, "ana").await;
    ana.client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    let id = ana.client.id().to_owned();
    let mut ben = cluster.client(1, "ben").await;
    view(&mut ben).await;
    cluster.kill(0);
    let mut eva = cluster.client(1, "eva").await;
    let wanted = json!({ "session": ana.session, "offset": 0 });
    let resumed = eva.emit_with_ack("resume", wanted).await.unwrap();
    assert!(resumed["recovered"] == false && resumed["connectionId"] != *id, "{resumed}");
    let forged = format!("{}{:032x}", &ana.session.as_str().unwrap()[..16], 7);
    let mut forger = cluster.client(1, "ana").await;
    let resumed = forger.emit_with_ack("resume", json!({ "session": forged, "offset": 0 })).await.unwrap();
    assert!(resumed["recovered"] == false && resumed["connectionId"] != *id, "{resumed}");
    forger.close().await;
    assert_eq!(ben.expect_event("agent:left").await["agentId"], "ana");
}

#[tokio::test]
async fn upgrade_during_a_connections_move_is_answered() {
    let Some(cluster) = cluster("upgrade_during_a_connections_move_is_answered", 2).await else { return };
    let mut ana = cluster.socketio_client(0, "ana").await;
    emit_number(&cluster, 0, &json!({ "user": "ana" }), 1).await;
    ana.expect_event("number").await;
    let session = ana.session_with(&TestCluster::token("ana"));
    // It does not answer, so that her connection is on its way for as long as another host is waited for.
    cluster.suspend(0);
    let mut back = SocketIoClient::polling(&cluster.host(1).ws).await;
    back.send_text(&format!("40{session}")).await;
    let mut back = back.upgrade().await;
    let entered = back.wait_for(|packet| packet.kind == '0').await;
    assert!(entered.data["sid"].is_string() && entered.data["pid"] != session["pid"], "{entered:?}");
    emit_number(&cluster, 1, &json!({ "user": "ana" }), 2).await;
    assert_eq!(back.expect_event("number").await.data[0], 2);
    cluster.resume(0);
}

#[tokio::test]
async fn user_limit_holds_without_recovery() {
    let name = "user_limit_holds_without_recovery";
    let config = "recovery.window = \"0s\"\nlimits.connections_per_user = 1\nlimits.user_overflow = \"reject\"";
    let options = ClusterOptions { config: config.to_owned(), ..ClusterOptions::of(2) };
    let cluster = match TestCluster::start_with(&options) {
        Ok(cluster) => cluster,
        Err(why) => return skip(name, &why),
    };
    cluster.wait_until_whole().await;
    let _first = cluster.client(0, "ana").await;
    let url = format!("{}/ws?token={}", cluster.host(0).ws, TestCluster::token("ana"));
    let mut second = TestClient::open(url.into_client_request().unwrap()).await;
    assert_eq!(second.closed().await.code, Some(4009));
}

#[tokio::test]
async fn memberships_follow_a_hopping_client() {
    let Some(cluster) = cluster("memberships_follow_a_hopping_client", 3).await else { return };
    let mut ben = cluster.client(1, "ben").await;
    view(&mut ben).await;
    let mut ana = Hopper::begin(&cluster, 0, "ana").await;
    for hop in 0..HOPS {
        // She leaves the host at once, while her join or departure is on its way.
        let event = if hop % 2 == 0 { "ticket:view" } else { "ticket:leave" };
        ana.client.emit(event, json!({ "ticketId": "t1" })).await;
        assert_eq!(ana.hop(&cluster, (hop + 1) % 3, "ana").await["recovered"], true, "hop {hop}");
    }
    ana.client.emit_with_ack("ticket:leave", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(view(&mut ben).await, ["ben"]);
    ana.client.drain().await;
    ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
    let told = ana.client.drain_events().await;
    assert_eq!(told, [""; 0], "she is out of the room, on whichever host");
    for node in 0..3 {
        let room = cluster.host(node).get("/v1/rooms/ticket:t1").await;
        assert_eq!(room["members"].as_array().map(Vec::len), Some(1), "at host {node}: {room}");
    }
}
