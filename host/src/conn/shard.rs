//! A shard: one thread with a single-threaded runtime, and the connections that live on it.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use governor::Quota;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use slab::Slab;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::connection::{Connection, Phase};
use super::members::{Group, Members};
use super::{HttpService, MakeHttpService, Shared};
use crate::hub::{Delivery, Guard, ShardCommand, ShardPort};
use crate::model::{CloseCode, ConnId};
use crate::protocol::websocket;

/// The buffer that all connections of a shard read into, in bytes: what a socket's receive buffer holds by default, halved.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Reads from one socket in a row before others have their turn.
const READS_IN_A_ROW: usize = 8;

/// Commands after which what they queued is written and others have their turn.
const COMMANDS_IN_A_ROW: usize = 1024;

/// What a client is told when the host ends.
const RESTART_REASON: &str = "the host restarts: connect again";

/// Time for a client to send the head of an HTTP request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for an HTTP connection on which no WebSocket comes about, however many requests it makes.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for a client to take our close and answer it. After that its socket is closed under it.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that live on one thread, and everything that they share.
pub struct Shard {
    pub(super) shared: Shared,
    index: usize,
    port: ShardPort,
    http: Rc<dyn HttpService>,
    connections: RefCell<Slab<Rc<Connection>>>,
    pub(super) members: Members,
    dirty: RefCell<Vec<Rc<Connection>>>,
    /// Connections whose outbox went over its bound.
    over_full: RefCell<Vec<Rc<Connection>>>,
    /// Held for others until what is queued has been written.
    guards: RefCell<Vec<Guard>>,
    deadlines: RefCell<BinaryHeap<Reverse<(u64, ConnId)>>>,
    earlier_deadline: Notify,
    next_stamp: Cell<u32>,
    /// Frames queued since the metric was last brought up to date: one shared counter for each frame would cost more
    /// than queueing it.
    frames_queued: Cell<u64>,
    read_buffer: RefCell<Box<[u8]>>,
    stopping: Cell<bool>,
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
    port: ShardPort,
    thread: JoinHandle<()>,
}

impl ShardThread {
    /// Starts the shard that `shared.hub` knows by this index.
    ///
    /// # Errors
    /// Where the thread or its runtime cannot be made.
    pub fn start(index: usize, shared: Shared, make_http: MakeHttpService) -> io::Result<Self> {
        let port = shared.hub.shards()[index].clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Ids of an earlier run may still be remembered somewhere, so that ours must not begin where that began.
        let stamp = RandomState::new().hash_one(index) as u32;
        let thread = thread::Builder::new().name(format!("shard-{index}")).spawn({
            let port = port.clone();
            move || {
                let shard = Rc::new(Shard {
                    shared,
                    index,
                    port,
                    http: make_http(),
                    connections: RefCell::default(),
                    members: Members::default(),
                    dirty: RefCell::default(),
                    over_full: RefCell::default(),
                    guards: RefCell::default(),
                    deadlines: RefCell::default(),
                    earlier_deadline: Notify::new(),
                    next_stamp: Cell::new(stamp),
                    frames_queued: Cell::new(0),
                    read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
                    stopping: Cell::new(false),
                });
                LocalSet::new().block_on(&runtime, shard.run());
            }
        })?;
        Ok(Self { port, thread })
    }

    /// Tells all connections of the shard that the host restarts; returns at once.
    pub fn begin_shutdown(&self) {
        self.port.push(ShardCommand::Shutdown);
    }

    /// Waits until the shard has ended, which it does within [`CLOSE_TIMEOUT`] of being told to.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a shard thread panicked");
        }
    }
}

impl Shard {
    async fn run(self: Rc<Self>) {
        let mut commands = VecDeque::new();
        let port = self.port.clone();
        while !(self.stopping.get() && self.connections.borrow().is_empty()) {
            tokio::select! {
                () = port.receive(&mut commands) => {
                    for (n, command) in commands.drain(..).enumerate() {
                        self.apply(command);
                        if n % COMMANDS_IN_A_ROW == COMMANDS_IN_A_ROW - 1 {
                            self.flush_dirty();
                            yield_now().await;
                        }
                    }
                    self.flush_dirty();
                }
                () = self.next_deadline() => self.meet_deadlines(),
            }
        }
        self.port.close();
    }

