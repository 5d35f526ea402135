//! What a feature is told: one event, and all that it may know besides it.

use serde::de::DeserializeOwned;

use crate::{Failure, Member, Payload, Sender};

/// All that a feature may know besides the event and its state. Features see it through
/// [`Context`](crate::Context).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Milliseconds since 1970.
    pub now: u64,
    /// Different for each event.
    pub seed: u64,
    /// Number of this event in its scope, from 1.
    pub sequence: u64,
    /// The scope's key, which is its room's name.
    pub scope: String,
    /// What the template's placeholders stand for, in their order.
    pub params: Vec<String>,
    /// Connections in the scope's room, before this event's effects.
    pub room_connections: u32,
    /// Different users in the scope's room, before this event's effects.
    pub room_users: u32,
    /// Whether the connection that this event came from or is about is in the scope's room.
    pub connection_in_room: bool,
    /// How many connections in the scope's room are the same user's as that one.
    pub user_connections: u32,
    /// The operator's settings, a JSON object.
    pub settings: String,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client or a service sent something.
    Message(Message),
    /// A connection came into the scope's room by somebody else's doing.
    Joined(Member),
    /// A connection that was in the scope's room, or was watched, is gone.
    Left(Member, LeaveReason),
    /// The client of a connection that takes part in the scope has lost its transport, and may come back.
    Away(Member),
    /// It is back, on the same connection.
    Back(Member),
    /// A timer is due.
    Timer(Timer),
    /// A client answered, or did not.
    Acknowledgement(Acknowledgement),
    /// A service asks something.
    Query(Query),
    /// The answers of all scopes to a query without scope.
    Gathered(Query, Answers),
    /// A document was stored, or was not.
    Saved(Saved),
    /// Documents that were asked for, or why there are none.
    Fetched(Fetched),
    /// What a later host may tell: its name, and its data as JSON text.
    Other(String, String),
}

/// A client's or a service's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The event's name.
    pub event: String,
    /// Where it came from.
    pub sender: Sender,
    /// What came with it.
    pub payload: Payload,
    /// Whether the sender asked for an acknowledgement.
    pub wants_reply: bool,
}

/// Why a connection is no longer in a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// Its client, another feature or an operator took it out of the room.
    Left,
    /// It disconnected, however that came about.
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
    /// Its name in the scope.
    pub name: String,
    /// What was given when it was set, as JSON text.
    pub payload: String,
    /// When it was due, in epoch milliseconds; `now` may be later.
    pub due: u64,
}

impl Timer {
    /// Reads what was given when it was set.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.payload).map_err(|error| Failure::internal(format!("timer {}: {error}", self.name)))
    }
}

/// A client's answer to an event that asked for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The tag that was given with the emit.
    pub tag: String,
    /// Whose answer it is.
    pub connection: String,
    /// The answer, or why there is none: `timeout`, `disconnected` or `too_large`.
    pub answer: Result<Payload, Failure>,
}

/// A service's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its name.
    pub name: String,
    /// What came with it, as JSON text.
    pub data: String,
}

impl Query {
    /// Reads what came with it.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.data).map_err(|error| Failure::bad_request(format!("{}: {error}", self.name)))
    }
}

/// What all scopes answered to a query without scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// One answer of each scope as JSON text, in no order.
    pub texts: Vec<String>,
    /// Scopes that were not asked, for there were more than the host asks at once.
    pub omitted: u32,
}

impl Answers {
    /// Reads the answers.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<Vec<T>, Failure> {
        self.texts
            .iter()
            .map(|text| serde_json::from_str(text))
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::internal(format!("a scope's answer: {error}")))
    }
}

/// What became of a document that was to be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The tag that was given with the save.
    pub tag: String,
    /// Where it was to be stored.
    pub collection: String,
    /// The document as JSON text, so that a feature need not remember it meanwhile: what is stored (the first with its
    /// key, where it had one), or what was to be.
    pub text: String,
    /// Whether the host was started anew since: all connections of before are gone then.
    pub restored: bool,
    /// The stored document's id (of the first with its key, where it had one), or why it was not stored.
    pub outcome: Result<String, StoreFailure>,
}

impl Saved {
    /// Reads the document.
    pub fn document<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        read(&self.text)
    }
}

/// Why a document was not stored, or documents cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFailure {
    /// What went wrong, as senders are told such things.
    pub failure: Failure,
    /// Whether the same may go well later.
    pub retryable: bool,
}

/// What came of a [`fetch`](crate::Context::fetch).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The tag that was given with the fetch.
    pub tag: String,
    /// The documents, or why they cannot be had.
    pub outcome: Result<Page, StoreFailure>,
}

/// Some documents of a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The newest first.
    pub documents: Vec<Document>,
    /// Whether there are older ones.
    pub has_more: bool,
}

/// A stored document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its id in the store.
    pub id: String,
    /// The document as JSON text.
    pub text: String,
}

impl Document {
    /// Reads the document.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        read(&self.text)
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::internal(format!("a stored document: {error}")))
}
