//! What a feature wants done. Features make these through [`Context`](crate::Context); the host checks all
//! of them and then commits all, in this order, or none.

use serde::Serialize;

use crate::{Failure, Member, Payload};

/// An event to clients, bound to its name on the wire. See [`outgoing!`](crate::outgoing).
pub trait Outgoing: Serialize {
    /// The event's name on the wire.
    const NAME: &'static str;
    /// Whether the value is a tuple whose fields are the event's arguments, instead of its one argument.
    const SPREAD: bool = false;
}

/// Who is to hear of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All connections in a room.
    Room(String),
    /// All connections of a person.
    User(String),
    /// All connections of these people.
    Users(Vec<String>),
    /// All connections of people who have one of these roles.
    Roles(Vec<String>),
    /// One connection.
    Connection(String),
    /// Everybody.
    All,
}

impl Audience {
    /// All connections in a room.
    pub fn room(name: impl Into<String>) -> Self {
        Self::Room(name.into())
    }

    /// All connections of a person.
    pub fn user(id: impl Into<String>) -> Self {
        Self::User(id.into())
    }

    /// All connections of these people.
    pub fn users<I: Into<String>>(ids: impl IntoIterator<Item = I>) -> Self {
        Self::Users(ids.into_iter().map(Into::into).collect())
    }

    /// All connections of people who have one of these roles.
    pub fn roles<I: Into<String>>(roles: impl IntoIterator<Item = I>) -> Self {
        Self::Roles(roles.into_iter().map(Into::into).collect())
    }

    /// One connection.
    pub fn connection(id: impl Into<String>) -> Self {
        Self::Connection(id.into())
    }
}

/// One or several audiences: whoever belongs to more than one gets an event once.
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

/// An event on its way to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// Who gets it, each once.
    pub to: Audiences,
    /// Who does not, though among the former.
    pub except: Audiences,
    /// The event's name.
    pub event: String,
    /// What goes with it.
    pub payload: Payload,
    /// May be left out for a connection that is slow to read.
    pub volatile: bool,
    /// The tag and the milliseconds to wait, where each receiving connection is asked for an answer.
    pub acknowledge: Option<(String, u64)>,
}

/// A document on its way to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// Comes back with the outcome.
    pub tag: String,
    /// Where it is to be stored: the feature's own name for documents of this kind.
    pub collection: String,
    /// What no two documents of the scope's collection have in common, if anything.
    pub key: Option<String>,
    /// The document as JSON text.
    pub document: String,
}

/// A question for documents of the scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Comes back with the documents.
    pub tag: String,
    /// Where they are stored.
    pub collection: String,
    /// Only what was stored before the document of this id.
    pub before: Option<String>,
    /// How many, at most: 1 to 1000.
    pub limit: u32,
}

/// What is counted of those who got an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Different connections.
    Connections,
    /// Different people.
    Users,
}

impl Reached {
    /// The name in the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Users => "users",
        }
    }
}

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sends an event.
    Emit(Emit),
    /// Answers a message that asked for it, or a query.
    Reply(Payload),
    /// Answers with an object of this one field: how many got what the event emits.
    ReplyReached(String, Reached),
    /// Takes a connection into a room; the scope's own where none is named.
    Join(String, Option<String>),
    /// Takes a connection out of a room; the scope's own where none is named.
    Leave(String, Option<String>),
    /// Asks to be told when this connection goes, though it is not in the scope's room.
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

/// What becomes of the scope's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// It stays as it is.
    Keep,
    /// It becomes this.
    Put(Vec<u8>),
    /// As if the scope had never been heard of.
    Clear,
}

/// All that comes of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What is to be done, in order.
    pub effects: Vec<Effect>,
    /// What becomes of the state.
    pub state: StateChange,
}

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct Answer(pub(crate) Result<Payload, Failure>);

impl Answer {
    /// Answers with this.
    pub fn of<T: Serialize + ?Sized>(data: &T) -> Self {
        Self(Payload::of(data))
    }
}
