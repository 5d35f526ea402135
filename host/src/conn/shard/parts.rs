//! A shard: one thread with a single-threaded runtime, and the connections that live on it.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use mio::Registry;
use slab::Slab;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{LocalSet, yield_now};

use super::drain::Drain;
use super::eio::{Credentials, EioSession, Sid};
use super::flush::CLOSE_TIMEOUT;
use super::oversize::Oversize;
use super::pending_resumes::PendingResumes;
use super::read_pace::Pace;
use super::sockets::Sockets;
use super::timers::Timer;
use super::violation::Violations;
use crate::conn::Shared;
use crate::conn::state::connection::Connection;
use crate::conn::state::members::{MemberList, Members};
use crate::conn::state::outbox::Queue;
use crate::conn::state::replay::Entry;
use crate::conn::state::transport::{Io, Phase, Session, Socket, Transport};
use crate::hub::{ShardCommand, ShardQueue};
use crate::model::{CloseCode, ConnId, ErrorCode, spawn_essential};
use crate::protocol::websocket::Decoder;
use crate::protocol::{Protocol, websocket};
use crate::store::DeliveryReceipt;

/// The buffer that all connections of a shard read into, in bytes.
pub(in crate::conn) const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Commands after which what they queued is written, and others have their turn.
const COMMANDS_IN_A_ROW: usize = 1024;

/// What a client is told when the host ends.
pub(in crate::conn) const RESTART_REASON: &str = "the host restarts: connect again";

/// What a WebSocket is for.
#[derive(Debug)]
pub(in crate::conn) enum Handshake {
    /// The plain protocol.
    Plain {
        /// What the handshake showed.
        credentials: Credentials,
    },
    /// EioSession.IO, and Socket.IO on it.
    Eio {
        /// What the handshake showed.
        credentials: Credentials,
        /// Whether every message goes back instead, for suites that test the protocol.
        echoes: bool,
    },
    /// Whatever comes goes back, for suites that test the WebSocket protocol.
    Echo,
}

/// Connections that live on one thread, and everything that they share.
pub(in crate::conn) struct Shard {
    pub(in crate::conn) shared: Shared,
    pub(in crate::conn) index: usize,
    pub(in crate::conn) port: ShardQueue,
    pub(in crate::conn) transports: RefCell<Slab<Rc<Transport>>>,
    pub(in crate::conn) connections: RefCell<Slab<Rc<Connection>>>,
    pub(in crate::conn) members: Members,
    pub(in crate::conn) pending_resumes: PendingResumes,
    pub(in crate::conn) violations: Violations,
    pub(in crate::conn) pace: Pace,
    /// The EioSession.IO sessions that have no WebSocket.
    pub(in crate::conn) polling: RefCell<HashMap<Sid, Rc<Transport>>>,
    /// The names of Socket.IO namespaces that somebody was in.
    pub(in crate::conn) namespaces: RefCell<Vec<Arc<str>>>,
    /// With what sockets are watched.
    pub(in crate::conn) registry: Registry,
    /// What was queued since the shard last wrote.
    pub(in crate::conn) queue: RefCell<Queue>,
    /// Transports for which something was queued.
    pub(in crate::conn) dirty: RefCell<Vec<Rc<Transport>>>,
    /// Transports whose sockets had more to read than they had turns.
    pub(in crate::conn) unread: RefCell<Vec<Rc<Transport>>>,
    /// Transports whose outbox went over its bound.
    pub(in crate::conn) over_limit: RefCell<Vec<Rc<Transport>>>,
    /// Connections whose clients are away, in the order in which they will have been so for too long, and some whose
    /// clients have come back.
    pub(in crate::conn) detached: RefCell<VecDeque<(u64, ConnId)>>,
    /// Those of them that missed more than is kept.
    pub(in crate::conn) incomplete: RefCell<Vec<Rc<Connection>>>,
    /// How many they are.
    pub(in crate::conn) n_detached: Cell<usize>,
    /// The earliest deadline that was noted for them.
    pub(in crate::conn) detached_armed: Cell<u64>,
    /// By how much the system's clock was ahead of uptime when it was last looked at, if it is.
    pub(in crate::conn) wall_offset: Cell<Option<i64>>,
    /// What the logs of all connections take, in bytes: by themselves, and together with the events that they share.
    pub(in crate::conn) kept_bytes: Cell<(usize, usize)>,
    /// Held for others until what is queued has been written.
    pub(in crate::conn) receipts: RefCell<Vec<DeliveryReceipt>>,
    pub(in crate::conn) timers: RefCell<BinaryHeap<Reverse<(u64, Timer)>>>,
    pub(in crate::conn) earlier_timer: Notify,
    pub(in crate::conn) next_stamp: Cell<u32>,
    /// Frames queued since the metric was last brought up to date: one shared counter for each frame would cost more
    /// than queueing it.
    pub(in crate::conn) frames_queued: Cell<u64>,
    pub(in crate::conn) read_buffer: RefCell<Box<[u8]>>,
    pub(in crate::conn) oversize: Oversize,
    /// HTTP connections that are open.
    pub(in crate::conn) http_connections: Cell<usize>,
    pub(in crate::conn) stopping: watch::Sender<bool>,
    /// The connections that are yet to be closed, where that is done one after another.
    pub(in crate::conn) draining: RefCell<Option<Drain>>,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("index", &self.index)
            .field("connections", &self.connections.borrow().len())
            .finish_non_exhaustive()
    }
}

