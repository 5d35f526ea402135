//! The payload of a client's message: its fields, and the sender that it claims.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{ClaimedSender, Failure, Member, Sender};

/// A client's payload: the fields that the feature reads, and the sender that the payload claims. Both are read in one
/// pass; `T` does not see the fields `agentId`, `senderId` and `userId`.
///
/// ```
/// use roundhouse_sdk::{FromClient, Identity, Member, Sender};
///
/// #[derive(serde::Deserialize)]
/// struct Say {
///     body: String,
/// }
///
/// let text = r#"{"body": "hi", "senderId": {"_id": "ana"}, "more": [{}, {}]}"#;
/// let payload: FromClient<Say> = serde_json::from_str(text).unwrap();
///
/// let identity = |id: &str| Identity { user_id: id.to_owned(), name: None, roles: vec![], claims: "{}".to_owned() };
/// let sender = |id| Sender::Client(Member { connection: "c1".to_owned(), identity: identity(id) });
/// assert!(payload.clone().verify(&sender("ben")).is_err());
/// let ana = sender("ana");
/// let (member, say) = payload.verify(&ana).unwrap();
/// assert_eq!((member.user_id(), &*say.body), ("ana", "hi"));
/// # impl Clone for Say { fn clone(&self) -> Self { Say { body: self.body.clone() } } }
/// ```
#[derive(Clone, Debug)]
pub struct FromClient<T> {
    pub(crate) fields: T,
    claimed: ClaimedSender,
}

impl<T> FromClient<T> {
    /// The connection that sent the payload, and the fields.
    ///
    /// # Errors
    /// `forbidden` if the sender is not a client, or the payload claims another user's id.
    pub fn verify(self, sender: &Sender) -> Result<(&Member, T), Failure> {
        Ok((self.claimed.verify(sender)?, self.fields))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for FromClient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FromClientVisitor(PhantomData))
    }
}

struct FromClientVisitor<T>(PhantomData<T>);

impl<T> FromClientVisitor<T> {
    /// A payload that is not an object claims no sender.
    fn unclaimed<'de, E: Error>(value: impl IntoDeserializer<'de, E>) -> Result<FromClient<T>, E>
    where
        T: Deserialize<'de>,
    {
        let fields = T::deserialize(value.into_deserializer())?;
        Ok(FromClient { fields, claimed: ClaimedSender::default() })
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for FromClientVisitor<T> {
    type Value = FromClient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FromClient<T>, A::Error> {
        let mut claimed = ClaimedSender::default();
        let fields = T::deserialize(MapAccessDeserializer::new(Unclaimed { map, claimed: &mut claimed }))?;
        Ok(FromClient { fields, claimed })
    }

    /// A payload without data is read as an object without fields.
    fn visit_unit<E: Error>(self) -> Result<FromClient<T>, E> {
        let fields = T::deserialize(MapDeserializer::new(std::iter::empty::<((), ())>()))?;
        Ok(FromClient { fields, claimed: ClaimedSender::default() })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<FromClient<T>, E> {
        Self::unclaimed(text)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<FromClient<T>, E> {
        Self::unclaimed(value)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<FromClient<T>, E> {
        Self::unclaimed(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<FromClient<T>, E> {
        Self::unclaimed(number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<FromClient<T>, E> {
        Self::unclaimed(number)
    }
}

/// The fields of an object without the claims, which go to `claimed`.
struct Unclaimed<'a, A> {
    map: A,
    claimed: &'a mut ClaimedSender,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Unclaimed<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(Key(key)) = self.map.next_key()? {
            match self.claimed.claim_mut(&key) {
                Some((field, Some(_))) => return Err(A::Error::duplicate_field(field)),
                Some((_, claim)) => *claim = self.map.next_value()?,
                None => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A field's name, copied only if it has escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(KeyVisitor)
    }
}
