//! crm-events over real sockets: its section of the contract once. Each rule has a native test too.

use std::time::Duration;

use roundhouse_tests::{InnerHost, NOTHING, TestClient, TestHost};
use serde_json::{Value, json};

/// Connected pages with different subscriptions.
struct Pages {
    /// Has subscribed to the account `w1`.
    account: TestClient,
    /// Has subscribed to the contact `c1`.
    contact: TestClient,
    /// Has subscribed to the account and the contact, and belongs to user una.
    all: TestClient,
    /// Belongs to user una, without a subscription.
    tab: TestClient,
    /// Has other subscriptions, and the role `lead`.
    lead: TestClient,
}

const PAGES: [&str; 5] = ["account", "contact", "all", "tab", "lead"];

impl Pages {
    async fn of(host: &TestHost) -> Self {
        let mut pages = Self {
            account: host.client("ana").await,
            contact: host.client("ben").await,
            all: host.client("una").await,
            tab: host.client("una").await,
            lead: host.client_with("lea", &["--role", "lead"]).await,
        };
        let w1 = Ok(json!({ "accountId": "w1" }));
        let c1 = Ok(json!({ "contactId": "c1" }));
        assert_eq!(pages.account.emit_with_ack("subscribe:whatsapp", json!("w1")).await, w1);
        assert_eq!(pages.contact.emit_with_ack("subscribe:contact", json!("c1")).await, c1);
        assert_eq!(pages.all.emit_with_ack("subscribe:whatsapp", json!({ "accountId": "w1" })).await, w1);
        assert_eq!(pages.all.emit_with_ack("subscribe:contact", json!({ "contactId": "c1" })).await, c1);
        pages.lead.emit_with_ack("subscribe:whatsapp", json!("w2")).await.unwrap();
        pages.lead.emit_with_ack("subscribe:contact", json!("c2")).await.unwrap();
        pages
    }

    /// The pages that have received exactly this event, once. The others have received nothing.
    async fn received(&mut self, host: &TestHost, frame: &Value) -> Vec<&'static str> {
        let Self { account, contact, all, tab, lead } = self;
        let all_received = host.received([account, contact, all, tab, lead]).await;
        for frames in &all_received {
            assert!(frames.is_empty() || frames[..] == [frame.clone()], "{frames:?} instead of {frame}");
        }
        PAGES.into_iter().zip(all_received).filter(|(_, frames)| !frames.is_empty()).map(|(name, _)| name).collect()
    }

    /// Pushes these events, and checks which pages receive each.
    async fn check(&mut self, host: &TestHost, events: &[&str], data: Value, pages: &[&str]) {
        for event in events {
            let delivered = json!({ "delivered": pages.len() });
            assert_eq!(host.post_event(event, data.clone()).await, Ok(delivered), "{event} {data}");
            assert_eq!(self.received(host, &json!({ "event": event, "data": data })).await, pages, "{event} {data}");
        }
    }
}

const ACCOUNT: [&str; 4] = ["whatsapp:connection:status", "whatsapp:qr", "whatsapp:ready", "whatsapp:disconnected"];
const MESSAGE: [&str; 5] = ["message:received", "message:sent", "message:delivered", "message:read", "message:failed"];
const CONTACT: [&str; 3] = ["contact:created", "contact:updated", "contact:deleted"];
const FLOW: [&str; 3] = ["flow:execution:started", "flow:execution:completed", "flow:execution:failed"];

