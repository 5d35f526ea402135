//! Ids in payloads, by the contract's rule.

use std::fmt;
use std::ops::Deref;

use roundhouse_contract::is_valid_id;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// An id of a user or a thing: 1 to 128 printable characters without whitespace and without invisible ones (zero-width
/// characters, marks of direction). Decoding refuses any other text.
///
/// ```
/// use roundhouse_sdk::Id;
///
/// #[derive(serde::Deserialize)]
/// struct Owner {
///     id: Id,
/// }
///
/// assert_eq!(&*serde_json::from_str::<Owner>(r#"{"id": "ana"}"#).unwrap().id, "ana");
/// assert!(serde_json::from_str::<Owner>(r#"{"id": "no id"}"#).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Id(String);

impl Id {
    /// The text as an id, if it is valid.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        is_valid_id(text).then(|| Self(text.to_owned()))
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Refuses during decoding, so that the error has the position of the field.
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Id, E> {
                Id::new(text).ok_or_else(|| E::custom(RULE))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// The rule for ids, worded to follow the field's name.
pub(crate) const RULE: &str = "has to be 1 to 128 printable characters without whitespace";
