//! The plain protocol: one JSON object per WebSocket text frame.
//!
//! Client to host: `{"event", "data"?, "id"?}`, and `{"id", "data"?}` to acknowledge an event that carried an id.
//! Host to client: `{"event", "data", "id"?}`, `{"id", "data"}`, `{"id", "error"}`, `{"event": "error", "data"}`.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::{ErrorCode, Failure, Payload};

/// The longest event name, in bytes: ten times what anybody uses, and little enough to repeat in an error.
pub const MAX_EVENT_BYTES: usize = 256;

/// A frame from a client. It borrows from the frame's text.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// An event, with the id under which an acknowledgement is wanted.
    Event {
        /// The event's name.
        event: Cow<'a, str>,
        /// Its data, not looked into yet.
        data: Option<&'a RawValue>,
        /// The id to acknowledge it with. Any integer; what is longer than 128 bits is refused.
        id: Option<i128>,
    },
    /// The answer to an event that asked for one.
    Acknowledgement {
        /// The id that the host gave.
        id: i128,
        /// The answer.
        data: Option<&'a RawValue>,
    },
}

/// A frame that makes no sense, with what could be read of it so that the answer finds its way.
#[derive(Debug, PartialEq, Eq)]
pub struct BadFrame {
    /// What was wrong.
    pub failure: Failure,
    /// The event's name, where there was one.
    pub event: Option<String>,
    /// The id, where there was one.
    pub id: Option<i128>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// Reads one text frame. Fields that it does not know are ignored.
///
/// # Errors
/// With `bad_request` and what was wrong.
pub fn decode(text: &str) -> Result<Incoming<'_>, BadFrame> {
    let bad = |message: String, event: Option<&str>, id| BadFrame {
        failure: Failure::new(ErrorCode::BadRequest, message),
        event: event.map(str::to_owned),
        id,
    };
    let shape = "the frame is not an object {\"event\", \"data\"?, \"id\"?}";
    // Serde would take an array for the object's fields in their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(bad(shape.to_owned(), None, None));
    }
    let frame: Frame<'_> = serde_json::from_str(text).map_err(|e| bad(format!("{shape}: {e}"), None, None))?;
    let id = match frame.id {
        None => None,
        Some(id) => Some(id.get().parse::<i128>().map_err(|_| {
            bad(format!("the id must be an integer, not {}", excerpt(id.get())), frame.event.as_deref(), None)
        })?),
    };
    match (frame.event, id) {
        (Some(event), id) if event.is_empty() || event.len() > MAX_EVENT_BYTES => {
            Err(bad(format!("an event's name is 1 to {MAX_EVENT_BYTES} bytes long"), None, id))
        }
        (Some(event), id) => Ok(Incoming::Event { event, data: frame.data, id }),
        (None, Some(id)) => Ok(Incoming::Acknowledgement { id, data: frame.data }),
        (None, None) => Err(bad("the frame has neither an event nor an id".to_owned(), None, None)),
    }
}

/// The beginning of a text that is too long to repeat in an error.
fn excerpt(text: &str) -> Cow<'_, str> {
    const CHARS: usize = 40;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// JSON text of a string.
fn quoted(text: &str) -> String {
    // A string always has a JSON form.
    serde_json::to_string(text).unwrap_or_default()
}

/// `data` is the first argument; where an event has several, `args` carries them all.
fn push_arguments(json: &mut String, payload: &Payload) {
    let arguments = payload.arguments();
    json.push_str("\"data\":");
    json.push_str(arguments.first().map_or("null", |data| data.get()));
    if arguments.len() > 1 {
        json.push_str(",\"args\":");
        json.push_str(payload.args());
    }
}