#[tokio::test]
async fn each_event_reaches_named_subscribers_once() {
    let host = TestHost::start();
    let mut pages = Pages::of(&host).await;
    pages.check(&host, &ACCOUNT, json!({ "accountId": "w1", "status": "ready" }), &["account", "all"]).await;
    let message = json!({ "contactId": "c1", "accountId": "w1", "messageId": "m1", "text": "hi" });
    pages.check(&host, &MESSAGE, message, &["account", "contact", "all"]).await;
    let to_una = json!({ "contactId": "c1", "accountId": "w1", "userId": "una" });
    pages.check(&host, &MESSAGE, to_una, &["account", "contact", "all", "tab"]).await;
    pages.check(&host, &CONTACT, json!({ "contactId": "c1", "name": "Cy" }), &["contact", "all"]).await;
    let of_una = json!({ "contactId": "c1", "userId": "una" });
    pages.check(&host, &CONTACT, of_una, &["contact", "all", "tab"]).await;
    pages.check(&host, &FLOW, json!({ "userId": "una", "flowId": "f1" }), &["all", "tab"]).await;
    pages.check(&host, &["system:notification"], json!({ "message": "Tea is ready" }), &PAGES).await;
    pages.check(&host, &["team:activity"], json!({ "what": "lunch" }), &PAGES).await;
    pages.check(&host, &["team:activity"], json!({ "what": "a deal", "roles": ["lead"] }), &["lead"]).await;
    pages.check(&host, &CONTACT, json!({ "contactId": "c9" }), &[]).await;

    for (event, id) in [("unsubscribe:whatsapp", json!("w1")), ("unsubscribe:contact", json!({ "contactId": "c1" }))] {
        pages.all.emit_with_ack(event, id).await.unwrap();
    }
    pages.check(&host, &MESSAGE[..1], json!({ "contactId": "c1", "accountId": "w1" }), &["account", "contact"]).await;
    let stats = json!({ "contacts": 2, "subscribers": 2, "connections": 2, "typing": 0 });
    assert_eq!(host.stats("crm-events").await, stats);
    drop(pages);
    let nothing = json!({ "contacts": 0, "subscribers": 0, "connections": 0, "typing": 0 });
    host.wait_for_stats("crm-events", nothing).await;
}

#[tokio::test]
async fn backward_status_is_dropped() {
    let host = TestHost::start();
    let mut pages = Pages::of(&host).await;
    let update = |status: &str| json!({ "contactId": "c1", "messageId": "m1", "status": status });
    let event = "message:status:update";
    for status in ["Queued", "Sent", "Delivered", "Read"] {
        pages.check(&host, &[event], update(status), &["contact", "all"]).await;
    }
    let dropped = json!({ "delivered": 0, "dropped": true, "status": "Read" });
    assert_eq!(host.post_event(event, update("Delivered")).await, Ok(dropped));
    // If the dropped status had been delivered, its frame would be found here.
    pages.check(&host, &[event], update("Failed"), &["contact", "all"]).await;
    // A message from a phone number without a contact.
    let unknown = json!({ "accountId": "w1", "userId": "una", "messageId": "m2", "status": "Sent" });
    pages.check(&host, &[event, "message:received"], unknown, &["account", "all", "tab"]).await;
}

fn typing(who: &str, name: &str, is_typing: bool) -> Vec<Value> {
    let data = json!({ "contactId": "c1", "userId": who, "userName": name, "isTyping": is_typing });
    vec![json!({ "event": "typing:indicator", "data": data })]
}

#[tokio::test]
async fn typing_is_shown_until_stop_or_disconnect() {
    let host = TestHost::start();
    let Pages { mut account, mut contact, mut all, mut tab, .. } = Pages::of(&host).await;
    let on_c1 = json!({ "contactId": "c1", "whatsappAccountId": "w1" });
    tab.emit_with_ack("subscribe:contact", json!("c1")).await.unwrap();
    for (event, is_typing) in [("typing:start", true), ("typing:stop", false)] {
        all.emit_with_ack(event, on_c1.clone()).await.unwrap();
        let received = host.received([&mut account, &mut contact, &mut all, &mut tab]).await;
        assert_eq!(received, [vec![], typing("una", "Una", is_typing), vec![], vec![]], "one's own tabs are not told");
    }
    // A client's disconnect is handled after its events, however early it comes.
    for _ in 0..20 {
        let mut brief = host.client("eve").await;
        brief.emit("typing:start", on_c1.clone()).await;
        brief.emit("subscribe:contact", json!("c1")).await;
        brief.close().await;
        for is_typing in [true, false] {
            assert_eq!(vec![contact.next().await], typing("eve", "Eve", is_typing));
        }
    }
    assert_eq!(host.received([&mut contact]).await, [NOTHING]);
    assert_eq!(host.stats("crm-events").await["typing"], 0);
}

