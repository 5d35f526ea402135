//! Limits of payloads: an event over a limit is refused with a typed error before a feature is called, and is not a
//! fault.

use std::collections::BTreeSet;

use roundhouse_tests::cost::{Plan, Until, run};
use roundhouse_tests::guests::{conformance, hostile};
use roundhouse_tests::{InnerHost, SocketIoClient, TestClient, TestHost, metric};
use serde_json::{Value, json};

const CONFIG: &str = "auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n\
                      plugins.conformance.grants.actions = [\"connect\"]\n";

/// Client events of the bundled features, each with a valid payload.
const EVENTS: [(&str, &str); 22] = [
    ("subscribe:contact", "contactId"),
    ("unsubscribe:contact", "contactId"),
    ("typing:start", "contactId"),
    ("typing:stop", "contactId"),
    ("subscribe:whatsapp", "accountId"),
    ("unsubscribe:whatsapp", "accountId"),
    ("joinRoom", "roomId"),
    ("leaveRoom", "roomId"),
    ("roomMessage", "roomId"),
    ("roomHistory", "roomId"),
    ("joinChannel", "channelId"),
    ("leaveChannel", "channelId"),
    ("channelMessage", "channelId"),
    ("channelHistory", "channelId"),
    ("ticket:view", "ticketId"),
    ("ticket:typing", "ticketId"),
    ("ticket:stop_typing", "ticketId"),
    ("ticket:leave", "ticketId"),
    ("subscribe:campaign", "campaignId"),
    ("unsubscribe:campaign", "campaignId"),
    ("timeline:subscribe", "entityId"),
    ("timeline:unsubscribe", "entityId"),
];

/// The size of a message close to 1 MB, the longest that the host accepts, in bytes.
const MEGABYTE: usize = 990_000;

/// Payloads that exceed a limit in different ways, each close to the longest message.
fn too_much(field: &str) -> Vec<(&'static str, String)> {
    let id = format!("\"{field}\":\"a\"");
    let keys: Vec<String> = (0..80_000).map(|n| format!("\"{n}\":0")).collect();
    let within = |more: &str| format!("{{{id},\"more\":{more}}}");
    vec![
        ("objects", within(&format!("[{}]", vec!["{}"; MEGABYTE / 3].join(",")))),
        ("arrays", within(&format!("[{}]", vec!["[]"; MEGABYTE / 3].join(",")))),
        ("numbers", within(&format!("[{}]", vec!["1"; MEGABYTE / 2].join(",")))),
        ("keys", format!("{{{id},{}}}", keys.join(","))),
        ("depth", within(&format!("{}{}", "[".repeat(MEGABYTE / 2), "]".repeat(MEGABYTE / 2)))),
        ("bytes", within(&format!("\"{}\"", "x".repeat(MEGABYTE)))),
        ("few objects", within(&format!("[{}]", vec!["{}"; 1025].join(",")))),
        ("some depth", within(&format!("{}{}", "[".repeat(100), "]".repeat(100)))),
    ]
}

