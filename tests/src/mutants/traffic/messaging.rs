//! Traffic of the features for campaigns, chats and messages.

use serde_json::{Value, json};

use crate::mutants::step::{Step, client, disconnect, service, with};

/// A campaign that is paused and completed.
pub(super) fn completed(id: &str) -> Vec<Step> {
    let campaign = json!({ "campaignId": id });
    let about = |event, fields| service(event, with(&campaign, fields));
    let report = |status, count: u32| about("campaign:message", json!({ "status": status, "count": count }));
    vec![
        client("ana", "subscribe:campaign", id),
        report("sent", 1),
        about("campaign:started", json!({ "name": "Autumn", "total": 250, "ownerId": "olga" })),
        about("campaign:started", json!({ "name": "Autumn", "total": 250 })),
        client("ben", "subscribe:campaign", campaign.clone()),
        report("sent", 60),
        report("sent", 40),
        report("delivered", 80),
        report("failed", 7),
        about("campaign:message", json!({ "status": "read" })),
        about("campaign:message", json!({ "status": "lost" })),
        about("campaign:paused", json!({})),
        about("campaign:paused", json!({})),
        report("sent", 3),
        client("eve", "subscribe:campaign", with(&campaign, json!({ "userId": "ana" }))),
        client("eve", "subscribe:campaign", id),
        about("campaign:resumed", json!({ "by": "olga" })),
        about("campaign:resumed", json!({})),
        client("eve", "unsubscribe:campaign", id),
        report("sent", 139),
        report("sent", 2),
        report("failed", 1),
        report("sent", 1),
        about("campaign:completed", json!({})),
        about("campaign:completed", json!({})),
        report("delivered", 100),
        report("read", 50),
        report("sent", 1),
        client("eve", "subscribe:campaign", id),
    ]
}

/// A campaign that fails while it is paused.
pub(super) fn failed(id: &str) -> Vec<Step> {
    let campaign = json!({ "campaignId": id });
    let about = |event, fields| service(event, with(&campaign, fields));
    let report = |status, count: u32| about("campaign:message", json!({ "status": status, "count": count }));
    vec![
        about("campaign:started", json!({ "name": "Winter", "total": 1000 })),
        client("ana", "subscribe:campaign", campaign.clone()),
        report("sent", 350),
        report("sent", 50),
        report("failed", 100),
        service("campaign:paused", json!(id)),
        service("campaign:resumed", json!(id)),
        about("campaign:paused", json!({})),
        about("campaign:failed", json!({})),
        about("campaign:failed", json!({ "reason": "the provider is down" })),
        about("campaign:failed", json!({ "reason": "the provider is down" })),
        report("read", 12),
        client("ben", "subscribe:campaign", id),
        client("ana", "unsubscribe:campaign", campaign.clone()),
    ]
}

/// Two talk in a room, of which a third is no member; and a room where nothing is said. Two rounds have the same room, so that
/// the second finds stored messages.
pub(super) fn room(round: usize) -> Vec<Step> {
    let (room, quiet) = (json!({ "roomId": format!("r{}", round / 2) }), json!({ "roomId": format!("q{round}") }));
    let on = |from, event| client(from, event, room.clone());
    let says = |from, body: &str| client(from, "roomMessage", with(&room, json!({ "body": body })));
    let says_as = |from, body: &str, n: usize| {
        client(from, "roomMessage", with(&room, json!({ "body": body, "clientId": format!("{round}-{n}") })))
    };
    vec![
        on("ana", "joinRoom"),
        on("ben", "joinRoom"),
        says("ana", "Hello"),
        says_as("ana", "Is anybody there?", 1),
        says_as("ana", "Is anybody there?", 1),
        on("ana", "joinRoom"),
        says_as("ben", "Yes", 1),
        says("ben", "What is it?"),
        says("eve", "May I?"),
        says("ana", ""),
        client("ana", "roomMessage", with(&room, json!({ "body": "Hi", "senderId": "ben" }))),
        on("ana/2", "joinRoom"),
        client("ana", "roomHistory", with(&room, json!({ "limit": 20 }))),
        on("eve", "roomHistory"),
        client("ana", "roomHistory", with(&room, json!({ "limit": 0 }))),
        says_as("ana/2", "I have a second tab", 2),
        on("ana/2", "leaveRoom"),
        on("ben", "leaveRoom"),
        says("ben", "One more thing"),
        client("eve", "joinRoom", quiet.clone()),
        client("ben", "joinRoom", quiet.clone()),
        client("ben", "leaveRoom", quiet.clone()),
        client("eve", "leaveRoom", quiet),
        on("ana", "leaveRoom"),
        on("ana", "leaveRoom"),
    ]
}

