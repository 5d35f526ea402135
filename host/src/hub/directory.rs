//! The directory for operators: connections in pages.

use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{Hub, RecipientCount};
use crate::model::{ConnId, Identity};

/// A connection at the moment of the query.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnId,
    /// Its identity.
    pub identity: Arc<Identity>,
    /// When it was authenticated, in milliseconds since the epoch.
    pub since_ms: u64,
    /// Its rooms, except its user's own.
    pub rooms: Vec<Arc<str>>,
}

/// Some of many connections, in the order of their ids.
#[derive(Debug)]
pub struct Page {
    /// The connections.
    pub connections: Vec<ConnectionInfo>,
    /// The id after which the next page begins; `None` on the last page.
    pub next: Option<ConnId>,
}

/// A room: its size, and a page of its members.
#[derive(Debug)]
pub struct RoomPage {
    /// The numbers of connections and users.
    pub size: RecipientCount,
    /// Some of its members.
    pub page: Page,
}

impl Hub {
    /// A connection, if it has not ended.
    pub fn connection(&self, id: ConnId) -> Option<ConnectionInfo> {
        let connection = self.connections.get(&id)?;
        let (identity, since_ms) = (connection.identity.clone(), connection.since_ms);
        Some(ConnectionInfo { id, identity, since_ms, rooms: connection.rooms.clone() })
    }

    /// At most `limit` connections after `after`, of one user or of all.
    pub fn page_of_connections(&self, user: Option<&str>, after: Option<ConnId>, limit: usize) -> Page {
        match user {
            Some(user) => self.page(self.connections_of(user).into_iter(), after, limit),
            None => self.page(self.connections.iter().map(|connection| *connection.key()), after, limit),
        }
    }

    /// At most `limit` members of a room after `after`. `None` for an empty room.
    pub fn page_of_room(&self, room: &str, after: Option<ConnId>, limit: usize) -> Option<RoomPage> {
        let members = self.members(room);
        let size = self.count_recipients(&[super::Audience::Room(room.to_owned())], &[]);
        (!members.is_empty()).then(|| RoomPage { size, page: self.page(members.into_iter(), after, limit) })
    }

    fn page(&self, ids: impl Iterator<Item = ConnId>, after: Option<ConnId>, limit: usize) -> Page {
        // A heap of the lowest ids so far. The highest of them is on top, to be replaced by a lower one.
        // One more than asked for tells whether there is a next page.
        let n_wanted = limit.saturating_add(1);
        let mut lowest = BinaryHeap::new();
        for id in ids.filter(|id| after.is_none_or(|after| *id > after)) {
            if lowest.len() < n_wanted || lowest.peek().is_some_and(|highest| id < *highest) {
                lowest.push(id);
                if lowest.len() > n_wanted {
                    lowest.pop();
                }
            }
        }
        let mut ids = lowest.into_sorted_vec();
        let next = (ids.len() > limit).then(|| {
            ids.truncate(limit);
            ids.last().copied()
        });
        // A connection that has ended meanwhile is left out.
        Page { connections: ids.into_iter().filter_map(|id| self.connection(id)).collect(), next: next.flatten() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::WakeBatch;
    use crate::hub::hub_of_test;

    #[test]
    fn pages_list_each_connection_once_by_id() {
        let hub = hub_of_test(2, 10);
        let mut all = Vec::new();
        for n in 0..7 {
            let id = ConnId::new(n % 2, n, 1);
            hub.connect(id, Arc::new(Identity::of_user(["ana", "ben"][n % 2])), n as u64);
            hub.join(id, &"r".into(), &WakeBatch::default());
            all.push(id);
        }
        all.sort();
        for limit in 1..=8 {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = hub.page_of_connections(None, after, limit);
                assert!(page.connections.len() <= limit);
                seen.extend(page.connections.iter().map(|connection| connection.id));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, all, "in pages of {limit}");
        }
        assert_eq!(hub.page_of_connections(Some("ben"), None, 10).connections.len(), 3);
        let room = hub.page_of_room("r", Some(all[4]), 10).unwrap();
        assert_eq!((room.size.connections, room.size.users, room.page.connections.len()), (7, 2, 2));
        assert_eq!(hub.page_of_room("user:ana", None, 2).unwrap().page.next, Some(all[1]));
        assert!(hub.page_of_room("empty", None, 2).is_none());
    }
}
