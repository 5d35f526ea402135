//! A payload that a feature passes on whole and reads in part.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::Payload;

/// A payload and the fields that the feature reads. It is serialised as it was received, with the fields that the feature
/// does not know.
///
/// ```
/// use roundhouse_sdk::Passthrough;
///
/// #[derive(serde::Deserialize)]
/// struct Called {
///     name: String,
/// }
///
/// let text = r#"{"name":"Ana","and":["more",1.50]}"#;
/// let called: Passthrough<Called> = serde_json::from_str(text).unwrap();
/// assert_eq!(called.fields.name, "Ana");
/// assert_eq!(serde_json::to_string(&called).unwrap(), text);
/// ```
#[derive(Clone, Debug)]
pub struct Passthrough<T> {
    /// The fields that the feature reads.
    pub fields: T,
    text: Box<RawValue>,
}

impl<T> Passthrough<T> {
    /// The payload as received, as JSON text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.get()
    }

    /// The payload as the one argument of an event.
    #[must_use]
    pub fn payload(&self) -> Payload {
        Payload::from_args(format!("[{}]", self.text()))
    }

    /// Whether the payload is a JSON object, and not a bare id in its place.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.text().starts_with('{')
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Passthrough<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        // The outer error keeps the position in the inner error's text.
        let fields = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self { fields, text })
    }
}

impl<T> Serialize for Passthrough<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::Passthrough;
    use crate::{Id, decode};

    #[derive(Debug, Deserialize)]
    enum Message {
        #[serde(rename = "item:new")]
        New(Passthrough<Item>),
    }

    #[derive(Debug, Deserialize)]
    struct Item {
        #[serde(rename = "id")]
        _id: Id,
    }

    fn refused(args: &str) -> String {
        match decode::named("item:new", args) {
            Ok(Message::New(called)) => panic!("{args} was read as {called:?}"),
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn errors_name_the_field_inside() {
        let rule = "has to be 1 to 128 printable characters without whitespace";
        assert_eq!(refused(r#"[{"id": "a b"}]"#), format!("item:new: id: {rule}"));
        assert_eq!(refused(r#"[{"more": {}, "id": ""}]"#), format!("item:new: id: {rule}"));
        assert_eq!(refused(r#"[{"id": 7}]"#), "item:new: id: invalid type: integer `7`, expected an id");
        assert_eq!(refused(r#"[{"more": 1}]"#), "item:new: missing field `id`");
        assert_eq!(refused(r#"["a"]"#), "item:new: invalid type: string \"a\", expected struct Item");
        assert!(refused("[]").contains("expected struct Item"));
    }

    #[test]
    fn is_object_distinguishes_a_bare_id() {
        assert!(serde_json::from_str::<Passthrough<serde_json::Value>>(" {}").unwrap().is_object());
        assert!(!serde_json::from_str::<Passthrough<serde_json::Value>>(" \"c1\"").unwrap().is_object());
    }
}
