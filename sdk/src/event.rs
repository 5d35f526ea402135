//! Events, and the facts that the host gives with each of them.

use serde::de::DeserializeOwned;

use crate::{Failure, Member, Payload, Sender};

/// The facts beside the event and the state. Features read them through [`Context`](crate::Context).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Milliseconds since 1970.
    pub now: u64,
    /// The seed of random numbers, different for each event.
    pub seed: u64,
    /// Number of this event in its scope, from 1.
    pub sequence: u64,
    /// The scope's key, which is its room's name.
    pub scope: String,
    /// The values of the template's placeholders, in their order.
    pub params: Vec<String>,
    /// Connections in the scope's room, before this event's effects.
    pub room_connections: u32,
    /// Different users in the scope's room, before this event's effects.
    pub room_users: u32,
    /// Whether the event's connection is in the scope's room.
    pub connection_in_room: bool,
    /// The number of connections in the scope's room that belong to the user of the event's connection.
    pub user_connections: u32,
    /// The operator's settings, a JSON object.
    pub settings: String,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message of a client or a service.
    Message(Message),
    /// Another feature or an operator joined a connection to the scope's room.
    Joined(Member),
    /// A connection that was in the scope's room, or was watched, has left or disconnected.
    Left(Member, LeaveReason),
    /// The client of a connection that takes part in the scope has lost its transport, and may resume.
    Away(Member),
    /// The client of a connection that was away has resumed it.
    Back(Member),
    /// A timer is due.
    Timer(Timer),
    /// A client's acknowledgement, or its absence.
    Acknowledgement(Acknowledgement),
    /// A query of a service.
    Query(Query),
    /// The answers of all scopes to a query that names none.
    Gathered(Query, Answers),
    /// The outcome of a save.
    Saved(Saved),
    /// The outcome of a fetch.
    Fetched(Fetched),
    /// An event of a later host: its name, and its data as JSON text.
    Other(String, String),
}

/// A client's or a service's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The event's name.
    pub event: String,
    /// The sender.
    pub sender: Sender,
    /// The arguments and attachments.
    pub payload: Payload,
    /// Whether the sender asked for an acknowledgement.
    pub wants_reply: bool,
}

/// The reason of a departure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// The client left, or another feature or an operator removed the connection from the room.
    Left,
    /// The connection has ended, for whatever reason.
    Disconnected,
}

impl LeaveReason {
    /// The reason's wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Disconnected => "disconnected",
        }
    }
}

/// A timer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The timer's name in the scope.
    pub name: String,
    /// The data with which the timer was set, as JSON text.
    pub payload: String,
    /// The time at which the timer was due, in epoch milliseconds; `now` may be later.
    pub due: u64,
}

impl Timer {
    /// Decodes the data with which the timer was set.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.payload).map_err(|error| Failure::internal(format!("timer {}: {error}", self.name)))
    }
}

/// A client's answer to an event that asked for an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The tag that was given with the emit.
    pub tag: String,
    /// The connection that answers.
    pub connection: String,
    /// The answer, or the reason why it is missing: `timeout`, `disconnected` or `too_large`.
    pub answer: Result<Payload, Failure>,
}

/// A query of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The query's name.
    pub name: String,
    /// The data, as JSON text.
    pub data: String,
}

impl Query {
    /// Decodes the data.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.data).map_err(|error| Failure::bad_request(format!("{}: {error}", self.name)))
    }
}

/// The answers of all scopes to a query that names none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// One answer of each scope as JSON text, in no order.
    pub texts: Vec<String>,
    /// The number of scopes that were not asked, because they are more than the host asks at once.
    pub omitted: u32,
}

impl Answers {
    /// Decodes the answers.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<Vec<T>, Failure> {
        self.texts
            .iter()
            .map(|text| serde_json::from_str(text))
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::internal(format!("a scope's answer: {error}")))
    }
}

/// The outcome of a save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The tag that was given with the save.
    pub tag: String,
    /// The collection.
    pub collection: String,
    /// The document as JSON text, so that a feature need not keep it meanwhile: the stored one (the first with the key,
    /// if the save had one), or the one that was not stored.
    pub text: String,
    /// Whether the host was restarted since the save: if so, all connections from before the restart are gone.
    pub restored: bool,
    /// The id of the stored document (of the first with the key, if the save had one), or the failure.
    pub outcome: Result<String, StoreFailure>,
}

impl Saved {
    /// Decodes the document.
    pub fn document<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        read(&self.text)
    }
}

/// The failure of a save or a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFailure {
    /// The code and the message for senders.
    pub failure: Failure,
    /// Whether a later attempt may succeed.
    pub retryable: bool,
}

/// The outcome of a [`fetch`](crate::Context::fetch).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The tag that was given with the fetch.
    pub tag: String,
    /// The documents, or the failure.
    pub outcome: Result<Page, StoreFailure>,
}

/// A page of a scope's documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The documents, the newest first.
    pub documents: Vec<Document>,
    /// Whether there are older documents.
    pub has_more: bool,
}

/// A stored document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The document's id in the store.
    pub id: String,
    /// The document as JSON text.
    pub text: String,
}

impl Document {
    /// Decodes the document.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        read(&self.text)
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::internal(format!("a stored document: {error}")))
}
