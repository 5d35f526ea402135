//! Connection state recovery: a Socket.IO client that lost its transport goes on with what it had. From another shard it
//! does so in `moving`, by the plain protocol in `resume`.

use std::time::Duration;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{InnerHost, SocketIoClient, TestHost, eventually, metric};
use serde_json::{Value, json};

pub(crate) const CONFIG: &str = "auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n\
                                 plugins.conformance.grants.actions = [\"connect\"]\n\
                                 plugins.hostile.grants.actions = [\"connect\"]\n";

/// For how long a client may be away by default.
pub(crate) const WINDOW: Duration = Duration::from_secs(120);

/// Over which transport a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Socket,
    Polling,
}

pub(crate) const WAYS: [Way; 2] = [Way::Socket, Way::Polling];

impl Way {
    pub(crate) async fn open(self, host: &InnerHost) -> SocketIoClient {
        match self {
            Self::Socket => SocketIoClient::socket(&host.ws).await,
            Self::Polling => SocketIoClient::polling(&host.ws).await,
        }
    }
}

/// A client of `user` in the main namespace, and its id there.
pub(crate) async fn client(host: &InnerHost, way: Way, user: &str) -> (SocketIoClient, String) {
    let mut client = way.open(host).await;
    let id = client.connect_as(&host.token(user, None)).await;
    (client, id)
}

/// Waits until so many clients are away.
pub(crate) async fn away(host: &InnerHost, n: u64) {
    eventually(&format!("{n} are away"), async || (metric(&host.api, "connections_away").await == n).then_some(()))
        .await;
}

/// Sends an event to a user, whose connections are this many.
pub(crate) async fn tell(host: &InnerHost, user: &str, n: i32) {
    assert_eq!(host.emit(json!({ "user": user }), "number", json!(n)).await, 1);
}

/// Breaks off, and says what the client would come back with once that is known.
pub(crate) async fn lose(host: &InnerHost, client: SocketIoClient, user: &str) -> Value {
    let session = client.session_with(&host.token(user, None));
    client.cut().await;
    away(host, 1).await;
    session
}

/// The numbers that come next.
async fn numbers(client: &mut SocketIoClient, n: usize) -> Vec<Value> {
    let mut numbers = Vec::new();
    for _ in 0..n {
        let packet = client.next().await;
        assert_eq!(packet.event, "number", "{packet:?}");
        numbers.push(packet.argument().clone());
    }
    numbers
}

/// Comes back, and must be somebody new.
async fn is_new(host: &InnerHost, namespace: &str, said: &Value) -> SocketIoClient {
    let mut client = SocketIoClient::socket(&host.ws).await;
    let entered = client.connect(namespace, said).await.unwrap();
    assert!(entered["sid"].is_string() && entered["pid"].is_string(), "{entered}");
    assert_ne!(entered["pid"], said["pid"]);
    assert_ne!(entered["sid"].as_str(), said["pid"].as_str().unwrap().get(..16));
    assert_eq!(client.drain().await, [], "nothing that was the old one's");
    client
}

#[tokio::test]
async fn recovery_replays_missed_events_in_order_unnoticed() {
    let host = InnerHost::start(CONFIG).await;
    let view = json!([{ "ticketId": "t1" }]);
    for (from, to) in [(Way::Socket, Way::Socket), (Way::Polling, Way::Polling), (Way::Polling, Way::Socket)] {
        let recovered = metric(&host.api, "connections_recovered_total").await;
        let (mut ben, _) = client(&host, Way::Socket, "ben").await;
        let (mut ana, id) = client(&host, from, "ana").await;
        ben.emit_with_ack("ticket:view", view.clone()).await;
        ana.emit_with_ack("ticket:view", view.clone()).await;
        tell(&host, "ana", 1).await;
        let first = ana.expect_event("number").await;
        assert!(first.offset.is_some(), "an event says where it stands: {first:?}");
        ben.drain().await;
        ana.drain().await;

        let session = lose(&host, ana, "ana").await;
        for n in 2..5 {
            tell(&host, "ana", n).await;
        }
        ben.emit_with_ack("ticket:typing", view.clone()).await;
        let mut back = to.open(&host).await;
        let entered = back.connect("/", &session).await.unwrap();
        assert_eq!(entered, json!({ "sid": id, "pid": session["pid"] }));
        assert_eq!(numbers(&mut back, 3).await, [2, 3, 4].map(Value::from));
        let names: Vec<String> = back.drain().await.into_iter().map(|packet| packet.event).collect();
        assert_eq!(names, ["agent:typing", "viewers:updated"]);
        let heard = ben.drain().await;
        assert!(heard.iter().all(|packet| !matches!(&*packet.event, "agent:left" | "agent:joined")), "{heard:?}");
        assert_eq!(metric(&host.api, "connections_away").await, 0);
        assert_eq!(metric(&host.api, "connections_recovered_total").await, recovered + 1);

        // It is who it was, and may be lost again.
        assert_eq!(back.emit_with_ack("ticket:stop_typing", view.clone()).await[0]["error"]["code"], Value::Null);
        let session = lose(&host, back, "ana").await;
        tell(&host, "ana", 5).await;
        let mut again = to.open(&host).await;
        assert_eq!(again.connect("/", &session).await.unwrap()["sid"], id);
        assert_eq!(again.expect_event("number").await.argument(), &json!(5));
        for client in [ben, again] {
            client.disconnect().await;
        }
    }
    host.shut_down().await;
}

