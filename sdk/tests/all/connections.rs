//! What a feature hears of connections that open, and passes on of what they send.

use std::panic::catch_unwind;

use roundhouse_sdk::simulator::{Connection, Simulation};
use roundhouse_sdk::{Attachment, Context, Failure, Feature, Identity, Manifest, Outgoing, Payload, Scope, Sender};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A feature that counts those who came, and sends back what they send.
struct Lobby;

#[derive(Default, Serialize, Deserialize)]
struct Visits(u32);

#[derive(Deserialize)]
enum Message {
    #[serde(rename = "connect")]
    Connect(Opened),
    #[serde(rename = "parrot")]
    Parrot,
    #[serde(rename = "visits")]
    Visits,
}

#[derive(Deserialize)]
struct Opened {
    namespace: String,
    auth: Ticket,
}

#[derive(Deserialize)]
struct Ticket {
    seat: Option<u32>,
}

#[derive(Serialize)]
struct Welcome {
    namespace: String,
    seat: Option<u32>,
    visits: u32,
}

roundhouse_sdk::outgoing! { Welcome => "welcome" }

impl Feature for Lobby {
    type Settings = Value;
    type State = Visits;
    type Message = Message;

    fn describe() -> Manifest {
        let scope = Scope::volatile("lobby").on_connect().from_clients(["parrot", "visits"]);
        Manifest::new("lobby", "1.0.0", "")
            .scope(scope)
            .namespaces(["/custom"])
            .emits([Welcome::NAME, "parrot"])
            .needs_actions(["join"])
    }

    fn message(visits: &mut Visits, cx: &mut Context<Self>, sender: &Sender, message: Message) -> Result<(), Failure> {
        match message {
            Message::Connect(Opened { namespace, auth: Ticket { seat } }) => {
                visits.0 += 1;
                cx.join(sender.client()?);
                cx.emit(sender.client()?, &Welcome { namespace, seat, visits: visits.0 });
            }
            Message::Parrot => drop(cx.emit_payload(sender.client()?, "parrot", cx.payload().clone())),
            Message::Visits => cx.reply(&(visits.0, cx.in_room(), cx.room_connections())),
        }
        Ok(())
    }
}

fn ana() -> Identity {
    Identity { user_id: "ana".to_owned(), name: None, roles: Vec::new(), claims: "{}".to_owned() }
}

fn welcome(namespace: &str, seat: Option<u32>, visits: u32) -> Vec<(String, Value)> {
    vec![("welcome".to_owned(), json!({"namespace": namespace, "seat": seat, "visits": visits}))]
}

#[test]
fn connect_carries_namespace_and_auth() {
    let mut sim = Simulation::<Lobby>::new();
    let first = sim.connect("ana", "Ana");
    assert_eq!(sim.received(first), welcome("/", None, 1));
    let second = sim.connect_to("/custom", ana(), &json!({"seat": 7, "more": []}));
    assert_eq!(sim.received(second), welcome("/custom", Some(7), 2));
    assert_eq!(sim.emit_with_ack(second, "visits", json!({})).unwrap(), json!([2, true, 2]));
}

#[test]
fn refusing_connect_changes_nothing_and_reaches_client() {
    let mut sim = Simulation::<Lobby>::new();
    let refused = sim.connect_to("/", ana(), &json!({"seat": "first row"}));
    let (event, error) = sim.received(refused).remove(0);
    assert_eq!((event.as_str(), &error["code"], &error["event"]), ("error", &json!("bad_request"), &json!("connect")));
    assert_eq!(sim.emit_with_ack(refused, "visits", json!({})).unwrap(), json!([0, false, 0]));
}

#[test]
fn connect_from_clients_and_services_is_refused() {
    let mut sim = Simulation::<Lobby>::new();
    let ana = sim.connect("ana", "Ana");
    let claim = json!({"namespace": "/", "auth": {}});
    assert_eq!(sim.emit_with_ack(ana, "connect", claim.clone()).unwrap_err().code, "unknown_event");
    assert_eq!(sim.service("billing", "connect", claim).unwrap_err().code, "unknown_event");
}

#[test]
fn received_payload_is_forwarded_unchanged() {
    let mut sim = Simulation::<Lobby>::new();
    let ana = sim.connect("ana", "Ana");
    sim.received(ana);
    let arguments = json!([Attachment::new(1), {"deep": [Attachment::new(0)]}, null, 1e300]);
    let whole = Payload::spread(&arguments).unwrap().with_attachments(vec![vec![0], vec![1]]);
    for payload in [Payload::none(), Payload::spread(&[Value::Null]).unwrap(), whole] {
        sim.emit_payload_with_ack(ana, "parrot", payload.clone()).unwrap();
        let delivery = sim.deliveries(ana).remove(0);
        assert_eq!(delivery.args, serde_json::from_str::<Vec<Value>>(&payload.args).unwrap());
        assert_eq!(delivery.attachments, payload.attachments);
    }
}

#[test]
fn connecting_to_undeclared_namespace_panics() {
    let panic = catch_unwind(|| -> Connection { Simulation::<Lobby>::new().connect_to("/other", ana(), &json!({})) });
    let complaint = *panic.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(complaint, "the manifest of lobby does not name the namespace \"/other\"");
}
