//! A feature that passes messages on to all connections in a room: for external protocol suites, and for benchmarks of the
//! host, because it does as little as a feature can.

use roundhouse_sdk::{Context, EventLimits, Failure, Feature, Manifest, Scope, Sender};
use serde::de::IgnoredAny;
use serde_json::json;

/// The feature.
#[derive(Debug)]
pub struct Relay;

roundhouse_sdk::export!(Relay);

roundhouse_sdk::messages! {
    /// Messages of clients. The room is the scope.
    #[derive(Debug)]
    pub enum Message {
        /// Joins the room.
        client "join" => Join {},
        /// Sends the message to all connections in the room.
        client "publish" => Publish {
            /// Any value, which must be present.
            payload: IgnoredAny
        },
    }
}

impl Feature for Relay {
    type Settings = serde_json::Map<String, serde_json::Value>;
    type State = ();
    type Message = Message;

    fn describe() -> Manifest {
        roundhouse_sdk::manifest!()
            .scope(Scope::volatile("relay:{room}").takes::<Message>())
            .limits(EventLimits::unbounded())
            .emits(["message"])
    }

    fn message((): &mut (), cx: &mut Context<Self>, sender: &Sender, message: Message) -> Result<(), Failure> {
        match message {
            Message::Join {} => {
                cx.join(sender.client()?);
                cx.reply(&json!({}));
            }
            // The payload is passed on as received, without encoding, with the attachments in their order.
            Message::Publish { payload: IgnoredAny } => {
                cx.emit_payload(cx.room(), "message", cx.payload().clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use roundhouse_sdk::simulator::Simulation;
    use roundhouse_sdk::{Attachment, Payload};

    use super::*;

    #[test]
    fn publish_reaches_the_room_and_the_sender() {
        let mut sim = Simulation::<Relay>::new();
        let people @ [ana, ben, eve] = ["ana", "ben", "eve"].map(|user| sim.connect(user, user));
        for (who, room) in [(ana, "a"), (ben, "a"), (eve, "b")] {
            assert_eq!(sim.emit_with_ack(who, "join", json!({"room": room})).unwrap(), json!({}));
            assert!(sim.is_in(who, &format!("relay:{room}")));
        }
        let published = json!({"room": "a", "payload": {"n": [1, null]}});
        sim.emit_with_ack(ana, "publish", published.clone()).unwrap();
        let heard = vec![("message".to_owned(), published)];
        assert_eq!(people.map(|who| sim.received(who)), [heard.clone(), heard, vec![]]);
    }

    #[test]
    fn publish_forwards_attachments() {
        let mut sim = Simulation::<Relay>::new();
        let ana = sim.connect("ana", "Ana");
        sim.emit_with_ack(ana, "join", json!({"room": "a"})).unwrap();
        let published = json!({"room": "a", "payload": Attachment::new(0)});
        let payload = Payload::of(&published).unwrap().with_attachments(vec![vec![1, 2]]);
        sim.emit_payload_with_ack(ana, "publish", payload).unwrap();
        let heard = sim.deliveries(ana).remove(0);
        assert_eq!((heard.args, heard.attachments), (vec![published], vec![vec![1, 2]]));
    }

    #[test]
    fn messages_without_room_or_payload_are_refused() {
        let mut sim = Simulation::<Relay>::new();
        let ana = sim.connect("ana", "Ana");
        sim.emit_with_ack(ana, "join", json!({"room": "a"})).unwrap();
        for (event, data) in [
            ("join", json!({})),
            ("join", json!({"room": "a b"})),
            ("publish", json!({"payload": 1})),
            ("publish", json!({"room": "a"})),
        ] {
            assert_eq!(sim.emit_with_ack(ana, event, data.clone()).unwrap_err().code, "bad_request", "{event} {data}");
        }
        assert_eq!(sim.received(ana), []);
    }
}
