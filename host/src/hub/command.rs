//! The commands of a shard: what other threads ask of it.

use std::convert::Infallible;
use std::net::{IpAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::model::{CloseCode, ConnId, Failure, Payload};
use crate::protocol::Outgoing;
use crate::store::DeliveryReceipt;

/// A room as shards know it. Never used again for another room, even of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoomId(pub u64);

/// Members of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Everybody in the room.
    Room(RoomId),
    /// Everybody with one of the roles.
    Roles(Arc<[String]>),
    /// One connection.
    Connection(ConnId),
    /// Everybody on the shard.
    All,
}

/// An event for members of one shard, each of whom gets it once.
#[derive(Debug)]
pub struct Delivery {
    /// Who gets it.
    pub to: Vec<Target>,
    /// Who does not.
    pub except: Vec<Target>,
    /// The event.
    pub outgoing: Arc<Outgoing>,
    /// Whether it may be left out for a connection that is slow to read.
    pub volatile: bool,
    /// Dropped when it has been written.
    pub receipt: Option<DeliveryReceipt>,
}

impl Delivery {
    /// Whether it goes to the very same members as another.
    pub fn goes_where(&self, other: &Self) -> bool {
        self.to == other.to && self.except == other.except && self.volatile == other.volatile
    }
}

/// What a shard is asked to do.
#[derive(Debug)]
pub enum ShardCommand {
    /// Take over a connection that was accepted.
    Accept(TcpStream),
    /// A connection came into a room.
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
    /// Hand an event to members.
    Deliver(Delivery),
    /// Hand an event to one connection and ask it for an acknowledgement.
    Ask {
        /// Whom to ask.
        connection: ConnId,
        /// The id that the acknowledgement will carry.
        id: u64,
        /// The event.
        outgoing: Arc<Outgoing>,
    },
    /// Answer a client's event.
    Reply {
        /// Whose event it was.
        connection: ConnId,
        /// The event's name.
        event: Box<str>,
        /// The id to answer with. Without one, only a failure is told.
        id: Option<i128>,
        /// The answer.
        outcome: Result<Payload, Failure>,
        /// When the event's frame was read.
        read_at: Instant,
    },
    /// End a connection, telling it why.
    Close {
        /// Which connection.
        connection: ConnId,
        /// The close code.
        code: CloseCode,
        /// What to tell the client.
        reason: String,
    },
    /// Ask a connection for a sign of life, and end it if none comes within seconds.
    Probe {
        /// Which connection.
        connection: ConnId,
    },
    /// The same of all connections from an address.
    ProbeAddress {
        /// Which address.
        address: IpAddr,
    },
    /// End a transport that holds too much of what is not whole.
    Evict {
        /// Which transport, as its shard knows it.
        transport: u64,
    },
    /// Tell the connections that the host restarts, one after another.
    Drain {
        /// The time over which that is done, evenly, in milliseconds of uptime.
        over: Range<u64>,
        /// Dropped when all have been told.
        working: mpsc::Sender<Infallible>,
    },
    /// Tell all connections that the host restarts, flush and end.
    Shutdown,
}
