//! A transport: one way to a client, with its outbox.
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
use crate::net::{Holding, RawSocket, TlsSession};
use crate::protocol::websocket::Decoder;

/// The phase in a transport's lifecycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No client has signed in yet.
    Authenticating,
    /// Events are sent and received.
    Open,
    /// The host's close was sent. All input except the client's close is ignored.
    Closing,
    /// The transport was removed, or is about to be.
    Ended,
}

/// The protocol of a transport.
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
    /// Every message is sent back, for conformance suites of WebSocket alone.
    Echo,
}

/// The I/O of a transport.
#[derive(Debug)]
pub(crate) enum Io {
    Socket(Socket),
    /// A polling session, with the request that waits for packets, if any.
    Polling(RefCell<Option<Poll>>),
}

/// A WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) tcp: TcpStream,
    /// The TLS of the socket; empty after a handoff, which took it. On the heap, so that sockets without TLS are small.
    pub(crate) tls: Option<Box<RefCell<Option<TlsSession>>>>,
    pub(crate) decoder: RefCell<Decoder>,
    /// Whether the kernel's send buffer is full. The poller reports when it has room again.
    pub(crate) blocked: Cell<bool>,
}

impl Socket {
    pub(crate) fn new(socket: RawSocket, decoder: Decoder) -> Self {
        let tls = socket.tls.map(|tls| Box::new(RefCell::new(Some(tls))));
        Self { tcp: socket.tcp, tls, decoder: RefCell::new(decoder), blocked: Cell::new(false) }
    }

    /// Takes the TLS for a handoff. Nothing can be read or written after it.
    pub(crate) fn take_tls(&self) -> Option<TlsSession> {
        self.tls.as_ref().and_then(|tls| tls.take())
    }

    /// The bytes that are held of incomplete records of TLS.
    pub(crate) fn incomplete_tls(&self) -> usize {
        self.tls.as_ref().and_then(|tls| tls.borrow().as_ref().map(TlsSession::incomplete)).unwrap_or_default()
    }

    /// Tells a client with TLS that no more follows, as far as its socket takes it: the end of a connection is best
    /// effort.
    pub(crate) fn close_tls(&self) {
        if let Some(tls) = self.tls.as_ref().and_then(|tls| tls.borrow_mut().take())
            && let Err(error) = tls.close_on(&self.tcp)
        {
            tracing::trace!(%error, "a client left before it was told of the end");
        }
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
    /// Whether the transport is in the list of those to flush.
    pub(crate) dirty: Cell<bool>,
    /// Whether the transport is in the list of those with more to read.
    pub(crate) unread: Cell<bool>,
    /// The connections that it carries.
    pub(crate) connections: RefCell<Vec<ConnId>>,
    /// Those that wait for features to admit them.
    pub(crate) waiting: RefCell<Vec<ConnId>>,
    pub(crate) times: Times,
    /// Whether the transport counts towards the limits of connections.
    pub(crate) counted: Cell<bool>,
    /// Set while the transport is being handed off to another shard.
    pub(crate) handoff: RefCell<Option<Box<PendingHandoff>>>,
    pub(crate) rate: RefCell<Option<Rate>>,
    /// Set when the socket is no longer read.
    pub(crate) muted: Cell<bool>,
    /// The transport's share of the budget for incomplete messages.
    pub(crate) holding: RefCell<Option<Holding>>,
    /// Bytes read for which the user has not been charged yet.
    pub(crate) read_bytes: Cell<usize>,
    /// The query and the chosen headers of a plain client's handshake, for features.
    pub(crate) handshake: RefCell<Option<Box<str>>>,
}

/// Times of a transport, in milliseconds of uptime.
#[derive(Debug)]
pub(crate) struct Times {
    /// When input was last read.
    pub(crate) heard: Cell<u64>,
    /// When the last ping was sent.
    pub(crate) pinged: Cell<u64>,
    /// Deadline of authentication, of a pending first frame, or of the client's answer to a close; `u64::MAX` is none.
    pub(crate) limit: Cell<u64>,
    /// The earliest timer of the transport; `u64::MAX` is none.
    pub(crate) armed: Cell<u64>,
    /// The end of a pause of reading; 0 without a pause.
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
            waiting: RefCell::default(),
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
            handshake: RefCell::default(),
        }
    }

    /// Whether no close was sent on the transport.
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

    /// The Engine.IO session, if the transport has one.
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

    /// Deadline of the incomplete message, in milliseconds of uptime; `u64::MAX` is none. Before the client has signed
    /// in, only [`Times::limit`] counts.
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
