//! Who is connected, who is in which room, and the way to all of them.
//!
//! The hub is shared by all threads and is the one truth about membership; each shard keeps a list of its own members,
//! which follows by commands that are queued in the order in which the hub changed.

mod audience;
mod crowd;
mod directory;
mod places;
mod port;
mod presence;
mod publish;
mod reach;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

pub use audience::{Audience, Guard, Publication};
pub use directory::{ConnectionInfo, Page, RoomPage};
pub use port::{Delivery, RoomId, ShardCommand, ShardPort, Target};
pub use presence::Presence;
pub use reach::Reach;

use self::crowd::Crowd;
use crate::ledger::{Ledger, Memberships, Overdraft};
use crate::model::{CloseCode, ConnId, Identity};

/// The room that every connection of a user is in by itself.
pub const USER_ROOM_PREFIX: &str = "user:";

/// A scope that wants to hear of a connection's end, as its owner names it: plugin and scope key.
pub type Watcher = (u32, Arc<str>);

/// The directory of connections and rooms.
#[derive(Debug)]
pub struct Hub {
    shards: Vec<ShardPort>,
    connections: DashMap<ConnId, Connection>,
    users: DashMap<Arc<str>, Vec<ConnId>>,
    rooms: DashMap<Arc<str>, Room>,
    /// Who has a role, so that asking is not a search through everybody.
    roles: DashMap<Arc<str>, Crowd>,
    next_room: AtomicU64,
    rooms_per_connection: usize,
    ledger: Ledger,
}

#[derive(Debug)]
struct Connection {
    identity: Arc<Identity>,
    /// When it was let in, in milliseconds since the epoch.
    since_ms: u64,
    rooms: Vec<Arc<str>>,
    watchers: Vec<Watcher>,
    /// Acknowledgements that this connection owes, which may be thousands and mostly are none.
    owed: BTreeSet<u64>,
    /// What it takes part in, in the account of its principal, once there is anything.
    memberships: Option<Memberships>,
    /// Whether its client has lost it and may come back.
    is_away: bool,
    /// How often that has changed.
    n_changes: u32,
    /// Whether it counts towards its user's limit, as it does unless it is on trial or gives its place to another.
    is_counted: bool,
    /// Whether a client of the plain protocol may come back to it.
    has_session: bool,
}

impl Connection {
    /// What it takes part in. The account is that of whoever it was opened by.
    fn memberships(&mut self, ledger: &Ledger) -> &mut Memberships {
        let principal = &self.identity.principal;
        self.memberships.get_or_insert_with(|| Memberships::new(ledger.user(principal)))
    }
}

#[derive(Debug)]
struct Room {
    id: RoomId,
    crowd: Crowd,
    /// Members on each shard.
    shards: Vec<usize>,
}

/// What came of an attempt to put a connection into a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// It is in now, and was not before.
    Yes,
    /// It was in already.
    Already,
    /// It is no longer connected.
    Gone,
    /// It, or its principal, is in as many rooms as it may be.
    TooMany,
}

/// Why a connection cannot take part in more.
#[derive(Debug)]
pub enum Overfull {
    /// It takes part in as much as a connection may.
    Connection,
    /// Its principal does, with all of its connections.
    Principal(Overdraft),
}

/// What a connection leaves behind.
#[derive(Debug)]
pub struct Departure {
    /// Who it was.
    pub identity: Arc<Identity>,
    /// The rooms it was in.
    pub rooms: Vec<Arc<str>>,
    /// The scopes that watched it.
    pub watchers: Vec<Watcher>,
    /// Acknowledgements that nobody will give any more.
    pub owed: Vec<u64>,
}

impl Hub {
    /// A hub over these shards. A connection may be in `rooms_per_connection` rooms at most, and its principal in as many as
    /// the ledger says.
    pub fn new(shards: Vec<ShardPort>, rooms_per_connection: usize, ledger: Ledger) -> Self {
        Self {
            shards,
            connections: DashMap::new(),
            users: DashMap::new(),
            rooms: DashMap::new(),
            roles: DashMap::new(),
            next_room: AtomicU64::new(1),
            rooms_per_connection,
            ledger,
        }
    }

    /// The accounts of those who are connected, and of others.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The ways to the shards.
    pub fn shards(&self) -> &[ShardPort] {
        &self.shards
    }

