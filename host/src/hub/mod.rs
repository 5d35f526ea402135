//! The directory of connections and rooms, and the queues of the shards that own them.
//!
//! The hub is shared by all threads and decides membership. Each shard keeps lists of its own members, which it updates
//! by commands, in the order of the hub's changes.

mod adopted;
mod audience;
mod command;
mod connection_set;
mod departure;
mod directory;
mod membership;
mod places;
mod presence;
mod publish;
mod recipients;
mod shard_queue;
mod transfer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

pub use audience::{Audience, Publication};
pub use command::{ConnectionTask, Delivery, RoomId, ShardCommand, Target, Traced};
pub use departure::{Departure, Watcher};
pub use directory::{ConnectionInfo, Page, RoomPage};
pub use membership::{Joined, Overfull};
pub use presence::Presence;
pub use recipients::RecipientCount;
pub use roundhouse_contract::USER_ROOM_PREFIX;
pub use shard_queue::{ShardQueue, WakeBatch};
pub use transfer::{Arrival, Claim, Progress, Released, ReleasedEntry};

pub(crate) use self::connection_set::ConnectionSet;
use crate::ledger::{Ledger, Memberships};
use crate::model::{CloseCode, ConnId, Identity, NodeId};

/// The directory of connections and rooms.
#[derive(Debug)]
pub struct Hub {
    shards: Vec<ShardQueue>,
    connections: DashMap<ConnId, Connection>,
    users: DashMap<Arc<str>, Vec<ConnId>>,
    rooms: DashMap<Arc<str>, Room>,
    /// The connections of each role, without which an audience of roles would need a search of all connections.
    roles: DashMap<Arc<str>, ConnectionSet>,
    next_room: AtomicU64,
    rooms_per_connection: usize,
    ledger: Ledger,
    /// The number of this host in its cluster; 0 without one.
    node: AtomicU16,
    /// The shards of connections that began on other nodes.
    adopted: DashMap<ConnId, usize>,
    n_adopted: AtomicUsize,
}

#[derive(Debug)]
struct Connection {
    identity: Arc<Identity>,
    /// When it was authenticated, in milliseconds since the epoch.
    since_ms: u64,
    rooms: Vec<Arc<str>>,
    watchers: Vec<Watcher>,
    /// Ids of acknowledgements that the client owes: usually none, at times thousands.
    pending_acks: BTreeSet<u64>,
    /// The charge of the memberships to the principal's account, from the first membership on.
    memberships: Option<Memberships>,
    /// Whether the connection is detached: its transport was lost, and its client may resume.
    is_away: bool,
    /// The number of changes of `is_away`.
    n_changes: u32,
    /// Whether the connection counts towards its user's limit. Not while, at the limit, its client may be about to
    /// resume another connection, nor while it is being replaced.
    is_counted: bool,
    /// Whether a client of the plain protocol may resume the connection.
    has_session: bool,
}

#[derive(Debug)]
struct Room {
    id: RoomId,
    connections: ConnectionSet,
    /// The number of members on each shard.
    shards: Vec<usize>,
}

impl Hub {
    /// A hub over these shards. A connection may be in at most `rooms_per_connection` rooms; the ledger limits its
    /// principal.
    pub fn new(shards: Vec<ShardQueue>, rooms_per_connection: usize, ledger: Ledger) -> Self {
        Self {
            shards,
            connections: DashMap::new(),
            users: DashMap::new(),
            rooms: DashMap::new(),
            roles: DashMap::new(),
            next_room: AtomicU64::new(1),
            rooms_per_connection,
            ledger,
            node: AtomicU16::new(0),
            adopted: DashMap::new(),
            n_adopted: AtomicUsize::new(0),
        }
    }

    /// The number of this host in its cluster, which the ids of its new connections carry; 0 without one.
    pub fn node(&self) -> NodeId {
        NodeId(self.node.load(Ordering::Acquire))
    }

    /// Sets the number of this host in its cluster.
    pub fn set_node(&self, node: NodeId) {
        self.node.store(node.0, Ordering::Release);
    }

    /// The accounts of principals, plugins and scopes.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The queues of the shards.
    pub fn shards(&self) -> &[ShardQueue] {
        &self.shards
    }

