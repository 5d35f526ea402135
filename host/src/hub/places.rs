//! The connections that count towards a user's limit.

use super::Hub;
use crate::model::ConnId;

impl Hub {
    /// Records that a client of the plain protocol may resume this connection.
    pub fn note_session(&self, id: ConnId) {
        if let Some(mut connection) = self.connections.get_mut(&id) {
            connection.has_session = true;
        }
    }

    /// Whether a user has a connection that a client of the plain protocol may resume.
    pub fn has_session(&self, user: &str) -> bool {
        let has_session = |id: &ConnId| self.connections.get(id).is_some_and(|connection| connection.has_session);
        self.connections_of(user).iter().any(has_session)
    }

    /// Sets whether a connection counts towards its user's limit. A new connection does.
    pub fn set_counted(&self, id: ConnId, is_counted: bool) {
        if let Some(mut connection) = self.connections.get_mut(&id) {
            connection.is_counted = is_counted;
        }
    }

    /// The connections that count towards a user's limit, the oldest first, without detached ones.
    pub fn counted_connections_of(&self, user: &str) -> Vec<ConnId> {
        let counted = |id: ConnId| {
            let connection = self.connections.get(&id)?;
            (connection.is_counted && !connection.is_away).then_some((connection.since_ms, id))
        };
        let mut found: Vec<_> = self.connections_of(user).into_iter().filter_map(counted).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::hub_of_test;
    use crate::model::Identity;

    #[test]
    fn attached_connections_are_counted_oldest_first() {
        let hub = hub_of_test(1, 2);
        let ids: Vec<_> = (0..4).map(|slot| ConnId::new(0, slot, 1)).collect();
        for (id, since_ms) in ids.iter().zip([30, 10, 20, 5]) {
            hub.connect(*id, Arc::new(Identity::of_user("ana")), since_ms);
        }
        hub.set_away(ids[3], true);
        assert_eq!(hub.counted_connections_of("ana"), [ids[1], ids[2], ids[0]]);
        hub.set_counted(ids[2], false);
        assert_eq!(hub.counted_connections_of("ana"), [ids[1], ids[0]]);
        hub.set_counted(ids[2], true);
        hub.set_away(ids[3], false);
        assert_eq!(hub.counted_connections_of("ana"), [ids[3], ids[1], ids[2], ids[0]]);
        assert_eq!(hub.counted_connections_of("ben"), []);
    }

    #[test]
    fn session_lasts_until_its_connection_ends() {
        let hub = hub_of_test(1, 2);
        let id = ConnId::new(0, 0, 1);
        hub.connect(id, Arc::new(Identity::of_user("ana")), 0);
        assert!(!hub.has_session("ana"));
        hub.note_session(id);
        assert!(hub.has_session("ana") && !hub.has_session("ben"));
        hub.disconnect(id);
        assert!(!hub.has_session("ana"));
    }
}