/// Sends an event with data as JSON text. Returns the error.
async fn refused(client: &mut TestClient, id: i64, event: &str, data: &str) -> Value {
    client.send_text(format!(r#"{{"event":"{event}","id":{id},"data":{data}}}"#)).await;
    client.expect_ack(id).await.expect_err(event)
}

#[tokio::test]
async fn payload_over_the_limits_is_refused_alone() {
    let host = TestHost::start_with(CONFIG, &[]);
    let mut eve = host.client("eve").await;
    let mut id = 1000;
    for (event, field) in EVENTS {
        for (what, data) in too_much(field) {
            id += 1;
            let error = refused(&mut eve, id, event, &data).await;
            assert_eq!(error["code"], "too_large", "{event} {what}: {error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("{event}: the payload has ")), "{message}");
            assert!(message.contains("and may have"), "{message}");
        }
    }
    assert_eq!(metric(&host.api, "plugin_faults_total").await, 0);
    assert_eq!(metric(&host.api, "events_over_limits_total").await, (id - 1000) as u64);
    assert_eq!(metric(&host.api, "plugin_calls_total").await, 0, "no feature was asked");
    let view = eve.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await;
    assert!(view.is_ok(), "its connection stays: {view:?}");
}

#[tokio::test]
async fn attachments_count_and_services_have_larger_limits() {
    let host = TestHost::start_with(CONFIG, &[]);
    let mut eve = SocketIoClient::socket(&host.ws).await;
    eve.connect("/", &json!({ "token": host.token("eve") })).await.unwrap();
    eve.send_text(r#"451-1["ticket:view",{"ticketId":"t1","more":{"_placeholder":true,"num":0}}]"#).await;
    eve.send_packets(&[roundhouse_tests::Packet::Binary(vec![0; 17_000])]).await;
    let answer = eve.wait_for(|packet| packet.id == Some(1)).await;
    assert_eq!(answer.data[0]["error"]["code"], "too_large", "{answer:?}");
    // Services may send the longest message, within limits at which no feature fails.
    let item = |n: usize| json!({ "entityType": "client", "entityId": "c1", "items": vec![json!({}); n] });
    let pushed = |data: Value| json!({ "event": "timeline:bulk_update", "data": data }).to_string();
    let answer = host.call("POST", "/v1/events", pushed(item(16_000))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = host.call("POST", "/v1/events", pushed(item(17_000))).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (413, Some("too_large")), "{}", answer.text);
    assert_eq!(metric(&host.api, "plugin_faults_total").await, 0);
}

#[tokio::test]
async fn answer_over_the_limits_counts_as_missing() {
    let host = TestHost::start_with(CONFIG, &[]);
    host.load("hostile", hostile("normal")).await;
    let mut ana = SocketIoClient::socket(&host.ws).await;
    ana.connect("/", &json!({ "token": host.token("ana") })).await.unwrap();
    ana.emit("hostile:do", json!([{ "id": "a", "how": "ask" }])).await;
    let asked = ana.expect_event("hostile:noise").await.id.unwrap();
    ana.send_text(&format!("43{asked}{}", json!([vec![0; 2000]]))).await;
    let error = ana.expect_event("error").await.data[0].clone();
    assert_eq!((&error["code"], &error["event"]), (&json!("too_large"), &json!("acknowledgement")), "{error}");
    let notifications = ana.emit_with_ack("hostile:told", json!([{ "id": "a" }])).await;
    assert_eq!(notifications[0], json!(["acknowledged question too_large"]), "{notifications}");
}

#[tokio::test]
async fn manifest_can_raise_event_limits() {
    let host = InnerHost::start(CONFIG).await;
    host.load("conformance", conformance()).await;
    let mut ana = host.client("ana").await;
    let (many, deep) = (vec!["[]"; 300_000].join(","), format!("{}{}", "[".repeat(100), "]".repeat(100)));
    for (id, args) in [(1, format!("[{many}]")), (2, deep)] {
        ana.send_text(format!(r#"{{"event":"message","id":{id},"args":{args}}}"#)).await;
        assert!(ana.expect_ack(id).await.is_ok());
    }
    drop(ana);
    host.shut_down().await;
}

#[tokio::test]
async fn payloads_within_the_limits_never_fault() {
    let plan = Plan {
        seed: 12,
        until: Until::Each(40),
        // The deadline is long because the program `cost` judges the time of calls, and not this test on a busy
        // machine.
        call_deadline: "2s",
        memory_bytes: 8 * 1024 * 1024,
        is_timed: false,
    };
    let outcome = run(plan).await.unwrap();
    assert!(outcome.faults.len() == 6 && outcome.faults.values().all(|faults| *faults == 0), "{outcome}");
    for (event, cost) in &outcome.events {
        assert!(cost.taken > 0, "nothing reaches {event}, so nothing is tried: {cost:?}");
        assert!(cost.refused.get("too_large").is_none_or(|n| *n <= cost.sent / 20), "{event}: {cost:?}");
    }
    let listed = EVENTS.map(|(event, _)| event.to_owned()).into();
    assert_eq!(outcome.events.into_keys().collect::<BTreeSet<_>>(), listed, "these are all client events");
}
