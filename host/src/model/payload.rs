//! The payload of an event, in the form common to all protocols and features.

use std::ops::Range;

use bytes::Bytes;
use roundhouse_contract::{Arguments, BadPayload};
use serde_json::value::RawValue;

/// An event's arguments and the binary attachments that they refer to: `{"_placeholder":true,"num":n}` stands for the
/// n-th of them. The arguments refer to each attachment exactly once.
#[derive(Debug, Clone)]
pub struct Payload {
    /// JSON text: one array of arguments.
    args: Box<str>,
    /// The range of the only argument, cached because most payloads are asked for it more than once.
    only: Option<Range<u32>>,
    /// Binary attachments, in the order of their numbers.
    pub attachments: Vec<Bytes>,
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.args == other.args && self.attachments == other.attachments
    }
}

impl Eq for Payload {}

impl Payload {
    /// The most attachments of one event.
    pub const MAX_ATTACHMENTS: usize = roundhouse_contract::MAX_ATTACHMENTS;

    /// No arguments at all.
    pub fn empty() -> Self {
        Self::from_checked("[]", Vec::new())
    }

    /// One argument of parsed JSON, or none.
    pub fn of_data(data: Option<&RawValue>) -> Self {
        data.map_or_else(Self::empty, |data| Self::of_one(["[", data.get(), "]"].concat()))
    }

    /// One argument.
    pub fn of_json(data: &serde_json::Value) -> Self {
        Self::of_one(format!("[{data}]"))
    }

    /// One argument, between brackets.
    fn of_one(args: String) -> Self {
        let only = u32::try_from(args.len()).ok().map(|length| 1..length - 1);
        Self { only, ..Self::from_checked(args, Vec::new()) }
    }

    /// Untrusted arguments, checked to be a JSON array that refers to each of the attachments exactly once.
    ///
    /// # Errors
    /// Where `args` is anything else.
    pub fn from_args(args: impl Into<Box<str>>, attachments: Vec<Bytes>) -> Result<Self, BadPayload> {
        Ok(Self::of_arguments(Arguments::check(args, attachments.len())?, attachments))
    }

    /// Arguments and attachments that were checked together.
    pub fn of_arguments(arguments: Arguments, attachments: Vec<Bytes>) -> Self {
        let Arguments { text, only } = arguments;
        Self { args: text, only, attachments }
    }

    /// A JSON array and its attachments, both known to be valid.
    pub(crate) fn from_checked(args: impl Into<Box<str>>, attachments: Vec<Bytes>) -> Self {
        Self { args: args.into(), only: None, attachments }
    }

    /// The size of the arguments and attachments, in bytes.
    pub fn bytes(&self) -> usize {
        self.args.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// The arguments as one JSON array.
    pub fn args(&self) -> &str {
        &self.args
    }

    /// The JSON text of the only argument; `None` where there are several, or their number was not checked.
    pub fn only(&self) -> Option<&str> {
        self.only.as_ref().and_then(|only| self.args.get(only.start as usize..only.end as usize))
    }

    /// The JSON text of the first argument; `null` without arguments.
    pub fn first(&self) -> &str {
        self.only().unwrap_or_else(|| self.arguments().first().map_or("null", |first| first.get()))
    }

    /// Each argument's JSON text.
    pub fn arguments(&self) -> Vec<&RawValue> {
        // All constructors leave a JSON array, so this cannot fail.
        serde_json::from_str(&self.args).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_gives_first_and_only_argument() {
        let raw = RawValue::from_string("{\"a\": 1}".to_owned()).unwrap();
        for (payload, only, first) in [
            (Payload::empty(), None, "null"),
            (Payload::of_data(None), None, "null"),
            (Payload::of_data(Some(&raw)), Some("{\"a\": 1}"), "{\"a\": 1}"),
            (Payload::of_json(&serde_json::json!("é")), Some("\"é\""), "\"é\""),
            (Payload::from_args(" [ 1 ] ", Vec::new()).unwrap(), Some("1"), "1"),
            (Payload::from_args("[[1,2] , 3]", Vec::new()).unwrap(), None, "[1,2]"),
            (Payload::from_args("[ ]", Vec::new()).unwrap(), None, "null"),
            (Payload::from_checked("[4]", Vec::new()), None, "4"),
        ] {
            assert_eq!((payload.only(), payload.first()), (only, first), "{payload:?}");
        }
        for bad in ["", "{}", "1", "[1", "[1,]", "[1]x"] {
            assert!(Payload::from_args(bad, Vec::new()).is_err(), "{bad}");
        }
    }
}