    /// Enters a connection that has been authenticated, at this time in milliseconds since the epoch.
    pub fn connect(&self, id: ConnId, identity: Arc<Identity>, since_ms: u64) {
        self.users.entry(identity.user.clone()).or_default().push(id);
        self.enter_roles(id, &identity);
        let connection = Connection {
            identity,
            since_ms,
            rooms: Vec::new(),
            watchers: Vec::new(),
            owed: BTreeSet::new(),
            memberships: None,
            is_away: false,
            n_changes: 0,
            is_counted: true,
            has_session: false,
        };
        self.connections.insert(id, connection);
    }

    /// Replaces what is known of a connection's person; the user stays the same.
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
            self.roles.remove_if_mut(role.as_str(), |_, crowd| {
                crowd.remove(id, &identity.user);
                crowd.is_empty()
            });
        }
    }

    /// Strikes a connection out, from its rooms too. `None` where it was out already.
    pub fn disconnect(&self, id: ConnId) -> Option<Departure> {
        let (_, connection) = self.connections.remove(&id)?;
        if let Entry::Occupied(mut user) = self.users.entry(connection.identity.user.clone()) {
            user.get_mut().retain(|other| *other != id);
            if user.get().is_empty() {
                user.remove();
            }
        }
        self.leave_roles(id, &connection.identity);
        for room in &connection.rooms {
            self.take_out(id, room, &connection.identity);
        }
        let Connection { identity, rooms, watchers, owed, .. } = connection;
        // In the order in which they were asked for.
        Some(Departure { identity, rooms, watchers, owed: owed.into_iter().collect() })
    }

    /// Who is behind a connection.
    pub fn identity(&self, id: ConnId) -> Option<Arc<Identity>> {
        self.connections.get(&id).map(|connection| connection.identity.clone())
    }

    /// Puts a connection into a room.
    pub fn join(&self, id: ConnId, room: &Arc<str>) -> Joined {
        // The connection stays locked meanwhile, so that a disconnect comes wholly before or wholly after.
        let Some(mut connection) = self.connections.get_mut(&id) else { return Joined::Gone };
        if connection.rooms.contains(room) {
            return Joined::Already;
        }
        if connection.rooms.len() >= self.rooms_per_connection || connection.memberships(&self.ledger).join().is_err() {
            return Joined::TooMany;
        }
        connection.rooms.push(room.clone());
        let mut entry = self.rooms.entry(room.clone()).or_insert_with(|| Room {
            id: RoomId(self.next_room.fetch_add(1, Ordering::Relaxed)),
            crowd: Crowd::default(),
            shards: vec![0; self.shards.len()],
        });
        entry.crowd.insert(id, &connection.identity.user);
        entry.shards[id.shard()] += 1;
        // Queued while the room is locked: shards hear of changes in the order in which they were made.
        self.shards[id.shard()].push(ShardCommand::Join { connection: id, room: entry.id });
        Joined::Yes
    }

    /// Takes a connection out of a room. Says whether it was in.
    pub fn leave(&self, id: ConnId, room: &str) -> bool {
        let Some(mut connection) = self.connections.get_mut(&id) else { return false };
        let Some(at) = connection.rooms.iter().position(|other| **other == *room) else { return false };
        connection.rooms.swap_remove(at);
        connection.memberships(&self.ledger).leave();
        self.take_out(id, room, &connection.identity);
        true
    }

    fn take_out(&self, id: ConnId, room: &str, identity: &Identity) {
        let Entry::Occupied(mut entry) = self.rooms.entry(room.into()) else { return };
        let members = entry.get_mut();
        if !members.crowd.remove(id, &identity.user) {
            return;
        }
        members.shards[id.shard()] -= 1;
        self.shards[id.shard()].push(ShardCommand::Leave { connection: id, room: members.id });
        if members.crowd.is_empty() {
            entry.remove();
        }
    }

    /// Has a scope told when this connection ends. Says whether it is still there. The caller sees to it that the
    /// connection has room for one more ([`Hub::has_room_for`]).
    pub fn watch(&self, id: ConnId, watcher: Watcher) -> bool {
        let Some(mut connection) = self.connections.get_mut(&id) else { return false };
        if !connection.watchers.contains(&watcher) {
            connection.watchers.push(watcher);
            connection.memberships(&self.ledger).watch();
        }
        true
    }

    /// Has a scope told no more when this connection ends.
    pub fn unwatch(&self, id: ConnId, plugin: u32, scope: &str) {
        let Some(mut connection) = self.connections.get_mut(&id) else { return };
        let at = connection.watchers.iter().position(|(other, key)| *other == plugin && **key == *scope);
        if let Some(at) = at {
            connection.watchers.swap_remove(at);
            connection.memberships(&self.ledger).unwatch();
        }
    }

    /// Notes that a connection owes the acknowledgement `id`. Says whether it is still there.
    pub fn owe(&self, connection: ConnId, id: u64) -> bool {
        self.connections.get_mut(&connection).is_some_and(|mut connection| connection.owed.insert(id))
    }

    /// Strikes an owed acknowledgement out. Says whether it was owed.
    pub fn settle(&self, connection: ConnId, id: u64) -> bool {
        self.connections.get_mut(&connection).is_some_and(|mut connection| connection.owed.remove(&id))
    }

    /// Whether a connection is in a room of which `owns` is true, or is watched by the plugin `watcher`.
    /// `None` where it is no longer connected.
    pub fn is_known_to(&self, id: ConnId, watcher: u32, owns: impl Fn(&str) -> bool) -> Option<bool> {
        let connection = self.connections.get(&id)?;
        let watched = connection.watchers.iter().any(|(plugin, _)| *plugin == watcher);
        Some(watched || connection.rooms.iter().any(|room| owns(room)))
    }

    /// Whether a connection may come into these rooms, and be watched by this scope. As many different scopes may
    /// watch it as it may be in rooms.
    ///
    /// # Errors
    /// Where it, or its principal with all of its connections, would take part in more than it may.
    pub fn has_room_for(
        &self,
        id: ConnId,
        rooms: &HashSet<&str>,
        watcher: Option<(u32, &str)>,
    ) -> Result<(), Overfull> {
        let Some(mut connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let n_new = rooms.iter().filter(|room| !connection.rooms.iter().any(|other| **other == ***room)).count();
        let is_new = |(plugin, scope): (u32, &str)| {
            !connection.watchers.iter().any(|(other, key)| *other == plugin && **key == *scope)
        };
        let is_watched = watcher.is_some_and(is_new);
        if n_new == 0 && !is_watched {
            return Ok(());
        }
        if (n_new > 0 && connection.rooms.len() + n_new > self.rooms_per_connection)
            || (is_watched && connection.watchers.len() >= self.rooms_per_connection)
        {
            return Err(Overfull::Connection);
        }
        connection.memberships(&self.ledger).check(n_new, usize::from(is_watched)).map_err(Overfull::Principal)
    }

    /// Connections and different users in a room, and how many of the connections are this user's.
    pub fn room_size_with(&self, room: &str, user: &str) -> (usize, usize, usize) {
        self.rooms.get(room).map_or((0, 0, 0), |room| {
            (room.crowd.n_connections(), room.crowd.n_users(), room.crowd.n_connections_of(user))
        })
    }

    /// Connections and different users in a room.
    pub fn room_size(&self, room: &str) -> (usize, usize) {
        self.rooms.get(room).map_or((0, 0), |room| (room.crowd.n_connections(), room.crowd.n_users()))
    }

    /// The connections in a room, which may be a user's own.
    pub fn members(&self, room: &str) -> Vec<ConnId> {
        match room.strip_prefix(USER_ROOM_PREFIX) {
            Some(user) => self.connections_of(user),
            None => self.rooms.get(room).map_or_else(Vec::new, |room| room.crowd.members().collect()),
        }
    }

    /// The connections of a user.
    pub fn connections_of(&self, user: &str) -> Vec<ConnId> {
        self.users.get(user).map_or_else(Vec::new, |connections| connections.clone())
    }

    /// Connections, users and rooms that there are.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.connections.len(), self.users.len(), self.rooms.len())
    }

    /// Asks a connection for a sign of life, without which it ends within seconds.
    pub fn probe(&self, id: ConnId) {
        if let Some(shard) = self.shards.get(id.shard()) {
            shard.push(ShardCommand::Probe { connection: id });
        }
    }

    /// Ends a connection, telling it why.
    pub fn close(&self, id: ConnId, code: CloseCode, reason: &str) {
        if let Some(shard) = self.shards.get(id.shard()) {
            shard.push(ShardCommand::Close { connection: id, code, reason: reason.to_owned() });
        }
    }
}

