//! Messages, events, answers, scopes and settings, as they are on the wire.

use std::num::NonZeroU32;
use std::time::Duration;

use roundhouse_sdk::{Failure, FromClient, Id, IdOr, Identity, Passthrough, check_name};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::status::Status;

/// The operator's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// The time after the last `typing:start` at which typing ends by itself.
    typing_seconds: NonZeroU32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { typing_seconds: const { NonZeroU32::new(10).expect("a default is not 0") } }
    }
}

impl Settings {
    pub(crate) fn typing(&self) -> Duration {
        Duration::from_secs(self.typing_seconds.get().into())
    }
}

roundhouse_sdk::messages! {
    /// Messages of clients and services.
    #[derive(Debug)]
    pub enum Message {
        /// A client subscribes to an account.
        client "subscribe:whatsapp" in REST => SubscribeWhatsapp(Data),
        /// A client unsubscribes from an account.
        client "unsubscribe:whatsapp" in REST => UnsubscribeWhatsapp(Data),
        /// A client subscribes to a contact.
        client "subscribe:contact" in CONTACT => SubscribeContact(Data),
        /// A client unsubscribes from a contact.
        client "unsubscribe:contact" in CONTACT => UnsubscribeContact(Data),
        /// A user writes to a contact.
        client "typing:start" in CONTACT => TypingStart(Data),
        /// A user stops writing.
        client "typing:stop" in CONTACT => TypingStop(Data),
        /// The connection of an account.
        passthrough "whatsapp:connection:status" | "whatsapp:qr" | "whatsapp:ready" | "whatsapp:disconnected" in REST
            => OfAccount(Push),
        /// The status of a message.
        passthrough "message:status:update" in MESSAGE => StatusUpdate(Push),
        /// Other events of a message.
        passthrough "message:received" | "message:sent" | "message:delivered" | "message:read" | "message:failed" in REST
            => OfMessage(Push),
        /// Events of a contact.
        passthrough "contact:created" | "contact:updated" | "contact:deleted" in CONTACT => OfContact(Push),
        /// Events of a flow that a user started.
        passthrough "flow:execution:started" | "flow:execution:completed" | "flow:execution:failed" in PERSON
            => OfFlow(Push),
        /// A notification for all users.
        passthrough "system:notification" in REST => Notification(Push),
        /// An activity of the team.
        passthrough "team:activity" in REST => Activity(Push),
    }
}

/// The scope of a contact, which orders its events.
pub(crate) const CONTACT: &str = "contact:{contactId}";

/// The scope of a message, which keeps its status.
pub(crate) const MESSAGE: &str = "crm-message:{messageId}";

/// The scope of a user, without a state. The rooms `user:` are the host's.
pub(crate) const PERSON: &str = "crm-user:{userId}";

/// The scope of all other events, without a state. It includes events of messages, because they name contacts, accounts
/// or users.
pub(crate) const REST: &str = "crm-events";

/// A client's payload: an id, or an object with one.
pub(crate) type Data = FromClient<IdOr<Named>>;

/// The fields of a client's object. Each is decoded by the events that use it; others ignore it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    account_id: Field,
    whatsapp_account_id: Field,
    user_name: Field,
}

/// The account that the payload names.
pub(crate) fn account(data: &IdOr<Named>) -> Result<Id, Failure> {
    let named = match data {
        IdOr::Id(id) => return Ok(id.clone()),
        IdOr::Object(named) => named,
    };
    let field = if named.account_id.is_some() { &named.account_id } else { &named.whatsapp_account_id };
    read("accountId", field)?.ok_or_else(|| missing("accountId"))
}

/// Refuses a malformed account. `typing:start` and `typing:stop` need not name any.
pub(crate) fn check_account(data: &IdOr<Named>) -> Result<(), Failure> {
    match data {
        IdOr::Id(_) => Ok(()),
        IdOr::Object(named) => read::<Id>("whatsappAccountId", &named.whatsapp_account_id).map(drop),
    }
}

