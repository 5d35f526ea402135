//! Checked effects. `C` is the host's type of a connection.

use crate::connect_refusal::ConnectRefusal;
use crate::payload::Arguments;
use crate::raw;

/// The shortest time-out of an acknowledgement, and the shortest time of a timer that is set at any event other than a
/// message of a client or service, in milliseconds: shorter ones could follow each other without end.
pub const MIN_CHAINED_MS: u64 = 10;

/// The greatest number of timers of one scope: two for each of some hundred users.
pub const MAX_SCOPE_TIMERS: usize = 1000;

/// A set of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience<C> {
    /// The members of a room.
    Room(String),
    /// The connections of these users.
    Users(Vec<String>),
    /// The connections of users with one of these roles.
    Roles(Vec<String>),
    /// One connection.
    Connection(C),
    /// All connections.
    All,
}

/// A checked payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The arguments.
    pub arguments: Arguments,
    /// The attachments to which the arguments refer.
    pub attachments: Vec<Vec<u8>>,
}

/// The unit in which a reply counts the recipients of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Each connection once.
    Connections,
    /// Each user once.
    Users,
}

/// A checked effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<C> {
    /// Sends an event.
    Emit {
        /// The recipients.
        to: Vec<Audience<C>>,
        /// Connections that are left out.
        except: Vec<Audience<C>>,
        /// The event's name.
        event: String,
        /// The event's payload.
        payload: Payload,
        /// Whether the host may skip the event for a slow connection.
        volatile: bool,
    },
    /// Sends an event that each recipient has to acknowledge.
    EmitWithAck {
        /// The recipients, each once, in ascending order.
        connections: Vec<C>,
        /// The event's name.
        event: String,
        /// The event's payload.
        payload: Payload,
        /// The tag, which each acknowledgement repeats.
        tag: String,
        /// The time-out in milliseconds.
        timeout_ms: u64,
    },
    /// Answers the event.
    Reply(Payload),
    /// Answers the event with a count of recipients in this field.
    ReplyReached(String, Counted),
    /// Adds a connection to a room, by default the scope's own.
    Join(C, Option<String>),
    /// Removes a connection from a room, by default the scope's own.
    Leave(C, Option<String>),
    /// Asks for an event when a connection departs.
    Watch(C),
    /// Sets or replaces a timer.
    SetTimer(raw::SetTimer),
    /// Cancels the timer of this name.
    CancelTimer(String),
    /// Stores a document.
    Save(raw::Save),
    /// Asks for documents.
    Fetch(raw::Fetch),
    /// Closes a connection, with a reason.
    Disconnect(C, String),
    /// Refuses the connection that `connect` reports.
    Refuse(ConnectRefusal),
}
