//! The feature for external protocol suites: it echoes their messages, and emits the `auth` of each connection without its
//! credentials, in the Socket.IO namespaces `/` and `/custom`.

use std::time::Duration;

use roundhouse_sdk::{
    Acknowledgement, Audience, Context, EventLimits, Failure, Feature, Manifest, Payload, Scope, Sender,
};
use serde_json::value::RawValue;

/// The time-out of acknowledgements: longer than any suite waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// The feature.
#[derive(Debug)]
pub struct Conformance;

roundhouse_sdk::export!(Conformance);

roundhouse_sdk::messages! {
    /// Messages of suites. All but `connect` take any arguments.
    #[derive(Debug)]
    pub enum Message {
        /// A connection has opened: it is sent the `auth` of its handshake.
        host "connect" => Connect {
            /// The handshake's payload, or `{}`.
            auth: Box<RawValue>
        },
        /// The message is emitted to its sender.
        client "message" => Message,
        /// The message is acknowledged with its own arguments.
        client "message-with-ack" => MessageWithAck,
        /// The message is emitted with an acknowledgement, whose arguments are emitted in turn.
        client "emit-with-ack" => EmitWithAck,
    }
}

impl Feature for Conformance {
    type Settings = serde_json::Map<String, serde_json::Value>;
    type State = ();
    type Message = Message;

    fn describe() -> Manifest {
        roundhouse_sdk::manifest!()
            .scope(Scope::volatile("conformance").takes::<Message>())
            .limits(EventLimits::unbounded())
            .namespaces(["/custom"])
            .emits(["auth", "message-back", "emit-with-ack"])
    }

    fn message((): &mut (), cx: &mut Context<Self>, sender: &Sender, message: Message) -> Result<(), Failure> {
        let client = sender.client()?;
        let payload = cx.payload().clone();
        match message {
            Message::Connect { auth } => drop(cx.emit_payload(client, "auth", Payload::of(&auth)?)),
            Message::Message => drop(cx.emit_payload(client, "message-back", payload)),
            Message::MessageWithAck => cx.reply_payload(payload),
            Message::EmitWithAck => {
                cx.emit_payload(client, "emit-with-ack", payload).acknowledged("emit-with-ack", PATIENCE);
            }
        }
        Ok(())
    }

    fn acknowledged((): &mut (), cx: &mut Context<Self>, answer: &Acknowledgement) -> Result<(), Failure> {
        if let Ok(payload) = &answer.answer {
            cx.emit_payload(Audience::connection(&answer.connection), "emit-with-ack", payload.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use roundhouse_sdk::simulator::{Connection, Simulation};
    use roundhouse_sdk::{Attachment, Identity};
    use serde_json::{Value, json};

    use super::*;

    type Sim = Simulation<Conformance>;

    fn connect(sim: &mut Sim, namespace: &str, auth: &Value) -> Connection {
        let claims = "{}".to_owned();
        let ana = Identity { user_id: "ana".to_owned(), name: None, roles: Vec::new(), claims };
        sim.connect_to(namespace, ana, auth)
    }

    /// A connection that has received its `auth`.
    fn connected(sim: &mut Sim) -> Connection {
        let ana = connect(sim, "/", &json!({}));
        sim.received(ana);
        ana
    }

    /// Payloads with no, one and several arguments, and with attachments out of the order of their numbers.
    fn payloads() -> [Payload; 5] {
        let spread = |arguments: Value| Payload::spread(&arguments).unwrap();
        let attachments = json!([Attachment::new(1), {"deep": [Attachment::new(0)]}]);
        [
            Payload::none(),
            spread(json!([null])),
            spread(json!([{"a": [1, "ü"]}])),
            spread(json!([1, "2", {"3": [true]}])),
            spread(attachments).with_attachments(vec![vec![1, 2, 3], vec![]]),
        ]
    }

    /// The events that a connection received, with their payloads.
    fn received(sim: &mut Sim, who: Connection) -> Vec<(String, Payload)> {
        let deliveries = sim.deliveries(who).into_iter();
        let payload = |args: Vec<Value>, attachments| Payload::spread(&args).unwrap().with_attachments(attachments);
        deliveries.map(|delivery| (delivery.event, payload(delivery.args, delivery.attachments))).collect()
    }

    #[test]
    fn connecting_emits_the_auth() {
        let mut sim = Sim::new();
        for (namespace, auth) in [("/", json!({})), ("/custom", json!({"key": "123", "deep": {"n": [1.5]}}))] {
            let ana = connect(&mut sim, namespace, &auth);
            assert_eq!(sim.received(ana), [("auth".to_owned(), auth)], "{namespace}");
        }
    }

    #[test]
    fn message_is_emitted_back_to_its_sender_alone() {
        let mut sim = Sim::new();
        let [ana, other] = [connected(&mut sim), connected(&mut sim)];
        for payload in payloads() {
            assert_eq!(sim.emit_payload_with_ack(ana, "message", payload.clone()).unwrap(), Value::Null);
            assert_eq!(received(&mut sim, ana), [("message-back".to_owned(), payload)]);
        }
        assert_eq!(sim.received(other), []);
    }

    #[test]
    fn message_with_ack_acknowledges_with_its_arguments() {
        let mut sim = Sim::new();
        let ana = connected(&mut sim);
        for (payload, acknowledged) in payloads().into_iter().zip([
            json!(null),
            json!(null),
            json!({"a": [1, "ü"]}),
            json!([1, "2", {"3": [true]}]),
            json!([Attachment::new(1), {"deep": [Attachment::new(0)]}]),
        ]) {
            assert_eq!(sim.emit_payload_with_ack(ana, "message-with-ack", payload).unwrap(), acknowledged);
        }
        assert_eq!(sim.received(ana), []);
    }

    #[test]
    fn emit_with_ack_emits_the_acknowledged_arguments() {
        let mut sim = Sim::new();
        let ana = connected(&mut sim);
        let asked = payloads();
        let mut acknowledged = payloads();
        acknowledged.reverse();
        for (asked, acknowledged) in asked.into_iter().zip(acknowledged) {
            sim.emit_payload_with_ack(ana, "emit-with-ack", asked.clone()).unwrap();
            assert_eq!(received(&mut sim, ana), [("emit-with-ack".to_owned(), asked)]);
            sim.acknowledge_payload(ana, "emit-with-ack", acknowledged.clone());
            assert_eq!(received(&mut sim, ana), [("emit-with-ack".to_owned(), acknowledged)]);
        }
    }

    #[test]
    fn missing_acknowledgement_emits_nothing() {
        let mut sim = Sim::new();
        let ana = connected(&mut sim);
        sim.emit_with_ack(ana, "emit-with-ack", json!(1)).unwrap();
        sim.received(ana);
        sim.advance(PATIENCE);
        assert_eq!(sim.received(ana), []);
    }
}
