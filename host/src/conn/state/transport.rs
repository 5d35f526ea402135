//! A transport: one way to a client, what waits to be written to it, and the connections that it carries.
//!
//! A plain WebSocket carries one connection, an EioSession.IO session one for each Socket.IO namespace. A connection may
//! outlive its transport, and go on over another.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use governor::clock::{Clock as _, ReasonablyRealtime};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::connection::Connection;
use super::outbox::Outbox;
use crate::conn::shard::eio::{EioSession, Poll, Sid};
use crate::conn::shard::handoff::PendingHandoff;
use crate::conn::shard::rate::Rate;
use crate::model::Clock;
use crate::net::Holding;
use crate::protocol::websocket::Decoder;

/// A transport's place on its shard, and a stamp that tells one tenant of the place from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::conn) struct TransportId {
    pub(in crate::conn) slot: u32,
    pub(in crate::conn) stamp: u32,
}

/// Where a transport stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::conn) enum Phase {
    /// Nobody is signed in on it yet.
    Authenticating,
    /// It sends and receives events.
    Open,
    /// Our close is on its way; what the client sends is not looked at any more, but for its own close.
    Closing,
    /// It is gone, or about to be.
    Ended,
}

/// What is spoken on a transport.
#[derive(Debug, Clone)]
pub(in crate::conn) enum Session {
    /// The plain protocol.
    Plain,
    /// EioSession.IO, and Socket.IO on it.
    Eio(Rc<EioSession>),
    /// A WebSocket that is to take the place of a polling session.
    Probe {
        /// The session.
        id: Sid,
        /// Whether the client has tried it already.
        is_tried: bool,
    },
    /// Whatever comes goes back: for suites that test the WebSocket protocol.
    Echo,
}

/// How bytes get to the client and back.
#[derive(Debug)]
pub(in crate::conn) enum Io {
    Socket(Socket),
    /// The request that waits for something to answer it with.
    Polling(RefCell<Option<Poll>>),
}

/// A WebSocket.
#[derive(Debug)]
pub(in crate::conn) struct Socket {
    pub(in crate::conn) tcp: TcpStream,
    pub(in crate::conn) decoder: RefCell<Decoder>,
    /// Whether it took no more. The shard hears when it does.
    pub(in crate::conn) blocked: Cell<bool>,
}

/// A rate, and how much of it is left.
#[derive(Debug)]
pub(in crate::conn) struct Limiter(
    Box<RateLimiter<NotKeyed, InMemoryState, Uptime, governor::middleware::NoOpMiddleware<Nanos>>>,
);

impl Limiter {
    pub(in crate::conn) fn new(quota: Quota, clock: &Clock) -> Self {
        Self(Box::new(RateLimiter::direct_with_clock(quota, Uptime(clock.clone()))))
    }

    /// Whether there may be one more now.
    pub(in crate::conn) fn allows(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// One way to a client.
#[derive(Debug)]
pub(in crate::conn) struct Transport {
    pub(in crate::conn) id: TransportId,
    pub(in crate::conn) peer: SocketAddr,
    pub(in crate::conn) io: Io,
    pub(in crate::conn) session: RefCell<Session>,
    pub(in crate::conn) phase: Cell<Phase>,
    pub(in crate::conn) outbox: RefCell<Outbox>,
    /// Whether it is on the shard's list of transports to flush, and on that of transports with more to read.
    pub(in crate::conn) dirty: Cell<bool>,
    pub(in crate::conn) unread: Cell<bool>,
    pub(in crate::conn) connections: RefCell<Vec<Rc<Connection>>>,
    pub(in crate::conn) times: Times,
    /// Whether it was let in, and so is counted.
    pub(in crate::conn) counted: Cell<bool>,
    /// Set from when it is found to belong on another shard until what was read is dealt with.
    pub(in crate::conn) handoff: RefCell<Option<Box<PendingHandoff>>>,
    pub(in crate::conn) rate: RefCell<Option<Rate>>,
    /// Set when nothing of it is to be read any more.
    pub(in crate::conn) muted: Cell<bool>,
    /// Its part of what is not whole.
    pub(in crate::conn) holding: RefCell<Option<Holding>>,
    /// What was read and its user has not been charged for, in bytes.
    pub(in crate::conn) read_bytes: Cell<usize>,
}

/// When what happened and is due, in milliseconds of the clock's uptime.
#[derive(Debug)]
pub(in crate::conn) struct Times {
    /// Something was last read.
    pub(in crate::conn) heard: Cell<u64>,
    /// The last ping went out.
    pub(in crate::conn) pinged: Cell<u64>,
    /// Authentication, or our close, must be done.
    pub(in crate::conn) limit: Cell<u64>,
    /// The earliest deadline that the shard has noted.
    pub(in crate::conn) armed: Cell<u64>,
    /// It is not read until then; 0 where it is.
    pub(in crate::conn) unread_until: Cell<u64>,
}

impl Transport {
    pub(in crate::conn) fn new(
        id: TransportId,
        peer: SocketAddr,
        io: Io,
        session: Session,
        clock: &Clock,
        rate: Option<Rate>,
    ) -> Self {
        let now = clock.uptime_ms();
        Self {
            id,
            peer,
            io,
            session: RefCell::new(session),
            phase: Cell::new(Phase::Authenticating),
            outbox: RefCell::default(),
            dirty: Cell::new(false),
            unread: Cell::new(false),
            connections: RefCell::default(),
            times: Times {
                heard: Cell::new(now),
                pinged: Cell::new(now),
                limit: Cell::new(u64::MAX),
                armed: Cell::new(u64::MAX),
                unread_until: Cell::new(0),
            },
            counted: Cell::new(false),
            handoff: RefCell::default(),
            rate: RefCell::new(rate),
            muted: Cell::new(false),
            holding: RefCell::default(),
            read_bytes: Cell::new(0),
        }
    }

    /// Whether nobody has been told that it is over.
    pub(in crate::conn) fn is_up(&self) -> bool {
        matches!(self.phase.get(), Phase::Authenticating | Phase::Open)
    }

    /// Whether what is queued now must wait for the client.
    pub(in crate::conn) fn is_blocked(&self) -> bool {
        match &self.io {
            Io::Socket(socket) => socket.blocked.get(),
            Io::Polling(poll) => poll.borrow().is_none(),
        }
    }

    pub(in crate::conn) fn socket(&self) -> Option<&Socket> {
        match &self.io {
            Io::Socket(socket) => Some(socket),
            Io::Polling(_) => None,
        }
    }

    /// Its EioSession.IO session, if it has one.
    pub(in crate::conn) fn eio(&self) -> Option<Rc<EioSession>> {
        match &*self.session.borrow() {
            Session::Eio(eio) => Some(eio.clone()),
            _ => None,
        }
    }

    /// The one connection of a plain transport.
    pub(in crate::conn) fn only_connection(&self) -> Option<Rc<Connection>> {
        self.connections.borrow().first().cloned()
    }
}

impl Socket {
    pub(in crate::conn) fn new(tcp: TcpStream, decoder: Decoder) -> Self {
        Self { tcp, decoder: RefCell::new(decoder), blocked: Cell::new(false) }
    }
}

/// The host's clock, as the rate limiter reads it.
#[derive(Debug, Clone)]
struct Uptime(Clock);

impl governor::clock::Clock for Uptime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(std::time::Duration::from_millis(self.0.uptime_ms()))
    }
}

impl ReasonablyRealtime for Uptime {
    fn reference_point(&self) -> Nanos {
        self.now()
    }
}
