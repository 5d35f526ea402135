//! Channels behave as rooms do, under their own names.

use serde_json::json;

use super::{Sim, away, names, temp_id};

#[test]
fn channel_confirms_messages_under_its_event_names() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    let bob = sim.connect("bob", "Bob");
    let c1 = json!({"channelId": "c1"});
    assert_eq!(
        sim.emit_with_ack(ana, "joinChannel", c1.clone()).unwrap(),
        json!({"channelId": "c1", "connectedUsers": 1})
    );
    assert_eq!(
        sim.emit_with_ack(bob, "joinChannel", c1.clone()).unwrap(),
        json!({"channelId": "c1", "connectedUsers": 2})
    );
    assert!(sim.is_in(bob, "channel:c1"));
    let data = json!({"channelId": "c1", "body": "hi", "clientId": "k1"});
    let first = temp_id(&sim.emit_with_ack(ana, "channelMessage", data.clone()).unwrap());
    let author = json!({"_id": "ana", "username": "Ana", "email": null});
    assert_eq!(
        sim.received(bob),
        [(
            "channelMessageRecieved".to_owned(),
            json!({
                "_id": first,
                "tempId": first,
                "body": "hi",
                "senderId": author,
                "channelId": "c1",
                "isOptimistic": true,
                "createdAt": "2027-01-15T08:00:00.000Z",
            })
        )]
    );
    assert_eq!(names(&mut sim, ana), ["channelMessageRecieved", "channelMessageSent"]);
    assert_eq!(temp_id(&sim.emit_with_ack(ana, "channelMessage", data).unwrap()), first);
    let save = sim.saves().remove(0);
    let id = sim.stored(&save);
    let confirmed = json!({
        "_id": id,
        "tempId": first,
        "body": "hi",
        "senderId": author,
        "channelId": "c1",
        "isConfirmed": true,
        "createdAt": "2027-01-15T08:00:00.000Z",
    });
    assert_eq!(sim.received(bob), [("channelMessageConfirmed".to_owned(), confirmed.clone())]);
    assert_eq!(
        sim.emit_with_ack(bob, "channelHistory", c1.clone()).unwrap(),
        json!({"messages": [confirmed], "hasMore": false})
    );

    sim.emit_with_ack(ana, "channelMessage", json!({"channelId": "c1", "body": "again"})).unwrap();
    let save = sim.saves().remove(0);
    sim.not_stored(&save, away());
    assert_eq!(names(&mut sim, bob), ["channelMessageRecieved", "channelMessageFailed"]);
    assert_eq!(sim.emit_with_ack(bob, "leaveChannel", c1).unwrap(), json!({"channelId": "c1", "connectedUsers": 1}));
}

#[test]
fn channel_and_room_ids_are_separate() {
    let mut sim = Sim::new();
    let ana = super::joined(&mut sim, "ana");
    let bob = sim.connect("bob", "Bob");
    sim.emit_with_ack(bob, "joinChannel", json!({"channelId": "r1"})).unwrap();
    super::say(&mut sim, ana, "hi");
    assert!(names(&mut sim, bob).is_empty());
}
