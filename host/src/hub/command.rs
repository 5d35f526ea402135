//! Commands from other threads to a shard.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::departure::Departure;
use super::transfer::{Claim, Released};
use crate::auth::{Block, SessionChanges};
use crate::model::{Cause, CloseCode, ConnId, Failure, Payload};
use crate::protocol::Outgoing;
use crate::store::DeliveryReceipt;

/// The id of a room. An id is never reused, not even for a room of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoomId(pub u64);

/// A set of connections of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The members of the room.
    Room(RoomId),
    /// The connections with one of the roles.
    Roles(Arc<[String]>),
    /// One connection.
    Connection(ConnId),
    /// All connections of the shard.
    All,
}

/// An event for connections of one shard, each of which gets it once.
#[derive(Debug)]
pub struct Delivery {
    /// The connections that get it.
    pub to: Vec<Target>,
    /// The connections that do not get it.
    pub except: Vec<Target>,
    /// The event.
    pub outgoing: Arc<Outgoing>,
    /// Whether the event may be dropped for a connection that reads slowly.
    pub volatile: bool,
    /// Dropped when the event was written.
    pub receipt: Option<DeliveryReceipt>,
}

impl Delivery {
    /// Whether this has the same recipients as another delivery, and the same volatility.
    pub fn goes_where(&self, other: &Self) -> bool {
        self.to == other.to && self.except == other.except && self.volatile == other.volatile
    }
}

/// An event that was sent to a connection, and what it comes from.
#[derive(Debug, Clone)]
pub struct Traced {
    /// The event's name.
    pub event: Arc<str>,
    /// The event's number: the offset of Socket.IO's clients.
    pub number: u64,
    /// What it comes from, if that is known.
    pub cause: Option<Arc<Cause>>,
}

/// What a shard does for a connection: in order with what its client sends, and before its end.
pub struct ConnectionTask(pub Box<dyn FnOnce() + Send>);

impl fmt::Debug for ConnectionTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionTask")
    }
}

/// A command to a shard.
#[derive(Debug)]
pub enum ShardCommand {
    /// Take over an accepted connection.
    Accept(TcpStream),
    /// A connection joined a room.
    Join {
        /// Which connection.
        connection: ConnId,
        /// Which room.
        room: RoomId,
    },
    /// A connection left a room.
    Leave {
        /// Which connection.
        connection: ConnId,
        /// Which room.
        room: RoomId,
    },
    /// Deliver an event to members.
    Deliver(Delivery),
    /// Deliver an event to one connection, and request an acknowledgement.
    Ask {
        /// The recipient.
        connection: ConnId,
        /// The id that the acknowledgement will carry.
        id: u64,
        /// The event.
        outgoing: Arc<Outgoing>,
    },
    /// Answer a client's event.
    Reply {
        /// The connection that sent the event.
        connection: ConnId,
        /// The event's name.
        event: Box<str>,
        /// The id of the acknowledgement. Without one, only a failure is sent.
        id: Option<i128>,
        /// The answer.
        outcome: Result<Payload, Failure>,
        /// When the event's frame was read.
        read_at: Instant,
    },
    /// Tell what a connection was sent lately.
    Trace {
        /// Which connection.
        connection: ConnId,
        /// The most events.
        most: usize,
        /// Gets them, the newest first.
        answer: oneshot::Sender<Vec<Traced>>,
    },
    /// Run a task, unless the connection has ended.
    Run {
        /// Which connection.
        connection: ConnId,
        /// What to run.
        task: ConnectionTask,
    },
    /// What a feature says of a connection that waits to open.
    Admit {
        /// Which connection.
        connection: ConnId,
        /// Whether it may open.
        outcome: Result<(), Failure>,
    },
    /// Another node claims a connection, whose client has come back there.
    Claim {
        /// Which connection.
        connection: ConnId,
        /// What the client says.
        claim: Box<Claim>,
        /// Gets whether the client may go on with the connection.
        answer: oneshot::Sender<bool>,
    },
    /// Give up a connection that was claimed.
    Release {
        /// Which connection.
        connection: ConnId,
        /// Gets what it goes on with; `None` where it has gone, or the claim has lapsed.
        answer: oneshot::Sender<Option<(Released, Departure)>>,
    },
    /// Close a connection, with the reason.
    Close {
        /// Which connection.
        connection: ConnId,
        /// The close code.
        code: CloseCode,
        /// The reason to send.
        reason: String,
    },
    /// Close the connections that a block keeps out.
    EndBlocked {
        /// The block, which is in force.
        block: Arc<Block>,
        /// Gets the number of connections that were closed.
        ended: mpsc::UnboundedSender<usize>,
    },
    /// Adopt the sessions of cookies that have changed, and close the connections of those that have ended.
    AdoptSessions(Arc<SessionChanges>),
    /// Ping a connection, and close it if the client does not answer within seconds.
    Probe {
        /// Which connection.
        connection: ConnId,
    },
    /// Ping all connections from an address.
    ProbeAddress {
        /// Which address.
        address: IpAddr,
    },
    /// Close a transport whose incomplete messages were evicted from the budget.
    Evict {
        /// The transport's id as one number.
        transport: u64,
    },
    /// Close the connections one after another, because the host restarts.
    Drain {
        /// The range of time over which the closes are spread evenly, in milliseconds of uptime.
        over: Range<u64>,
        /// Dropped when all are closed.
        working: mpsc::Sender<Infallible>,
    },
    /// Close all connections because the host restarts, flush and end.
    Shutdown,
}