#[tokio::test]
async fn expired_session_begins_anew() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("normal")).await;
    for way in WAYS {
        let (ben, _) = client(&host, Way::Socket, "ben").await;
        let scope = json!([{ "id": format!("{way:?}") }]);
        let (mut ana, _) = client(&host, way, "ana").await;
        ana.emit_with_ack("hostile:count", scope.clone()).await;
        let session = lose(&host, ana, "ana").await;
        host.advance(WINDOW - Duration::from_millis(1));
        // Its own transport is silent for longer than it may be.
        ben.cut().await;
        let (mut eve, _) = client(&host, Way::Socket, "eve").await;
        assert_eq!(eve.emit_with_ack("hostile:told", scope.clone()).await, json!([[]]));
        host.advance(Duration::from_millis(1));
        eventually("the scope is told", async || {
            (eve.emit_with_ack("hostile:told", scope.clone()).await == json!([["left ana disconnected"]])).then_some(())
        })
        .await;
        let mut ana = is_new(&host, "/", &session).await;
        assert_eq!(ana.emit_with_ack("hostile:count", scope).await, json!([{ "count": 2 }]));
        for client in [ana, eve] {
            client.disconnect().await;
        }
        host.advance(WINDOW);
        away(&host, 0).await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn foreign_sessions_are_not_recovered() {
    let host = InnerHost::start(&format!("{CONFIG}socketio.namespaces = [\"/other\"]")).await;
    let (mut ana, id) = client(&host, Way::Socket, "ana").await;
    tell(&host, "ana", 1).await;
    ana.expect_event("number").await;
    let session = lose(&host, ana, "ana").await;
    tell(&host, "ana", 2).await;
    let with = |key: &str, value: Value| {
        let mut changed = session.clone();
        changed[key] = value;
        changed
    };
    let pid = session["pid"].as_str().unwrap();
    let flipped = if pid.ends_with('0') { "1" } else { "0" };
    let wrong_secret = json!(format!("{}{flipped}", &pid[..pid.len() - 1]));
    for (namespace, said) in [
        ("/", with("pid", wrong_secret)),
        ("/", with("token", json!(host.token("eve", None)))),
        ("/other", session.clone()),
        ("/", with("pid", json!(pid[..pid.len() - 1]))),
        ("/", with("pid", json!("x"))),
    ] {
        is_new(&host, namespace, &said).await.cut().await;
    }
    // None of that harmed it.
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
    assert_eq!(back.next().await.argument(), &json!(2));
    back.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn impossible_offset_begins_anew_and_ends_the_session() {
    let host = InnerHost::start(CONFIG).await;
    for offset in ["ffffffffffffff", "nonsense", ""] {
        let (mut ana, id) = client(&host, Way::Socket, "ana").await;
        tell(&host, "ana", 1).await;
        ana.expect_event("number").await;
        let mut session = lose(&host, ana, "ana").await;
        session["offset"] = json!(offset);
        let new = is_new(&host, "/", &session).await;
        eventually("the old one is gone", async || {
            (host.call("GET", &format!("/v1/connections/{id}"), "").await.status == 404).then_some(())
        })
        .await;
        new.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn recovery_works_before_the_loss_is_noticed() {
    let host = InnerHost::start(CONFIG).await;
    for (from, to) in [(Way::Socket, Way::Polling), (Way::Polling, Way::Socket), (Way::Polling, Way::Polling)] {
        let (mut old, id) = client(&host, from, "ana").await;
        tell(&host, "ana", 1).await;
        old.expect_event("number").await;
        let mut back = to.open(&host).await;
        assert_eq!(back.recover(&old, &host.token("ana", None)).await, id);
        let closed = old.closed().await;
        assert!(from == Way::Polling || closed.code == Some(1000), "{closed:?}");
        assert_eq!(old.kept(), [], "the old transport ends, and puts nobody out");
        tell(&host, "ana", 2).await;
        assert_eq!(numbers(&mut back, 1).await, [2]);
        back.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn unread_events_are_replayed() {
    let host = InnerHost::start(CONFIG).await;
    for way in WAYS {
        let (mut ana, id) = client(&host, way, "ana").await;
        for n in 0..2 {
            tell(&host, "ana", n).await;
            ana.expect_event("number").await;
        }
        let session = ana.session_with(&host.token("ana", None));
        for n in 2..5 {
            tell(&host, "ana", n).await;
        }
        // They have come to the client, and are lost with it.
        ana.expect_event("number").await;
        let queued = metric(&host.api, "frames_queued_total").await;
        ana.cut().await;
        away(&host, 1).await;
        let mut back = way.open(&host).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        assert_eq!(numbers(&mut back, 3).await, [2, 3, 4].map(Value::from), "after {queued} frames");

        // A heartbeat that was answered says that the client has everything from before, and it goes on from there.
        tell(&host, "ana", 5).await;
        back.expect_event("number").await;
        host.advance(Duration::from_secs(25));
        back.drain().await;
        tell(&host, "ana", 6).await;
        let session = lose(&host, back, "ana").await;
        tell(&host, "ana", 7).await;
        let mut back = way.open(&host).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        assert_eq!(numbers(&mut back, 2).await, [6, 7].map(Value::from));
        back.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn recovery_works_without_an_offset() {
    let host = InnerHost::start(CONFIG).await;
    for way in WAYS {
        let (ana, id) = client(&host, way, "ana").await;
        let session = lose(&host, ana, "ana").await;
        assert!(session.get("offset").is_none());
        tell(&host, "ana", 1).await;
        let mut back = way.open(&host).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        assert_eq!(numbers(&mut back, 1).await, [1]);
        back.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn zero_window_disables_recovery() {
    let host = InnerHost::start(&format!("{CONFIG}recovery.window = \"0s\"")).await;
    host.load("hostile", hostile("normal")).await;
    let (mut ana, id) = client(&host, Way::Socket, "ana").await;
    tell(&host, "ana", 1).await;
    assert_eq!(ana.expect_event("number").await.data, json!([1]), "there is no offset");
    ana.emit_with_ack("hostile:count", json!([{ "id": "a" }])).await;
    ana.cut().await;
    let mut eve = SocketIoClient::polling(&host.ws).await;
    // Nor is anything made of a pid.
    let said = json!({ "token": host.token("eve", None), "pid": format!("{id}{}", "0".repeat(32)), "offset": "1" });
    let entered = eve.connect("/", &said).await.unwrap();
    assert_eq!(entered, json!({ "sid": entered["sid"] }), "there is no pid");
    eventually("the scope is told", async || {
        let told = eve.emit_with_ack("hostile:told", json!([{ "id": "a" }])).await;
        (told == json!([["left ana disconnected"]])).then_some(())
    })
    .await;
    eve.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn overflowing_replay_buffer_ends_the_session() {
    let host = InnerHost::start(&format!("{CONFIG}limits.outbox_bytes = 20000")).await;
    host.load("hostile", hostile("normal")).await;
    let (mut ana, _) = client(&host, Way::Socket, "ana").await;
    ana.emit_with_ack("hostile:count", json!([{ "id": "a" }])).await;
    let session = lose(&host, ana, "ana").await;
    let mut eve = host.client("eve").await;
    for _ in 0..20 {
        host.emit(json!({ "user": "ana" }), "much", json!("x".repeat(2_000))).await;
    }
    eventually("the scope is told", async || {
        let told = eve.emit_with_ack("hostile:told", json!({ "id": "a" })).await.unwrap();
        (told == json!(["left ana disconnected"])).then_some(())
    })
    .await;
    assert_eq!(metric(&host.api, "connections_away").await, 0);
    is_new(&host, "/", &session).await.cut().await;
    drop(eve);
    host.shut_down().await;
}

#[tokio::test]
async fn deliberate_close_ends_the_session_at_once() {
    let host = InnerHost::start(CONFIG).await;
    host.load("hostile", hostile("normal")).await;
    let mut eve = host.client("eve").await;
    // A client that closes as one that is done, a page that goes away, and clients that leave the namespace.
    let ends = [(Way::Socket, Some(1000)), (Way::Socket, Some(1001)), (Way::Socket, None), (Way::Polling, None)];
    for (n, (way, code)) in ends.into_iter().enumerate() {
        let scope = json!({ "id": n.to_string() });
        let (mut ana, _) = client(&host, way, "ana").await;
        ana.emit_with_ack("hostile:count", json!([scope])).await;
        let session = ana.session_with(&host.token("ana", None));
        if code.is_some() {
            ana.close(code).await;
        } else {
            ana.disconnect().await;
        }
        eventually("the scope is told", async || {
            let told = eve.emit_with_ack("hostile:told", scope.clone()).await.unwrap();
            (told == json!(["left ana disconnected"])).then_some(())
        })
        .await;
        let new = is_new(&host, "/", &session).await;
        new.disconnect().await;
    }
    // Without a code a client closes that means to come back, and so it does with Engine.IO's own packet.
    for (way, packet) in [(Way::Socket, None), (Way::Socket, Some("1")), (Way::Polling, Some("1"))] {
        let (mut ana, id) = client(&host, way, "ana").await;
        let session = ana.session_with(&host.token("ana", None));
        match packet {
            Some(packet) => {
                ana.send_text(packet).await;
                ana.closed().await;
            }
            None => ana.close(None).await,
        }
        away(&host, 1).await;
        let mut back = SocketIoClient::socket(&host.ws).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        back.disconnect().await;
    }
    drop(eve);
    host.shut_down().await;
}

#[tokio::test]
async fn detached_connections_do_not_count_towards_the_limit() {
    let limits = "[limits]\nconnections_per_user = 1\nconnections = 2\nevents_per_second = 0";
    let host = InnerHost::start(&format!("auth.jwt.secret = \"s\"\n{limits}")).await;
    let (ana, id) = client(&host, Way::Socket, "ana").await;
    let session = lose(&host, ana, "ana").await;
    let (other, _) = client(&host, Way::Socket, "ana").await;
    // Who comes back to a place that is taken waits for it.
    let mut back = SocketIoClient::polling(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap_err()["data"]["code"], "too_many_connections");
    other.disconnect().await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
    back.cut().await;
    away(&host, 1).await;
    for user in ["ben", "eve"] {
        client(&host, Way::Socket, user).await.0.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn operator_disconnects_a_detached_connection() {
    let host = InnerHost::start(CONFIG).await;
    let (ana, id) = client(&host, Way::Socket, "ana").await;
    let session = lose(&host, ana, "ana").await;
    let path = format!("/v1/connections/{id}");
    assert_eq!(host.call("GET", &path, "").await.body["userId"], "ana");
    assert_eq!(host.call("DELETE", &path, "").await.body, json!({ "disconnected": 1 }));
    assert_eq!(metric(&host.api, "connections_away").await, 0);
    is_new(&host, "/", &session).await.cut().await;
    host.shut_down().await;
}

#[tokio::test]
async fn recovered_connection_takes_the_new_tokens_identity() {
    let host = TestHost::start_with(CONFIG, &[]);
    let mut ana = SocketIoClient::socket(&host.ws).await;
    let id = ana.connect_as(&host.token_with("ana", &["--role", "trainee"])).await;
    let session = ana.session_with(&host.token_with("ana", &["--role", "admin", "--name", "Ana"]));
    ana.cut().await;
    let mut back = SocketIoClient::polling(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
    let shown = host.get(&format!("/v1/connections/{id}")).await;
    assert_eq!((&shown["name"], &shown["roles"]), (&json!("Ana"), &json!(["admin"])));
    for (role, delivered) in [("trainee", 0), ("admin", 1)] {
        let emit = json!({ "to": { "roles": [role] }, "event": "number", "data": delivered });
        assert_eq!(host.post("/v1/emit", &emit).await.body, json!({ "delivered": delivered }), "{role}");
    }
    assert_eq!(numbers(&mut back, 1).await, [1]);
}

#[tokio::test]
async fn replay_memory_of_all_clients_is_bounded() {
    let host = TestHost::start_with(&format!("{CONFIG}shards = 1\nrecovery.memory_bytes = 200000"), &[]);
    let mut clients = [SocketIoClient::socket(&host.ws).await, SocketIoClient::socket(&host.ws).await];
    let mut ids = Vec::new();
    for (client, user) in clients.iter_mut().zip(["ana", "ben"]) {
        ids.push(client.connect_as(&host.token(user)).await);
    }
    let [ana, mut ben] = clients;
    let sessions = [ana.session_with(&host.token("ana")), ben.session_with(&host.token("ben"))];
    ana.cut().await;
    let away = async |n| {
        eventually("it is so", async || (metric(&host.api, "connections_away").await == n).then_some(())).await;
    };
    away(1).await;
    for _ in 0..10 {
        let emit = json!({ "to": { "all": true }, "event": "much", "data": "x".repeat(50_000) });
        assert_eq!(host.post("/v1/emit", &emit).await.status, 200);
        ben.expect_event("much").await;
    }
    // Who is away has to go for the others, of whom less is kept.
    away(0).await;
    let mut new = SocketIoClient::socket(&host.ws).await;
    assert_ne!(new.connect("/", &sessions[0]).await.unwrap()["pid"], sessions[0]["pid"]);
    let session = ben.session_with(&host.token("ben"));
    ben.cut().await;
    away(1).await;
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], ids[1], "it had everything");
    back.cut().await;
    away(1).await;
    let mut back = SocketIoClient::socket(&host.ws).await;
    assert_ne!(back.connect("/", &sessions[1]).await.unwrap()["pid"], session["pid"], "this is not kept any more");
}
