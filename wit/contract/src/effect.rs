//! Checked effects. `C` is how the host names a connection.

use crate::payload::Arguments;
use crate::raw;

/// The shortest time-out of an acknowledgement, and the shortest time of a timer that is set while anything but a message of a
/// client or service is handled, in milliseconds: shorter ones could follow each other without end.
pub const MIN_CHAINED_MS: u64 = 10;

/// Timers of one scope, at most: two for each of some hundred users.
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
    /// The attachments that they refer to.
    pub attachments: Vec<Vec<u8>>,
}

/// What a reply counts of the recipients of an outcome.
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
        /// Its payload.
        payload: Payload,
        /// Whether it may be skipped for a slow connection.
        volatile: bool,
    },
    /// Sends an event that each recipient has to acknowledge.
    EmitWithAck {
        /// The recipients, each once, in ascending order.
        connections: Vec<C>,
        /// The event's name.
        event: String,
        /// Its payload.
        payload: Payload,
        /// Comes back with each acknowledgement.
        tag: String,
        /// In milliseconds.
        timeout_ms: u64,
    },
    /// Answers the event.
    Reply(Payload),
    /// Answers the event with a count of recipients in this field.
    ReplyReached(String, Counted),
    /// Adds a connection to a room; the scope's own where there is none.
    Join(C, Option<String>),
    /// Removes a connection from a room; the scope's own where there is none.
    Leave(C, Option<String>),
    /// Asks for the departure of a connection.
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
}
