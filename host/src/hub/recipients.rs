//! The number of a publication's recipients, from the directory alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Audience, Hub, USER_ROOM_PREFIX};
use crate::model::ConnId;

/// The numbers of connections and of distinct users that get a publication.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecipientCount {
    /// Connections, each counted once.
    pub connections: usize,
    /// Users, each counted once.
    pub users: usize,
}

impl Hub {
    /// Counts the recipients of a publication to `to`, without `except`, at this moment.
    ///
    /// One room, one user, one role, one connection or all cost one look-up. All connections with exceptions cost a
    /// look-up for each exception; any other union or difference costs a look-up for each connection.
    pub fn count_recipients(&self, to: &[Audience], except: &[Audience]) -> RecipientCount {
        if let ([audience], []) = (to, except)
            && let Some(count) = self.count_one(audience)
        {
            return count;
        }
        if to.contains(&Audience::All) {
            return self.all_except(&self.set_of(except));
        }
        self.count(&self.set_of(to) - &self.set_of(except))
    }

    /// Counts the recipients of several publications together, each connection once.
    pub fn count_recipients_of_all(&self, publications: &[(&[Audience], &[Audience])]) -> RecipientCount {
        self.count(self.recipients_of_all(publications))
    }

    /// The recipients of several publications together.
    pub fn recipients_of_all(&self, publications: &[(&[Audience], &[Audience])]) -> HashSet<ConnId> {
        let sets = publications.iter().map(|(to, except)| &self.set_of(to) - &self.set_of(except));
        sets.flatten().filter(|id| self.connections.contains_key(id)).collect()
    }

    fn set_of(&self, audiences: &[Audience]) -> HashSet<ConnId> {
        let mut set = HashSet::new();
        audiences.iter().for_each(|audience| self.collect(audience, &mut set));
        set
    }

    fn count(&self, set: HashSet<ConnId>) -> RecipientCount {
        let users: Vec<Arc<str>> =
            set.iter().filter_map(|id| Some(self.connections.get(id)?.identity.user.clone())).collect();
        RecipientCount { connections: users.len(), users: users.iter().collect::<HashSet<_>>().len() }
    }

    /// The count of an audience without a union; `None` for others.
    fn count_one(&self, audience: &Audience) -> Option<RecipientCount> {
        let of_user = |user: &str| {
            let connections = self.users.get(user).map_or(0, |connections| connections.len());
            RecipientCount { connections, users: connections.min(1) }
        };
        Some(match audience {
            Audience::Room(name) => match name.strip_prefix(USER_ROOM_PREFIX) {
                Some(user) => of_user(user),
                None => {
                    let (connections, users) = self.room_size(name);
                    RecipientCount { connections, users }
                }
            },
            Audience::Users(users) => match users.as_slice() {
                [user] => of_user(user),
                _ => return None,
            },
            Audience::Roles(roles) => match roles.as_slice() {
                [role] => self.roles.get(role.as_str()).map_or_else(RecipientCount::default, |connections| {
                    RecipientCount { connections: connections.n_connections(), users: connections.n_users() }
                }),
                _ => return None,
            },
            Audience::Connection(id) => {
                let connections = usize::from(self.connections.contains_key(id));
                RecipientCount { connections, users: connections }
            }
            Audience::All => RecipientCount { connections: self.connections.len(), users: self.users.len() },
        })
    }

    /// Counts all connections except these. A user without a remaining connection is not counted.
    fn all_except(&self, excepted: &HashSet<ConnId>) -> RecipientCount {
        let mut by_user: HashMap<Arc<str>, usize> = HashMap::new();
        for id in excepted {
            if let Some(connection) = self.connections.get(id) {
                *by_user.entry(connection.identity.user.clone()).or_default() += 1;
            }
        }
        let n_excepted: usize = by_user.values().sum();
        let left_out = by_user
            .iter()
            .filter(|(user, n)| self.users.get(&***user).is_none_or(|connections| connections.len() <= **n));
        RecipientCount {
            connections: self.connections.len().saturating_sub(n_excepted),
            users: self.users.len().saturating_sub(left_out.count()),
        }
    }