    fn apply(self: &Rc<Self>, command: ShardCommand) {
        match command {
            ShardCommand::Accept(socket) => self.accept(socket),
            ShardCommand::Join { connection, room } => {
                // One that is closing is in no room any more.
                if let Some(connection) = self.find(connection).filter(|found| found.phase.get() == Phase::Open) {
                    self.members.join(&connection, Group::Room(room));
                }
            }
            ShardCommand::Leave { connection, room } => {
                if let Some(connection) = self.find(connection) {
                    self.members.leave(&connection, &Group::Room(room));
                }
            }
            ShardCommand::Deliver(delivery) => {
                self.deliver(&delivery);
                self.guards.borrow_mut().extend(delivery.guard);
            }
            ShardCommand::Ask { connection, id, outgoing } => {
                if let Some(connection) = self.find(connection) {
                    let frame = outgoing.frame_with_id(connection.protocol, id);
                    self.enqueue(&connection, frame);
                }
            }
            ShardCommand::Reply { connection, event, id, outcome, read_at } => {
                if let Some(connection) = self.find(connection) {
                    self.answer(&connection, Some(&event), id, outcome.as_ref());
                }
                self.shared.metrics.event_seconds.observe(read_at.elapsed().as_secs_f64());
            }
            ShardCommand::Close { connection, code, reason } => {
                if let Some(connection) = self.find(connection) {
                    self.close(&connection, code, &reason);
                }
            }
            ShardCommand::Shutdown => self.shut_down(),
        }
    }

    fn shut_down(self: &Rc<Self>) {
        if self.stopping.replace(true) {
            return;
        }
        let connections: Vec<_> = self.connections.borrow().iter().map(|(_, connection)| connection.clone()).collect();
        for connection in connections {
            self.close(&connection, CloseCode::Restart, RESTART_REASON);
        }
    }

    fn deliver(self: &Rc<Self>, delivery: &Delivery) {
        self.members.each(
            &delivery.to,
            &delivery.except,
            |id| self.find(id),
            |connection| {
                if delivery.volatile && connection.blocked.get() {
                    self.shared.metrics.frames_dropped.inc();
                } else {
                    self.enqueue(connection, delivery.outgoing.frame(connection.protocol).clone());
                }
            },
        );
        self.settle_over_full();
    }

