//! A set of connections that also counts its users.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::ConnId;

/// A set of connections that counts its distinct users.
#[derive(Debug, Default)]
pub(crate) struct ConnectionSet {
    members: HashSet<ConnId>,
    /// How many connections each user has in the set.
    users: HashMap<Arc<str>, usize>,
}

impl ConnectionSet {
    /// Adds a connection. Returns whether it is new.
    pub(crate) fn insert(&mut self, id: ConnId, user: &Arc<str>) -> bool {
        let is_new = self.members.insert(id);
        if is_new {
            *self.users.entry(user.clone()).or_default() += 1;
        }
        is_new
    }

    /// Removes a connection. Returns whether it was in the set.
    pub(crate) fn remove(&mut self, id: ConnId, user: &str) -> bool {
        let was_in = self.members.remove(&id);
        if was_in && let Some(connections) = self.users.get_mut(user) {
            *connections -= 1;
            if *connections == 0 {
                self.users.remove(user);
            }
        }
        was_in
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn n_connections(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn n_users(&self) -> usize {
        self.users.len()
    }

    /// How many connections of a user are in the set.
    pub(crate) fn n_connections_of(&self, user: &str) -> usize {
        self.users.get(user).copied().unwrap_or(0)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = ConnId> {
        self.members.iter().copied()
    }
}
