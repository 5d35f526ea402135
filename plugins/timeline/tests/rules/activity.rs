//! Services' events, and their recipients.

use roundhouse_sdk::{Call, Effect, Event, Message, Payload, Sender, StateChange, handle};
use serde_json::{Value, json};
use timeline::Timeline;

use super::{ROOM, Sim, about_client, client, names, subscriber};

/// Each event with its required fields.
fn activity() -> [(&'static str, Value); 5] {
    [
        ("timeline:new_item", json!({"item": {"id": "a1", "type": "call"}})),
        ("timeline:item_updated", json!({"item": {"id": "a1", "title": "Called"}})),
        ("timeline:item_deleted", json!({"itemId": "a1"})),
        ("timeline:refresh", json!({})),
        ("timeline:bulk_update", json!({"items": [{"id": "a1"}, {"id": "a2"}]})),
    ]
}

#[test]
fn service_event_reaches_room_unchanged() {
    for (event, more) in activity() {
        let mut sim = Sim::new();
        let ana = subscriber(&mut sim, "ana");
        let bob = subscriber(&mut sim, "bob");
        let stranger = sim.connect("eve", "Eve");
        let mut data = about_client(more);
        data["by"] = json!({"userId": "carl", "weight": 0.1});
        assert_eq!(sim.service("crm", event, data.clone()).unwrap(), json!({"delivered": 2}));
        for who in [ana, bob] {
            assert_eq!(sim.received(who), [(event.to_owned(), data.clone())]);
        }
        assert!(names(&mut sim, stranger).is_empty());
    }
}

#[test]
fn delivered_count_is_number_of_connections() {
    let mut sim = Sim::new();
    let first = subscriber(&mut sim, "ana");
    subscriber(&mut sim, "ana");
    subscriber(&mut sim, "bob");
    let tell = |sim: &mut Sim| sim.service("crm", "timeline:refresh", client()).unwrap();
    assert_eq!(tell(&mut sim), json!({"delivered": 3}));
    sim.disconnect(first);
    assert_eq!(tell(&mut sim), json!({"delivered": 2}));
}

#[test]
fn unsubscribed_connection_receives_nothing() {
    let mut sim = Sim::new();
    let ana = subscriber(&mut sim, "ana");
    sim.emit_with_ack(ana, "timeline:unsubscribe", client()).unwrap();
    sim.received(ana);
    assert_eq!(sim.service("crm", "timeline:refresh", client()).unwrap(), json!({"delivered": 0}));
    assert!(names(&mut sim, ana).is_empty());
}

#[test]
fn event_without_subscribers_emits_nothing() {
    for (event, more) in activity() {
        let call = Call {
            now: 1,
            seed: 1,
            sequence: 1,
            scope: ROOM.to_owned(),
            params: vec!["client".to_owned(), "123".to_owned()],
            room_connections: 0,
            room_users: 0,
            connection_in_room: false,
            user_connections: 0,
            settings: "{}".to_owned(),
        };
        let message = Message {
            event: event.to_owned(),
            sender: Sender::Service("crm".to_owned()),
            payload: Payload::of(&about_client(more)).unwrap(),
            wants_reply: true,
        };
        let outcome = handle::<Timeline>(call, Event::Message(message), None).unwrap();
        assert_eq!(outcome.effects, [Effect::Reply(Payload::of(&json!({"delivered": 0})).unwrap())]);
        assert_eq!(outcome.state, StateChange::Keep);
    }
}