    /// Adds the connections of an audience. No lock is held when this returns: connections are locked before rooms.
    fn collect(&self, audience: &Audience, into: &mut HashSet<ConnId>) {
        match audience {
            Audience::Room(name) => into.extend(self.members(name)),
            Audience::Users(users) => users.iter().for_each(|user| into.extend(self.connections_of(user))),
            Audience::Roles(roles) => {
                for role in roles {
                    if let Some(connections) = self.roles.get(role.as_str()) {
                        into.extend(connections.members());
                    }
                }
            }
            Audience::Connection(id) => drop(into.insert(*id)),
            Audience::All => into.extend(self.connections.iter().map(|connection| *connection.key())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::WakeBatch;
    use crate::hub::hub_of_test;
    use crate::model::Identity;

    fn hub() -> Hub {
        let hub = hub_of_test(2, 10);
        for (shard, slot, user, roles) in [
            (0, 0, "ana", vec!["admin", "agent"]),
            (1, 0, "ana", vec!["admin", "agent"]),
            (1, 1, "ben", vec!["agent"]),
            (0, 1, "cara", vec![]),
        ] {
            hub.connect(ConnId::new(shard, slot, 1), with_roles(user, &roles), 0);
        }
        let room: Arc<str> = "ticket:1".into();
        hub.join(ConnId::new(0, 0, 1), &room, &WakeBatch::default());
        hub.join(ConnId::new(1, 1, 1), &room, &WakeBatch::default());
        hub
    }

    fn with_roles(user: &str, roles: &[&str]) -> Arc<Identity> {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Arc::new(Identity { roles, ..Identity::of_user(user) })
    }

    fn users(users: &[&str]) -> Audience {
        Audience::Users(users.iter().map(|user| (*user).to_owned()).collect())
    }

    fn roles(roles: &[&str]) -> Audience {
        Audience::Roles(roles.iter().map(|role| (*role).to_owned()).collect())
    }

    fn room(name: &str) -> Audience {
        Audience::Room(name.to_owned())
    }

    #[test]
    fn recipient_in_several_audiences_counts_once() {
        let hub = hub();
        let tab = Audience::Connection(ConnId::new(1, 0, 1));
        let gone = Audience::Connection(ConnId::new(1, 0, 2));
        for (to, except, connections, n_users) in [
            (vec![users(&["ana"])], vec![], 2, 1),
            (vec![room("user:ana")], vec![], 2, 1),
            (vec![users(&["none"])], vec![], 0, 0),
            (vec![users(&["ana", "ben", "ana", "none"])], vec![], 3, 2),
            (vec![room("ticket:1")], vec![], 2, 2),
            (vec![room("ticket:2")], vec![], 0, 0),
            (vec![roles(&["agent"])], vec![], 3, 2),
            (vec![roles(&["agent", "admin", "none"])], vec![], 3, 2),
            (vec![tab.clone()], vec![], 1, 1),
            (vec![gone.clone()], vec![], 0, 0),
            (vec![tab.clone(), gone.clone(), users(&["ana"])], vec![], 2, 1),
            (vec![Audience::All], vec![], 4, 3),
            (vec![Audience::All], vec![users(&["ana"]), gone.clone()], 2, 2),
            (vec![Audience::All, room("ticket:1")], vec![tab.clone()], 3, 3),
            (vec![Audience::All], vec![Audience::All], 0, 0),
            (vec![users(&["ana", "cara"])], vec![Audience::All], 0, 0),
            (vec![room("ticket:1"), users(&["cara"])], vec![roles(&["admin"])], 2, 2),
            (vec![users(&["ana"])], vec![tab.clone()], 1, 1),
            (vec![], vec![], 0, 0),
        ] {
            let count = hub.count_recipients(&to, &except);
            assert_eq!((count.connections, count.users), (connections, n_users), "{to:?} but {except:?}");
        }
    }

    #[test]
    fn publications_together_count_a_recipient_once() {
        let (hub, ana, ben) = (hub(), users(&["ana"]), users(&["ben"]));
        let count = hub.count_recipients_of_all(&[
            (&[roles(&["agent"])], std::slice::from_ref(&ana)),
            (&[Audience::All], &[ana.clone(), ben.clone()]),
            (std::slice::from_ref(&ben), &[]),
        ]);
        assert_eq!((count.connections, count.users), (2, 2));
    }

    #[test]
    fn roles_follow_a_new_token() {
        let hub = hub();
        let n = |role: &str| hub.count_recipients(&[roles(&[role])], &[]).connections;
        hub.update_identity(ConnId::new(1, 1, 1), with_roles("ben", &["admin", "admin"]));
        assert_eq!((n("admin"), n("agent")), (3, 2));
        for id in [(0, 0), (1, 0), (1, 1)] {
            hub.disconnect(ConnId::new(id.0, id.1, 1)).unwrap();
        }
        assert_eq!((n("admin"), n("agent")), (0, 0));
        assert!(hub.roles.is_empty(), "a role without connections takes no memory");
    }
}