/// A hub over so many shards, whose principals may be in `rooms` rooms, as may each connection.
#[cfg(test)]
fn hub_of_test(shards: usize, rooms: usize) -> Hub {
    use crate::ledger::Budget;
    let user = Budget { rooms: 2 * rooms, ..Budget::of_user() };
    let (ledger, _) = Ledger::of_test(user, Budget::of_service());
    Hub::new((0..shards).map(|_| ShardPort::new(64)).collect(), rooms, ledger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Means;

    fn hub() -> Hub {
        hub_of_test(2, 2)
    }

    fn connect(hub: &Hub, shard: usize, slot: usize, user: &str) -> ConnId {
        let id = ConnId::new(shard, slot, 1);
        hub.connect(id, Arc::new(Identity::of_user(user)), 0);
        id
    }

    #[test]
    fn a_room_counts_connections_and_people_and_goes_with_the_last() {
        let hub = hub();
        let room: Arc<str> = "ticket:1".into();
        let ana = connect(&hub, 0, 0, "ana");
        let tab = connect(&hub, 1, 0, "ana");
        let ben = connect(&hub, 1, 1, "ben");
        for id in [ana, tab, ben] {
            assert_eq!(hub.join(id, &room), Joined::Yes);
        }
        assert_eq!(hub.join(ana, &room), Joined::Already);
        assert_eq!(hub.room_size(&room), (3, 2));
        assert!(hub.leave(ana, &room) && !hub.leave(ana, &room));
        assert_eq!(hub.room_size(&room), (2, 2));
        assert_eq!(hub.disconnect(tab).unwrap().rooms, std::slice::from_ref(&room));
        assert_eq!(hub.room_size(&room), (1, 1));
        hub.disconnect(ben);
        assert_eq!(hub.counts(), (1, 1, 0));
        assert_eq!(hub.join(ben, &room), Joined::Gone);
        assert!(hub.disconnect(ben).is_none(), "a connection goes once");
    }

    #[test]
    fn the_rooms_of_a_connection_are_bounded() {
        let hub = hub();
        let ana = connect(&hub, 0, 0, "ana");
        assert_eq!(hub.join(ana, &"a".into()), Joined::Yes);
        assert_eq!(hub.join(ana, &"b".into()), Joined::Yes);
        assert_eq!(hub.join(ana, &"c".into()), Joined::TooMany);
    }

    #[test]
    fn the_rooms_of_a_user_are_bounded_over_all_connections() {
        let hub = hub();
        let tabs = [0, 1, 2].map(|slot| connect(&hub, 0, slot, "ana"));
        let room = |n: usize| -> Arc<str> { format!("room:{n}").into() };
        for (n, tab) in [tabs[0], tabs[0], tabs[1], tabs[1]].into_iter().enumerate() {
            assert!(hub.has_room_for(tab, &HashSet::from([&*room(n)]), None).is_ok());
            assert_eq!(hub.join(tab, &room(n)), Joined::Yes);
        }
        assert!(matches!(hub.has_room_for(tabs[0], &HashSet::from(["a"]), None), Err(Overfull::Connection)));
        let refused = hub.has_room_for(tabs[2], &HashSet::from(["a"]), None);
        let Err(Overfull::Principal(overdraft)) = refused else { panic!("{refused:?}") };
        assert_eq!((overdraft.held, overdraft.bound), (4, 4));
        assert_eq!(hub.join(tabs[2], &"a".into()), Joined::TooMany);
        assert_eq!(hub.join(connect(&hub, 0, 3, "ben"), &"a".into()), Joined::Yes, "another user has its own");
        hub.leave(tabs[0], "room:0");
        assert_eq!(hub.join(tabs[2], &"a".into()), Joined::Yes);
    }

    #[test]
    fn memberships_are_struck_out_when_they_end() {
        let hub = hub();
        let (ana, tab) = (connect(&hub, 0, 0, "ana"), connect(&hub, 1, 0, "ana"));
        let account = hub.ledger().user(&"ana".into());
        hub.join(ana, &"a".into());
        hub.join(tab, &"a".into());
        for key in ["x", "y", "x"] {
            hub.watch(ana, (1, key.into()));
        }
        assert_eq!((account.held(Means::Rooms).0, account.held(Means::Watches).0), (2, 2));
        hub.unwatch(ana, 1, "x");
        hub.unwatch(ana, 1, "x");
        hub.leave(ana, "a");
        hub.leave(ana, "a");
        assert_eq!((account.held(Means::Rooms).0, account.held(Means::Watches).0), (1, 1));
        hub.disconnect(ana);
        hub.disconnect(tab);
        assert!(account.is_empty());
    }

    #[test]
    fn an_owed_acknowledgement_is_settled_once() {
        let hub = hub();
        let ana = connect(&hub, 0, 0, "ana");
        assert!(hub.owe(ana, 5));
        assert!(hub.settle(ana, 5) && !hub.settle(ana, 5));
        assert!(hub.owe(ana, 6));
        assert_eq!(hub.disconnect(ana).unwrap().owed, [6]);
        assert!(!hub.owe(ana, 7));
    }
}
