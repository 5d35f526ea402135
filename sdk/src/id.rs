//! Ids in payloads, as the contract wants them.

use std::fmt;
use std::ops::Deref;

use roundhouse_contract::is_valid_id;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// An id of a person or a thing: 1 to 128 printable characters without whitespace, all of which can be seen (no zero-width
/// ones, none that turns the direction of text). A payload with another is refused where it is read.
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
    /// The id that a text is, if it is one.
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
        /// Refuses while the text is read, so that the error knows which field it is about.
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

/// What an id has to be, so that it can follow the field's name.
pub(crate) const RULE: &str = "has to be 1 to 128 printable characters without whitespace";
