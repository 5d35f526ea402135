//! Messages, events and answers, as they are on the wire, and the names in which rooms and channels differ.

use roundhouse_sdk::{ClaimedSender, Failure, FromClient, Id, Identity};
use serde::{Deserialize, Serialize};

/// The operator's settings: none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {}

roundhouse_sdk::messages! {
    /// Messages of clients. Rooms and channels differ in names alone.
    #[derive(Debug)]
    pub enum Message {
        /// A connection joins.
        client "joinRoom" in ROOM, client "joinChannel" in CHANNEL => Join(ClaimedSender),
        /// A connection leaves.
        client "leaveRoom" in ROOM, client "leaveChannel" in CHANNEL => Leave(ClaimedSender),
        /// A user sends a message.
        client "roomMessage" in ROOM, client "channelMessage" in CHANNEL => Say(FromClient<Say>),
        /// A user asks for a page of stored messages.
        client "roomHistory" in ROOM, client "channelHistory" in CHANNEL => History(FromClient<History>),
    }
}

/// A message to a room.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Say {
    body: String,
    client_id: Option<Id>,
}

/// The greatest length of a body, in characters.
const MAX_BODY_CHARS: usize = 16_384;

impl Say {
    /// The body of the message, and the id that the client gave it.
    pub(crate) fn checked(self) -> Result<(String, Option<Id>), Failure> {
        if !(1..=MAX_BODY_CHARS).contains(&self.body.chars().count()) {
            return Err(Failure::bad_request(format!("body has to be 1 to {MAX_BODY_CHARS} characters")));
        }
        Ok((self.body, self.client_id))
    }
}

/// A request for stored messages.
#[derive(Debug, Deserialize)]
pub struct History {
    before: Option<Id>,
    limit: Option<u32>,
}

/// The default number of messages on a page of the history: a screenful and some.
const DEFAULT_HISTORY: u32 = 50;

/// The greatest number of messages on a page of the history.
const MAX_HISTORY: u32 = 100;

impl History {
    /// The id of the message before which the page ends, and the number of messages.
    pub(crate) fn checked(self) -> Result<(Option<Id>, u32), Failure> {
        let limit = self.limit.unwrap_or(DEFAULT_HISTORY);
        if !(1..=MAX_HISTORY).contains(&limit) {
            return Err(Failure::bad_request(format!("limit has to be 1 to {MAX_HISTORY}")));
        }
        Ok((self.before, limit))
    }
}

const ROOM: &str = "room:{roomId}";
const CHANNEL: &str = "channel:{channelId}";

/// One of the two families: the names in which they differ.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) template: &'static str,
    pub(crate) placeholder: &'static str,
    pub(crate) join: &'static str,
    pub(crate) message: &'static str,
    pub(crate) received: &'static str,
    pub(crate) sent: &'static str,
    pub(crate) confirmed: &'static str,
    pub(crate) failed: &'static str,
}

pub(crate) const ROOMS: Family = Family {
    template: ROOM,
    placeholder: "roomId",
    join: "joinRoom",
    message: "roomMessage",
    received: "roomMessageRecieved",
    sent: "roomMessageSent",
    confirmed: "roomMessageConfirmed",
    failed: "roomMessageFailed",
};

pub(crate) const CHANNELS: Family = Family {
    template: CHANNEL,
    placeholder: "channelId",
    join: "joinChannel",
    message: "channelMessage",
    received: "channelMessageRecieved",
    sent: "channelMessageSent",
    confirmed: "channelMessageConfirmed",
    failed: "channelMessageFailed",
};

impl Family {
    pub(crate) fn of(template: &str) -> &'static Self {
        if template == CHANNELS.template { &CHANNELS } else { &ROOMS }
    }

    pub(crate) fn emits(&self) -> [&'static str; 4] {
        [self.received, self.sent, self.confirmed, self.failed]
    }

    pub(crate) fn place<'a>(&self, id: &'a str) -> Place<'a> {
        if self.placeholder == CHANNELS.placeholder { Place::Channel(id) } else { Place::Room(id) }
    }
}

/// The room or channel of a message, under its family's name.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) enum Place<'a> {
    #[serde(rename = "roomId")]
    Room(&'a str),
    #[serde(rename = "channelId")]
    Channel(&'a str),
}

/// The author of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Author {
    #[serde(rename = "_id")]
    pub(crate) id: String,
    pub(crate) username: String,
    pub(crate) email: Option<String>,
}

impl Author {
    pub(crate) fn of(identity: &Identity) -> Self {
        let name = identity.name.as_deref().filter(|name| !name.is_empty());
        Self {
            id: identity.user_id.clone(),
            username: name.unwrap_or(&identity.user_id).to_owned(),
            email: identity.claim("email"),
        }
    }
}

/// A message as it is stored: all that its confirmation and the history show.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    pub(crate) temp_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    pub(crate) body: String,
    pub(crate) sender_id: Author,
    pub(crate) created_at: String,
}

/// A message before it is stored.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Received<'a> {
    #[serde(rename = "_id")]
    pub(crate) id: &'a str,
    pub(crate) temp_id: &'a str,
    pub(crate) body: &'a str,
    pub(crate) sender_id: &'a Author,
    #[serde(flatten)]
    pub(crate) place: Place<'a>,
    pub(crate) is_optimistic: bool,
    pub(crate) created_at: &'a str,
}

/// The receipt of a message: an event, and without the client's id an acknowledgement.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sent<'a> {
    pub(crate) temp_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<&'a str>,
}

/// A message that is stored.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Confirmed<'a> {
    #[serde(rename = "_id")]
    pub(crate) id: &'a str,
    pub(crate) temp_id: &'a str,
    pub(crate) body: &'a str,
    pub(crate) sender_id: &'a Author,
    #[serde(flatten)]
    pub(crate) place: Place<'a>,
    pub(crate) is_confirmed: bool,
    pub(crate) created_at: &'a str,
}

impl<'a> Confirmed<'a> {
    /// The confirmation of a stored message, under the temporary id that its sender waits for.
    pub(crate) fn new(place: Place<'a>, id: &'a str, temp_id: &'a str, stored: &'a Stored) -> Self {
        Self {
            id,
            temp_id,
            body: &stored.body,
            sender_id: &stored.sender_id,
            place,
            is_confirmed: true,
            created_at: &stored.created_at,
        }
    }
}

/// The failure of a message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failed<'a> {
    pub(crate) temp_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<&'a str>,
    pub(crate) error: Reason<'a>,
    pub(crate) retryable: bool,
}

/// The reason of a failure.
#[derive(Debug, Serialize)]
pub(crate) struct Reason<'a> {
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
}

/// The acknowledgement of a join or leave.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Connected<'a> {
    #[serde(flatten)]
    pub(crate) place: Place<'a>,
    pub(crate) connected_users: u32,
}

/// A page of the history: an acknowledgement.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HistoryPage {
    /// The messages in the form of [`Confirmed`], newest first.
    pub(crate) messages: Vec<Box<serde_json::value::RawValue>>,
    pub(crate) has_more: bool,
}
