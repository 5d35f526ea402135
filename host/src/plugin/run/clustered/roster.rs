//! The members of a scope in a cluster, on all nodes: who they are, and which users are in the scope's room.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hub::ConnectionSet;
use crate::model::{ConnId, Identity, NodeId};

/// The membership of a connection in a scope.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Membership {
    pub(crate) joined: bool,
    pub(crate) watched: bool,
    /// Whether the connection sent this scope an event of its own.
    pub(crate) came: bool,
    /// Whether the last change of presence that the scope knows is `away`.
    pub(crate) is_away: bool,
    /// The number of the last change of presence that the scope knows.
    pub(crate) n_changes: u32,
    /// The node that the connection is on, if it is not the one that it began on.
    pub(crate) node: Option<NodeId>,
    /// The node at which it is about to go on, which gets all that is for it, too.
    pub(crate) next: Option<NodeId>,
}

impl Membership {
    /// The nodes that get what is for the member: the one that it is on, and the one at which it is about to go on.
    pub(crate) fn nodes(&self, connection: ConnId) -> impl Iterator<Item = NodeId> {
        [Some(self.node.unwrap_or(connection.node())), self.next].into_iter().flatten()
    }
}

/// The members of a scope, as its owner knows them. The hub of a node knows only its own connections.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    people: HashMap<ConnId, Arc<Identity>>,
    /// Those in the scope's room.
    room: ConnectionSet,
}

impl Roster {
    pub(crate) fn identity(&self, connection: ConnId) -> Option<&Arc<Identity>> {
        self.people.get(&connection)
    }

    /// The numbers of connections and distinct users in the room.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.room.n_connections(), self.room.n_users())
    }

    /// The number of a user's connections in the room.
    pub(crate) fn n_connections_of(&self, user: &str) -> usize {
        self.room.n_connections_of(user)
    }

    /// The connections in the room.
    pub(super) fn in_room(&self) -> impl Iterator<Item = ConnId> {
        self.room.members()
    }

    /// Brings it up to date for a connection. `identity` is known where the connection is new.
    pub(super) fn update(&mut self, connection: ConnId, member: Option<&Membership>, identity: Option<&Arc<Identity>>) {
        if let Some(identity) = identity
            && self.people.get(&connection).is_some_and(|known| known.user != identity.user)
        {
            // It was not known who the connection is.
            self.remove(connection);
        }
        let Some(member) = member else { return self.remove(connection) };
        let unknown = || Arc::new(Identity::of_user(""));
        let known = self.people.entry(connection).or_insert_with(|| identity.cloned().unwrap_or_else(unknown));
        match member.joined {
            true => drop(self.room.insert(connection, &known.user)),
            false => drop(self.room.remove(connection, &known.user)),
        }
    }

    fn remove(&mut self, connection: ConnId) {
        if let Some(identity) = self.people.remove(&connection) {
            self.room.remove(connection, &identity.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roster_counts_users_of_all_nodes() {
        let mut roster = Roster::default();
        let (ana, ben) = (Arc::new(Identity::of_user("ana")), Arc::new(Identity::of_user("ben")));
        let of = |node: u16, slot: usize| ConnId::new(0, slot, 1).on(NodeId(node));
        let joined = Membership { joined: true, ..Membership::default() };
        roster.update(of(1, 1), Some(&joined), Some(&ana));
        roster.update(of(2, 1), Some(&joined), Some(&ana));
        roster.update(of(2, 2), Some(&joined), None);
        assert_eq!(roster.size(), (3, 2));
        roster.update(of(2, 2), Some(&joined), Some(&ben));
        assert_eq!((roster.size(), roster.n_connections_of("ana"), roster.n_connections_of("ben")), ((3, 2), 2, 1));
        roster.update(of(2, 1), Some(&Membership::default()), None);
        roster.update(of(1, 1), None, None);
        assert_eq!(roster.size(), (1, 1));
        assert!(roster.identity(of(2, 1)).is_some(), "it is watched, or was");
    }
}
