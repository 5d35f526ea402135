//! Idempotency keys: a repeated call is handled once, and gets the answer of the first call.

use std::time::Duration;

use roundhouse_tests::guests::{hostile, relabelled};
use roundhouse_tests::{InnerHost, TestHost, http};
use serde_json::{Value, json};

fn emit(n: u32, key: &str) -> Value {
    json!({ "to": { "user": "ana" }, "event": "news", "data": n, "idempotencyKey": key })
}

#[tokio::test]
async fn emit_with_a_key_goes_out_once() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    for _ in 0..3 {
        assert_eq!(host.post("/v1/emit", &emit(1, "a")).await.body, json!({ "delivered": 1 }));
    }
    let tab = host.client("ana").await;
    assert_eq!(host.post("/v1/emit", &emit(1, "a")).await.body, json!({ "delivered": 1 }), "as the first was answered");
    // A call whose fields differ in order and spacing is the same call.
    let same =
        "{\"idempotencyKey\": \"a\", \"data\":1 , \"event\":\"news\", \"to\":{\"user\":\"ana\"}, \"except\":null}";
    assert_eq!(host.call("POST", "/v1/emit", same).await.body, json!({ "delivered": 1 }));
    let (status, code, message) = host.post_refused("/v1/emit", &emit(2, "a")).await;
    assert_eq!((status, code.as_str()), (409, "conflict"));
    assert!(message.contains("\"a\""), "{message}");
    let (status, ..) = host.post_refused("/v1/events", &json!({ "event": "news", "idempotencyKey": "a" })).await;
    assert_eq!(status, 409, "a key is for one call, of whatever kind");

    // Events of an array have keys of their own, which may repeat within the array or from earlier calls.
    let answer = host.post("/v1/emit", &json!([emit(1, "a"), emit(3, "b"), emit(3, "b")])).await;
    assert_eq!(answer.body, json!([{ "delivered": 1 }, { "delivered": 2 }, { "delivered": 2 }]));
    for bad in [emit(4, "b"), emit(6, "c")] {
        let (status, _, message) = host.post_refused("/v1/emit", &json!([emit(5, "c"), bad])).await;
        assert!(status == 409 && message.starts_with("[1]: "), "{status} {message}");
    }
    let frames = ana.drain().await;
    let received: Vec<&Value> = frames.iter().map(|frame| &frame["data"]).collect();
    assert_eq!(received, [&json!(1), &json!(3)], "of what was refused nothing was sent");
    drop(tab);
}

#[tokio::test]
async fn keys_of_different_callers_do_not_collide() {
    let config = "auth.jwt.secret = \"s\"\n\
                  [[api_keys]]\nname = \"one\"\nkey = \"k1\"\nscopes = [\"publish\"]\n\
                  [[api_keys]]\nname = \"two\"\nkey = \"k2\"\nscopes = [\"publish\"]\n";
    let host = TestHost::start_with(config, &[]);
    let mut ana = host.client("ana").await;
    for (key, n) in [("k1", 1), ("k2", 2), ("k1", 1)] {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str())];
        let answer = http(&host.api, "POST", "/v1/emit", &headers, emit(n, "a").to_string()).await.unwrap();
        assert_eq!(answer.body, json!({ "delivered": 1 }));
    }
    assert_eq!(ana.drain().await.len(), 2);
}

#[tokio::test]
async fn answers_are_kept_for_a_day() {
    let host = InnerHost::start("").await;
    let delivered = async || host.call("POST", "/v1/emit", emit(1, "a").to_string()).await.body["delivered"].clone();
    assert_eq!(delivered().await, 0);
    // The clock is moved by hours, after which open connections would time out.
    host.advance(Duration::from_secs(24 * 60 * 60 - 1));
    let ana = host.client("ana").await;
    assert_eq!(delivered().await, 0);
    host.advance(Duration::from_secs(1));
    assert_eq!(delivered().await, 1);
    drop(ana);
    host.shut_down().await;
}

/// Sends an event with a key to scope `a` of the hostile guest.
async fn event(host: &TestHost, key: &str) -> (u16, Value) {
    let event = json!({ "event": "hostile:service", "data": { "id": "a" }, "idempotencyKey": key });
    let answer = host.post("/v1/events", &event).await;
    (answer.status, answer.body)
}

async fn count(host: &TestHost) -> Value {
    host.post("/v1/query/hostile/count", &json!({ "id": "a" })).await.body["count"].clone()
}

#[tokio::test]
async fn repeated_event_is_handled_once() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    for _ in 0..3 {
        assert_eq!(event(&host, "a").await, (200, json!({ "service": true })));
    }
    assert_eq!(count(&host).await, 1);
    let other = json!({ "event": "hostile:service", "data": { "id": "b" }, "idempotencyKey": "a" });
    assert_eq!(host.post_refused("/v1/events", &other).await.0, 409);
    let bad = json!({ "event": "hostile:service", "data": { "id": "a" }, "idempotencyKey": "x".repeat(129) });
    assert_eq!(host.post_refused("/v1/events", &bad).await.0, 400);
}