    /// Adds a connection that was authenticated at `since_ms`, in milliseconds since the epoch.
    pub fn connect(&self, id: ConnId, identity: Arc<Identity>, since_ms: u64) {
        self.users.entry(identity.user.clone()).or_default().push(id);
        self.enter_roles(id, &identity);
        let connection = Connection {
            identity,
            since_ms,
            rooms: Vec::new(),
            watchers: Vec::new(),
            pending_acks: BTreeSet::new(),
            memberships: None,
            is_away: false,
            n_changes: 0,
            is_counted: true,
            has_session: false,
        };
        self.connections.insert(id, connection);
    }

    /// Replaces the identity of a connection by another of the same user.
    pub fn update_identity(&self, id: ConnId, identity: Arc<Identity>) {
        if let Some(mut connection) = self.connections.get_mut(&id) {
            self.leave_roles(id, &connection.identity);
            self.enter_roles(id, &identity);
            connection.identity = identity;
        }
    }

    fn enter_roles(&self, id: ConnId, identity: &Identity) {
        for role in &identity.roles {
            self.roles.entry(role.as_str().into()).or_default().insert(id, &identity.user);
        }
    }

    fn leave_roles(&self, id: ConnId, identity: &Identity) {
        for role in &identity.roles {
            self.roles.remove_if_mut(role.as_str(), |_, connections| {
                connections.remove(id, &identity.user);
                connections.is_empty()
            });
        }
    }

    /// Removes a connection, also from its rooms. `None` if it was removed before.
    pub fn disconnect(&self, id: ConnId) -> Option<Departure> {
        let (_, connection) = self.connections.remove(&id)?;
        if let Entry::Occupied(mut user) = self.users.entry(connection.identity.user.clone()) {
            user.get_mut().retain(|other| *other != id);
            if user.get().is_empty() {
                user.remove();
            }
        }
        self.leave_roles(id, &connection.identity);
        let wakes = WakeBatch::default();
        for room in &connection.rooms {
            self.take_out(id, room, &connection.identity, &wakes);
        }
        self.forget_adopted(id);
        let Connection { identity, rooms, watchers, pending_acks, .. } = connection;
        // Ids ascend in the order of the requests.
        Some(Departure { identity, rooms, watchers, pending_acks: pending_acks.into_iter().collect() })
    }

    /// The identity of a connection.
    pub fn identity(&self, id: ConnId) -> Option<Arc<Identity>> {
        self.connections.get(&id).map(|connection| connection.identity.clone())
    }

    /// Records that acknowledgement `id` is expected of a connection. Returns false if the connection has ended.
    pub fn expect_ack(&self, connection: ConnId, id: u64) -> bool {
        self.connections.get_mut(&connection).is_some_and(|mut connection| connection.pending_acks.insert(id))
    }

    /// Whether acknowledgement `id` is expected of a connection.
    pub fn expects_ack(&self, connection: ConnId, id: u64) -> bool {
        self.connections.get(&connection).is_some_and(|connection| connection.pending_acks.contains(&id))
    }

    /// Removes an expected acknowledgement. Returns whether it was expected.
    pub fn take_ack(&self, connection: ConnId, id: u64) -> bool {
        self.connections.get_mut(&connection).is_some_and(|mut connection| connection.pending_acks.remove(&id))
    }

    /// Whether a connection is in a room for which `owns` is true, or is watched by the plugin `watcher`. `None` if the
    /// connection has ended.
    pub fn is_known_to(&self, id: ConnId, watcher: u32, owns: impl Fn(&str) -> bool) -> Option<bool> {
        let watched = self.connections.get(&id)?.watchers.iter().any(|(plugin, _)| *plugin == watcher);
        Some(watched || self.is_in_any(id, owns)?)
    }

    /// Whether a connection is in a room for which `owns` is true. `None` if the connection has ended.
    pub fn is_in_any(&self, id: ConnId, owns: impl Fn(&str) -> bool) -> Option<bool> {
        Some(self.connections.get(&id)?.rooms.iter().any(|room| owns(room)))
    }

    /// The numbers of connections and distinct users in a room, and of this user's connections there.
    pub fn room_size_with(&self, room: &str, user: &str) -> (usize, usize, usize) {
        self.rooms.get(room).map_or((0, 0, 0), |room| {
            (room.connections.n_connections(), room.connections.n_users(), room.connections.n_connections_of(user))
        })
    }

    /// The numbers of connections and distinct users in a room.
    pub fn room_size(&self, room: &str) -> (usize, usize) {
        self.rooms.get(room).map_or((0, 0), |room| (room.connections.n_connections(), room.connections.n_users()))
    }

