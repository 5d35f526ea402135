//! Connection state recovery: a Socket.IO client that lost its transport resumes its session.

use std::time::Duration;

use roundhouse_tests::{InnerHost, SocketIoClient, TestHost, metric};
use serde_json::{Value, json};

use crate::recovery::{CONFIG, TRANSPORTS, Transport, client, emit_number, lose, wait_for_detached};

/// The next `n` numbers.
async fn next_numbers(client: &mut SocketIoClient, n: usize) -> Vec<Value> {
    let mut numbers = Vec::new();
    for _ in 0..n {
        let packet = client.next().await;
        assert_eq!(packet.event, "number", "{packet:?}");
        numbers.push(packet.argument().clone());
    }
    numbers
}

#[tokio::test]
async fn recovery_replays_in_order_and_notifies_nobody() {
    let host = InnerHost::start(CONFIG).await;
    let view = json!([{ "ticketId": "t1" }]);
    for (from, to) in [
        (Transport::Socket, Transport::Socket),
        (Transport::Polling, Transport::Polling),
        (Transport::Polling, Transport::Socket),
    ] {
        let recovered = metric(&host.api, "connections_recovered_total").await;
        let (mut ben, _) = client(&host, Transport::Socket, "ben").await;
        let (mut ana, id) = client(&host, from, "ana").await;
        ben.emit_with_ack("ticket:view", view.clone()).await;
        ana.emit_with_ack("ticket:view", view.clone()).await;
        emit_number(&host, "ana", 1).await;
        let first = ana.expect_event("number").await;
        assert!(first.offset.is_some(), "an event says where it stands: {first:?}");
        ben.drain().await;
        ana.drain().await;

        let session = lose(&host, ana, "ana").await;
        for n in 2..5 {
            emit_number(&host, "ana", n).await;
        }
        ben.emit_with_ack("ticket:typing", view.clone()).await;
        let mut back = to.open(&host).await;
        let connected = back.connect("/", &session).await.unwrap();
        assert_eq!(connected, json!({ "sid": id, "pid": session["pid"] }));
        assert_eq!(next_numbers(&mut back, 3).await, [2, 3, 4].map(Value::from));
        let names: Vec<String> = back.drain().await.into_iter().map(|packet| packet.event).collect();
        assert_eq!(names, ["agent:typing", "viewers:updated"]);
        let received = ben.drain().await;
        assert!(received.iter().all(|packet| !matches!(&*packet.event, "agent:left" | "agent:joined")), "{received:?}");
        assert_eq!(metric(&host.api, "connections_away").await, 0);
        assert_eq!(metric(&host.api, "connections_recovered_total").await, recovered + 1);

        // The connection keeps its identity, and may be detached again.
        assert_eq!(back.emit_with_ack("ticket:stop_typing", view.clone()).await[0]["error"]["code"], Value::Null);
        let session = lose(&host, back, "ana").await;
        emit_number(&host, "ana", 5).await;
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
async fn recovery_works_before_the_loss_is_noticed() {
    let host = InnerHost::start(CONFIG).await;
    for (from, to) in [
        (Transport::Socket, Transport::Polling),
        (Transport::Polling, Transport::Socket),
        (Transport::Polling, Transport::Polling),
    ] {
        let (mut old, id) = client(&host, from, "ana").await;
        emit_number(&host, "ana", 1).await;
        old.expect_event("number").await;
        let mut back = to.open(&host).await;
        assert_eq!(back.recover(&old, &host.token("ana", None)).await, id);
        let closed = old.closed().await;
        assert!(from == Transport::Polling || closed.code == Some(1000), "{closed:?}");
        assert_eq!(old.kept(), [], "the old transport ends, and puts nobody out");
        emit_number(&host, "ana", 2).await;
        assert_eq!(next_numbers(&mut back, 1).await, [2]);
        back.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn unread_events_are_replayed() {
    let host = InnerHost::start(CONFIG).await;
    for transport in TRANSPORTS {
        let (mut ana, id) = client(&host, transport, "ana").await;
        for n in 0..2 {
            emit_number(&host, "ana", n).await;
            ana.expect_event("number").await;
        }
        let session = ana.session_with(&host.token("ana", None));
        for n in 2..5 {
            emit_number(&host, "ana", n).await;
        }
        // These events have reached the client's socket, and are lost with it.
        ana.expect_event("number").await;
        let queued = metric(&host.api, "frames_queued_total").await;
        ana.cut().await;
        wait_for_detached(&host, 1).await;
        let mut back = transport.open(&host).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        assert_eq!(next_numbers(&mut back, 3).await, [2, 3, 4].map(Value::from), "after {queued} frames");

        // An answered heartbeat confirms all events before it, and the replay starts after it.
        emit_number(&host, "ana", 5).await;
        back.expect_event("number").await;
        host.advance(Duration::from_secs(25));
        back.drain().await;
        emit_number(&host, "ana", 6).await;
        let session = lose(&host, back, "ana").await;
        emit_number(&host, "ana", 7).await;
        let mut back = transport.open(&host).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        assert_eq!(next_numbers(&mut back, 2).await, [6, 7].map(Value::from));
        back.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn recovery_works_without_an_offset() {
    let host = InnerHost::start(CONFIG).await;
    for transport in TRANSPORTS {
        let (ana, id) = client(&host, transport, "ana").await;
        let session = lose(&host, ana, "ana").await;
        assert!(session.get("offset").is_none());
        emit_number(&host, "ana", 1).await;
        let mut back = transport.open(&host).await;
        assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
        assert_eq!(next_numbers(&mut back, 1).await, [1]);
        back.disconnect().await;
    }
    host.shut_down().await;
}

#[tokio::test]
async fn detached_connections_do_not_count_towards_the_limit() {
    let limits = "[limits]\nconnections_per_user = 1\nconnections = 2\nevents_per_second = 0";
    let host = InnerHost::start(&format!("auth.jwt.secret = \"s\"\n{limits}")).await;
    let (ana, id) = client(&host, Transport::Socket, "ana").await;
    let session = lose(&host, ana, "ana").await;
    let (other, _) = client(&host, Transport::Socket, "ana").await;
    // The limit of connections is reached, so the client must wait for a free slot.
    let mut back = SocketIoClient::polling(&host.ws).await;
    assert_eq!(back.connect("/", &session).await.unwrap_err()["data"]["code"], "too_many_connections");
    other.disconnect().await;
    assert_eq!(back.connect("/", &session).await.unwrap()["sid"], id);
    back.cut().await;
    wait_for_detached(&host, 1).await;
    for user in ["ben", "eve"] {
        client(&host, Transport::Socket, user).await.0.disconnect().await;
    }
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
    assert_eq!(next_numbers(&mut back, 1).await, [1]);
}