    /// Whether the host is on its way down, so that nobody new is let in.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    fn accept(self: &Rc<Self>, socket: std::net::TcpStream) {
        let opened = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
        let (socket, peer) = match opened.and_then(|socket| socket.peer_addr().map(|peer| (socket, peer))) {
            Ok(opened) => opened,
            Err(error) => {
                self.port.count(-1);
                return tracing::debug!(%error, "a connection was gone before it was served");
            }
        };
        // Frames are written when they are due, so that there is nothing for the kernel to wait for.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, %peer, "cannot turn Nagle's algorithm off");
        }
        let shard = self.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let response = shard.http.call(&shard, peer, request);
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        let port = self.port.clone();
        spawn_local(async move {
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades();
            if let Ok(Err(error)) = tokio::time::timeout(HTTP_TIMEOUT, served).await {
                tracing::debug!(%error, %peer, "an HTTP connection failed");
            }
            // A WebSocket that came of it counts for itself.
            port.count(-1);
        });
    }

    /// Takes over a socket on which a WebSocket handshake was answered. `received` came behind the handshake.
    pub fn adopt(self: &Rc<Self>, socket: TcpStream, peer: SocketAddr, received: &Bytes, token: Option<&str>) {
        let connection = {
            let mut connections = self.connections.borrow_mut();
            let slot = connections.vacant_entry();
            if slot.key() >= ConnId::MAX_SLOTS {
                return tracing::error!("the shard has no slot left, and drops a connection");
            }
            let stamp = self.next_stamp.get();
            self.next_stamp.set(stamp.wrapping_add(1));
            let id = ConnId::new(self.index, slot.key(), stamp);
            let connection = Rc::new(Connection::new(id, peer, socket, &self.shared.clock, self.quota()));
            slot.insert(connection.clone());
            connection
        };
        self.port.count(1);
        self.shared.metrics.connections.inc();
        self.shared.metrics.connections_opened.inc();
        if self.stopping.get() {
            // Its handshake was answered before the host was told to end.
            self.close(&connection, CloseCode::Restart, RESTART_REASON);
        } else {
            self.begin(&connection, token);
        }
        if !received.is_empty() {
            self.read(&connection, &mut received.to_vec());
        }
        self.flush_dirty();
        if connection.phase.get() != Phase::Ended {
            let reader = spawn_local(self.clone().read_from(connection.clone()));
            *connection.reader.borrow_mut() = Some(reader.abort_handle());
        }
    }

    fn quota(&self) -> Option<Quota> {
        let config = &self.shared.config;
        let rate = NonZeroU32::new(config.events_per_second)?;
        Some(Quota::per_second(rate).allow_burst(NonZeroU32::new(config.event_burst).unwrap_or(rate)))
    }

    async fn read_from(self: Rc<Self>, connection: Rc<Connection>) {
        loop {
            if connection.socket.readable().await.is_err() {
                return self.end(&connection);
            }
            let mut is_drained = false;
            for _ in 0..READS_IN_A_ROW {
                let mut buffer = self.read_buffer.borrow_mut();
                match connection.socket.try_read(&mut buffer) {
                    Ok(0) => return self.end(&connection),
                    Ok(n) => self.read(&connection, &mut buffer[..n]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        is_drained = true;
                        break;
                    }
                    Err(_) => return self.end(&connection),
                }
            }
            self.flush_dirty();
            if connection.phase.get() == Phase::Ended {
                return;
            }
            if !is_drained {
                yield_now().await;
            }
        }
    }

    /// The connection of this id, if it is still here.
    pub(super) fn find(&self, id: ConnId) -> Option<Rc<Connection>> {
        self.connections.borrow().get(id.slot()).filter(|connection| connection.id == id).cloned()
    }

    /// Queues a frame; it is written when the shard has done what is at hand.
    pub(super) fn enqueue(self: &Rc<Self>, connection: &Rc<Connection>, frame: Bytes) {
        if !matches!(connection.phase.get(), Phase::Open | Phase::Authenticating) {
            return;
        }
        let bytes = {
            let mut outbox = connection.outbox.borrow_mut();
            outbox.push(frame);
            outbox.bytes()
        };
        if bytes > self.shared.config.outbox_bytes {
            self.over_full.borrow_mut().push(connection.clone());
        }
        self.frames_queued.set(self.frames_queued.get() + 1);
        if !connection.dirty.replace(true) {
            self.dirty.borrow_mut().push(connection.clone());
        }
    }

    /// Ends connections whose outbox is over its bound although they were given the chance to take what is in it.
    fn settle_over_full(self: &Rc<Self>) {
        let limit = self.shared.config.outbox_bytes;
        for connection in self.over_full.take() {
            self.flush(&connection);
            if connection.outbox.borrow().bytes() > limit
                && matches!(connection.phase.get(), Phase::Open | Phase::Authenticating)
            {
                self.shared.metrics.slow_connections.inc();
                tracing::info!(connection = %connection.id, "a client reads too slowly and is disconnected");
                connection.outbox.borrow_mut().drop_unsent();
                self.close(&connection, CloseCode::TooSlow, "the client reads slower than it is sent to");
            }
        }
    }

    /// Writes what was queued since the last time.
    pub(super) fn flush_dirty(self: &Rc<Self>) {
        self.settle_over_full();
        self.shared.metrics.frames_queued.inc_by(self.frames_queued.take());
        let mut dirty = self.dirty.take();
        // Flushing may end connections, and that may queue for others.
        while !dirty.is_empty() {
            for connection in dirty.drain(..) {
                connection.dirty.set(false);
                self.flush(&connection);
            }
            std::mem::swap(&mut dirty, &mut self.dirty.borrow_mut());
        }
        // The list keeps its memory for the next time.
        self.dirty.replace(dirty);
        // What a slow client has not taken yet is not waited for.
        self.guards.borrow_mut().clear();
    }

    fn flush(self: &Rc<Self>, connection: &Rc<Connection>) {
        if connection.blocked.get() || connection.phase.get() == Phase::Ended {
            return;
        }
        match connection.write_out() {
            Ok(true) => {}
            Ok(false) => {
                connection.blocked.set(true);
                let (shard, connection) = (self.clone(), connection.clone());
                spawn_local(async move {
                    let writable = connection.socket.writable().await;
                    connection.blocked.set(false);
                    match writable {
                        Ok(()) => shard.flush(&connection),
                        Err(_) => shard.end(&connection),
                    }
                });
            }
            Err(_) => self.end(connection),
        }
    }

    /// Tells the client that it is over, and why. From here on it takes part in nothing.
    pub(super) fn close(self: &Rc<Self>, connection: &Rc<Connection>, code: CloseCode, reason: &str) {
        if !matches!(connection.phase.get(), Phase::Open | Phase::Authenticating) {
            return;
        }
        self.enqueue(connection, websocket::close_frame(code.code(), reason));
        connection.phase.set(Phase::Closing);
        let limit = self.shared.clock.uptime_ms() + CLOSE_TIMEOUT.as_millis() as u64;
        connection.times.limit.set(limit);
        self.arm(connection, limit);
        self.depart(connection);
    }

    /// Takes a connection out of everything, and lets go of its socket. What still waits for it is tried once more.
    pub(super) fn end(self: &Rc<Self>, connection: &Rc<Connection>) {
        let before = connection.phase.replace(Phase::Ended);
        if before == Phase::Ended {
            return;
        }
        // Whether this reaches anybody is not known, nor needed.
        let _ = connection.write_out();
        if before != Phase::Closing {
            self.depart(connection);
        }
        self.connections.borrow_mut().try_remove(connection.id.slot());
        self.port.count(-1);
        self.shared.metrics.connections.dec();
        if let Some(reader) = connection.reader.take() {
            reader.abort();
        }
        // The client sees the end at once, though a task may still hold the socket for a moment.
        let _ = socket2::SockRef::from(&connection.socket).shutdown(std::net::Shutdown::Both);
        if self.stopping.get() {
            // The shard's loop sees whether this was the last one.
            self.port.push(ShardCommand::Shutdown);
        }
    }

    /// Has the shard look at a connection again at `deadline`, in milliseconds of uptime.
    pub(super) fn arm(&self, connection: &Connection, deadline: u64) {
        if deadline >= connection.times.armed.get() {
            return;
        }
        connection.times.armed.set(deadline);
        let mut deadlines = self.deadlines.borrow_mut();
        let is_first = deadlines.peek().is_none_or(|Reverse((first, _))| deadline < *first);
        deadlines.push(Reverse((deadline, connection.id)));
        if is_first {
            self.earlier_deadline.notify_one();
        }
    }

    async fn next_deadline(&self) {
        loop {
            let next = self.deadlines.borrow().peek().map(|Reverse((deadline, _))| *deadline);
            match next {
                Some(deadline) => tokio::select! {
                    () = self.shared.clock.sleep_until(deadline) => return,
                    () = self.earlier_deadline.notified() => {}
                },
                None => self.earlier_deadline.notified().await,
            }
        }
    }

    fn meet_deadlines(self: &Rc<Self>) {
        let now = self.shared.clock.uptime_ms();
        loop {
            let due = {
                let mut deadlines = self.deadlines.borrow_mut();
                match deadlines.peek() {
                    Some(Reverse((deadline, _))) if *deadline <= now => deadlines.pop(),
                    _ => None,
                }
            };
            let Some(Reverse((deadline, id))) = due else { break };
            let Some(connection) = self.find(id) else { continue };
            // Only the earliest deadline that was noted counts; whoever looks at the connection notes the next.
            if connection.times.armed.get() == deadline {
                connection.times.armed.set(u64::MAX);
                self.look_after(&connection, now);
            }
        }
        self.flush_dirty();
    }
}
