//! Events, acknowledgements and typed errors.

use roundhouse_tests::{TestClient, TestHost, eventually};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn refused_events_get_typed_errors_and_reach_nobody() {
    let host = TestHost::start();
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    ben.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    ben.drain().await;

    assert_eq!(ana.emit_refused("no:such", json!({})).await, "unknown_event");
    assert_eq!(ana.emit_refused("ticket:view", json!({})).await, "bad_request");
    assert_eq!(ana.emit_refused("ticket:view", json!({ "ticketId": 5 })).await, "bad_request");
    assert_eq!(ana.emit_refused("ticket:view", json!({ "ticketId": "a b" })).await, "bad_request");
    assert_eq!(ana.emit_refused("ticket:view", json!({ "ticketId": "x".repeat(129) })).await, "bad_request");
    assert_eq!(ana.emit_refused("ticket:view", json!({ "ticketId": "t1", "agentId": "ben" })).await, "forbidden");
    assert_eq!(ana.emit_refused("ticket:typing", json!({ "ticketId": "t1" })).await, "conflict");

    // The error of an event without an id is an event that names the refused one.
    ana.emit("ticket:view", json!({})).await;
    let error = ana.expect_event("error").await;
    assert_eq!((error["code"].as_str(), error["event"].as_str()), (Some("bad_request"), Some("ticket:view")));
    assert!(error["message"].as_str().unwrap().contains("ticketId"), "{error}");

    for (frame, expected) in [
        ("nonsense", "object"),
        ("[\"ticket:view\"]", "object"),
        ("{\"data\": 1}", "neither"),
        ("{\"event\": 1}", "event"),
        ("{\"event\": \"ticket:view\", \"id\": 1.5}", "integer"),
        ("{\"event\": \"ticket:view\", \"id\": \"x\"}", "integer"),
    ] {
        ana.send_text(frame).await;
        let error = ana.expect_event("error").await;
        assert_eq!(error["code"], "bad_request", "{frame}");
        assert!(error["message"].as_str().unwrap().contains(expected), "{frame}: {error}");
    }
    ana.send_message(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(ana.expect_event("error").await["code"], "bad_request");

    assert!(
        ana.emit_with_ack("ticket:view", json!({ "ticketId": "t2" })).await.is_ok(),
        "the connection is still open"
    );
    assert_eq!(ben.drain_events().await, [""; 0], "nobody else has seen anything");
}

#[tokio::test]
async fn any_integer_is_accepted_as_event_id() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    for id in ["0", "-1", "9007199254740993", "170141183460469231731687303715884105727"] {
        ana.send_text(format!("{{\"id\":{id},\"event\":\"ticket:leave\",\"data\":{{\"ticketId\":\"t\"}}}}")).await;
        let answer = ana.next().await;
        assert_eq!(
            answer,
            serde_json::from_str::<serde_json::Value>(&format!("{{\"id\":{id},\"data\":null}}")).unwrap()
        );
    }
}

#[tokio::test]
async fn services_and_clients_cannot_send_each_others_events() {
    let host = TestHost::start();
    host.load("hostile", roundhouse_tests::guests::hostile("normal")).await;
    let mut ana = host.client("ana").await;
    assert_eq!(ana.emit_refused("hostile:service", json!({ "id": "a" })).await, "forbidden");

    let event = |event: &str, data| json!({ "event": event, "data": data }).to_string();
    let answer = host.call("POST", "/v1/events", event("hostile:service", json!({ "id": "a" }))).await;
    assert_eq!((answer.status, &answer.body), (200, &json!({ "service": true })));
    let answer = host.call("POST", "/v1/events", event("hostile:count", json!({ "id": "a" }))).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (403, Some("forbidden")));
    let answer = host.call("POST", "/v1/events", event("no:such", json!({}))).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("unknown_event")));
    let answer = host.call("POST", "/v1/events", "{\"event\":\"a\",\"dta\":1}").await;
    assert_eq!(answer.status, 400);
    assert!(answer.body["message"].as_str().unwrap().contains("dta"), "{}", answer.text);
}

#[tokio::test]
async fn queries_reach_one_scope_or_all() {
    let host = TestHost::start();
    host.load("hostile", roundhouse_tests::guests::hostile("normal")).await;
    let mut ana = host.client("ana").await;
    for (id, times) in [("a", 2), ("b", 1), ("c", 3)] {
        for _ in 0..times {
            ana.emit_with_ack("hostile:count", json!({ "id": id })).await.unwrap();
        }
    }
    let answer = host.call("POST", "/v1/query/hostile/count", "{\"id\":\"a\"}").await;
    assert_eq!((answer.status, answer.body), (200, json!({ "count": 2 })));
    let answer = host.call("POST", "/v1/query/hostile/count", "{\"id\":\"never-heard-of\"}").await;
    assert_eq!(answer.body, json!({ "count": 0 }));
    let report = host.report("hostile").await;
    let mut counts: Vec<i64> =
        report["stats"].as_array().unwrap().iter().map(|count| count["count"].as_i64().unwrap()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 3], "asking about a scope does not make one");
    for (path, status) in [("hostile/no", 404), ("no/count", 404), ("hostile/count", 400)] {
        assert_eq!(host.call("POST", &format!("/v1/query/{path}"), "{}").await.status, status, "{path}");
    }
}