/// The thread of a shard.
#[derive(Debug)]
pub struct ShardThread {
    port: ShardQueue,
    thread: JoinHandle<()>,
}

impl ShardThread {
    /// Starts the shard that `shared.hub` knows by this index.
    ///
    /// # Errors
    /// Where the thread or its runtime cannot be made.
    pub fn start(index: usize, shared: Shared) -> io::Result<Self> {
        let port = shared.hub.shards()[index].clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sockets, registry) = {
            let _entered = runtime.enter();
            Sockets::new()?
        };
        // Ids of an earlier run may still be remembered somewhere, so that ours must not begin where that began.
        let stamp = RandomState::new().hash_one(index) as u32;
        let thread = spawn_essential(thread::Builder::new().name(format!("shard-{index}")), {
            let port = port.clone();
            move || {
                let violations = Violations::new(&shared.clock);
                let pace = Pace::new(shared.config.events_per_second);
                let shard = Rc::new(Shard {
                    shared,
                    index,
                    port,
                    transports: RefCell::default(),
                    connections: RefCell::default(),
                    members: Members::default(),
                    pending_resumes: PendingResumes::default(),
                    violations,
                    pace,
                    polling: RefCell::default(),
                    namespaces: RefCell::default(),
                    registry,
                    queue: RefCell::default(),
                    dirty: RefCell::default(),
                    unread: RefCell::default(),
                    over_limit: RefCell::default(),
                    detached: RefCell::default(),
                    incomplete: RefCell::default(),
                    n_detached: Cell::new(0),
                    detached_armed: Cell::new(u64::MAX),
                    wall_offset: Cell::new(None),
                    kept_bytes: Cell::new((0, 0)),
                    receipts: RefCell::default(),
                    timers: RefCell::default(),
                    earlier_timer: Notify::new(),
                    next_stamp: Cell::new(stamp),
                    frames_queued: Cell::new(0),
                    read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
                    oversize: Oversize::default(),
                    http_connections: Cell::new(0),
                    stopping: watch::Sender::new(false),
                    draining: RefCell::default(),
                });
                LocalSet::new().block_on(&runtime, shard.run(sockets));
            }
        })?;
        Ok(Self { port, thread })
    }

    /// Tells the connections of the shard that the host restarts, one after another evenly over this time, in milliseconds of
    /// uptime; returns at once. `working` is dropped when all have been told.
    pub fn begin_drain(&self, over: Range<u64>, working: mpsc::Sender<Infallible>) {
        self.port.push(ShardCommand::Drain { over, working });
    }

    /// Tells all connections of the shard that the host restarts; returns at once.
    pub fn begin_shutdown(&self) {
        self.port.push(ShardCommand::Shutdown);
    }

    /// Waits until the shard has ended, which it does within [`crate::conn::ConnConfig::shutdown_timeout`] of being told to.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a shard thread panicked");
        }
    }
}

