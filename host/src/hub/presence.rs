//! Presence: whether connections are attached or detached.

use std::sync::Arc;

use super::{Hub, Watcher};
use crate::model::{ConnId, Identity};

/// Whether a connection is detached, and its memberships at that moment.
#[derive(Debug)]
pub struct Presence {
    /// The identity of the connection.
    pub identity: Arc<Identity>,
    /// Its rooms.
    pub rooms: Vec<Arc<str>>,
    /// The scopes that watch it.
    pub watchers: Vec<Watcher>,
    /// Whether it is detached.
    pub is_away: bool,
    /// The number of changes of `is_away`, which orders two notices.
    pub n_changes: u32,
}

impl Hub {
    /// Records that a connection is detached, or attached again. Returns its memberships at that moment; a scope that
    /// it joins later looks the state up by [`Hub::presence`]. `None` if the state has not changed.
    pub fn set_away(&self, id: ConnId, is_away: bool) -> Option<Presence> {
        let mut connection = self.connections.get_mut(&id)?;
        if connection.is_away == is_away {
            return None;
        }
        connection.is_away = is_away;
        connection.n_changes += 1;
        Some(Presence {
            identity: connection.identity.clone(),
            rooms: connection.rooms.clone(),
            watchers: connection.watchers.clone(),
            is_away,
            n_changes: connection.n_changes,
        })
    }

    /// Whether a connection is detached, and the number of changes of that state.
    pub fn presence(&self, id: ConnId) -> Option<(bool, u32)> {
        self.connections.get(&id).map(|connection| (connection.is_away, connection.n_changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::WakeBatch;
    use crate::hub::hub_of_test;

    #[test]
    fn set_away_reports_each_presence_change_once() {
        let hub = hub_of_test(1, 10);
        let ana = ConnId::new(0, 0, 1);
        hub.connect(ana, Arc::new(Identity::of_user("ana")), 0);
        hub.join(ana, &"ticket:1".into(), &WakeBatch::default());
        hub.watch(ana, (7, "ticket:2".into()));
        assert_eq!(hub.presence(ana), Some((false, 0)));
        let away = hub.set_away(ana, true).unwrap();
        assert_eq!((away.is_away, away.n_changes), (true, 1));
        assert_eq!((&*away.rooms[0], &*away.watchers[0].1), ("ticket:1", "ticket:2"));
        assert_eq!(hub.counted_connections_of("ana"), []);
        assert!(hub.set_away(ana, true).is_none(), "it is away already");
        assert_eq!(hub.set_away(ana, false).map(|back| back.n_changes), Some(2));
        assert_eq!(hub.presence(ana), Some((false, 2)));
        hub.disconnect(ana);
        assert!(hub.set_away(ana, true).is_none() && hub.presence(ana).is_none());
    }
}
