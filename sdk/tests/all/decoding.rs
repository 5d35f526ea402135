//! From a message's arguments to the author's enum.

use roundhouse_sdk::simulator::Simulation;
use roundhouse_sdk::{Failure, Payload};
use serde_json::{Value, json};

use crate::probe::Probe;

/// What the probe makes of these arguments.
fn made_of(event: &str, args: &Value) -> Result<Value, Failure> {
    let mut sim = Simulation::<Probe>::new();
    let ana = sim.connect("ana", "Ana");
    sim.emit_payload_with_ack(ana, event, Payload::spread(args).unwrap())
}

#[test]
fn arguments_decode_into_variant_of_their_event() {
    for (event, args, made) in [
        ("unit", json!([{"id": "1"}]), json!("unit")),
        ("fields", json!([{"id": "1", "deep": [{"number": 3}, {"number": 4}]}]), json!(7)),
        ("optional", json!([{"id": "1"}]), json!(null)),
        ("optional", json!([{"id": "1", "text": "hi"}]), json!("hi")),
        ("several", json!(["1", 2, null]), json!(["1", 2, null])),
        ("several", json!([{"id": "1"}, 2, "x", "more"]), json!(["1", 2, "x"])),
        ("either", json!(["1"]), json!("1")),
        ("either", json!([{"id": "1"}]), json!("1")),
        ("one", json!([{"id": "1"}]), json!(["one", {"id": "1"}])),
        ("other", json!([{"id": "1"}]), json!(["other", {"id": "1"}])),
    ] {
        assert_eq!(made_of(event, &args), Ok(made), "{event} {args}");
    }
}

#[test]
fn mismatch_is_bad_request_naming_event_and_field() {
    for (event, args, message) in [
        (
            "fields",
            json!([{"id": "1", "deep": [{"number": 3}, {"number": "x"}]}]),
            "fields: deep[1].number: invalid type: string \"x\", expected u32",
        ),
        ("fields", json!([{"id": "1"}]), "fields: missing field `deep`"),
        ("fields", json!(["1"]), "fields: invalid type: string \"1\", expected struct variant Message::Fields"),
        ("several", json!(["1"]), "several: wants 3 arguments, there are 1"),
        ("optional", json!([{"text": 1, "id": "1"}]), "optional: text: invalid type: integer `1`, expected a string"),
    ] {
        assert_eq!(made_of(event, &args), Err(Failure::bad_request(message)), "{event} {args}");
    }
}

#[test]
fn attachments_are_found_by_number() {
    let mut sim = Simulation::<Probe>::new();
    let ana = sim.connect("ana", "Ana");
    let placeholder = |number: u32| json!([{"id": "1", "blob": {"_placeholder": true, "num": number}}]);
    for (number, length) in [(0, json!(1)), (1, json!(3)), (2, json!(null))] {
        let payload = Payload::spread(&placeholder(number)).unwrap();
        let payload = payload.with_attachments(vec![vec![1], vec![1, 2, 3]]);
        assert_eq!(sim.emit_payload_with_ack(ana, "blob", payload), Ok(length));
    }
}

mod without_data {
    use roundhouse_sdk::{Call, Event, Failure, Message, Outcome, Payload, Sender, handle};

    use crate::probe::Probe;

    /// What comes of an event whose scope does not follow from its data.
    fn come_of(event: &str, args: &str) -> Result<Outcome, Failure> {
        let call = Call {
            now: 0,
            seed: 0,
            sequence: 1,
            scope: "probe:1".to_owned(),
            params: vec!["1".to_owned()],
            room_connections: 0,
            room_users: 0,
            connection_in_room: false,
            user_connections: 0,
            settings: "{}".to_owned(),
        };
        let mut payload = Payload::none();
        payload.args = args.to_owned();
        let message =
            Message { event: event.to_owned(), sender: Sender::Service("s".to_owned()), payload, wants_reply: true };
        handle::<Probe>(call, Event::Message(message), None)
    }

    #[test]
    fn missing_arguments_are_refused_only_where_required() {
        for args in ["[]", "[null]"] {
            assert!(come_of("unit", args).is_ok());
            assert!(come_of("optional", args).is_ok());
            assert!(come_of("one", args).is_ok());
            assert_eq!(come_of("fields", args), Err(Failure::bad_request("fields: missing field `deep`")));
            assert_eq!(come_of("either", args).unwrap_err().code, "bad_request");
        }
    }

    #[test]
    fn malformed_arguments_and_unknown_events_have_different_codes() {
        assert_eq!(come_of("unit", "{").unwrap_err().code, "bad_request");
        assert_eq!(come_of("nothing", "[]").unwrap_err().code, "internal");
    }
}