#[tokio::test]
async fn refused_events_are_handled_again() {
    let host = TestHost::start();
    // At first the feature is not loaded; later it is unloaded.
    assert!(event(&host, "a").await.0 >= 400);
    host.load("hostile", hostile("normal")).await;
    assert_eq!(host.call("DELETE", "/v1/plugins/hostile", "").await.status, 200);
    assert!(event(&host, "a").await.0 >= 400);
    host.load("hostile", hostile("normal")).await;
    assert_eq!(event(&host, "a").await, (200, json!({ "service": true })));
    // The feature refuses: the campaign has not started yet.
    let message = json!({ "campaignId": "c1", "status": "sent" });
    let message = json!({ "event": "campaign:message", "data": message, "idempotencyKey": "m" });
    assert!((400..500).contains(&host.post_refused("/v1/events", &message).await.0));
    host.post_event("campaign:started", json!({ "campaignId": "c1", "name": "x", "total": 9 })).await.unwrap();
    for _ in 0..2 {
        assert_eq!(host.post("/v1/events", &message).await.body["processed"], 1);
    }
    // A refusal of the key or of the event's form does not use the key up.
    let bad = json!({ "event": "hostile:service", "data": 5, "idempotencyKey": "b" });
    assert_eq!(host.post_refused("/v1/events", &bad).await.0, 400);
    assert_eq!(event(&host, "b").await.0, 200);
}

/// Makes a call with a key in its header.
async fn with_header(host: &TestHost, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let authorization = format!("Bearer {}", host.key);
    let headers = [("authorization", authorization.as_str()), ("idempotency-key", key)];
    let answer = http(&host.api, "POST", path, &headers, body.to_string()).await.unwrap();
    (answer.status, answer.body)
}

#[tokio::test]
async fn header_key_deduplicates_events_and_emits() {
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    let call = json!({ "event": "hostile:service", "data": { "id": "a" } });
    for key in ["e", "\"e\""] {
        assert_eq!(with_header(&host, "/v1/events", key, &call).await, (200, json!({ "service": true })));
    }
    assert_eq!(event(&host, "e").await.0, 200, "the body may say the same");
    assert_eq!(count(&host).await, 1);

    let mut ana = host.client("ana").await;
    let one = json!({ "to": { "user": "ana" }, "event": "news", "data": 1 });
    for _ in 0..2 {
        assert_eq!(with_header(&host, "/v1/emit", "a", &one).await, (200, json!({ "delivered": 1 })));
        assert_eq!(with_header(&host, "/v1/emit", "a", &emit(1, "a")).await.0, 200);
        // The key of a call with an array covers the whole array.
        let all = json!([emit(2, "b"), one]);
        let delivered = json!([{ "delivered": 1 }, { "delivered": 1 }]);
        assert_eq!(with_header(&host, "/v1/emit", "c", &all).await, (200, delivered));
    }
    let received: Vec<Value> = ana.drain().await.iter().map(|frame| frame["data"].clone()).collect();
    assert_eq!(received, [1, 2, 1]);

    for (path, key, body, status) in [
        ("/v1/emit", "b", emit(1, "a"), 409),
        ("/v1/events", "b", json!({ "event": "hostile:service", "idempotencyKey": "a" }), 409),
        ("/v1/emit", "d", json!([emit(3, "d")]), 409),
        ("/v1/emit", "c", json!([one]), 409),
        ("/v1/emit", "\"a", one.clone(), 400),
        ("/v1/emit", "", one.clone(), 400),
    ] {
        let (answered, body) = with_header(&host, path, key, &body).await;
        assert_eq!(answered, status, "{key}: {body}");
        assert!(body["message"].as_str().unwrap().contains("dempotency"), "{body}");
    }
    assert!(ana.drain().await.is_empty());
}

#[tokio::test]
async fn repeat_waits_for_the_first_answer() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nplugins.call_deadline = \"1s\"", &[]);
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    // The scope is busy until the deadline, so that the next calls stay pending.
    ana.emit("hostile:do", json!({ "id": "a", "how": "spin" })).await;
    assert_eq!(ana.emit_refused("no:such", json!({})).await, "unknown_event", "what stood before this is on its way");
    let hung_up = tokio::time::timeout(Duration::from_millis(300), event(&host, "a")).await;
    assert!(hung_up.is_err(), "nobody has answered yet");
    let (one, two, other) = tokio::join!(event(&host, "a"), event(&host, "a"), event(&host, "b"));
    for answer in [one, two, other] {
        assert_eq!(answer, (200, json!({ "service": true })));
    }
    assert_eq!(count(&host).await, 2, "once for each key");
}

#[tokio::test]
async fn retryable_failures_are_not_remembered() {
    let host = TestHost::start();
    host.load("hostile", hostile("traps")).await;
    assert!(event(&host, "a").await.0 >= 500);
    host.load("hostile", relabelled(&hostile("normal"), "mended")).await;
    assert_eq!(event(&host, "a").await, (200, json!({ "service": true })));
    assert_eq!(event(&host, "a").await, (200, json!({ "service": true })));
    assert_eq!(count(&host).await, 1);
}
