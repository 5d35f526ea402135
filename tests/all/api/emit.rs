//! `POST /v1/emit`: its recipients, its refusals and its limits.

use roundhouse_tests::{TestClient, TestHost};
use serde_json::{Value, json};

/// Connects ana twice (an admin), ben (who views a ticket) and cara.
async fn everybody(host: &TestHost) -> [TestClient; 4] {
    let admin = host.token_with("ana", &["--role", "admin", "--role", "agent"]);
    let agent = host.token_with("ben", &["--role", "agent"]);
    let mut everybody = [
        TestClient::connect(&host.ws, &admin).await,
        TestClient::connect(&host.ws, &admin).await,
        TestClient::connect(&host.ws, &agent).await,
        host.client("cara").await,
    ];
    everybody[2].emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    for client in &mut everybody {
        client.drain().await;
    }
    everybody
}

#[tokio::test]
async fn emit_reaches_and_counts_each_recipient_once() {
    let host = TestHost::start();
    let mut everybody = everybody(&host).await;
    let tab = everybody[1].id().to_owned();
    for (to, except, received) in [
        (json!({ "user": "ana" }), json!(null), [1, 1, 0, 0]),
        (json!({ "user": "nobody" }), json!(null), [0, 0, 0, 0]),
        (json!({ "users": ["ana", "cara", "ana", "nobody"] }), json!(null), [1, 1, 0, 1]),
        (json!({ "users": [] }), json!(null), [0, 0, 0, 0]),
        (json!({ "roles": ["admin"] }), json!(null), [1, 1, 0, 0]),
        (json!({ "roles": ["admin", "agent", "none"] }), json!(null), [1, 1, 1, 0]),
        (json!({ "room": "ticket:t1" }), json!(null), [0, 0, 1, 0]),
        (json!({ "rooms": ["ticket:t1", "user:cara", "ticket:t2"] }), json!(null), [0, 0, 1, 1]),
        (json!({ "room": "user:ana" }), json!(null), [1, 1, 0, 0]),
        (json!({ "connection": tab }), json!(null), [0, 1, 0, 0]),
        (json!({ "connection": "00ffffffffffffff" }), json!(null), [0, 0, 0, 0]),
        (json!({ "all": true }), json!(null), [1, 1, 1, 1]),
        (json!({ "all": true, "user": "ana", "room": "ticket:t1", "roles": ["agent"] }), json!(null), [1, 1, 1, 1]),
        (json!({ "user": "ana", "room": "ticket:t1", "roles": ["agent"] }), json!(null), [1, 1, 1, 0]),
        (json!({ "all": true }), json!({ "user": "ana" }), [0, 0, 1, 1]),
        (json!({ "user": "ana" }), json!({ "connection": tab }), [1, 0, 0, 0]),
        (json!({ "all": true }), json!({ "roles": ["admin"], "rooms": ["ticket:t1"] }), [0, 0, 0, 1]),
        (json!({ "roles": ["agent"] }), json!({ "all": true }), [0, 0, 0, 0]),
    ] {
        let emit = json!({ "to": to, "event": "news", "data": { "n": [1, "é"] }, "except": except });
        let answer = host.post("/v1/emit", &emit).await;
        assert_eq!(
            (answer.status, answer.body),
            (200, json!({ "delivered": received.iter().sum::<usize>() })),
            "{emit}"
        );
        // This emit takes the same path as those before it: when a client has received it, it has received all before
        // it.
        host.post("/v1/emit", &json!({ "to": { "all": true }, "event": "end" })).await;
        for (client, received) in everybody.iter_mut().zip(received) {
            for _ in 0..received {
                assert_eq!(client.next().await, json!({ "event": "news", "data": { "n": [1, "é"] } }), "{emit}");
            }
            assert_eq!(client.next().await, json!({ "event": "end", "data": null }), "{emit}");
        }
    }
}

