//! The plain protocol: one JSON object per WebSocket text frame.
//!
//! Client to host: `{"event", "data"?, "id"?}`, and `{"id", "data"?}` to acknowledge an event that carried an id.
//! Host to client: `{"event", "data", "id"?}`, `{"id", "data"}`, `{"id", "error"}`, `{"event": "error", "data"}`.
//!
//! In both directions several arguments are in `args`, an array (a client sends it instead of `data`, the host in addition),
//! and binary attachments in `attachments`, an array of base64, with placeholders in the arguments.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::quoted;
use crate::model::{ErrorCode, Failure, Payload, check_placeholders};

pub use roundhouse_contract::MAX_EVENT_BYTES;

const MAX_ATTACHMENTS: usize = Payload::MAX_ATTACHMENTS;

/// A frame from a client. The event's name borrows from the frame's text.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// An event, with the id of the acknowledgement that it requests.
    Event {
        /// The event's name.
        event: Cow<'a, str>,
        /// Its arguments.
        payload: Payload,
        /// The id to acknowledge it with: an integer of at most 128 bits.
        id: Option<i128>,
    },
    /// The acknowledgement of an event that requested one.
    Acknowledgement {
        /// The id from the host's event.
        id: i128,
        /// The answer.
        payload: Payload,
    },
}

/// A malformed frame, with the parts by which its sender recognises it in the error.
#[derive(Debug, PartialEq, Eq)]
pub struct BadFrame {
    /// The error.
    pub failure: Failure,
    /// The event's name, if it could be read.
    pub event: Option<String>,
    /// The id, if it could be read.
    pub id: Option<i128>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    #[serde(borrow, default)]
    attachments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

impl Frame<'_> {
    /// The arguments and attachments, or the error.
    fn payload(&self) -> Result<Payload, String> {
        let mut payload = match (self.data, self.args) {
            (data, None) => Payload::of_data(data),
            // The JSON is valid, so text that begins with `[` is an array.
            (None, Some(args)) if args.get().starts_with('[') => Payload::from_checked(args.get(), Vec::new()),
            (None, Some(_)) => return Err("args must be an array of arguments".to_owned()),
            (Some(_), Some(_)) => return Err("a frame has data or args: leave one of them out".to_owned()),
        };
        if let Some(attachments) = self.attachments {
            let Ok(Attachments(attachments)) = serde_json::from_str(attachments.get()) else {
                return Err(format!("attachments must be an array of at most {MAX_ATTACHMENTS} base64 strings"));
            };
            check_placeholders(payload.args(), attachments.len()).map_err(|error| error.to_string())?;
            payload.attachments = attachments;
        }
        Ok(payload)
    }
}

/// An array of base64 strings, decoded.
struct Attachments(Vec<Bytes>);

/// A string, which may have escapes: some encoders write `/` as `\/`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Attachments {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = Attachments;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of base64 strings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Attachments, A::Error> {
                let mut attachments = Vec::new();
                while let Some(Text(base64)) = elements.next_element()? {
                    // Checked before any attachment over the limit is decoded.
                    if attachments.len() == MAX_ATTACHMENTS {
                        return Err(A::Error::custom("too many"));
                    }
                    attachments.push(STANDARD.decode(&*base64).map_err(A::Error::custom)?.into());
                }
                Ok(Attachments(attachments))
            }
        }
        json.deserialize_seq(Array)
    }
}

