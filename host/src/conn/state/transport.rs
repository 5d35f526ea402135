//! A transport: one way to a client, with the bytes that wait for it.
//!
//! A plain WebSocket carries one connection, an Engine.IO session one for each Socket.IO namespace. A connection may
//! outlive its transport, and be resumed over another. Each knows the other by its id.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use super::eio_session::{EioSession, Poll, Sid};
use super::handoff::PendingHandoff;
use super::ids::TransportId;
use super::outbox::Outbox;
use super::rate::Rate;
use crate::model::ConnId;
use crate::net::Holding;
use crate::protocol::websocket::Decoder;

/// Where a transport is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No client has signed in on it yet.
    Authenticating,
    /// It sends and receives events.
    Open,
    /// Our close is on its way. Of what the client sends only its own close counts.
    Closing,
    /// It is gone, or about to be.
    Ended,
}

/// What a transport speaks.
#[derive(Debug, Clone)]
pub(crate) enum Session {
    /// The plain protocol.
    Plain,
    /// Engine.IO, and Socket.IO on it.
    Eio(Rc<EioSession>),
    /// A WebSocket that is to take over from a polling session.
    Probe {
        /// The session.
        id: Sid,
        /// Whether the client has sent its probe.
        is_tried: bool,
    },
    /// Every message is sent back, for suites that test WebSocket alone.
    Echo,
}

/// How bytes get to the client and back.
#[derive(Debug)]
pub(crate) enum Io {
    Socket(Socket),
    /// With the request that waits for packets.
    Polling(RefCell<Option<Poll>>),
}

/// A WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) tcp: TcpStream,
    pub(crate) decoder: RefCell<Decoder>,
    /// Whether its buffer in the kernel is full. The poller tells when it has room again.
    pub(crate) blocked: Cell<bool>,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream, decoder: Decoder) -> Self {
        Self { tcp, decoder: RefCell::new(decoder), blocked: Cell::new(false) }
    }
}

/// One way to a client.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) id: TransportId,
    pub(crate) peer: SocketAddr,
    pub(crate) io: Io,
    pub(crate) session: RefCell<Session>,
    pub(crate) phase: Cell<Phase>,
    pub(crate) outbox: RefCell<Outbox>,
    /// Whether it is listed as having frames to flush.
    pub(crate) dirty: Cell<bool>,
    /// Whether it is listed as having more to read.
    pub(crate) unread: Cell<bool>,
    /// The connections that it carries.
    pub(crate) connections: RefCell<Vec<ConnId>>,
    pub(crate) times: Times,
    /// Whether it counts towards the limits of connections.
    pub(crate) counted: Cell<bool>,
    /// Set while it is being handed off to another shard.
    pub(crate) handoff: RefCell<Option<Box<PendingHandoff>>>,
    pub(crate) rate: RefCell<Option<Rate>>,
    /// Set when its socket is not read any more.
    pub(crate) muted: Cell<bool>,
    /// Its share of the budget for incomplete messages.
    pub(crate) holding: RefCell<Option<Holding>>,
    /// Bytes that were read and that its user has not been charged for.
    pub(crate) read_bytes: Cell<usize>,
}

/// Times of a transport, in milliseconds of uptime.
#[derive(Debug)]
pub(crate) struct Times {
    /// When something was last read.
    pub(crate) heard: Cell<u64>,
    /// When the last ping was sent.
    pub(crate) pinged: Cell<u64>,
    /// When authentication, or our close, must be done.
    pub(crate) limit: Cell<u64>,
    /// The earliest timer that is set for it.
    pub(crate) armed: Cell<u64>,
    /// Until when it is not read; 0 where it is.
    pub(crate) unread_until: Cell<u64>,
}

impl Transport {
    pub(crate) fn new(
        id: TransportId,
        peer: SocketAddr,
        io: Io,
        session: Session,
        rate: Option<Rate>,
        now: u64,
    ) -> Self {
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

    /// Whether no close was sent on it.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase.get(), Phase::Authenticating | Phase::Open)
    }

    /// Whether a frame that is queued now must wait for the client.
    pub(crate) fn is_blocked(&self) -> bool {
        match &self.io {
            Io::Socket(socket) => socket.blocked.get(),
            Io::Polling(poll) => poll.borrow().is_none(),
        }
    }

    pub(crate) fn socket(&self) -> Option<&Socket> {
        match &self.io {
            Io::Socket(socket) => Some(socket),
            Io::Polling(_) => None,
        }
    }

    /// Its Engine.IO session, if it has one.
    pub(crate) fn eio(&self) -> Option<Rc<EioSession>> {
        match &*self.session.borrow() {
            Session::Eio(eio) => Some(eio.clone()),
            _ => None,
        }
    }

    pub(crate) fn is_eio(&self) -> bool {
        matches!(*self.session.borrow(), Session::Eio(_))
    }

    pub(crate) fn is_echo(&self) -> bool {
        matches!(*self.session.borrow(), Session::Echo)
    }

    /// When the message that it is receiving must be complete, in milliseconds of uptime. Before the client has signed in
    /// [`Times::limit`] counts alone.
    pub(crate) fn incomplete_deadline(&self) -> u64 {
        match &*self.holding.borrow() {
            Some(holding) if self.phase.get() == Phase::Open => holding.deadline(),
            _ => u64::MAX,
        }
    }

    /// A polling transport without a request, for tests.
    #[cfg(test)]
    pub(super) fn idle() -> Rc<Self> {
        let io = Io::Polling(RefCell::default());
        let transport = Self::new(TransportId::new(0, 1), ([127, 0, 0, 1], 1).into(), io, Session::Plain, None, 0);
        Rc::new(transport)
    }
}