#[tokio::test]
async fn emit_arrays_are_delivered_in_order_or_refused() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    let emit = |n: u32| json!({ "to": { "user": "ana" }, "event": format!("n{n}"), "data": n });
    let answer = host.post("/v1/emit", &json!([emit(1), { "to": { "room": "empty" }, "event": "x" }, emit(2)])).await;
    assert_eq!(
        (answer.status, answer.body),
        (200, json!([{ "delivered": 1 }, { "delivered": 0 }, { "delivered": 1 }]))
    );
    assert_eq!((ana.next().await["event"].clone(), ana.next().await["event"].clone()), (json!("n1"), json!("n2")));
    assert_eq!(host.post("/v1/emit", &json!([])).await.body, json!([]));

    for (bad, expected) in [
        (json!({ "to": { "user": "a b" }, "event": "x" }), "[1]: to.user"),
        (json!({ "to": { "user": "ana" }, "event": "error" }), "[1]: the event error"),
        (json!({ "to": { "user": "ana" } }), "[1]"),
        (json!(5), "[1]"),
        (json!([]), "[1]"),
    ] {
        let (status, code, message) = host.post_refused("/v1/emit", &json!([emit(3), bad])).await;
        assert_eq!((status, code.as_str()), (400, "bad_request"), "{message}");
        assert!(message.contains(expected), "{bad}: {message}");
    }
    let many: Value = (0..1001).map(emit).collect();
    let (status, _, message) = host.post_refused("/v1/emit", &many).await;
    assert!(status == 400 && message.contains("1001") && message.contains("1000"), "{message}");
    assert_eq!(ana.drain_events().await, [""; 0], "of an array with something bad in it nothing is sent");
    let most: Value = (0..1000).map(emit).collect();
    assert_eq!(host.post("/v1/emit", &most).await.body.as_array().unwrap().len(), 1000);
}

#[tokio::test]
async fn malformed_emit_is_refused_with_reason_and_place() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    let long = "x".repeat(129);
    for (body, expected) in [
        (json!({ "event": "x" }), &["missing field `to`"][..]),
        (json!({ "to": { "all": true } }), &["missing field `event`"]),
        (json!({ "to": { "all": true }, "event": "x", "dta": 1 }), &["dta", "did you mean data?"]),
        (json!({ "to": { "usr": "ana" }, "event": "x" }), &["to.usr", "did you mean user?"]),
        (json!({ "to": { "user": 5 }, "event": "x" }), &["to.user", "expected a string", "line 1 column"]),
        (json!({ "to": { "users": ["a", null] }, "event": "x" }), &["to.users[1]"]),
        (json!({ "to": { "user": null }, "event": "x" }), &["to.user"]),
        (json!({ "to": {}, "event": "x" }), &["to names nobody"]),
        (json!({ "to": { "all": true }, "except": {}, "event": "x" }), &["except names nobody"]),
        (json!({ "to": ["ana"], "event": "x" }), &["to", "expected an object"]),
        (json!({ "to": "ana", "event": "x" }), &["to", "expected an object"]),
        (json!({ "to": { "all": false }, "event": "x" }), &["to.all"]),
        (json!({ "to": { "user": "" }, "event": "x" }), &["to.user"]),
        (json!({ "to": { "users": ["ok", long] }, "event": "x" }), &["to.users[1]"]),
        (json!({ "to": { "roles": ["a b"] }, "event": "x" }), &["to.roles[0]"]),
        (json!({ "to": { "room": "a\nb" }, "event": "x" }), &["to.room"]),
        (json!({ "to": { "rooms": ["x".repeat(513)] }, "event": "x" }), &["to.rooms[0]"]),
        (json!({ "to": { "connection": "+00000000000001a" }, "event": "x" }), &["to.connection"]),
        (json!({ "to": { "all": true }, "except": { "user": "a b" }, "event": "x" }), &["except.user"]),
        (json!({ "to": { "all": true }, "event": "" }), &["event must be"]),
        (json!({ "to": { "all": true }, "event": "x".repeat(257) }), &["event must be"]),
        (json!({ "to": { "all": true }, "event": "a\u{7}" }), &["event must be"]),
        (json!({ "to": { "all": true }, "event": "connected" }), &["the protocol's own"]),
        (json!({ "to": { "all": true }, "event": "x", "idempotencyKey": "" }), &["idempotencyKey"]),
        (json!({ "to": { "all": true }, "event": "x", "idempotencyKey": long }), &["idempotencyKey"]),
        (json!("x"), &["expected an object"]),
    ] {
        let (status, code, message) = host.post_refused("/v1/emit", &body).await;
        assert_eq!((status, code.as_str()), (400, "bad_request"), "{body}: {message}");
        for expected in expected {
            assert!(message.contains(expected), "{body}: {message}");
        }
    }
    assert_eq!(ana.drain_events().await, [""; 0]);
}

#[tokio::test]
async fn payloads_up_to_the_limit_are_delivered() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    let emit = |n: usize| json!({ "to": { "user": "ana" }, "event": "x", "data": "x".repeat(n) });
    assert_eq!(host.post("/v1/emit", &emit(999_900)).await.body, json!({ "delivered": 1 }));
    assert_eq!(ana.expect_event("x").await.as_str().unwrap().len(), 999_900);
    for n in [1_000_000, 5_000_000] {
        let (status, code, message) = host.post_refused("/v1/emit", &emit(n)).await;
        assert_eq!((status, code.as_str()), (413, "too_large"), "{message}");
    }
}
