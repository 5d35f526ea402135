//! timeline over real sockets: its section of the contract once. Each rule has a native test too.

use roundhouse_tests::{NOTHING, TestClient, TestHost};
use serde_json::{Value, json};

/// The fields of an entity, and more fields.
fn on(entity_type: &str, entity_id: &str, more: Value) -> Value {
    let mut data = json!({ "entityType": entity_type, "entityId": entity_id });
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    data
}

fn case() -> Value {
    on("case", "c1", json!({}))
}

/// Opens a timeline, and checks the number of subscribers in the acknowledgement.
async fn subscribe(client: &mut TestClient, data: Value, subscribers: u32) {
    let subscribed = client.emit_with_ack("timeline:subscribe", data.clone()).await.expect("a subscription");
    assert_eq!(subscribed["subscribers"], subscribers);
    assert_eq!((&subscribed["entityType"], &subscribed["entityId"]), (&data["entityType"], &data["entityId"]));
    assert_eq!(client.expect_event("timeline:subscribed").await, subscribed);
}

#[tokio::test]
async fn only_subscribers_get_a_timelines_events() {
    let host = TestHost::start();
    let [mut ana, mut tab, mut ben, mut eve] =
        [host.client("ana").await, host.client("ana").await, host.client("ben").await, host.client("eve").await];
    subscribe(&mut ana, case(), 1).await;
    subscribe(&mut tab, case(), 1).await;
    subscribe(&mut ben, case(), 2).await;
    subscribe(&mut ben, case(), 2).await;
    subscribe(&mut eve, on("contact", "c1", json!({})), 1).await;
    for (event, more) in [
        ("timeline:new_item", json!({ "item": { "id": "i1", "text": "called" }, "by": "ana" })),
        ("timeline:item_updated", json!({ "item": { "id": "i1", "text": "called twice" } })),
        ("timeline:item_deleted", json!({ "itemId": "i1" })),
        ("timeline:refresh", json!({ "reason": "import" })),
        ("timeline:bulk_update", json!({ "items": [{ "id": "i2" }, { "id": "i3" }] })),
    ] {
        let data = on("case", "c1", more);
        assert_eq!(host.post_event(event, data.clone()).await, Ok(json!({ "delivered": 3 })));
        let once = vec![json!({ "event": event, "data": data })];
        let received = host.received([&mut ana, &mut tab, &mut ben, &mut eve]).await;
        assert_eq!(received, [once.clone(), once.clone(), once, vec![]]);
    }
    let nobody_there = on("lead", "c1", json!({ "itemId": "i1" }));
    assert_eq!(host.post_event("timeline:item_deleted", nobody_there).await, Ok(json!({ "delivered": 0 })));
    assert_eq!(host.query("timeline", "subscribers", case()).await, Ok(json!({ "count": 2 })));
    assert_eq!(
        host.stats("timeline").await,
        json!({
            "totalSockets": 4, "totalEntities": 2,
            "entities": [
                { "entityType": "case", "entityId": "c1", "subscribers": 2 },
                { "entityType": "contact", "entityId": "c1", "subscribers": 1 },
            ],
        })
    );
}

#[tokio::test]
async fn unsubscribed_and_disconnected_pages_are_removed() {
    let host = TestHost::start();
    let [mut ana, mut tab, mut ben] = [host.client("ana").await, host.client("ana").await, host.client("ben").await];
    for (client, subscribers) in [(&mut ana, 1), (&mut tab, 1), (&mut ben, 2)] {
        subscribe(client, case(), subscribers).await;
    }
    for _ in 0..2 {
        assert_eq!(ana.emit_with_ack("timeline:unsubscribe", case()).await, Ok(case()), "it is safe to repeat");
        assert_eq!(ana.expect_event("timeline:unsubscribed").await, case());
    }
    assert_eq!(host.query("timeline", "subscribers", case()).await, Ok(json!({ "count": 2 })), "in the other tab");
    assert_eq!(host.post_event("timeline:refresh", case()).await, Ok(json!({ "delivered": 2 })));
    assert_eq!(host.received([&mut ana]).await, [NOTHING]);
    tab.close().await;
    drop(ben);
    host.wait_for_stats("timeline", json!({ "totalSockets": 0, "totalEntities": 0, "entities": [] })).await;
    assert_eq!(host.post_event("timeline:refresh", case()).await, Ok(json!({ "delivered": 0 })));
}

#[tokio::test]
async fn refusals_reach_the_sender_and_change_nothing() {
    let host = TestHost::start();
    let [mut ana, mut eve] = [host.client("ana").await, host.client("eve").await];
    subscribe(&mut ana, case(), 1).await;
    let invoices = on("invoices", "c1", json!({}));
    assert_eq!(eve.emit_refused("timeline:subscribe", invoices.clone()).await, "bad_request");
    assert_eq!(eve.emit_refused("timeline:subscribe", json!({ "entityType": "case" })).await, "bad_request");
    assert_eq!(eve.emit_refused("timeline:subscribe", on("case", "c1", json!({ "userId": "ana" }))).await, "forbidden");
    assert_eq!(eve.emit_refused("timeline:new_item", on("case", "c1", json!({ "item": {} }))).await, "forbidden");
    eve.emit("timeline:refresh", case()).await;
    let error = eve.expect_event("error").await;
    assert_eq!((&error["code"], &error["event"]), (&json!("forbidden"), &json!("timeline:refresh")));

    assert_eq!(host.post_event_refused("timeline:subscribe", case()).await, "forbidden");
    assert_eq!(host.post_event_refused("timeline:refresh", invoices.clone()).await, "bad_request");
    assert_eq!(host.post_event_refused("timeline:item_deleted", case()).await, "bad_request");
    assert_eq!(host.query("timeline", "subscribers", invoices).await.unwrap_err()["code"], "bad_request");

    assert_eq!(host.received([&mut ana, &mut eve]).await, [NOTHING, NOTHING]);
    assert_eq!(host.stats("timeline").await["totalSockets"], 1);
    subscribe(&mut eve, case(), 2).await;
}
