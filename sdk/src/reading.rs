//! Types of payloads that have several shapes. Values that the feature does not read are not built.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::id::RULE;
use crate::{ClaimedSender, Failure, Id, Member, Sender};

/// An id, or an object that decodes as `T`.
///
/// ```
/// use roundhouse_sdk::{Id, IdOr};
///
/// #[derive(serde::Deserialize)]
/// struct Named {
///     id: Id,
/// }
///
/// for text in [r#""c1""#, r#"{"id": "c1", "more": [{}, {}]}"#] {
///     let id = match serde_json::from_str::<IdOr<Named>>(text).unwrap() {
///         IdOr::Id(id) => id,
///         IdOr::Object(named) => named.id,
///     };
///     assert_eq!(&*id, "c1");
/// }
/// ```
#[derive(Clone, Debug)]
pub enum IdOr<T> {
    /// The id.
    Id(Id),
    /// The object.
    Object(T),
}

impl IdOr<ClaimedSender> {
    /// The connection that sent the payload.
    ///
    /// # Errors
    /// `forbidden` if the sender is not a client, or the payload claims another user's id.
    pub fn verify<'a>(&self, sender: &'a Sender) -> Result<&'a Member, Failure> {
        match self {
            Self::Id(_) => sender.client(),
            Self::Object(claimed) => claimed.verify(sender),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for IdOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdOrObject<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for IdOrObject<T> {
            type Value = IdOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id or an object with one")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<IdOr<T>, E> {
                Id::new(text).map(IdOr::Id).ok_or_else(|| E::custom(format_args!("an id {RULE}")))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<IdOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(IdOr::Object)
            }
        }

        deserializer.deserialize_any(IdOrObject(PhantomData))
    }
}

/// A user or a thing that a payload may name: by an id, or by an object with the id in its field `id`, `_id` or
/// `userId`. Any other value names nothing, and is not an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference(Option<Id>);

/// The fields that may hold the id, in order of precedence.
const NAMING: [&str; 3] = ["id", "_id", "userId"];

impl Reference {
    /// The id, if the payload has one.
    #[must_use]
    pub fn id(&self) -> Option<&Id> {
        self.0.as_ref()
    }

    /// The id, if the payload has one.
    #[must_use]
    pub fn into_id(self) -> Option<Id> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Naming { in_object: true }).map(Self)
    }
}

/// Decodes an id, and skips any other value.
struct Naming {
    /// Whether an object may hold the id in a field.
    in_object: bool,
}

impl<'de> DeserializeSeed<'de> for Naming {
    type Value = Option<Id>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Id>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Naming {
    type Value = Option<Id>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<Id>, E> {
        Ok(Id::new(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Id>, A::Error> {
        let mut found = [const { None }; NAMING.len()];
        while let Some(field) = map.next_key_seed(Field)? {
            match field.filter(|_| self.in_object) {
                Some(field) => found[field] = map.next_value_seed(Self { in_object: false })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found.into_iter().flatten().next())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<Id>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<Id>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Option<Id>, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Option<Id>, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Option<Id>, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Option<Id>, E> {
        Ok(None)
    }
}

/// The position of a field's name in [`NAMING`], without a copy of the name.
struct Field;

impl<'de> DeserializeSeed<'de> for Field {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Field {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(NAMING.iter().position(|own| *own == name))
    }
}

/// Decodes an object, and refuses an array of its fields, which serde accepts too. For `#[serde(deserialize_with =
/// "roundhouse_sdk::object")]`.
///
/// # Errors
/// If the value is not an object, or does not decode as `T`.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Object(PhantomData))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{IdOr, Reference};
    use crate::{ClaimedSender, FromClient, Id, decode};

    #[derive(Debug, Deserialize)]
    enum Message {
        #[serde(rename = "say")]
        Say(FromClient<Say>),
        #[serde(rename = "subscribe")]
        Subscribe(IdOr<ClaimedSender>),
        #[serde(rename = "about")]
        About(FromClient<IdOr<Say>>),
    }

    #[derive(Debug, Deserialize)]
    struct Say {
        body: String,
    }

    fn refused(event: &str, args: &str) -> String {
        match decode::named::<Message>(event, args) {
            Ok(message) => panic!("{args} was read as {message:?}"),
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn errors_name_fields_and_claims() {
        assert!(refused("say", r#"[{"body":7}]"#).starts_with("say: body: invalid type"));
        assert!(refused("say", r#"[{"body":"b","senderId":7}]"#).starts_with("say: senderId: "));
        assert!(refused("say", "[]").contains("missing field `body`"));
        assert!(refused("say", r#"[["b"]]"#).contains("expected an object"));
        assert!(refused("about", r#"["a b"]"#).contains("an id has to be 1 to 128"));
        assert!(refused("subscribe", "[5]").contains("an id or an object"));
    }

    #[test]
    fn id_or_decodes_ids_and_objects() {
        let read = |event, args| decode::named::<Message>(event, args).unwrap();
        assert!(matches!(read("about", r#"["c1"]"#), Message::About(said) if matches!(said.fields, IdOr::Id(_))));
        let object = read("about", r#"[{"body":"b"}]"#);
        assert!(matches!(object, Message::About(FromClient { fields: IdOr::Object(say), .. }) if say.body == "b"));
        assert!(matches!(read("subscribe", r#"[{"x":[{}]}]"#), Message::Subscribe(IdOr::Object(_))));
        assert!(matches!(read("say", r#"[{"body":"b","x":{"y":[]}}]"#), Message::Say(said) if said.fields.body == "b"));
    }

    #[test]
    fn references_decode_ids_and_skip_the_rest() {
        let read = |text: &str| serde_json::from_str::<Reference>(text).unwrap().into_id();
        for text in [r#""ana""#, r#"{"userId":"bob","_id":5,"id":"ana"}"#, r#"{"x":[{}],"_id":"ana","userId":"bob"}"#] {
            assert_eq!(read(text), Id::new("ana"), "{text}");
        }
        for text in ["null", "true", "1", "-1", "1.5", "[\"ana\",{}]", "\"a b\"", "{}", r#"{"id":{"id":"ana"}}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