/// Reads one text frame. Unknown fields are ignored.
///
/// # Errors
/// With `bad_request` and the reason.
pub fn decode(text: &str) -> Result<Incoming<'_>, BadFrame> {
    let bad = |message: String, event: Option<&str>, id| BadFrame {
        failure: Failure::new(ErrorCode::BadRequest, message),
        event: event.map(str::to_owned),
        id,
    };
    let shape = "the frame is not an object {\"event\", \"data\"?, \"id\"?}";
    // Serde would accept an array as the object's fields in order.
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
    let payload = frame.payload();
    match (frame.event, id) {
        (Some(event), id) if event.is_empty() || event.len() > MAX_EVENT_BYTES => {
            Err(bad(format!("an event's name is 1 to {MAX_EVENT_BYTES} bytes long"), None, id))
        }
        (Some(event), id) => match payload {
            Ok(payload) => Ok(Incoming::Event { event, payload, id }),
            Err(message) => Err(bad(message, Some(&event), id)),
        },
        // The id is the host's: a client would take an error with this id for the answer to an event of its own.
        (None, Some(id)) => match payload {
            Ok(payload) => Ok(Incoming::Acknowledgement { id, payload }),
            Err(message) => Err(bad(message, None, None)),
        },
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

/// `data` is the first argument. For several arguments, `args` has all of them.
fn push_arguments(json: &mut String, payload: &Payload) {
    json.push_str("\"data\":");
    if let Some(data) = payload.only() {
        json.push_str(data);
    } else {
        let arguments = payload.arguments();
        json.push_str(arguments.first().map_or("null", |data| data.get()));
        if arguments.len() > 1 {
            json.push_str(",\"args\":");
            json.push_str(payload.args());
        }
    }
    for (index, attachment) in payload.attachments.iter().enumerate() {
        json.push_str(if index == 0 { ",\"attachments\":[\"" } else { ",\"" });
        STANDARD.encode_string(attachment, json);
        json.push('"');
    }
    if !payload.attachments.is_empty() {
        json.push(']');
    }
}

/// An event, with an id if it requests an acknowledgement.
pub fn encode_event(event: &str, payload: &Payload, id: Option<i128>) -> String {
    let attachments: usize = payload.attachments.iter().map(|bytes| bytes.len() / 3 * 4 + 8).sum();
    let mut json = String::with_capacity(event.len() + payload.args().len() + attachments + 48);
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
    let mut json = String::with_capacity(48 + outcome.map_or(0, |payload| payload.args().len()));
    // Writing to a string cannot fail.
    let _ = write!(json, "{{\"id\":{id},");
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

/// The error for a failed event that did not request an acknowledgement.
pub fn encode_error(failure: &Failure, event: Option<&str>) -> String {
    format!("{{\"event\":\"error\",\"data\":{}}}", failure_json(failure, Some(event)))
}

/// The data of [`encode_error`], for protocols with other framing.
pub fn error_data(failure: &Failure, event: Option<&str>) -> Payload {
    Payload::from_checked(["[", &failure_json(failure, Some(event)), "]"].concat(), Vec::new())
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

    fn event(text: &str) -> (String, Payload, Option<i128>) {
        match decode(text) {
            Ok(Incoming::Event { event, payload, id }) => (event.into_owned(), payload, id),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn payload(args: &str, attachments: &[&'static [u8]]) -> Payload {
        Payload::from_args(args, attachments.iter().map(|bytes| Bytes::from_static(bytes)).collect()).unwrap()
    }

    #[test]
    fn event_data_and_id_are_optional() {
        assert_eq!(event(r#"{"event":"a"}"#), ("a".into(), Payload::empty(), None));
        assert_eq!(
            event(r#"{"event":"a","data":{"x": 1},"id":-7}"#),
            ("a".into(), payload(r#"[{"x": 1}]"#, &[]), Some(-7))
        );
        assert_eq!(event(r#"{"id":18446744073709551616,"event":"\u0061","data":null}"#).2, Some(1 << 64));
    }

    #[test]
    fn event_takes_several_arguments_and_attachments() {
        assert_eq!(event(r#"{"event":"a","args":[1, "2"]}"#).1, payload(r#"[1, "2"]"#, &[]));
        assert_eq!(event(r#"{"event":"a","args":[],"data":null,"attachments":[]}"#).1, Payload::empty());
        assert_eq!(
            event(r#"{"event":"a","attachments":["AQID"],"data":{"_placeholder":true,"num":0}}"#).1,
            payload(r#"[{"_placeholder":true,"num":0}]"#, &[&[1, 2, 3]])
        );
        let two = r#"[{"_placeholder":true,"num":1},7,[{"_placeholder":true,"num":0}]]"#;
        assert_eq!(
            event(&format!(r#"{{"event":"a","args":{two},"attachments":["","\/\u002b8="]}}"#)).1,
            payload(two, &[b"", &[0xff, 0xef]])
        );
        // Without attachments a placeholder is ordinary data.
        let data = r#"{"_placeholder":true,"num":3}"#;
        assert_eq!(event(&format!(r#"{{"event":"a","data":{data}}}"#)).1, payload(&format!("[{data}]"), &[]));
    }

    #[test]
    fn frame_without_event_is_an_acknowledgement() {
        match decode(r#"{"id":3,"args":[1,{"_placeholder":true,"num":0}],"attachments":["AA=="]}"#) {
            Ok(Incoming::Acknowledgement { id: 3, payload: answer }) => {
                assert_eq!(answer, payload(r#"[1,{"_placeholder":true,"num":0}]"#, &[&[0]]));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn malformed_frame_is_refused_with_event_and_id() {
        let eleven = format!(r#"{{"event":"a","attachments":[{}""]}}"#, r#""","#.repeat(10));
        for (text, message, name, id) in [
            ("[]", "the frame is not", None, None),
            ("{", "the frame is not", None, None),
            ("{}", "neither an event nor an id", None, None),
            (r#"{"event":5}"#, "the frame is not", None, None),
            (r#"{"event":"","id":1}"#, "name is 1 to", None, Some(1)),
            (r#"{"event":"a","id":1.5}"#, "must be an integer, not 1.5", Some("a"), None),
            (r#"{"event":"a","id":"1"}"#, "must be an integer, not \"1\"", Some("a"), None),
            (r#"{"event":"a","id":1,"data":1,"args":[1]}"#, "data or args", Some("a"), Some(1)),
            (r#"{"event":"a","args":{}}"#, "args must be an array", Some("a"), None),
            (r#"{"event":"a","attachments":{}}"#, "attachments must be an array", Some("a"), None),
            (r#"{"event":"a","attachments":[1]}"#, "attachments must be an array", Some("a"), None),
            (r#"{"event":"a","attachments":["AA"]}"#, "attachments must be an array", Some("a"), None),
            (r#"{"event":"a","attachments":["_w=="]}"#, "attachments must be an array", Some("a"), None),
            (&eleven, "array of at most 10", Some("a"), None),
            (r#"{"event":"a","attachments":["AA=="]}"#, "no placeholder", Some("a"), None),
            (r#"{"event":"a","attachments":[],"data":{"_placeholder":true,"num":0}}"#, "is wrong", Some("a"), None),
            // The id of an acknowledgement is the host's, and an error must not repeat it.
            (r#"{"id":1,"attachments":["AA=="]}"#, "no placeholder", None, None),
        ] {
            let bad = decode(text).expect_err(text);
            assert!(bad.failure.message.contains(message), "{text}: {}", bad.failure.message);
            assert_eq!((bad.event.as_deref(), bad.id), (name, id), "{text}");
        }
    }

    #[test]
    fn outgoing_frames_are_encoded_as_json() {
        assert_eq!(encode_event("a\"b", &payload("[]", &[]), None), r#"{"event":"a\"b","data":null}"#);
        assert_eq!(encode_event("a", &payload(r#"[{"x":1}]"#, &[]), Some(3)), r#"{"event":"a","data":{"x":1},"id":3}"#);
        assert_eq!(encode_event("a", &payload("[1, 2]", &[]), None), r#"{"event":"a","data":1,"args":[1, 2]}"#);
        assert_eq!(encode_reply(7, Ok(&payload("[]", &[]))), r#"{"id":7,"data":null}"#);
        let failure = Failure::new(ErrorCode::NotFound, "no");
        assert_eq!(encode_reply(-1, Err(&failure)), r#"{"id":-1,"error":{"code":"not_found","message":"no"}}"#);
        assert_eq!(
            encode_error(&failure, Some("x")),
            r#"{"event":"error","data":{"code":"not_found","message":"no","event":"x"}}"#
        );
    }

    #[test]
    fn attachments_are_sent_as_base64() {
        let (zero, one) = (r#"{"_placeholder":true,"num":0}"#, r#"{"_placeholder":true,"num":1}"#);
        let both = payload(&format!("[{zero},{one}]"), &[&[0xff, 0xef], b""]);
        assert_eq!(
            encode_event("a", &both, Some(1)),
            format!(r#"{{"event":"a","data":{zero},"args":[{zero},{one}],"attachments":["/+8=",""],"id":1}}"#)
        );
        assert_eq!(
            encode_reply(2, Ok(&payload(&format!("[{zero}]"), &[b"x"]))),
            format!(r#"{{"id":2,"data":{zero},"attachments":["eA=="]}}"#)
        );
    }
}