#[tokio::test]
async fn only_the_first_own_acknowledgement_counts() {
    let host = TestHost::start();
    host.load("hostile", roundhouse_tests::guests::hostile("normal")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    ana.emit_with_ack("hostile:do", json!({ "id": "a", "how": "ask" })).await.unwrap();
    let question = ana.next().await;
    let id = question["id"].as_i64().expect("the event asks for an acknowledgement");
    ben.send_text(json!({ "id": id, "data": "not ben's to give" }).to_string()).await;
    assert!(ben.emit_with_ack("hostile:told", json!({ "id": "b" })).await.is_ok());
    for answer in ["yes", "again"] {
        ana.send_text(json!({ "id": id, "data": { "answer": answer } }).to_string()).await;
    }
    assert_eq!(notifications(&mut ana, 1).await, ["acknowledged question [{\"answer\":\"yes\"}]"]);
    // The disconnect of a client that owes an acknowledgement is reported at once.
    ben.emit_with_ack("hostile:do", json!({ "id": "a", "how": "ask" })).await.unwrap();
    ben.expect_event("hostile:noise").await;
    ben.close().await;
    assert_eq!(notifications(&mut ana, 2).await[1], "acknowledged question disconnected");
}

/// Waits until scope `a` has received `n` notifications. Returns all notifications.
async fn notifications(client: &mut TestClient, n: usize) -> Vec<String> {
    eventually("the scope is told", async || {
        let notifications = client.emit_with_ack("hostile:told", json!({ "id": "a" })).await.unwrap();
        let notifications: Vec<String> = serde_json::from_value(notifications).unwrap();
        (notifications.len() >= n).then_some(notifications)
    })
    .await
}

#[tokio::test]
async fn watchers_and_members_get_a_disconnect_once() {
    let host = TestHost::start();
    host.load("hostile", roundhouse_tests::guests::hostile("normal")).await;
    let mut ana = host.client("ana").await;
    let mut watched = host.client("ben").await;
    watched.emit_with_ack("hostile:do", json!({ "id": "a", "how": "watch" })).await.unwrap();
    watched.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    watched.close().await;
    assert_eq!(notifications(&mut ana, 1).await, ["left ben disconnected"]);
    for n in 0..50 {
        // The disconnect may be handled before the join.
        let mut brief = host.client("cara").await;
        for _ in 0..3 {
            brief.emit("hostile:count", json!({ "id": "a" })).await;
        }
        if n % 2 == 0 {
            brief.close().await;
        } else {
            drop(brief);
        }
    }
    let notifications = notifications(&mut ana, 51).await;
    assert_eq!(notifications.len(), 51, "{notifications:?}");
    let stats = host.get("/v1/stats").await;
    assert_eq!((&stats["rooms"], &stats["users"]), (&json!(0), &json!(1)), "{stats}");
}

#[tokio::test]
async fn emit_reaches_each_recipient_once() {
    let config = "auth.jwt.secret = \"s\"\n[plugins.hostile.grants]\nrooms = [\"ticket:*\"]\naudiences = [\"user\", \"roles\", \"all\"]";
    let host = TestHost::start_with(config, &[]);
    host.load("hostile", roundhouse_tests::guests::hostile("reaches")).await;
    let token = host.token_with("cara", &["--role", "admin", "--role", "agent"]);
    let mut everybody = [
        host.client("ana").await,
        host.client("ana").await,
        host.client("ben").await,
        TestClient::connect(&host.ws, &token).await,
    ];
    everybody[2].emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    let mut sender = host.client("eve").await;
    for (to, except, received) in [
        (json!([{ "user": "ana" }]), json!([]), [1, 1, 0, 0]),
        (json!([{ "users": ["ana", "ben", "nobody"] }]), json!([]), [1, 1, 1, 0]),
        (json!([{ "roles": ["admin", "agent"] }]), json!([]), [0, 0, 0, 1]),
        (json!([{ "room": "hostile:a" }]), json!([]), [0, 0, 1, 0]),
        (json!([{ "room": "user:ana" }]), json!([]), [1, 1, 0, 0]),
        (json!([{ "room": "hostile:a" }, { "user": "ben" }, { "roles": ["admin"] }]), json!([]), [0, 0, 1, 1]),
        (json!(["all"]), json!([]), [1, 1, 1, 1]),
        (json!(["all", { "user": "ana" }]), json!([{ "user": "ana" }, { "room": "hostile:a" }]), [0, 0, 0, 1]),
        (json!([{ "room": "ticket:nobody-there" }]), json!([]), [0, 0, 0, 0]),
    ] {
        let with = json!({ "to": to, "except": except });
        sender.emit_with_ack("hostile:do", json!({ "id": "x", "how": "emit", "with": with })).await.unwrap();
        // This event takes the same path as those before it: when a client has received it, it has received all before
        // it.
        sender
            .emit_with_ack("hostile:do", json!({ "id": "x", "how": "emit", "with": { "to": ["all"], "except": [] } }))
            .await
            .unwrap();
        for (client, received) in everybody.iter_mut().zip(received) {
            for _ in 0..=received {
                client.expect_event("hostile:noise").await;
            }
            assert_eq!(client.drain().await, [json!(null); 0], "{to} except {except}");
        }
    }
}

#[tokio::test]
async fn scope_is_notified_of_others_joins_and_leaves() {
    let host = TestHost::start();
    host.load("hostile", roundhouse_tests::guests::hostile("normal")).await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    for client in [&mut ana, &mut ben] {
        client
            .emit_with_ack("hostile:do", json!({ "id": "b", "how": "join-room", "with": "hostile:a" }))
            .await
            .unwrap();
    }
    assert_eq!(notifications(&mut ana, 2).await, ["joined ana", "joined ben"]);
    ana.emit_with_ack("hostile:do", json!({ "id": "b", "how": "leave-room", "with": "hostile:a" })).await.unwrap();
    ben.close().await;
    assert_eq!(notifications(&mut ana, 4).await[2..], ["left ana left", "left ben disconnected"]);
    let nothing = ana.emit_with_ack("hostile:told", json!({ "id": "b" })).await.unwrap();
    assert_eq!(nothing, json!([]), "what a scope does itself it is not told");
}