/// The name of a user who types: the identity's, else the payload's, else the user's id.
pub(crate) fn name_of(data: &IdOr<Named>, identity: &Identity) -> Result<String, Failure> {
    let claimed: Option<String> = match data {
        IdOr::Id(_) => None,
        IdOr::Object(named) => read("userName", &named.user_name)?,
    };
    claimed.as_deref().map_or(Ok(()), |name| check_name("userName", name, MAX_NAME_CHARS))?;
    Ok(identity.name_or(claimed.as_deref()).to_owned())
}

/// A service's payload, which is passed on to the recipients that its ids name.
pub(crate) type Push = Passthrough<Ids>;

/// The fields of a service's payload that name recipients. Each is decoded by the events that use it; others ignore it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ids {
    account_id: Field,
    whatsapp_account_id: Field,
    contact_id: Field,
    user_id: Field,
    status: Field,
    roles: Field,
}

/// A field as received, if it is present and not null.
type Field = Option<Box<RawValue>>;

impl Ids {
    /// The account, if one is named.
    pub(crate) fn account(&self) -> Result<Option<Id>, Failure> {
        let one = read("accountId", &self.account_id)?;
        let other = read("whatsappAccountId", &self.whatsapp_account_id)?;
        if one.is_some() && other.is_some() && one != other {
            return Err(Failure::bad_request("accountId and whatsappAccountId are two accounts; leave one out"));
        }
        Ok(one.or(other))
    }

    /// The contact, if one is named.
    pub(crate) fn contact(&self) -> Result<Option<Id>, Failure> {
        read("contactId", &self.contact_id)
    }

    /// The user, if one is named.
    pub(crate) fn user(&self) -> Result<Option<Id>, Failure> {
        read("userId", &self.user_id)
    }

    /// The status of the message.
    pub(crate) fn status(&self) -> Result<Status, Failure> {
        let name: String = read("status", &self.status)?.ok_or_else(|| missing("status"))?;
        Status::named(&name)
            .ok_or_else(|| Failure::bad_request("status has to be Queued, Sent, Delivered, Read or Failed"))
    }

    /// The roles, if any are named.
    pub(crate) fn roles(&self) -> Result<Option<Vec<String>>, Failure> {
        let roles: Option<Vec<String>> = read("roles", &self.roles)?;
        match roles {
            Some(roles) if roles.is_empty() => {
                Err(Failure::bad_request("roles names nobody; leave it out to reach everybody"))
            }
            roles => Ok(roles),
        }
    }
}

fn read<T: DeserializeOwned>(name: &str, field: &Field) -> Result<Option<T>, Failure> {
    let Some(text) = field else { return Ok(None) };
    serde_json::from_str(text.get()).map(Some).map_err(|error| Failure::bad_request(format!("{name}: {error}")))
}

/// The greatest length of a display name, in characters: that of an id, because a name is shown in one line.
const MAX_NAME_CHARS: usize = 128;

pub(crate) fn missing(field: &str) -> Failure {
    Failure::bad_request(format!("{field} is missing"))
}

/// A user has started or stopped typing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypingIndicator<'a> {
    pub(crate) contact_id: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) user_name: &'a str,
    pub(crate) is_typing: bool,
}

roundhouse_sdk::outgoing! {
    pub(crate) const EMITS;
    TypingIndicator<'_> => "typing:indicator",
}

/// The acknowledgement of a subscription to an account, or of its end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OnAccount<'a> {
    pub(crate) account_id: &'a str,
}

/// The acknowledgement of a subscription to a contact, or of its end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OnContact<'a> {
    pub(crate) contact_id: &'a str,
}

/// The acknowledgement of a status that went backwards.
#[derive(Debug, Serialize)]
pub(crate) struct Dropped {
    pub(crate) delivered: u32,
    pub(crate) dropped: bool,
    /// The present status of the message.
    pub(crate) status: Status,
}

/// One contact's figures; all 0 for other scopes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContactStats {
    pub(crate) subscribers: u32,
    pub(crate) connections: u32,
    pub(crate) typing: usize,
}

/// The stats: the figures of all contacts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    /// The number of contacts with a subscriber.
    pub(crate) contacts: usize,
    /// The number of subscribers; a user who has subscribed to two contacts counts twice.
    pub(crate) subscribers: u32,
    pub(crate) connections: u32,
    pub(crate) typing: usize,
}