impl Shard {
    async fn run(self: Rc<Self>, mut sockets: Sockets) {
        let (mut commands, mut eio_commands) = (VecDeque::new(), VecDeque::new());
        let port = self.port.clone();
        let eio_sessions = self.shared.eio_sessions.clone();
        let mut deadline = pin!(self.next_timer());
        while !(self.is_stopping() && self.transports.borrow().is_empty() && self.http_connections.get() == 0) {
            tokio::select! {
                () = port.receive(&mut commands), if commands.is_empty() => {}
                () = eio_sessions.inbox(self.index).receive(&mut eio_commands) => {
                    for command in eio_commands.drain(..) {
                        self.run_eio_command(command);
                        // A request may bring many packets.
                        self.flush_dirty();
                        yield_now().await;
                    }
                }
                ready = sockets.ready() => match ready {
                    Ok(ready) => self.serve_ready(ready),
                    Err(error) => tracing::error!(%error, "the kernel does not say which sockets are ready"),
                },
                () = yield_now(), if !commands.is_empty() || !self.unread.borrow().is_empty() => {}
                () = &mut deadline => {
                    deadline.set(self.next_timer());
                    if self.run_due_timers() {
                        yield_now().await;
                    }
                }
            }
            if !self.unread.borrow().is_empty() {
                self.serve_unread();
            }
            if !commands.is_empty() {
                self.run_commands(&mut commands);
            }
        }
        self.port.close();
        eio_sessions.inbox(self.index).close();
    }

    /// Does what the first commands say, and writes what they queued.
    fn run_commands(self: &Rc<Self>, commands: &mut VecDeque<ShardCommand>) {
        let rest = commands.len().saturating_sub(COMMANDS_IN_A_ROW);
        while commands.len() > rest
            && let Some(command) = commands.pop_front()
        {
            self.run_command(command, commands);
        }
        self.flush_dirty();
    }

    /// Does what a command says, and what those `behind` it say as far as it is the same.
    fn run_command(self: &Rc<Self>, command: ShardCommand, behind: &mut VecDeque<ShardCommand>) {
        match command {
            ShardCommand::Accept(socket) => self.serve_http(socket),
            ShardCommand::Join { connection, room } => {
                if let Some(connection) = self.find(connection) {
                    self.members.join(&connection, MemberList::Room(room));
                }
            }
            ShardCommand::Leave { connection, room } => {
                if let Some(connection) = self.find(connection) {
                    self.members.leave(&connection, &MemberList::Room(room));
                }
            }
            ShardCommand::Deliver(delivery) => self.deliver(delivery, behind),
            ShardCommand::Ask { connection, id, outgoing } => {
                if let Some(connection) = self.find(connection) {
                    self.emit_with_ack(&connection, outgoing.frames_with_id(&connection.protocol, id));
                }
            }
            ShardCommand::Reply { connection, event, id, outcome, read_at } => {
                if let Some(connection) = self.find(connection) {
                    self.reply(&connection, Some(&event), id, outcome.as_ref());
                }
                self.shared.metrics.event_seconds.observe(read_at.elapsed().as_secs_f64());
            }
            ShardCommand::Close { connection, code, reason } => {
                if let Some(connection) = self.find(connection) {
                    self.kick(&connection, code, &reason);
                }
            }
            ShardCommand::Drain { over, working } => self.drain(over, working),
            ShardCommand::Probe { connection } => self.probe_connection(connection),
            ShardCommand::ProbeAddress { address } => self.probe_address(address),
            ShardCommand::Evict { transport } => self.evict(transport),
            ShardCommand::Shutdown => self.shut_down(),
        }
    }

    fn shut_down(self: &Rc<Self>) {
        if self.stopping.send_replace(true) {
            return;
        }
        let transports: Vec<_> = self.transports.borrow().iter().map(|(_, transport)| transport.clone()).collect();
        let limit = self.shared.clock.uptime_ms() + self.shared.config.shutdown_timeout.as_millis() as u64;
        for transport in transports {
            self.close(&transport, CloseCode::Restart, RESTART_REASON);
            // One that was told before may have been given more time.
            if limit < transport.times.limit.get() {
                transport.times.limit.set(limit);
                self.arm(&transport, limit);
            }
        }
    }

