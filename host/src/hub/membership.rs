//! The memberships of a connection: its rooms, and the scopes that watch it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dashmap::mapref::entry::Entry;

use super::connection_set::ConnectionSet;
use super::{Connection, Hub, Room, RoomId, ShardCommand, WakeBatch, Watcher};
use crate::ledger::{Ledger, Memberships, Overdraft};
use crate::model::{ConnId, Identity};

/// The result of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The connection is a member now, and was not before.
    Yes,
    /// The connection was a member already.
    Already,
    /// The connection has ended.
    Gone,
    /// The connection, or its principal, is at the limit of rooms.
    TooMany,
}

/// The limit that a new membership would exceed.
#[derive(Debug)]
pub enum Overfull {
    /// The limit of a connection.
    Connection,
    /// The limit of its principal, over all of the principal's connections.
    Principal(Overdraft),
}

impl Connection {
    /// Its memberships, in the account of its principal.
    fn memberships(&mut self, ledger: &Ledger) -> &mut Memberships {
        let principal = &self.identity.principal;
        self.memberships.get_or_insert_with(|| Memberships::new(ledger.user(principal)))
    }
}

impl Hub {
    /// Adds a connection to a room.
    pub fn join(&self, id: ConnId, room: &Arc<str>, wakes: &WakeBatch) -> Joined {
        // The connection stays locked until the end, so that a disconnect happens entirely before or entirely after.
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
            connections: ConnectionSet::default(),
            shards: vec![0; self.shards.len()],
        });
        entry.connections.insert(id, &connection.identity.user);
        let shard = self.shard_of(id);
        entry.shards[shard] += 1;
        // Queued while the room is locked, so that the shard gets changes in the order of the hub.
        self.shards[shard].push_quietly(ShardCommand::Join { connection: id, room: entry.id }, wakes);
        Joined::Yes
    }

    /// Removes a connection from a room. Returns whether it was a member.
    pub fn leave(&self, id: ConnId, room: &str, wakes: &WakeBatch) -> bool {
        let Some(mut connection) = self.connections.get_mut(&id) else { return false };
        let Some(at) = connection.rooms.iter().position(|other| **other == *room) else { return false };
        connection.rooms.swap_remove(at);
        connection.memberships(&self.ledger).leave();
        self.take_out(id, room, &connection.identity, wakes);
        true
    }

    pub(super) fn take_out(&self, id: ConnId, room: &str, identity: &Identity, wakes: &WakeBatch) {
        let Entry::Occupied(mut entry) = self.rooms.entry(room.into()) else { return };
        let members = entry.get_mut();
        if !members.connections.remove(id, &identity.user) {
            return;
        }
        let shard = self.shard_of(id);
        members.shards[shard] -= 1;
        self.shards[shard].push_quietly(ShardCommand::Leave { connection: id, room: members.id }, wakes);
        if members.connections.is_empty() {
            entry.remove();
        }
    }

    /// Registers a scope to be notified when this connection ends. Returns whether the connection still exists. The
    /// caller must check the limits before ([`Hub::has_room_for`]).
    pub fn watch(&self, id: ConnId, watcher: Watcher) -> bool {
        let Some(mut connection) = self.connections.get_mut(&id) else { return false };
        if !connection.watchers.contains(&watcher) {
            connection.watchers.push(watcher);
            connection.memberships(&self.ledger).watch();
        }
        true
    }

    /// The scopes that watch a connection.
    pub fn watchers(&self, id: ConnId) -> Vec<Watcher> {
        self.connections.get(&id).map(|connection| connection.watchers.clone()).unwrap_or_default()
    }

    /// Undoes [`Hub::watch`].
    pub fn unwatch(&self, id: ConnId, plugin: u32, scope: &str) {
        let Some(mut connection) = self.connections.get_mut(&id) else { return };
        let at = connection.watchers.iter().position(|(other, key)| *other == plugin && **key == *scope);
        if let Some(at) = at {
            connection.watchers.swap_remove(at);
            connection.memberships(&self.ledger).unwatch();
        }
    }

    /// Whether a connection may join these rooms, and be watched by this scope. The limit of watching scopes is that of
    /// rooms.
    ///
    /// # Errors
    /// Where that would exceed a limit of the connection, or of its principal over all connections.
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{connect, hub_of_test};
    use crate::ledger::Means;

    fn hub() -> Hub {
        hub_of_test(2, 2)
    }

    #[test]
    fn rooms_of_a_connection_are_bounded() {
        let hub = hub();
        let ana = connect(&hub, 0, 0, "ana");
        assert_eq!(hub.join(ana, &"a".into(), &WakeBatch::default()), Joined::Yes);
        assert_eq!(hub.join(ana, &"b".into(), &WakeBatch::default()), Joined::Yes);
        assert_eq!(hub.join(ana, &"c".into(), &WakeBatch::default()), Joined::TooMany);
    }

    #[test]
    fn rooms_of_a_user_are_bounded_over_connections() {
        let hub = hub();
        let tabs = [0, 1, 2].map(|slot| connect(&hub, 0, slot, "ana"));
        let room = |n: usize| -> Arc<str> { format!("room:{n}").into() };
        for (n, tab) in [tabs[0], tabs[0], tabs[1], tabs[1]].into_iter().enumerate() {
            assert!(hub.has_room_for(tab, &HashSet::from([&*room(n)]), None).is_ok());
            assert_eq!(hub.join(tab, &room(n), &WakeBatch::default()), Joined::Yes);
        }
        assert!(matches!(hub.has_room_for(tabs[0], &HashSet::from(["a"]), None), Err(Overfull::Connection)));
        let refused = hub.has_room_for(tabs[2], &HashSet::from(["a"]), None);
        let Err(Overfull::Principal(overdraft)) = refused else { panic!("{refused:?}") };
        assert_eq!((overdraft.held, overdraft.bound), (4, 4));
        assert_eq!(hub.join(tabs[2], &"a".into(), &WakeBatch::default()), Joined::TooMany);
        assert_eq!(
            hub.join(connect(&hub, 0, 3, "ben"), &"a".into(), &WakeBatch::default()),
            Joined::Yes,
            "another user has its own"
        );
        hub.leave(tabs[0], "room:0", &WakeBatch::default());
        assert_eq!(hub.join(tabs[2], &"a".into(), &WakeBatch::default()), Joined::Yes);
    }

    #[test]
    fn ended_memberships_are_credited_to_the_account() {
        let hub = hub();
        let (ana, tab) = (connect(&hub, 0, 0, "ana"), connect(&hub, 1, 0, "ana"));
        let account = hub.ledger().user(&"ana".into());
        hub.join(ana, &"a".into(), &WakeBatch::default());
        hub.join(tab, &"a".into(), &WakeBatch::default());
        for key in ["x", "y", "x"] {
            hub.watch(ana, (1, key.into()));
        }
        assert_eq!((account.held(Means::Rooms).0, account.held(Means::Watches).0), (2, 2));
        hub.unwatch(ana, 1, "x");
        hub.unwatch(ana, 1, "x");
        hub.leave(ana, "a", &WakeBatch::default());
        hub.leave(ana, "a", &WakeBatch::default());
        assert_eq!((account.held(Means::Rooms).0, account.held(Means::Watches).0), (1, 1));
        hub.disconnect(ana);
        hub.disconnect(tab);
        assert!(account.is_empty());
    }
}