/// An event, with an id where an acknowledgement is wanted.
pub fn encode_event(event: &str, payload: &Payload, id: Option<i128>) -> String {
    let mut json = String::with_capacity(event.len() + payload.args().len() + 48);
    json.push_str("{\"event\":");
    json.push_str(&quoted(event));
    json.push(',');
    push_arguments(&mut json, payload);
    if let Some(id) = id {
        // Writing to a string cannot fail.
        let _ = write!(json, ",\"id\":{id}");
    }
    json.push('}');
    json
}

/// The acknowledgement of the event that carried `id`.
pub fn encode_reply(id: i128, outcome: Result<&Payload, &Failure>) -> String {
    let mut json = format!("{{\"id\":{id},");
    match outcome {
        Ok(payload) => push_arguments(&mut json, payload),
        Err(failure) => {
            json.push_str("\"error\":");
            json.push_str(&failure_json(failure, None));
        }
    }
    json.push('}');
    json
}

/// The answer to what did not ask for an acknowledgement and failed.
pub fn encode_error(failure: &Failure, event: Option<&str>) -> String {
    format!("{{\"event\":\"error\",\"data\":{}}}", failure_json(failure, Some(event)))
}

fn failure_json(failure: &Failure, event: Option<Option<&str>>) -> String {
    let mut json = format!("{{\"code\":\"{}\",\"message\":{}", failure.code.as_str(), quoted(&failure.message));
    if let Some(event) = event {
        json.push_str(",\"event\":");
        json.push_str(&event.map_or_else(|| "null".to_owned(), quoted));
    }
    json.push('}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> (String, Option<String>, Option<i128>) {
        match decode(text) {
            Ok(Incoming::Event { event, data, id }) => (event.into_owned(), data.map(|d| d.get().to_owned()), id),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn an_event_may_come_with_data_and_an_id_or_without() {
        assert_eq!(event(r#"{"event":"a"}"#), ("a".into(), None, None));
        assert_eq!(
            event(r#"{"event":"a","data":{"x": 1},"id":-7}"#),
            ("a".into(), Some(r#"{"x": 1}"#.into()), Some(-7))
        );
        assert_eq!(event(r#"{"id":18446744073709551616,"event":"\u0061","data":null}"#).2, Some(1 << 64));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_was_readable_of_it() {
        for (text, message, name, id) in [
            ("[]", "the frame is not", None, None),
            ("{", "the frame is not", None, None),
            ("{}", "neither an event nor an id", None, None),
            (r#"{"event":5}"#, "the frame is not", None, None),
            (r#"{"event":"","id":1}"#, "name is 1 to", None, Some(1)),
            (r#"{"event":"a","id":1.5}"#, "must be an integer, not 1.5", Some("a"), None),
            (r#"{"event":"a","id":"1"}"#, "must be an integer, not \"1\"", Some("a"), None),
        ] {
            let bad = decode(text).expect_err(text);
            assert!(bad.failure.message.contains(message), "{text}: {}", bad.failure.message);
            assert_eq!((bad.event.as_deref(), bad.id), (name, id), "{text}");
        }
    }

    #[test]
    fn frames_to_the_client() {
        let payload = |args| Payload::from_args(args, Vec::new()).unwrap();
        assert_eq!(encode_event("a\"b", &payload("[]"), None), r#"{"event":"a\"b","data":null}"#);
        assert_eq!(encode_event("a", &payload(r#"[{"x":1}]"#), Some(3)), r#"{"event":"a","data":{"x":1},"id":3}"#);
        assert_eq!(encode_event("a", &payload("[1, 2]"), None), r#"{"event":"a","data":1,"args":[1, 2]}"#);
        assert_eq!(encode_reply(7, Ok(&payload("[]"))), r#"{"id":7,"data":null}"#);
        let failure = Failure::new(ErrorCode::NotFound, "no");
        assert_eq!(encode_reply(-1, Err(&failure)), r#"{"id":-1,"error":{"code":"not_found","message":"no"}}"#);
        assert_eq!(
            encode_error(&failure, Some("x")),
            r#"{"event":"error","data":{"code":"not_found","message":"no","event":"x"}}"#
        );
    }
}