    /// Asks a connection something. A Socket.IO client that comes back cannot tell whether it was asked, so that this is
    /// kept only while it is away; the plain protocol counts every frame.
    fn emit_with_ack(self: &Rc<Self>, connection: &Rc<Connection>, frames: Bytes) {
        let entry = Entry::Frames(Box::new(frames));
        let transport = connection.transport.borrow().clone();
        match (transport, &connection.protocol) {
            (Some(transport), Protocol::SocketIo { .. }) => {
                self.enqueue(&transport, entry.frames(&connection.protocol))
            }
            _ => self.send_recorded(connection, entry),
        }
    }

    /// Ends a connection for somebody else's reason.
    fn kick(self: &Rc<Self>, connection: &Rc<Connection>, code: CloseCode, reason: &str) {
        self.confirm_by_id(connection);
        let Some(transport) = connection.transport.borrow().clone() else {
            return self.drop_detached(connection.id, None);
        };
        if let Protocol::SocketIo { .. } = &connection.protocol {
            let why = (code == CloseCode::TooManyConnections).then_some((ErrorCode::Conflict, reason));
            self.disconnect_namespace(&transport, connection, why, false);
            if !transport.connections.borrow().is_empty() {
                return self.shared.metrics.closed(code);
            }
            if transport.socket().is_none() {
                // A client looks at the close of an answer before it looks at what stands before that, and would not know
                // that it is unwanted. It ends the session itself, or is ended.
                let limit = self.shared.clock.uptime_ms() + CLOSE_TIMEOUT.as_millis() as u64;
                transport.phase.set(Phase::Authenticating);
                transport.times.limit.set(limit);
                self.shared.metrics.closed(code);
                return self.arm(&transport, limit);
            }
        }
        self.close(&transport, code, reason);
    }

    /// Whether all connections have been told that the host ends.
    pub(in crate::conn) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Takes over a socket on which a WebSocket handshake was answered. `received` came behind the handshake.
    pub(in crate::conn) fn adopt(
        self: &Rc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        received: &Bytes,
        door: Handshake,
    ) {
        let session = match &door {
            Handshake::Plain { .. } => Session::Plain,
            Handshake::Echo => Session::Echo,
            Handshake::Eio { credentials, echoes } => {
                let Ok(id) = Sid::random() else { return tracing::error!("the host has no randomness") };
                Session::Eio(Rc::new(EioSession::new(id, credentials.clone(), *echoes)))
            }
        };
        let io = Io::Socket(Socket::new(socket, Decoder::default()));
        let Some(transport) = self.new_transport(peer, io, session.clone(), None) else { return };
        self.shared.metrics.connections_opened.inc();
        if self.is_stopping() {
            // Its handshake was answered before the host was told to end.
            self.close(&transport, CloseCode::Restart, RESTART_REASON);
        } else if let Err((code, reason)) = self.shared.admission.enter(peer, &self.shared.config) {
            self.shared.metrics.connections_refused.inc();
            if code == CloseCode::TooManyConnections {
                self.probe_all_from(peer.ip());
            }
            self.close(&transport, code, reason);
        } else {
            transport.counted.set(true);
            match (door, session) {
                (Handshake::Plain { credentials }, _) => self.begin_plain(&transport, &credentials),
                (_, Session::Eio(eio)) => {
                    self.enqueue(&transport, websocket::text_frame(&self.open_packet(&eio, &[])));
                    self.begin_eio(&transport, &eio);
                }
                _ => transport.phase.set(Phase::Open),
            }
        }
        if received.is_empty() {
            self.account_incomplete(&transport, 0, false);
        } else {
            self.read(&transport, &mut received.to_vec());
        }
        self.watch(&transport);
        self.flush_dirty();
    }

    /// The connection of this id, if it is still here.
    pub(in crate::conn) fn find(&self, id: ConnId) -> Option<Rc<Connection>> {
        self.connections.borrow().get(id.slot()).filter(|connection| connection.id == id).cloned()
    }
}
