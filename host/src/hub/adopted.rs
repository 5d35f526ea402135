//! Connections that were on other nodes of a cluster, whose ids do not name their shard here.

use std::sync::atomic::Ordering;

use dashmap::mapref::entry::Entry;

use super::transfer::Arrival;
use super::{Hub, ShardQueue};
use crate::model::ConnId;

impl Hub {
    /// The shard of a connection: the one in its id, unless it began on another node.
    pub fn shard_of(&self, id: ConnId) -> usize {
        if self.n_adopted.load(Ordering::Acquire) > 0
            && let Some(shard) = self.adopted.get(&id)
        {
            return *shard;
        }
        id.shard()
    }

    /// The queue of a connection's shard. `None` for an id that no node of as many shards gave.
    pub fn queue_of(&self, id: ConnId) -> Option<&ShardQueue> {
        self.shards.get(self.shard_of(id))
    }

    /// Adds a connection that was on another node, on this shard. Returns false if it is here already.
    pub fn adopt(&self, id: ConnId, shard: usize, arrival: Arrival) -> bool {
        match self.adopted.entry(id) {
            Entry::Occupied(_) => return false,
            Entry::Vacant(vacant) => drop(vacant.insert(shard)),
        }
        self.n_adopted.fetch_add(1, Ordering::AcqRel);
        self.connect(id, arrival.identity, arrival.since_ms);
        if let Some(mut connection) = self.connections.get_mut(&id) {
            (connection.is_away, connection.n_changes) = (true, arrival.n_changes);
        }
        true
    }

    pub(super) fn forget_adopted(&self, id: ConnId) {
        if self.n_adopted.load(Ordering::Acquire) > 0 && self.adopted.remove(&id).is_some() {
            self.n_adopted.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::{Audience, ShardCommand, WakeBatch, hub_of_test};
    use crate::model::{Identity, NodeId};

    #[tokio::test]
    async fn adopted_connection_is_reached_on_its_shard() {
        let hub = hub_of_test(2, 10);
        // Of a node that has more shards than this one.
        let id = ConnId::new(7, 0, 1).on(NodeId(3));
        assert!(hub.queue_of(id).is_none());
        let arrival = || Arrival { identity: Arc::new(Identity::of_user("ana")), since_ms: 0, n_changes: 5 };
        assert!(hub.adopt(id, 1, arrival()) && !hub.adopt(id, 0, arrival()), "one of two shards has it");
        assert_eq!((hub.shard_of(id), hub.presence(id)), (1, Some((true, 5))));
        hub.join(id, &"r".into(), &WakeBatch::default());
        let count = hub.count_recipients(&[Audience::Room("r".to_owned())], &[]);
        assert_eq!(count.connections, 1);
        let mut commands = std::collections::VecDeque::new();
        hub.shards()[1].receive(&mut commands).await;
        assert!(matches!(commands.pop_front(), Some(ShardCommand::Join { connection, .. }) if connection == id));
        hub.disconnect(id).unwrap();
        assert!(hub.queue_of(id).is_none() && hub.counts() == (0, 0, 0));
    }
}
