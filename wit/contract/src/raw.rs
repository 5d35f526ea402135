//! Manifests and outcomes as a component returns them: the records of `wit/1.0` with owned fields, unchecked. A host makes
//! them from the types that its bindings generate.

use crate::grants::Grants;

/// `manifest.manifest`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The feature's name in the API and the configuration.
    pub name: String,
    /// The semantic version of this build.
    pub version: String,
    /// A description in one line.
    pub description: String,
    /// Version of the state's schema.
    pub state_version: u32,
    /// The kinds of scope.
    pub scopes: Vec<Scope>,
    /// The events that the feature handles.
    pub routes: Vec<Route>,
    /// The queries that the feature answers.
    pub queries: Vec<Query>,
    /// The events that the feature may emit.
    pub emits: Vec<String>,
    /// The permissions that the feature needs beyond its own scopes' rooms.
    pub needs: Grants,
    /// The name and the JSON value of each extension.
    pub extensions: Vec<(String, String)>,
}

/// `manifest.scope`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The template of the scopes' keys.
    pub template: String,
    /// `volatile` or `durable`.
    pub durability: String,
    /// The time without member, timer or event after which the state is dropped, in milliseconds.
    pub idle_ms: u64,
}

/// `manifest.route`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The event's name.
    pub event: String,
    /// The senders: `client`, `service` or `host`.
    pub origins: Vec<String>,
    /// The template of the scope that handles the event.
    pub scope: String,
}

/// `manifest.query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The query's name.
    pub name: String,
    /// The template of the scope that answers; without one, all scopes answer.
    pub scope: Option<String>,
}

/// `types.payload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// JSON text: one array of arguments.
    pub args: String,
    /// Binary attachments, in the order of their numbers.
    pub attachments: Vec<Vec<u8>>,
}

/// `effects.audience`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// The members of a room.
    Room(String),
    /// The connections of one user.
    User(String),
    /// The connections of these users.
    Users(Vec<String>),
    /// The connections of users with one of these roles.
    Roles(Vec<String>),
    /// One connection, by its id.
    Connection(String),
    /// All connections.
    All,
    /// An audience of a later contract, by its kind.
    Other(String),
}

/// `effects.emit`. `A` yields the audiences one by one, so that a host need not collect them first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emit<A> {
    /// The recipients. Each gets the event once.
    pub to: A,
    /// Connections that are left out.
    pub except: A,
    /// The event's name.
    pub event: String,
    /// The event's payload.
    pub payload: Payload,
    /// Whether the host may skip the event for a slow connection.
    pub volatile: bool,
    /// The tag and the time-out in milliseconds, if recipients have to acknowledge the event.
    pub acknowledge: Option<(String, u64)>,
}

/// `effects.membership`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The connection's id.
    pub connection: String,
    /// The room, by default the scope's own.
    pub room: Option<String>,
}

/// `effects.set-timer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetTimer {
    /// The timer's name, unique in the scope.
    pub name: String,
    /// The time until the timer is due, in milliseconds.
    pub after_ms: u64,
    /// The data of the timer, as JSON text.
    pub payload: String,
}

/// `effects.save`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    /// The tag, which the outcome repeats.
    pub tag: String,
    /// The feature's name for documents of this kind.
    pub collection: String,
    /// The key under which no second document is stored.
    pub key: Option<String>,
    /// The document, as JSON text.
    pub document: String,
}

/// `effects.fetch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The tag, which the page repeats.
    pub tag: String,
    /// The feature's name for documents of this kind.
    pub collection: String,
    /// Only documents that were stored before the one with this id.
    pub before: Option<String>,
    /// The greatest number of documents in the page.
    pub limit: u32,
}

/// `effects.effect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<A> {
    /// Sends an event to connections.
    Emit(Emit<A>),
    /// Answers the event.
    Reply(Payload),
    /// Answers the event with a count of recipients.
    ReplyReached {
        /// The field that has the count.
        field: String,
        /// `connections` or `users`.
        of: String,
    },
    /// Adds a connection to a room.
    Join(Membership),
    /// Removes a connection from a room.
    Leave(Membership),
    /// Asks for the departure of a connection, by its id.
    Watch(String),
    /// Sets or replaces a timer.
    SetTimer(SetTimer),
    /// Cancels the timer with this name.
    CancelTimer(String),
    /// Stores a document.
    Save(Save),
    /// Asks for documents.
    Fetch(Fetch),
    /// Closes a connection.
    Disconnect {
        /// The connection's id.
        connection: String,
        /// The reason, which the client gets.
        reason: String,
    },
    /// An effect that was added after the release: its kind and its value.
    Other(String, String),
}

/// `effects.state-change`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateChange {
    /// The state stays as it is.
    Keep,
    /// The state is replaced by these bytes.
    Put(Vec<u8>),
    /// The state is deleted.
    Clear,
}