#[tokio::test]
async fn ended_typing_leaves_no_rooms_or_typists() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.rooms_per_connection = 2", &[]);
    let mut ana = host.client("ana").await;
    for n in 0..10 {
        let contact = json!({ "contactId": format!("c{n}") });
        ana.emit_with_ack("typing:start", contact.clone()).await.unwrap();
        let end = if n % 2 == 0 { "typing:stop" } else { "unsubscribe:contact" };
        ana.emit_with_ack(end, contact).await.unwrap();
    }
    assert_eq!(host.stats("crm-events").await["typing"], 0);
}

#[tokio::test]
async fn typing_expires_after_ten_seconds() {
    let host = InnerHost::start("auth.jwt.secret = \"s\"\n").await;
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    let on_c1 = json!({ "contactId": "c1", "whatsappAccountId": "w1" });
    ana.emit_with_ack("subscribe:contact", json!("c1")).await.unwrap();
    ben.emit_with_ack("typing:start", on_c1.clone()).await.unwrap();
    assert_eq!(vec![ana.next().await], typing("ben", "ben", true));
    host.advance(Duration::from_secs(8));
    ben.emit_with_ack("typing:start", on_c1).await.unwrap();
    host.advance(Duration::from_millis(9_999));
    assert_eq!(ana.drain().await, [json!(null); 0]);
    host.advance(Duration::from_millis(1));
    assert_eq!(vec![ana.next().await], typing("ben", "ben", false));
    drop((ana, ben));
    host.shut_down().await;
}

#[tokio::test]
async fn forbidden_and_unaddressed_events_reach_no_client() {
    let host = TestHost::start();
    let mut pages = Pages::of(&host).await;
    let full = json!({ "contactId": "c1", "accountId": "w1", "userId": "lea", "messageId": "m1", "status": "Sent" });
    let others = ["message:status:update", "system:notification", "team:activity"];
    for event in ACCOUNT.iter().chain(&MESSAGE).chain(&CONTACT).chain(&FLOW).chain(&others) {
        assert_eq!(pages.lead.emit_refused(event, full.clone()).await, "forbidden", "{event}");
    }
    for event in ["subscribe:contact", "unsubscribe:contact", "subscribe:whatsapp", "unsubscribe:whatsapp"] {
        assert_eq!(host.post_event_refused(event, full.clone()).await, "forbidden", "{event}");
        assert_eq!(pages.lead.emit_refused(event, json!({})).await, "bad_request", "{event}");
    }
    let as_una = json!({ "contactId": "c1", "whatsappAccountId": "w1", "userId": "una" });
    for event in ["typing:start", "typing:stop"] {
        assert_eq!(host.post_event_refused(event, full.clone()).await, "forbidden", "{event}");
        assert_eq!(pages.lead.emit_refused(event, as_una.clone()).await, "forbidden", "{event}");
        assert_eq!(pages.lead.emit_refused(event, json!({})).await, "bad_request", "{event}");
    }
    for event in ACCOUNT.iter().chain(&MESSAGE).chain(&CONTACT).chain(&FLOW) {
        assert_eq!(host.post_event_refused(event, json!({ "text": "hi" })).await, "bad_request", "{event}");
    }
    let lost = json!({ "contactId": "c1", "messageId": "m1", "status": "Lost" });
    assert_eq!(host.post_event_refused("message:status:update", lost).await, "bad_request");
    assert_eq!(host.post_event_refused("team:activity", json!({ "roles": [] })).await, "bad_request");
    assert_eq!(host.post_event_refused("system:notification", json!("tea")).await, "bad_request");
    assert_eq!(pages.received(&host, &json!(null)).await, [""; 0]);
    let first = json!({ "contactId": "c1", "messageId": "m1", "status": "Queued" });
    pages.check(&host, &["message:status:update"], first, &["contact", "all"]).await;
}
