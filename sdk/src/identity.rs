//! The identity behind a connection or a message, as the host authenticated it, and checks of the claims in payloads.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use roundhouse_contract::is_harmless_name;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::Failure;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's id.
    pub user_id: String,
    /// The display name, if the identity has one.
    pub name: Option<String>,
    /// The roles that the host knows.
    pub roles: Vec<String>,
    /// Further claims, as the text of a JSON object.
    pub claims: String,
}

impl Identity {
    /// A further claim, if the identity has it and it decodes as `T`.
    #[must_use]
    pub fn claim<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let claims: BTreeMap<String, &RawValue> = serde_json::from_str(&self.claims).ok()?;
        serde_json::from_str(claims.get(name)?.get()).ok()
    }

    /// Whether the user has this role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// Refuses a payload that claims another user's id: `field` is the name of the field, `claimed` its value.
    pub fn must_be(&self, field: &str, claimed: Option<&str>) -> Result<(), Failure> {
        match claimed {
            Some(id) if id != self.user_id => {
                Err(Failure::forbidden(format!("{field} is not who you are; leave it out")))
            }
            _ => Ok(()),
        }
    }
}

/// The sender that a client's payload claims, in any of the fields `agentId`, `senderId` and `userId`: an id, or an object
/// with an `_id`. A claim is optional, and only checked: the host knows the sender.
#[derive(Clone, Debug, Default, Deserialize)]
// Clients see the text of `expecting`, so it does not change with the type's name.
#[serde(rename_all = "camelCase", expecting = "struct Claims")]
pub struct ClaimedSender {
    agent_id: Option<Claimed>,
    sender_id: Option<Claimed>,
    user_id: Option<Claimed>,
}

impl ClaimedSender {
    /// The connection that sent the payload.
    ///
    /// # Errors
    /// `forbidden` if the sender is not a client, or the payload claims another user's id.
    pub fn verify<'a>(&self, sender: &'a Sender) -> Result<&'a Member, Failure> {
        let member = sender.client()?;
        self.check(&member.identity)?;
        Ok(member)
    }

    /// The claim of the field with this name.
    pub(crate) fn claim_mut(&mut self, field: &str) -> Option<(&'static str, &mut Option<Claimed>)> {
        match field {
            "agentId" => Some(("agentId", &mut self.agent_id)),
            "senderId" => Some(("senderId", &mut self.sender_id)),
            "userId" => Some(("userId", &mut self.user_id)),
            _ => None,
        }
    }

    /// Refuses a payload that claims another user's id.
    pub fn check(&self, identity: &Identity) -> Result<(), Failure> {
        for (field, claimed) in [("agentId", &self.agent_id), ("senderId", &self.sender_id), ("userId", &self.user_id)]
        {
            identity.must_be(field, claimed.as_deref())?;
        }
        Ok(())
    }
}

/// A claimed id: a text, or an object with an `_id` or `id`.
#[derive(Clone, Debug)]
pub struct Claimed(String);

impl Deref for Claimed {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Claimed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdOrPerson;

        impl<'de> Visitor<'de> for IdOrPerson {
            type Value = Claimed;

            /// Names the fields, because with `#[serde(flatten)]` the error has no position.
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("agentId, senderId and userId to be an id or an object with an _id")
            }

            fn visit_str<E: Error>(self, id: &str) -> Result<Claimed, E> {
                Ok(Claimed(id.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Claimed, A::Error> {
                Person::deserialize(MapAccessDeserializer::new(map)).map(|person| Claimed(person.id))
            }
        }

        deserializer.deserialize_any(IdOrPerson)
    }
}

#[derive(Deserialize)]
struct Person {
    #[serde(rename = "_id", alias = "id")]
    id: String,
}

/// A connection and its user. A user may have several connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The connection's id.
    pub connection: String,
    /// The user.
    pub identity: Identity,
}

impl Member {
    /// The user's id.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.identity.user_id
    }
}

/// The sender of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sender {
    /// A client, by its connection.
    Client(Member),
    /// A backend service, by the name of its API key.
    Service(String),
    /// A kind of sender that a later host added: its name, and its data as JSON text.
    Other(String, String),
}

impl Sender {
    /// The connection that sent the message; `forbidden` if the sender is not a client.
    pub fn client(&self) -> Result<&Member, Failure> {
        match self {
            Self::Client(member) => Ok(member),
            _ => Err(Failure::forbidden("only a client may send this")),
        }
    }

    /// The name of the service that sent the message; `forbidden` if the sender is not a service.
    pub fn service(&self) -> Result<&str, Failure> {
        match self {
            Self::Service(name) => Ok(name),
            _ => Err(Failure::forbidden("only a service may send this")),
        }
    }
}

impl Identity {
    /// The display name: that of the identity, else the one that a payload claims, else the id.
    pub fn name_or<'a>(&'a self, claimed: Option<&'a str>) -> &'a str {
        let own = self.name.as_deref().filter(|name| !name.is_empty());
        own.or(claimed).unwrap_or(&self.user_id)
    }
}

/// Refuses a name that cannot be shown in one line, or has invisible characters (zero-width characters, marks of
/// direction). The error is `bad_request`, with the rule for the field.
pub fn check_name(field: &str, name: &str, max_chars: usize) -> Result<(), Failure> {
    let is_blank = name.chars().all(char::is_whitespace);
    if !is_blank && name.chars().count() <= max_chars && is_harmless_name(name) {
        return Ok(());
    }
    Err(Failure::bad_request(format!("{field} has to be 1 to {max_chars} printable characters, and not only spaces")))
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn check_name_refuses_invisible_characters() {
        for good in ["Ana", "José", "👩\u{200d}💻", "می\u{200c}خواهم"] {
            assert!(check_name("name", good, 20).is_ok(), "{good:?}");
        }
        for bad in
            ["", " ", "a\nb", "A\u{200b}na", "\u{202e}nimda", "a\u{2066}b", "\u{feff}a", "a\u{200d}b", "a\u{e0041}"]
        {
            assert!(check_name("name", bad, 20).is_err(), "{bad:?}");
        }
    }
}
