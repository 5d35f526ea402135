//! The shard's fields, each of which owns its state. The work on them is in the other files of this module.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;

use mio::Registry;

use crate::conn::config::ConnConfig;
use crate::conn::shared::Shared;
use crate::conn::state::{
    Admissions, ClientLog, Connection, Connections, Detached, Exports, Imports, Members, PendingResumes, Poller,
    ReadPace, Shutdown, SignIns, Timers, Transport, TransportId, Transports, WallClock, Writes,
};
use crate::hub::ShardQueue;
use crate::metrics::Metrics;
use crate::model::ConnId;

/// The connections that one thread owns, and the state that they share.
pub(in crate::conn) struct Shard {
    index: usize,
    shared: Shared,
    queue: ShardQueue,
    transports: Transports,
    connections: Connections,
    members: Members,
    pending_resumes: PendingResumes,
    admissions: Admissions,
    imports: Imports,
    exports: Exports,
    detached: Detached,
    writes: Writes,
    poller: Poller,
    timers: Timers,
    wall_clock: WallClock,
    read_pace: ReadPace,
    sign_ins: SignIns,
    client_log: ClientLog,
    shutdown: Shutdown,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("index", &self.index)
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// The shard of this index in `shared.hub`. Sockets are watched with `registry`.
    pub(super) fn new(index: usize, shared: Shared, registry: Registry) -> Self {
        // Ids of an earlier run may still be in use elsewhere, so the stamps begin at random.
        let first_stamp = RandomState::new().hash_one(index) as u32;
        Self {
            index,
            queue: shared.hub.shards()[index].clone(),
            transports: Transports::new(first_stamp),
            connections: Connections::new(index, first_stamp),
            members: Members::default(),
            pending_resumes: PendingResumes::default(),
            admissions: Admissions::default(),
            imports: Imports::default(),
            exports: Exports::default(),
            detached: Detached::new(),
            writes: Writes::new(shared.config.outbox_bytes),
            poller: Poller::new(registry),
            timers: Timers::default(),
            wall_clock: WallClock::default(),
            read_pace: ReadPace::new(shared.config.events_per_second),
            sign_ins: SignIns::new(),
            client_log: ClientLog::new(&shared.clock),
            shutdown: Shutdown::new(),
            shared,
        }
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(in crate::conn) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(in crate::conn) fn config(&self) -> &ConnConfig {
        &self.shared.config
    }

    pub(in crate::conn) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The current time, in milliseconds of uptime.
    pub(in crate::conn) fn now(&self) -> u64 {
        self.shared.clock.uptime_ms()
    }

    /// The queue by which other threads reach this shard.
    pub(in crate::conn) fn queue(&self) -> &ShardQueue {
        &self.queue
    }

    pub(super) fn transports(&self) -> &Transports {
        &self.transports
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    pub(super) fn pending_resumes(&self) -> &PendingResumes {
        &self.pending_resumes
    }

    pub(super) fn admissions(&self) -> &Admissions {
        &self.admissions
    }

    pub(super) fn imports(&self) -> &Imports {
        &self.imports
    }

    pub(super) fn exports(&self) -> &Exports {
        &self.exports
    }

    pub(super) fn detached(&self) -> &Detached {
        &self.detached
    }

    pub(super) fn writes(&self) -> &Writes {
        &self.writes
    }

    pub(super) fn poller(&self) -> &Poller {
        &self.poller
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    pub(super) fn wall_clock(&self) -> &WallClock {
        &self.wall_clock
    }

    pub(super) fn read_pace(&self) -> &ReadPace {
        &self.read_pace
    }

    pub(in crate::conn) fn sign_ins(&self) -> &SignIns {
        &self.sign_ins
    }

    pub(super) fn client_log(&self) -> &ClientLog {
        &self.client_log
    }

    pub(in crate::conn) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The connection of an id, unless it has ended.
    pub(super) fn connection(&self, id: ConnId) -> Option<Rc<Connection>> {
        self.connections.find(id)
    }

    /// The transport of an id, unless it has ended.
    pub(super) fn transport(&self, id: TransportId) -> Option<Rc<Transport>> {
        self.transports.find(id)
    }

    /// The transport of a connection. `None` while the connection is detached or its frames are held.
    pub(super) fn transport_of(&self, connection: &Connection) -> Option<Rc<Transport>> {
        self.transports.find(connection.transport.get()?)
    }

    /// The first connection of a transport, which is the only one of a plain transport.
    pub(super) fn first_connection(&self, transport: &Transport) -> Option<Rc<Connection>> {
        self.connections.find_among(&transport.connections.borrow(), |_| true)
    }

    /// All connections of a transport.
    pub(super) fn connections_of(&self, transport: &Transport) -> Vec<Rc<Connection>> {
        transport.connections.borrow().iter().filter_map(|id| self.connections.find(*id)).collect()
    }

    /// Whether the shard is stopping: closes were sent to all clients.
    pub(super) fn is_stopping(&self) -> bool {
        self.shutdown.is_stopping()
    }
}
