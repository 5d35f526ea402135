//! The nodes of a cluster, and which of them live.
//!
//! Each node counts its beats in Redis. A node is given up by any other that has not seen its counter move for
//! [`GONE_AFTER_MS`] **on its own clock**: no clocks are compared. Giving up is conditional on the counter, so of two
//! opinions the one of the living node counts; and it is in Redis, so all nodes have the same view.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::NodeId;

/// The time without a beat after which a node is given up, in milliseconds.
pub(super) const GONE_AFTER_MS: u64 = 3500;

/// The time without a connection to Redis after which a node is given up: a node whose network failed for a moment has made
/// another by then. A node that lives keeps one open for nothing else, however slow its machine or Redis is.
pub(super) const UNHEARD_AFTER_MS: u64 = 1000;

/// The time between two beats, and between two looks at the connections of the others.
pub(super) const BEAT_MS: u64 = 500;
pub(super) const LOOK_MS: u64 = 250;

/// The time after which a node that is not in the view has gone, and is not newer than the view, in milliseconds.
pub const ABSENT_MS: u64 = 2 * BEAT_MS;

/// A node of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name, for operators.
    pub name: String,
    /// Its name with a random text, which tells it from an earlier node of its number.
    pub(super) registered: String,
}

/// The nodes that live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// By number.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// Nodes that have gone a moment ago. Their clients may come back to another node.
    pub missed: BTreeSet<NodeId>,
}

/// What this node has seen of the others.
#[derive(Debug, Default)]
pub(super) struct Observer {
    seen: HashMap<NodeId, Seen>,
    /// The nodes that were given up, each with when its counter was last seen to move.
    given_up: HashMap<NodeId, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    beats: u64,
    moved_ms: u64,
    /// Whether it had a connection to Redis since this node had one.
    is_heard: bool,
    /// Since when it has had none.
    unheard_ms: Option<u64>,
}

impl Observer {
    /// Notes the counters of all nodes.
    pub(super) fn note_beats(&mut self, now: u64, beats: &HashMap<NodeId, u64>) {
        let given_up = self.seen.extract_if(|node, _| !beats.contains_key(node));
        self.given_up.extend(given_up.map(|(node, seen)| (node, seen.moved_ms)));
        for (node, beats) in beats {
            let fresh = Seen { beats: *beats, moved_ms: now, is_heard: false, unheard_ms: None };
            let seen = self.seen.entry(*node).or_insert(fresh);
            if seen.beats != *beats {
                *seen = Seen { beats: *beats, moved_ms: now, ..*seen };
            }
        }
    }

    /// The nodes that were given up before [`GONE_AFTER_MS`] had passed since their last beat: until then, their clients are
    /// expected to come back to other nodes.
    pub(super) fn missed(&mut self, now: u64) -> BTreeSet<NodeId> {
        self.given_up.retain(|_, moved_ms| now < *moved_ms + GONE_AFTER_MS);
        self.given_up.keys().copied().collect()
    }

    /// Notes whether a node has a connection to Redis.
    pub(super) fn note_connection(&mut self, now: u64, node: NodeId, is_heard: bool) {
        if let Some(seen) = self.seen.get_mut(&node) {
            seen.is_heard |= is_heard;
            // A node that has not come back yet, after Redis was away for all, may need longer than this one.
            seen.unheard_ms = if is_heard || !seen.is_heard { None } else { seen.unheard_ms.or(Some(now)) };
        }
    }

    /// Restarts the time-outs of all nodes, after this node was without Redis itself.
    pub(super) fn forgive(&mut self, now: u64) {
        for seen in self.seen.values_mut() {
            *seen = Seen { moved_ms: now, is_heard: false, unheard_ms: None, ..*seen };
        }
    }

    /// The nodes to give up, each with its counter.
    pub(super) fn gone(&self, now: u64) -> Vec<(NodeId, u64)> {
        let is_gone = |seen: &Seen| {
            now.saturating_sub(seen.moved_ms) >= GONE_AFTER_MS
                // One that has counted a beat since lives, whatever became of that connection.
                || seen.unheard_ms.is_some_and(|since| now.saturating_sub(since.max(seen.moved_ms)) >= UNHEARD_AFTER_MS)
        };
        self.seen.iter().filter(|(_, seen)| is_gone(seen)).map(|(node, seen)| (*node, seen.beats)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(of: &[(u16, u64)]) -> HashMap<NodeId, u64> {
        of.iter().map(|(node, beats)| (NodeId(*node), *beats)).collect()
    }

    #[test]
    fn silent_node_is_gone_after_its_time() {
        let mut observer = Observer::default();
        observer.note_beats(0, &beats(&[(1, 5), (2, 7)]));
        observer.note_beats(3000, &beats(&[(1, 8), (2, 7)]));
        assert_eq!(observer.gone(3499), []);
        assert_eq!(observer.gone(3500), [(NodeId(2), 7)]);
        observer.note_beats(4000, &beats(&[(1, 9)]));
        assert_eq!(observer.gone(6000), []);
    }

    #[test]
    fn node_without_connection_is_gone_sooner() {
        let mut observer = Observer::default();
        observer.note_beats(0, &beats(&[(1, 5)]));
        observer.note_connection(100, NodeId(1), false);
        assert_eq!(observer.gone(1200), [], "it may not have connected yet");
        observer.note_connection(900, NodeId(1), true);
        observer.note_connection(1000, NodeId(1), false);
        assert_eq!(observer.gone(1999), []);
        observer.note_connection(2000, NodeId(1), false);
        assert_eq!(observer.gone(2000), [(NodeId(1), 5)]);
        observer.note_beats(1900, &beats(&[(1, 6)]));
        assert_eq!(observer.gone(2000), [], "it has counted a beat since");
        assert_eq!(observer.gone(2900), [(NodeId(1), 6)]);
    }

    #[test]
    fn given_up_node_is_missed_for_a_while() {
        let mut observer = Observer::default();
        observer.note_beats(0, &beats(&[(1, 5), (2, 7)]));
        observer.note_beats(1000, &beats(&[(2, 8)]));
        assert_eq!(observer.missed(1000), BTreeSet::from([NodeId(1)]));
        assert_eq!(observer.missed(3499).len(), 1);
        assert_eq!(observer.missed(3500), BTreeSet::new());
        observer.note_beats(6000, &beats(&[]));
        assert_eq!(observer.missed(6000), BTreeSet::new(), "it was silent for long before it was given up");
    }

    #[test]
    fn observer_that_was_away_forgives() {
        let mut observer = Observer::default();
        observer.note_beats(0, &beats(&[(1, 5)]));
        observer.forgive(60_000);
        assert_eq!(observer.gone(63_000), []);
        assert_eq!(observer.gone(63_500), [(NodeId(1), 5)]);
    }
}