    /// The connections in a room, which may be a user's own room.
    pub fn members(&self, room: &str) -> Vec<ConnId> {
        match room.strip_prefix(USER_ROOM_PREFIX) {
            Some(user) => self.connections_of(user),
            None => self.rooms.get(room).map_or_else(Vec::new, |room| room.connections.members().collect()),
        }
    }

    /// The connections of a user.
    pub fn connections_of(&self, user: &str) -> Vec<ConnId> {
        self.users.get(user).map_or_else(Vec::new, |connections| connections.clone())
    }

    /// The numbers of connections, users and rooms.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.connections.len(), self.users.len(), self.rooms.len())
    }

    /// Pings a connection, which is closed if its client does not answer within seconds.
    pub fn probe(&self, id: ConnId) {
        if let Some(shard) = self.queue_of(id) {
            shard.push(ShardCommand::Probe { connection: id });
        }
    }

    /// Closes all connections, with the reason.
    pub fn close_all(&self, code: CloseCode, reason: &str) {
        let all: Vec<_> = self.connections.iter().map(|connection| *connection.key()).collect();
        all.into_iter().for_each(|id| self.close(id, code, reason));
    }

    /// Disconnects a connection for an operator. Returns whether there is one.
    pub fn disconnect_one(&self, id: ConnId, reason: &str) -> bool {
        let is_here = self.connections.contains_key(&id);
        if is_here {
            self.close(id, CloseCode::Disconnected, reason);
        }
        is_here
    }

    /// Disconnects the connections of a user for an operator. Returns how many there are.
    pub fn disconnect_user(&self, user: &str, reason: &str) -> usize {
        let connections = self.connections_of(user);
        connections.iter().for_each(|id| self.close(*id, CloseCode::Disconnected, reason));
        connections.len()
    }

    /// Closes a connection, with the reason.
    pub fn close(&self, id: ConnId, code: CloseCode, reason: &str) {
        if let Some(shard) = self.queue_of(id) {
            shard.push(ShardCommand::Close { connection: id, code, reason: reason.to_owned() });
        }
    }
}

/// A hub over this number of shards, whose connections may be in `rooms` rooms, and principals in twice as many.
#[cfg(test)]
fn hub_of_test(shards: usize, rooms: usize) -> Hub {
    use crate::ledger::Budget;
    let user = Budget { rooms: 2 * rooms, ..Budget::of_user() };
    let (ledger, _) = Ledger::of_test(user, Budget::of_service());
    Hub::new((0..shards).map(|_| ShardQueue::new(64)).collect(), rooms, ledger)
}

/// Connects a user, in this slot of a shard.
#[cfg(test)]
fn connect(hub: &Hub, shard: usize, slot: usize, user: &str) -> ConnId {
    let id = ConnId::new(shard, slot, 1);
    hub.connect(id, Arc::new(Identity::of_user(user)), 0);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> Hub {
        hub_of_test(2, 2)
    }

    #[test]
    fn room_counts_members_until_the_last_leaves() {
        let hub = hub();
        let room: Arc<str> = "ticket:1".into();
        let ana = connect(&hub, 0, 0, "ana");
        let tab = connect(&hub, 1, 0, "ana");
        let ben = connect(&hub, 1, 1, "ben");
        for id in [ana, tab, ben] {
            assert_eq!(hub.join(id, &room, &WakeBatch::default()), Joined::Yes);
        }
        assert_eq!(hub.join(ana, &room, &WakeBatch::default()), Joined::Already);
        assert_eq!(hub.room_size(&room), (3, 2));
        assert!(hub.leave(ana, &room, &WakeBatch::default()) && !hub.leave(ana, &room, &WakeBatch::default()));
        assert_eq!(hub.room_size(&room), (2, 2));
        assert_eq!(hub.disconnect(tab).unwrap().rooms, std::slice::from_ref(&room));
        assert_eq!(hub.room_size(&room), (1, 1));
        hub.disconnect(ben);
        assert_eq!(hub.counts(), (1, 1, 0));
        assert_eq!(hub.join(ben, &room, &WakeBatch::default()), Joined::Gone);
        assert!(hub.disconnect(ben).is_none(), "a connection goes once");
    }

    #[test]
    fn pending_ack_is_taken_once() {
        let hub = hub();
        let ana = connect(&hub, 0, 0, "ana");
        assert!(hub.expect_ack(ana, 5));
        assert!(hub.take_ack(ana, 5) && !hub.take_ack(ana, 5));
        assert!(hub.expect_ack(ana, 6));
        assert_eq!(hub.disconnect(ana).unwrap().pending_acks, [6]);
        assert!(!hub.expect_ack(ana, 7));
    }
}
