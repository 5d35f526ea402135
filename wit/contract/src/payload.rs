//! The arguments of an event as JSON text.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::placeholders::{BadPlaceholders, check_placeholders};
use crate::surrogates::without_lone_surrogates;

/// Arguments that have been checked: JSON text of one array, which refers to each attachment exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The JSON text.
    pub text: Box<str>,
    /// The position of the only argument in the text, if there is exactly one.
    pub only: Option<Range<u32>>,
}

/// Arguments that cannot be sent.
#[derive(Debug)]
pub enum BadPayload {
    /// The arguments are not JSON, or not an array.
    NotAnArray(serde_json::Error),
    /// The placeholders do not fit the attachments.
    Placeholders(BadPlaceholders),
}

impl fmt::Display for BadPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnArray(error) => write!(f, "the arguments are not a JSON array: {error}"),
            Self::Placeholders(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BadPayload {}

impl Arguments {
    /// Checks JSON text, in which lone surrogates are replaced. Without attachments, an object that looks like a
    /// placeholder is data.
    ///
    /// # Errors
    /// If `text` is not a JSON array, or does not refer to each attachment exactly once.
    pub fn check(text: impl Into<Box<str>>, attachments: usize) -> Result<Self, BadPayload> {
        let mut text = text.into();
        if let Cow::Owned(mended) = without_lone_surrogates(&text) {
            text = mended.into();
        }
        let Only(only) = serde_json::from_str(&text).map_err(BadPayload::NotAnArray)?;
        // The argument borrows from the text, so its position is the distance of the two pointers.
        let only = only.and_then(|only| {
            let start = only.get().as_ptr().addr() - text.as_ptr().addr();
            Some(start.try_into().ok()?..(start + only.get().len()).try_into().ok()?)
        });
        if attachments > 0 {
            check_placeholders(&text, attachments).map_err(BadPayload::Placeholders)?;
        }
        Ok(Self { text, only })
    }
}

/// The only element of an array; `None` if the array has none or several.
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

    fn refusal(args: &str, attachments: usize) -> String {
        Arguments::check(args, attachments).err().map(|error| error.to_string()).unwrap_or_default()
    }

    const ZERO: &str = r#"{"_placeholder":true,"num":0}"#;
    const ONE: &str = r#"{"_placeholder":true,"num":1}"#;

    #[test]
    fn arguments_may_refer_to_attachments_anywhere() {
        for (args, attachments) in [
            (format!(r#"[1,{{"deep":[{ONE}]}},{ZERO}]"#), 2),
            ("[]".to_owned(), 0),
            (format!("[{ZERO},{ZERO}]"), 0),
            (format!(r#"[{{"_placeholder":false,"num":9}},{ZERO}]"#), 1),
        ] {
            assert_eq!(refusal(&args, attachments), "", "{args}");
        }
    }

    #[test]
    fn arguments_not_matching_attachments_are_refused() {
        for (args, attachments, message) in [
            ("[]".to_owned(), 1, "has no placeholder"),
            (format!("[{ZERO}]"), 2, "has no placeholder"),
            (format!("[{ZERO},{ZERO}]"), 1, "another's too"),
            (format!("[{ONE}]"), 1, "of no attachment"),
            (r#"[{"_placeholder":true}]"#.to_owned(), 1, "it is not"),
            (r#"[{"_placeholder":true,"num":0,"more":1}]"#.to_owned(), 1, "it is not"),
            ("[]".to_owned(), 11, "at most 10 attachments"),
            ("{}".to_owned(), 0, "not a JSON array"),
        ] {
            let refusal = refusal(&args, attachments);
            assert!(refusal.contains(message), "{args}: {refusal}");
        }
    }
}
