//! Connections, users and rooms as the API lists them, and how operators disconnect them.

use std::time::{SystemTime, UNIX_EPOCH};

use roundhouse_tests::{TestClient, TestHost};
use serde_json::{Value, json};

/// Follows `next` through all pages of a list, two at a time.
async fn all_pages(host: &TestHost, path: &str, list: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = host.get(&format!("{path}{}limit=2{after}", if path.contains('?') { '&' } else { '?' })).await;
        let items = page[list].as_array().unwrap();
        assert!(items.len() <= 2);
        all.extend(items.iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn connections_users_and_rooms_are_listed() {
    let host = TestHost::start();
    let token = host.token_with("ana", &["--name", "Ana", "--role", "admin"]);
    let mut ana = TestClient::connect(&host.ws, &token).await;
    let tab = TestClient::connect(&host.ws, &token).await;
    let mut others = Vec::new();
    for user in ["ben", "cara", "dan"] {
        others.push(host.client(user).await);
    }
    for client in others.iter_mut().chain([&mut ana]) {
        client.emit_with_ack("ticket:view", json!({ "ticketId": "t/1" })).await.unwrap();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;

    let one = host.get(&format!("/v1/connections/{}", ana.id())).await;
    let since = one["since"].as_u64().unwrap();
    assert!((now - 60_000..=now).contains(&since), "{one}");
    let rooms = ["ticket:t/1", "user:ana"];
    let expected = json!({
        "connectionId": ana.id(), "userId": "ana", "name": "Ana", "roles": ["admin"], "since": since, "rooms": rooms
    });
    assert_eq!(one, expected);

    let all = all_pages(&host, "/v1/connections", "connections").await;
    let ids: Vec<&str> = all.iter().map(|connection| connection["connectionId"].as_str().unwrap()).collect();
    assert!(ids.len() == 5 && ids.is_sorted() && ids.contains(&tab.id()), "{ids:?}");
    let of_ana = host.get("/v1/connections?user=ana").await;
    assert_eq!((of_ana["connections"].as_array().unwrap().len(), &of_ana["next"]), (2, &json!(null)));
    assert!(of_ana["connections"].as_array().unwrap().contains(&one));
    assert_eq!(host.get("/v1/connections?user=nobody").await, json!({ "connections": [], "next": null }));

    let user = host.get("/v1/users/ana").await;
    assert_eq!((&user["userId"], &user["name"], &user["roles"]), (&json!("ana"), &json!("Ana"), &json!(["admin"])));
    assert_eq!((&user["connectionCount"], &user["connections"]), (&json!(2), &of_ana["connections"]));
    assert_eq!((&user["roomCount"], &user["rooms"]), (&json!(2), &json!(rooms)));
    assert!(user["since"].as_u64().unwrap() <= since, "{user}");
    assert_eq!(all_pages(&host, "/v1/users/ana", "connections").await.len(), 2);

    let room = host.get("/v1/rooms/ticket%3At%2F1").await;
    assert_eq!(
        (&room["room"], &room["connectionCount"], &room["userCount"]),
        (&json!("ticket:t/1"), &json!(4), &json!(4))
    );
    let members = all_pages(&host, "/v1/rooms/ticket:t%2F1", "members").await;
    assert_eq!(Value::from(members.clone()), room["members"]);
    let hers = json!({ "connectionId": ana.id(), "userId": "ana", "name": "Ana", "since": since });
    assert!(members.contains(&hers), "{members:?}");
    let own = host.get("/v1/rooms/user:ana").await;
    assert_eq!((&own["connectionCount"], &own["userCount"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn rooms_have_their_documented_names() {
    let host = TestHost::start();
    let mut ana = host.client("ana").await;
    for (event, data, room) in [
        ("ticket:view", json!({ "ticketId": "t1" }), "ticket:t1"),
        ("timeline:subscribe", json!({ "entityType": "case", "entityId": "c1" }), "timeline:case:c1"),
        ("subscribe:campaign", json!("c1"), "campaign:c1"),
        ("subscribe:whatsapp", json!("w1"), "whatsapp:w1"),
        ("subscribe:contact", json!("c1"), "contact:c1"),
        ("joinRoom", json!({ "roomId": "r1" }), "room:r1"),
        ("joinChannel", json!({ "channelId": "c1" }), "channel:c1"),
    ] {
        assert_eq!(host.call("GET", &format!("/v1/rooms/{room}"), "").await.status, 404, "{room}");
        ana.emit_with_ack(event, data).await.unwrap();
        host.get(&format!("/v1/rooms/{room}")).await;
    }
    host.get("/v1/rooms/user:ana").await;
}

#[tokio::test]
async fn unknown_ids_are_not_found_malformed_queries_refused() {
    let host = TestHost::start();
    for (method, path) in [
        ("GET", "/v1/connections/0000000000000000"),
        ("GET", "/v1/connections/x"),
        ("GET", "/v1/connections/00FFFFFFFFFFFFFF"),
        ("GET", "/v1/users/nobody"),
        ("GET", "/v1/users/a%20b"),
        ("GET", "/v1/rooms/nowhere"),
        ("GET", "/v1/rooms/user:nobody"),
        ("GET", "/v1/rooms/a/b"),
        ("GET", "/v1/rooms/"),
        ("DELETE", "/v1/connections/0000000000000000"),
        ("DELETE", "/v1/users/nobody/connections"),
        ("GET", "/v1/nothing"),
        ("GET", "/"),
    ] {
        let answer = host.call(method, path, "").await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("not_found")), "{method} {path}");
    }
    for (path, expected) in [
        ("/v1/connections?limit=0", "limit"),
        ("/v1/connections?limit=1001", "limit"),
        ("/v1/connections?limit=1&limit=2", "twice"),
        ("/v1/connections?after=x", "after"),
        ("/v1/connections?user=", "user"),
        ("/v1/connections?usr=ana", "usr"),
        ("/v1/rooms/x?user=ana", "user"),
        ("/v1/users/x?room=y", "room"),
        ("/v1/rooms/%ff", "UTF-8"),
    ] {
        let answer = host.call("GET", path, "").await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some("bad_request")), "{path}");
        assert!(answer.body["message"].as_str().unwrap().contains(expected), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn api_disconnects_a_connection_or_a_user() {
    let host = TestHost::start();
    host.load("hostile", roundhouse_tests::guests::hostile("normal")).await;
    let (mut ana, mut tab, mut phone) = (host.client("ana").await, host.client("ana").await, host.client("ana").await);
    let mut ben = host.client("ben").await;
    for client in [&mut ana, &mut tab, &mut phone] {
        client.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
    }
    let path = format!("/v1/connections/{}", tab.id());
    let answer = host.call("DELETE", &path, "").await;
    assert_eq!((answer.status, answer.body), (200, json!({ "disconnected": 1 })));
    assert_eq!(host.call("GET", &path, "").await.status, 404, "it is gone when that is answered");
    assert_eq!(host.call("DELETE", &path, "").await.status, 404);
    let closed = tab.closed().await;
    assert_eq!((closed.code, closed.reason.as_str()), (Some(4010), "disconnected by an operator"));

    let answer = host.call("DELETE", "/v1/users/ana/connections", "").await;
    assert_eq!((answer.status, answer.body), (200, json!({ "disconnected": 2 })));
    assert_eq!(host.call("GET", "/v1/users/ana", "").await.status, 404);
    assert_eq!((ana.closed().await.code, phone.closed().await.code), (Some(4010), Some(4010)));
    let notifications = ben.emit_with_ack("hostile:told", json!({ "id": "a" })).await.unwrap();
    assert_eq!(notifications, json!(vec!["left ana disconnected"; 3]), "features are told as of any disconnect");
    assert!(host.log().contains("asked to disconnect a user"), "it is on record");
}
