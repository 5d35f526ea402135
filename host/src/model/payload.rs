//! What an event carries, in the form that all protocols and features share.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::placeholders::{self, BadPlaceholders};
use super::surrogates::without_lone_surrogates;

/// An event's arguments and the binary attachments that they refer to: `{"_placeholder":true,"num":n}` stands for the
/// n-th of them. Where there are attachments, the arguments refer to each exactly once.
#[derive(Debug, Clone)]
pub struct Payload {
    /// JSON text: one array of arguments.
    args: Box<str>,
    /// Where the only argument is, if there is one and this was seen already: most payloads are asked for it more than once.
    only: Option<Range<u32>>,
    /// Binary attachments, in the order of their numbers.
    pub attachments: Vec<Bytes>,
}

/// Arguments that cannot be a payload.
#[derive(Debug, thiserror::Error)]
pub enum BadPayload {
    /// They are not JSON, or not an array.
    #[error("the arguments are not a JSON array: {0}")]
    NotAnArray(#[from] serde_json::Error),
    /// They and the attachments do not belong together.
    #[error(transparent)]
    Placeholders(#[from] BadPlaceholders),
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.args == other.args && self.attachments == other.attachments
    }
}

impl Eq for Payload {}

impl Payload {
    /// The most attachments of one event: as many as the reference decoder of Socket.IO takes, so that what one client
    /// sends every other can read.
    pub const MAX_ATTACHMENTS: usize = 10;

    /// No arguments at all.
    pub fn empty() -> Self {
        Self::from_checked("[]", Vec::new())
    }

    /// One argument, which was parsed before; `None` for no argument.
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

    /// Arguments from elsewhere, checked to be a JSON array that refers to each of the attachments.
    ///
    /// # Errors
    /// Where `args` is anything else.
    pub fn from_args(args: impl Into<Box<str>>, attachments: Vec<Bytes>) -> Result<Self, BadPayload> {
        let mut args = args.into();
        if let Cow::Owned(mended) = without_lone_surrogates(&args) {
            args = mended.into();
        }
        let Only(only) = serde_json::from_str(&args)?;
        // It is a part of the array, so that it begins so far behind it.
        let only = only.and_then(|only| {
            let start = only.get().as_ptr().addr() - args.as_ptr().addr();
            Some(start.try_into().ok()?..(start + only.get().len()).try_into().ok()?)
        });
        if !attachments.is_empty() {
            Self::check_placeholders(&args, attachments.len())?;
        }
        Ok(Self { args, only, attachments })
    }

    /// A JSON array and its attachments, of which the caller knows already that they are that.
    pub(crate) fn from_checked(args: impl Into<Box<str>>, attachments: Vec<Bytes>) -> Self {
        Self { args: args.into(), only: None, attachments }
    }

    /// Checks that the placeholders in `args` are exactly those of this many attachments, in one pass that builds
    /// nothing. What looks like a placeholder in an event without attachments is data like any other: nobody asks.
    ///
    /// # Errors
    /// Where one is missing, there twice or refers to nothing, where there are too many attachments, and where `args` is
    /// not JSON or is nested deeper than 128 levels.
    pub fn check_placeholders(args: &str, attachments: usize) -> Result<(), BadPlaceholders> {
        placeholders::check(args, attachments)
    }

    /// How much it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.args.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// The arguments as one JSON array.
    pub fn args(&self) -> &str {
        &self.args
    }

    /// The JSON text of the only argument, where it is known that there is but one.
    pub fn only(&self) -> Option<&str> {
        self.only.as_ref().and_then(|only| self.args.get(only.start as usize..only.end as usize))
    }

    /// The JSON text of the first argument; `null` where there is none.
    pub fn first(&self) -> &str {
        self.only().unwrap_or_else(|| self.arguments().first().map_or("null", |first| first.get()))
    }

    /// Each argument's JSON text.
    pub fn arguments(&self) -> Vec<&RawValue> {
        // All constructors leave a JSON array, so that there is nothing to fail on.
        serde_json::from_str(&self.args).unwrap_or_default()
    }
}

/// An array, and its only element where it has one.
struct Only<'a>(Option<&'a RawValue>);

impl<'de> Deserialize<'de> for Only<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = Only<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Only<'de>, A::Error> {
                let mut only = elements.next_element()?;
                while elements.next_element::<IgnoredAny>()?.is_some() {
                    only = None;
                }
                Ok(Only(only))
            }
        }
        json.deserialize_seq(Array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_argument_is_found_wherever_it_stands() {
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
