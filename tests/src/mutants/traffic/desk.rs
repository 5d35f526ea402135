//! Traffic of the features for people who work on tickets and entities.

use serde_json::{Value, json};

use crate::mutants::step::{Step, client, disconnect, service, with};

/// Two agents, one of them with two tabs, and a third answer a ticket.
pub(super) fn ticket(id: &str) -> Vec<Step> {
    let on = json!({ "ticketId": id });
    let sends = |from, event| client(from, event, on.clone());
    vec![
        sends("ana", "ticket:view"),
        sends("ana", "ticket:view"),
        sends("ana", "ticket:typing"),
        sends("ana", "ticket:typing"),
        sends("ben", "ticket:view"),
        sends("ben", "ticket:typing"),
        sends("eve", "ticket:typing"),
        client("eve", "ticket:view", with(&on, json!({ "agentName": "Eve of the night shift" }))),
        client("eve", "ticket:view", with(&on, json!({ "agentId": "ana" }))),
        sends("ana/2", "ticket:view"),
        sends("ana/2", "ticket:typing"),
        sends("ben", "ticket:stop_typing"),
        sends("ben", "ticket:stop_typing"),
        sends("eve", "ticket:typing"),
        disconnect("ana/2"),
        sends("ben", "ticket:view"),
        sends("ana", "ticket:typing"),
        sends("ana", "ticket:stop_typing"),
        sends("eve", "ticket:leave"),
        sends("ana", "ticket:leave"),
        sends("ana", "ticket:leave"),
        sends("ben", "ticket:leave"),
    ]
}

/// One agent takes a ticket over from another.
pub(super) fn handover(id: &str) -> Vec<Step> {
    let on = json!({ "ticketId": id });
    let sends = |from, event| client(from, event, on.clone());
    vec![
        sends("eve", "ticket:stop_typing"),
        sends("eve", "ticket:leave"),
        sends("ben", "ticket:view"),
        sends("ben", "ticket:typing"),
        sends("ana", "ticket:view"),
        sends("ana", "ticket:typing"),
        sends("ben", "ticket:stop_typing"),
        sends("eve", "ticket:view"),
        sends("ana", "ticket:typing"),
        disconnect("ben"),
        sends("ana", "ticket:stop_typing"),
        sends("ana/2", "ticket:view"),
        sends("ana", "ticket:leave"),
        sends("ana/2", "ticket:typing"),
        sends("ben", "ticket:view"),
        sends("ana/2", "ticket:leave"),
        sends("ben", "ticket:leave"),
        sends("eve", "ticket:view"),
        disconnect("eve"),
    ]
}

/// Activities of a lead, and of an invoice that nobody has open at first.
pub(super) fn timeline(round: usize) -> Vec<Step> {
    let lead = json!({ "entityType": "lead", "entityId": format!("l{round}") });
    let invoice = json!({ "entityType": "invoice", "entityId": format!("i{round}") });
    let planet = json!({ "entityType": "planet", "entityId": format!("p{round}") });
    let on = |from, event, entity: &Value| client(from, event, entity.clone());
    let about = |event, entity: &Value, fields| service(event, with(entity, fields));
    let item = |n: usize| json!({ "item": { "id": format!("n{n}"), "kind": "call", "text": "They called back" } });
    vec![
        about("timeline:new_item", &invoice, item(0)),
        about("timeline:refresh", &invoice, json!({})),
        on("ana", "timeline:subscribe", &lead),
        about("timeline:new_item", &lead, item(1)),
        about("timeline:item_updated", &lead, item(1)),
        on("ana", "timeline:subscribe", &lead),
        on("ben", "timeline:subscribe", &lead),
        on("ana/2", "timeline:subscribe", &lead),
        on("ana/2", "timeline:subscribe", &invoice),
        on("eve", "timeline:subscribe", &planet),
        about("timeline:new_item", &planet, item(2)),
        about("timeline:new_item", &lead, item(2)),
        about("timeline:new_item", &lead, json!({ "item": null })),
        about("timeline:item_updated", &lead, json!({})),
        about("timeline:item_updated", &lead, item(2)),
        about("timeline:item_deleted", &lead, json!({ "itemId": "n1" })),
        about("timeline:item_deleted", &lead, json!({ "itemId": "" })),
        about("timeline:bulk_update", &lead, json!({ "items": [{ "id": "n2" }, { "id": "n3" }] })),
        about("timeline:bulk_update", &lead, json!({ "items": "all" })),
        about("timeline:refresh", &lead, json!({ "reason": "imported" })),
        about("timeline:new_item", &invoice, item(4)),
        on("ben", "timeline:unsubscribe", &lead),
        on("ben", "timeline:unsubscribe", &lead),
        on("eve", "timeline:unsubscribe", &planet),
        about("timeline:new_item", &lead, item(5)),
        client("eve", "timeline:subscribe", with(&lead, json!({ "userId": "ana" }))),
        on("eve", "timeline:subscribe", &lead),
        on("eve", "timeline:subscribe", &invoice),
        disconnect("ana/2"),
        about("timeline:item_updated", &invoice, item(4)),
        about("timeline:item_deleted", &invoice, json!({ "itemId": "n4" })),
        about("timeline:bulk_update", &invoice, json!({ "items": [] })),
        on("ana", "timeline:subscribe", &invoice),
        on("ana", "timeline:unsubscribe", &invoice),
        about("timeline:item_deleted", &invoice, json!({ "itemId": "n0" })),
        on("eve", "timeline:unsubscribe", &invoice),
        about("timeline:refresh", &invoice, json!({})),
        on("ana", "timeline:unsubscribe", &lead),
        about("timeline:new_item", &lead, item(6)),
        disconnect("eve"),
        about("timeline:new_item", &lead, item(7)),
    ]
}

