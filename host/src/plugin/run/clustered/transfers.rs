//! The connections that go from this node to others, and what the nodes tell each other of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::wire::{WireOutcome, WireScope};
use crate::hub::Released;
use crate::model::{ConnId, NodeId};

/// The time that the owners of a connection's scopes may take to learn of its new node.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// The time after which a claim has certainly lapsed.
const LAPSED: Duration = Duration::from_secs(10);

/// How long a node remembers where a connection has gone. After that, whoever looks for it asks all nodes.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// The number of connections at which the first sweep removes those that are not to be remembered.
const MANY: usize = 65_536;

/// The connections that go from this node to others.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    leaving: Mutex<HashMap<ConnId, Leaving>>,
    gone: DashMap<ConnId, (NodeId, Instant)>,
}

/// A connection that another node has claimed.
#[derive(Debug)]
struct Leaving {
    to: NodeId,
    /// The scopes that have yet to say that they know the other node.
    untold: HashSet<WireScope>,
    told: Arc<Notify>,
    since: Instant,
}

impl Transfers {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ConnId, Leaving>> {
        // No code that holds the lock can panic half way.
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node at which a connection that was here goes on.
    pub(crate) fn node_of(&self, connection: ConnId) -> Option<NodeId> {
        self.gone.get(&connection).map(|gone| gone.0)
    }

    /// Notes that a connection is here.
    pub(crate) fn came(&self, connection: ConnId) {
        self.gone.remove(&connection);
    }

    /// Notes that a connection was claimed, and which scopes have yet to say that they know the other node.
    pub(super) fn begin(&self, connection: ConnId, to: NodeId, untold: HashSet<WireScope>) {
        let mut leaving = self.lock();
        // A node that claims a connection may die before it takes it.
        leaving.retain(|_, leaving| leaving.since.elapsed() < LAPSED);
        leaving.insert(connection, Leaving { to, untold, told: Arc::default(), since: Instant::now() });
    }

    /// Notes that a scope knows where a connection goes on. Returns whether the connection is leaving.
    pub(super) fn told(&self, connection: ConnId, scope: &WireScope) -> bool {
        let mut leaving = self.lock();
        let Some(leaving) = leaving.get_mut(&connection) else { return false };
        leaving.untold.remove(scope);
        leaving.told.notify_one();
        true
    }

    /// Waits until all scopes of a connection know the node that has claimed it. Returns false if they do not in time, or
    /// another node has claimed it.
    pub(super) async fn all_told(&self, connection: ConnId, by: NodeId) -> bool {
        let all_told = async {
            loop {
                let told = match self.lock().get(&connection).filter(|leaving| leaving.to == by) {
                    Some(leaving) if leaving.untold.is_empty() => return true,
                    Some(leaving) => leaving.told.clone(),
                    None => return false,
                };
                told.notified().await;
            }
        };
        timeout(TOLD_WITHIN, all_told).await.unwrap_or(false)
    }

    /// Forgets that a connection is leaving for a node.
    pub(super) fn end(&self, connection: ConnId, by: NodeId) {
        let mut leaving = self.lock();
        if leaving.get(&connection).is_some_and(|leaving| leaving.to == by) {
            leaving.remove(&connection);
        }
    }

    /// Notes where a connection has gone.
    pub(super) fn goes(&self, connection: ConnId, to: NodeId) {
        if self.gone.len() >= MANY {
            self.gone.retain(|_, (_, since)| since.elapsed() < REMEMBERED);
        }
        self.gone.insert(connection, (to, Instant::now()));
    }
}

/// What a connection takes part in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct WireMemberships {
    pub(crate) rooms: Vec<String>,
    pub(crate) watchers: Vec<WireScope>,
}

/// A connection that was claimed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireClaimed {
    pub(crate) since_ms: u64,
    pub(crate) n_changes: u32,
    pub(crate) memberships: WireMemberships,
}

/// What a connection is given up with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireReleased {
    pub(crate) released: Released,
    /// The acknowledgements that its client owes, by the ids that the client got.
    pub(crate) owed: Vec<(u64, WireOwed)>,
    pub(crate) memberships: WireMemberships,
}

/// An acknowledgement that a client owes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireOwed {
    pub(super) scope: WireScope,
    pub(super) ask: u64,
    /// For how long the scope waits for it.
    pub(super) for_ms: u64,
}

/// A scope that has a connection as a member whose nodes have all gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireFound {
    pub(super) scope: WireScope,
    pub(super) joined: bool,
    pub(super) watched: bool,
    pub(super) n_changes: u32,
}

impl WireClaimed {
    /// What scopes know of a connection. `None` where none does.
    pub(crate) fn of_scopes(found: Vec<WireFound>, since_ms: u64) -> Option<Self> {
        let n_changes = found.iter().map(|found| found.n_changes).max()?;
        let joined = found.iter().filter(|found| found.joined);
        let rooms = joined.map(|found| found.scope.key.clone().into()).collect();
        let watchers = found.into_iter().filter(|found| found.watched).map(|found| found.scope).collect();
        Some(Self { since_ms, n_changes, memberships: WireMemberships { rooms, watchers } })
    }
}

/// The answer to an event of a client that has gone on elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireLateAnswer {
    pub(super) connection: u64,
    pub(super) event: Box<str>,
    pub(super) id: Option<i128>,
    pub(super) outcome: WireOutcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connection_leaves_when_all_scopes_are_told() {
        let (transfers, id) = (Transfers::default(), ConnId::new(0, 1, 1));
        let scope = |key: &str| WireScope { plugin: "tickets".into(), key: key.into() };
        let by = NodeId(7);
        assert!(!transfers.told(id, &scope("a")) && !transfers.all_told(id, by).await);
        transfers.begin(id, NodeId(7), HashSet::from([scope("a"), scope("b")]));
        assert!(transfers.told(id, &scope("a")));
        assert!(!transfers.all_told(id, NodeId(8)).await, "another node has not claimed it");
        let (is_told, ()) =
            tokio::join!(transfers.all_told(id, by), async { assert!(transfers.told(id, &scope("b"))) });
        assert!(is_told);
        transfers.goes(id, NodeId(7));
        assert_eq!(transfers.node_of(id), Some(NodeId(7)));
        transfers.came(id);
        assert_eq!(transfers.node_of(id), None);
    }
}