/// Three talk in a channel, which two rounds have.
pub(super) fn channel(round: usize) -> Vec<Step> {
    let channel = json!({ "channelId": format!("c{}", round / 2) });
    let on = |from, event| client(from, event, channel.clone());
    let says = |from, body: &str, n: usize| {
        client(from, "channelMessage", with(&channel, json!({ "body": body, "clientId": format!("{round}-{n}") })))
    };
    vec![
        on("ana", "joinChannel"),
        on("ben", "joinChannel"),
        on("eve", "joinChannel"),
        says("ana", "The light is out", 1),
        says("ben", "I go and look", 1),
        says("eve", "Me too", 1),
        says("eve", "Me too", 1),
        client("olga", "channelMessage", with(&channel, json!({ "body": "Thanks" }))),
        on("olga", "joinChannel"),
        client("olga", "channelMessage", with(&channel, json!({ "body": "Thanks" }))),
        on("olga", "channelHistory"),
        on("eve", "leaveChannel"),
        says("ana", "It is on again", 2),
        disconnect("olga"),
        client("ben", "channelHistory", with(&channel, json!({ "limit": 5 }))),
        on("ben", "leaveChannel"),
        on("ana", "leaveChannel"),
    ]
}

/// People write to a contact, with and without a subscription.
pub(super) fn contact(id: &str) -> Vec<Step> {
    let contact = json!({ "contactId": id });
    let writing = with(&contact, json!({ "whatsappAccountId": "a1" }));
    let on = |from, event| client(from, event, writing.clone());
    vec![
        client("ana", "subscribe:contact", id),
        client("ben", "subscribe:contact", contact.clone()),
        on("ana", "typing:start"),
        on("ana", "typing:start"),
        on("eve", "typing:start"),
        on("ben", "typing:start"),
        on("ben", "typing:stop"),
        on("ben", "typing:stop"),
        client("eve", "typing:start", with(&contact, json!({ "userId": "ana" }))),
        client("ben", "typing:start", with(&contact, json!({ "whatsappAccountId": "" }))),
        client("eve", "subscribe:contact", id),
        service("contact:updated", with(&contact, json!({ "name": "Kim", "userId": "olga" }))),
        service("contact:created", with(&contact, json!({ "name": "Kim" }))),
        client("ana", "unsubscribe:contact", contact.clone()),
        on("eve", "typing:stop"),
        on("ana/2", "typing:start"),
        disconnect("ana/2"),
        client("eve", "unsubscribe:contact", id),
        service("contact:deleted", contact),
        client("ben", "unsubscribe:contact", id),
    ]
}

/// What services push: of an account, of a message and its status, of a flow, and of the team.
pub(super) fn pushes(round: usize) -> Vec<Step> {
    let account = json!({ "accountId": format!("a{}", round % 3) });
    let message = with(&account, json!({ "messageId": format!("m{round}"), "contactId": format!("k{round}") }));
    let to_one = json!({ "messageId": format!("n{round}"), "userId": "ana" });
    let flow = json!({ "flowId": "f1", "userId": "ben" });
    let status = |of: &Value, status| service("message:status:update", with(of, json!({ "status": status })));
    let push = |event, data: &Value| service(event, data.clone());
    vec![
        client("ana", "subscribe:whatsapp", account["accountId"].clone()),
        client("ben", "subscribe:whatsapp", account.clone()),
        client("eve", "subscribe:whatsapp", json!({})),
        service("whatsapp:connection:status", with(&account, json!({ "status": "connecting" }))),
        service("whatsapp:qr", with(&account, json!({ "qr": "2@abc" }))),
        push("whatsapp:ready", &account),
        push("whatsapp:ready", &json!({})),
        status(&message, "Queued"),
        status(&message, "Sent"),
        status(&message, "sent"),
        status(&message, "Delivered"),
        status(&message, "Sent"),
        status(&message, "Read"),
        status(&message, "Lost"),
        status(&to_one, "Queued"),
        status(&to_one, "Failed"),
        status(&to_one, "Read"),
        push("message:received", &message),
        push("message:sent", &message),
        push("message:delivered", &to_one),
        push("message:read", &message),
        push("message:failed", &json!({ "messageId": "m" })),
        push("flow:execution:started", &flow),
        push("flow:execution:completed", &flow),
        push("flow:execution:failed", &flow),
        service("system:notification", json!({ "text": "A new version is out" })),
        service("team:activity", json!({ "text": "Ben is back" })),
        service("team:activity", json!({ "text": "A sale", "roles": ["agent", "admin"] })),
        service("team:activity", json!({ "text": "Nothing", "roles": [] })),
        push("whatsapp:disconnected", &account),
        client("ana", "unsubscribe:whatsapp", account.clone()),
        client("ben", "unsubscribe:whatsapp", account),
    ]
}
