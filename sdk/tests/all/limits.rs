//! What payloads may have, in the simulator as in the host.

use std::panic::catch_unwind;

use roundhouse_sdk::simulator::Simulation;
use roundhouse_sdk::{
    Acknowledgement, Context, EventLimits, Failure, Feature, Identity, Manifest, Outgoing, Payload, Scope, Sender,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A feature that takes what its limits let through, and notes what it hears of.
struct Hall;

#[derive(Default, Serialize, Deserialize)]
struct Heard(Vec<String>);

#[derive(Deserialize)]
enum Message {
    #[serde(rename = "connect")]
    Connect { auth: Box<serde_json::value::RawValue> },
    #[serde(rename = "say")]
    Say {},
    #[serde(rename = "shout")]
    Shout {},
    #[serde(rename = "announce")]
    Announce {},
    #[serde(rename = "heard")]
    Heard {},
}

#[derive(Serialize)]
struct Question {}

roundhouse_sdk::outgoing! { Question => "question" }

impl Feature for Hall {
    type Settings = Value;
    type State = Heard;
    type Message = Message;

    fn describe() -> Manifest {
        let scope = Scope::volatile("hall").on_connect().from_clients(["say", "shout", "heard"]);
        Manifest::new("hall", "1.0.0", "")
            .limits(EventLimits::default().depth(3))
            .scope(scope.from_services(["announce"]).limits(["shout"], EventLimits::of_host().bytes(100)))
            .emits([Question::NAME])
    }

    fn message(
        Heard(heard): &mut Heard,
        cx: &mut Context<Self>,
        sender: &Sender,
        message: Message,
    ) -> Result<(), Failure> {
        match message {
            Message::Connect { auth } if auth.get().contains("join") => cx.join(sender.client()?),
            Message::Connect { auth } => heard.push(auth.get().to_owned()),
            Message::Say {} => {
                cx.emit(sender.client()?, &Question {}).acknowledged("q", std::time::Duration::from_secs(5));
            }
            Message::Shout {} | Message::Announce {} => {}
            Message::Heard {} => cx.reply(heard),
        }
        Ok(())
    }

    fn acknowledged(Heard(heard): &mut Heard, _: &mut Context<Self>, answer: &Acknowledgement) -> Result<(), Failure> {
        heard.push(answer.answer.as_ref().map_or_else(|failure| failure.code.clone(), |payload| payload.args.clone()));
        Ok(())
    }
}

fn person() -> Identity {
    Identity { user_id: "ana".to_owned(), name: None, roles: Vec::new(), claims: "{}".to_owned() }
}

#[test]
fn payload_over_limits_is_too_large() {
    let mut sim = Simulation::<Hall>::new();
    let ana = sim.connect("ana", "Ana");
    let many = |n: usize| json!({ "x": vec![1; n] });
    sim.emit_with_ack(ana, "say", many(1000)).unwrap();
    for (event, data, message) in [
        ("say", many(2000), "say: the payload has 2002 values, and may have 1024: send less at once"),
        ("say", json!([[[[]]]]), "say: the payload has 4 levels of depth, and may have 3: send less at once"),
        ("shout", json!("x".repeat(97)), "shout: the payload has 101 bytes, and may have 100: send less at once"),
    ] {
        let failure = sim.emit_with_ack(ana, event, data).unwrap_err();
        assert_eq!((failure.code.as_str(), failure.message.as_str()), ("too_large", message));
    }
    let attached = Payload::of(&json!({})).unwrap().with_attachments(vec![vec![0; 70_000]]);
    assert_eq!(sim.emit_payload_with_ack(ana, "say", attached).unwrap_err().code, "too_large");
    // Services may send what the host takes.
    sim.service("crm", "announce", many(16_000)).unwrap();
    assert_eq!(sim.service("crm", "announce", many(17_000)).unwrap_err().code, "too_large");
}

#[test]
fn acknowledgement_over_limits_is_too_large() {
    let mut sim = Simulation::<Hall>::new();
    let ana = sim.connect("ana", "Ana");
    for answer in [json!(1), json!(vec![1; 2000])] {
        sim.emit_with_ack(ana, "say", json!({})).unwrap();
        sim.received(ana);
        sim.acknowledge(ana, "q", answer);
    }
    let (event, error) = sim.received(ana).remove(0);
    assert_eq!(
        (event.as_str(), &error["code"], &error["event"]),
        ("error", &json!("too_large"), &json!("acknowledgement"))
    );
    assert_eq!(sim.emit_with_ack(ana, "heard", json!({})).unwrap(), json!(["{}", "[1]", "too_large"]));
}

#[test]
fn credentials_are_removed_from_auth() {
    let mut sim = Simulation::<Hall>::new();
    let ana = sim.connect_to("/", person(), &json!({ "token": "t", "team": 1 }));
    let ben = sim.connect_to("/", person(), &json!({ "many": vec![1; 2000] }));
    assert_eq!(sim.received(ben)[0].1["code"], "too_large");
    assert_eq!(sim.emit_with_ack(ana, "heard", json!({})).unwrap(), json!([r#"{"team":1}"#, "{}"]));
}

#[test]
fn join_at_connect_without_granted_action_panics() {
    let panic = catch_unwind(|| Simulation::<Hall>::new().connect_to("/", person(), &json!({ "join": true })));
    let complaint = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(complaint.ends_with("its manifest does not ask for the action join"), "{complaint}");
    assert_eq!(Hall::describe().needs.actions, ["connect"]);
}

#[test]
fn limits_for_unrouted_event_panic() {
    let panic = catch_unwind(|| Scope::volatile("hall").limits(["say"], EventLimits::default()));
    let complaint = *panic.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(complaint, "the scope \"hall\" does not route \"say\"");
}
