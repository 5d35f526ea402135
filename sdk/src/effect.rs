//! Effects, which features ask for through [`Context`](crate::Context). The host checks all effects of an event, and
//! then commits either all, in this order, or none.

use std::time::Duration;

use serde::Serialize;

use crate::{Failure, Member, Payload};

/// An event to clients, bound to its name on the wire. See [`outgoing!`](crate::outgoing).
pub trait Outgoing: Serialize {
    /// The event's name on the wire.
    const NAME: &'static str;
    /// Whether the value is a tuple whose fields are the event's arguments, instead of its one argument.
    const SPREAD: bool = false;
}

/// The recipients of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All connections in a room.
    Room(String),
    /// All connections of a user.
    User(String),
    /// All connections of these users.
    Users(Vec<String>),
    /// All connections of users with one of these roles.
    Roles(Vec<String>),
    /// One connection.
    Connection(String),
    /// All connections.
    All,
}

impl Audience {
    /// All connections in a room.
    pub fn room(name: impl Into<String>) -> Self {
        Self::Room(name.into())
    }

    /// All connections of a user.
    pub fn user(id: impl Into<String>) -> Self {
        Self::User(id.into())
    }

    /// All connections of these users.
    pub fn users<I: Into<String>>(ids: impl IntoIterator<Item = I>) -> Self {
        Self::Users(ids.into_iter().map(Into::into).collect())
    }

    /// All connections of users with one of these roles.
    pub fn roles<I: Into<String>>(roles: impl IntoIterator<Item = I>) -> Self {
        Self::Roles(roles.into_iter().map(Into::into).collect())
    }

    /// One connection.
    pub fn connection(id: impl Into<String>) -> Self {
        Self::Connection(id.into())
    }
}

/// One or several audiences. A connection that belongs to several gets an event once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audiences(pub Vec<Audience>);

impl Audiences {
    /// These connections.
    pub fn connections<I: Into<String>>(ids: impl IntoIterator<Item = I>) -> Self {
        Self(ids.into_iter().map(Audience::connection).collect())
    }
}

impl From<Audience> for Audiences {
    fn from(audience: Audience) -> Self {
        Self(vec![audience])
    }
}

impl From<&Member> for Audiences {
    fn from(member: &Member) -> Self {
        Audience::connection(&member.connection).into()
    }
}

impl From<Vec<Audience>> for Audiences {
    fn from(audiences: Vec<Audience>) -> Self {
        Self(audiences)
    }
}

impl<const N: usize> From<[Audience; N]> for Audiences {
    fn from(audiences: [Audience; N]) -> Self {
        Self(audiences.into())
    }
}

/// An event for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// The recipients; each connection gets the event once.
    pub to: Audiences,
    /// The recipients that are left out.
    pub except: Audiences,
    /// The event's name.
    pub event: String,
    /// The arguments and attachments.
    pub payload: Payload,
    /// Whether the host may drop the event for a connection that is slow to read.
    pub volatile: bool,
    /// The tag and the timeout in milliseconds, when each receiving connection is asked for an acknowledgement.
    pub acknowledge: Option<(String, u64)>,
}

impl Emit {
    /// Excludes these connections.
    pub fn except(&mut self, except: impl Into<Audiences>) -> &mut Self {
        self.except.0.extend(except.into().0);
        self
    }

    /// Lets the host drop the event for a connection that is slow to read.
    pub fn volatile(&mut self) -> &mut Self {
        self.volatile = true;
        self
    }

    /// Asks each receiving connection for an acknowledgement: [`Feature::acknowledged`] gets it with the tag. The audience
    /// has to consist of connections.
    pub fn acknowledged(&mut self, tag: impl Into<String>, timeout: Duration) -> &mut Self {
        self.acknowledge = Some((tag.into(), millis(timeout)));
        self
    }

    /// Adds the bytes of the event's [`Attachment`]s. The payload refers to each of them once.
    pub fn attachments(&mut self, attachments: Vec<Vec<u8>>) -> &mut Self {
        self.payload.attachments = attachments;
        self
    }
}

/// A document for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// The tag that [`Saved`](crate::Saved) repeats.
    pub tag: String,
    /// The collection: the feature's own name for documents of this kind.
    pub collection: String,
    /// The key, which is unique in the scope's collection.
    pub key: Option<String>,
    /// The document as JSON text.
    pub document: String,
}

impl Save {
    /// Sets the key, which is unique in the scope's collection: if a document with the key is stored already, nothing
    /// is stored, and the outcome is that document's id.
    pub fn key(&mut self, key: impl Into<String>) -> &mut Self {
        self.key = Some(key.into());
        self
    }
}

/// A request for documents of the scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The tag that [`Fetched`](crate::Fetched) repeats.
    pub tag: String,
    /// The collection.
    pub collection: String,
    /// Only documents that were stored before the document with this id.
    pub before: Option<String>,
    /// The greatest number of documents: 1 to 1000.
    pub limit: u32,
}

impl Fetch {
    /// Only documents that were stored before the document with this id.
    pub fn before(&mut self, id: impl Into<String>) -> &mut Self {
        self.before = Some(id.into());
        self
    }

    /// The greatest number of documents: 1 to 1000.
    pub fn limit(&mut self, limit: u32) -> &mut Self {
        self.limit = limit;
        self
    }
}

/// The unit in which recipients are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Different connections.
    Connections,
    /// Different users.
    Users,
}

impl Reached {
    /// The unit's name in the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Users => "users",
        }
    }
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Emits an event.
    Emit(Emit),
    /// Acknowledges a message, or answers a query.
    Reply(Payload),
    /// Acknowledges a message with an object of this one field: the number of recipients of the event's emits.
    ReplyReached(String, Reached),
    /// Joins a connection to a room; to the scope's own by default.
    Join(String, Option<String>),
    /// Removes a connection from a room; from the scope's own by default.
    Leave(String, Option<String>),
    /// Asks for an event when a connection outside of the scope's room departs.
    Watch(String),
    /// Sets a timer: name, milliseconds from now, payload as JSON text.
    SetTimer(String, u64, String),
    /// Cancels a timer.
    CancelTimer(String),
    /// Stores a document.
    Save(Save),
    /// Asks for documents.
    Fetch(Fetch),
    /// Closes a connection, with a reason.
    Disconnect(String, String),
}

/// The change of the scope's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// The state stays.
    Keep,
    /// The state is replaced.
    Put(Vec<u8>),
    /// The state is deleted.
    Clear,
}

/// The outcome of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The effects, in order.
    pub effects: Vec<Effect>,
    /// The change of the state.
    pub state: StateChange,
}

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct Answer(pub(crate) Result<Payload, Failure>);

impl Answer {
    /// An answer with this value.
    pub fn of<T: Serialize + ?Sized>(data: &T) -> Self {
        Self(Payload::of(data))
    }
}

/// A duration in milliseconds, the unit of the contract.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
