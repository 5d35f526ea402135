//! The way to a shard: what other threads may ask of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::audience::Guard;
use crate::model::{CloseCode, ConnId, Failure, Mailbox, Payload};
use crate::protocol::Outgoing;

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
    /// Let go of when it has been written.
    pub guard: Option<Guard>,
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
    /// End a link that holds too much of what is not whole.
    Evict {
        /// Which link, as its shard knows it.
        link: u64,
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

thread_local! {
    /// The shards that this thread is yet to wake, if it is one that gathers them.
    static GATHERED: RefCell<Option<Vec<Arc<Mailbox<ShardCommand>>>>> = const { RefCell::new(None) };
}

/// A shard's queue. It is bounded: who publishes from a thread of its own waits for space now and then
/// ([`ShardQueue::wait_for_space`]), so that the effects of some dozen events are all that can be over the bound.
#[derive(Debug, Clone)]
pub struct ShardQueue {
    mailbox: Arc<Mailbox<ShardCommand>>,
    connections: Arc<AtomicUsize>,
}

impl ShardQueue {
    /// A queue of `capacity` commands.
    pub fn new(capacity: usize) -> Self {
        Self { mailbox: Arc::new(Mailbox::new(capacity)), connections: Arc::default() }
    }

    /// Queues a command. Never waits.
    pub fn push(&self, command: ShardCommand) {
        GATHERED.with_borrow_mut(|gathered| match gathered {
            Some(gathered) => {
                let has_to_be_woken = self.mailbox.push_quietly(command);
                if has_to_be_woken && !gathered.iter().any(|other| Arc::ptr_eq(other, &self.mailbox)) {
                    gathered.push(self.mailbox.clone());
                }
            }
            None => self.mailbox.push(command),
        });
    }

    /// From now on shards are not woken when this thread queues something for them, but when it says so
    /// ([`ShardQueue::wake_gathered`]). A shard that is woken by the first of many commands takes the processor from who
    /// queues them, and writes to a socket for each what it could write at once. Who is late to say so is late for all whom
    /// it has sent something.
    pub fn gather_wake_ups() {
        GATHERED.with_borrow_mut(|gathered| *gathered = Some(Vec::new()));
    }

    /// Wakes the shards for which this thread has queued something since it last did.
    pub fn wake_gathered() {
        GATHERED.with_borrow_mut(|gathered| {
            for mailbox in gathered.iter_mut().flat_map(|gathered| gathered.drain(..)) {
                mailbox.wake();
            }
        });
    }

    /// Waits, as a thread that is no shard's, until the queue is under its bound.
    pub fn wait_for_space(&self) {
        self.mailbox.wait_for_space();
    }

    /// Whether the queue is at its bound, for publishers that may not wait as a thread.
    pub fn is_full(&self) -> bool {
        self.mailbox.is_full()
    }

    /// Takes everything that is queued; for the shard alone.
    pub async fn receive(&self, into: &mut VecDeque<ShardCommand>) {
        self.mailbox.receive(into).await;
    }

    /// Ends the queue: the shard is gone, and nobody waits for it any more.
    pub fn close(&self) {
        self.mailbox.close();
    }

    /// Sockets that the shard has, or has been given.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a socket in or out.
    pub fn count(&self, by: isize) {
        self.connections.fetch_add(by as usize, Ordering::Relaxed);
    }
}