/// A ticket from its creation to its end.
pub(super) fn known_ticket(id: &str) -> Vec<Step> {
    let ticket = json!({ "ticketId": id });
    let about = |event, fields| service(event, with(&ticket, fields));
    let status = |old, new| json!({ "oldStatus": old, "newStatus": new, "updatedBy": "ben" });
    let priority = |old, new| json!({ "oldPriority": old, "newPriority": new, "updatedBy": { "id": "ben" } });
    let comment = |by, text| json!({ "comment": { "user": { "_id": by, "name": "N. N." }, "text": text } });
    let file = json!({ "id": "a1", "name": "log.txt", "uploadedBy": "dora" });
    vec![
        about("ticket:created", json!({ "title": "No light", "createdBy": { "id": "mia" }, "assigneeId": "ben" })),
        about("ticket:updated", json!({ "changes": { "title": "No light at all" }, "updatedBy": "mia" })),
        about("ticket:updated", json!({ "changes": { "assignedTo": "carl" }, "updatedBy": "olga" })),
        about("ticket:updated", json!({ "changes": "many" })),
        about("ticket:statusChanged", status("new", "open")),
        about("ticket:priorityChanged", priority("low", "high")),
        about("ticket:priorityChanged", priority("high", "URGENT")),
        about("ticket:priorityChanged", priority("urgent", "urgent")),
        about("ticket:commentAdded", comment("ben", "On my way")),
        about("ticket:commentAdded", comment("mia", "Thank you")),
        about("ticket:commentAdded", comment("eve", "Me too")),
        about("ticket:commentAdded", comment("ben", "Soon")),
        about("ticket:attachmentAdded", json!({ "attachment": file, "uploadedBy": "eve" })),
        about("ticket:attachmentAdded", json!({ "attachment": file })),
        about("ticket:attachmentAdded", json!({ "attachment": null })),
        about("ticket:attachmentDeleted", json!({ "attachmentId": "a1", "deletedBy": "ben" })),
        about("ticket:attachmentDeleted", json!({})),
        about("ticket:updated", json!({ "changes": {}, "creatorId": "nina", "participants": [{ "id": "eve" }] })),
        about("ticket:statusChanged", with(&status("open", "solved"), json!({ "creatorId": "eve" }))),
        about("ticket:statusChanged", json!({ "oldStatus": "solved" })),
        about("ticket:statusChanged", status("solved", "closed")),
    ]
}

/// A ticket of which the feature does not learn the creator until late.
pub(super) fn unknown_ticket(id: &str) -> Vec<Step> {
    let ticket = json!({ "ticketId": id });
    let about = |event, fields| service(event, with(&ticket, fields));
    let by = |author, text| json!({ "comment": { "authorId": author, "text": text } });
    vec![
        about("ticket:priorityChanged", json!({ "newPriority": "low" })),
        about("ticket:statusChanged", json!({ "newStatus": "open", "updatedBy": "ben" })),
        about("ticket:attachmentDeleted", json!({ "attachmentId": "a0" })),
        about("ticket:commentAdded", by("carl", "What is this?")),
        about("ticket:commentAdded", by("dora", "A test")),
        about("ticket:commentAdded", by("carl", "I see")),
        about("ticket:commentAdded", json!({ "comment": { "text": "Closed by the system" } })),
        about("ticket:priorityChanged", json!({ "newPriority": "Urgent", "updatedBy": "dora" })),
        about("ticket:updated", json!({ "changes": { "assignee": { "userId": "ana" } }, "updatedBy": "dora" })),
        about("ticket:attachmentAdded", json!({ "attachment": { "id": "a2", "uploadedBy": { "id": "finn" } } })),
        about("ticket:attachmentAdded", json!({ "attachment": { "id": "a3" }, "uploadedBy": "carl" })),
        about("ticket:attachmentDeleted", json!({ "attachmentId": "a2", "deletedBy": "finn" })),
        about("ticket:updated", json!({ "changes": {}, "participants": [7] })),
        about("ticket:created", json!({ "creator": { "id": "carl" }, "assignee": { "id": "ben" } })),
        about("ticket:statusChanged", json!({ "newStatus": "open", "updatedBy": "ben" })),
        about("ticket:created", json!({ "creatorId": "mia" })),
        about("ticket:commentAdded", by("mia", "It is mine")),
        about("ticket:priorityChanged", json!({ "newPriority": "low", "oldPriority": "urgent" })),
        about("ticket:updated", json!({ "changes": { "assigneeId": "carl" } })),
        about("ticket:statusChanged", json!({ "newStatus": "closed" })),
    ]
}
