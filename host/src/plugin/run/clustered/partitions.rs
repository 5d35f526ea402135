//! The partitions of a plugin thread: which of them this node owns, and the events that wait for the rest.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::batch::{Batch, InFlight, ScopeId};
use super::node::Node;
use crate::cluster::{ABSENT_MS, EventId, Partition, Snapshot, View};
use crate::model::{ConnId, NodeId};
use crate::plugin::event::{ReplyTo, Stage};
use crate::plugin::run::envelope::Envelope;

/// The most batches of a partition that wait for Redis. Further events wait themselves.
const MAX_IN_FLIGHT: usize = 32;

/// The partitions of a plugin thread.
#[derive(Debug)]
pub(crate) struct Partitions {
    pub(super) node: Arc<Node>,
    pub(super) slots: HashMap<Partition, Slot>,
    pub(super) is_up: bool,
    pub(super) view: Arc<View>,
    /// Nodes that were in the view and are not any more, which get nothing.
    pub(super) gone: HashSet<NodeId>,
    /// The nodes of members that were not in the view when that was looked at last.
    pub(super) absent: Absent,
    /// Whether members have come since the nodes were last compared with them, whose nodes may be gone.
    pub(super) is_unchecked: bool,
    /// The names of plugins, by number.
    pub(super) names: HashMap<u32, Box<str>>,
    /// Partitions with an open batch.
    pub(super) open: Vec<Partition>,
    /// Whether a deadline for events that wait is set.
    pub(super) has_deadline: bool,
    /// The scopes of each member whose nodes have all gone, from when one was asked for until the nodes change.
    pub(super) orphaned: Option<HashMap<ConnId, Vec<ScopeId>>>,
}

/// Nodes of members that are not in the view, each with since when, in milliseconds of uptime: they have gone, or are newer than the
/// view.
#[derive(Debug, Default)]
pub(super) struct Absent(HashMap<NodeId, u64>);

impl Absent {
    /// Takes in the nodes that are absent now. Returns those that have gone: they were in a view, or have been absent for long. The
    /// number of the others, which are to be looked at again, comes with them.
    pub(super) fn look(
        &mut self,
        absent: HashSet<NodeId>,
        were_in_view: &HashSet<NodeId>,
        now: u64,
    ) -> (HashSet<NodeId>, usize) {
        self.0.retain(|node, _| absent.contains(node));
        let is_gone = |node: &NodeId| {
            let since = *self.0.entry(*node).or_insert(now);
            were_in_view.contains(node) || now >= since + ABSENT_MS
        };
        let (gone, others): (HashSet<_>, HashSet<_>) = absent.into_iter().partition(is_gone);
        (gone, others.len())
    }
}

/// A partition.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) phase: Phase,
    /// Events that can be neither handled nor forwarded yet, each with when it came, in milliseconds of uptime.
    pub(super) waiting: VecDeque<(u64, Envelope)>,
    /// The partition as it was taken, while this node has yet to make a change of plugins that its former owner had made: no
    /// scope is handled by an older build after a newer one.
    pub(super) held: Option<Box<Snapshot>>,
}

#[derive(Debug, Default)]
pub(super) enum Phase {
    /// Another node owns it, or none.
    #[default]
    Foreign,
    /// This node has asked for it.
    Taking,
    Owned(Box<Owned>),
}

/// A partition that this node owns.
#[derive(Debug, Default)]
pub(super) struct Owned {
    pub(super) epoch: u64,
    /// The number of the last batch.
    pub(super) sequence: u64,
    /// The number of the last batch before this owner's.
    pub(super) taken_at: u64,
    pub(super) batch: Batch,
    pub(super) in_flight: VecDeque<InFlight>,
    /// The number of each node's last forwarded event.
    pub(super) forwarded: HashMap<NodeId, u64>,
    /// The forwarded events whose commit was not answered.
    pub(super) unhandled: HashMap<EventId, Bytes>,
    /// The batch up to which a heal stands, while it waits for its answer.
    pub(super) healing: Option<u64>,
    /// The revision of the plugins that its commits are of: see [`super::node::Revisions`].
    pub(super) plugins: u64,
    /// Records of features that are not loaded here.
    pub(super) orphans: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Partitions {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            slots: HashMap::new(),
            is_up: true,
            view: Arc::default(),
            gone: HashSet::new(),
            absent: Absent::default(),
            is_unchecked: false,
            names: HashMap::new(),
            open: Vec::new(),
            has_deadline: false,
            orphaned: None,
        }
    }

    pub(super) fn slot(&mut self, partition: Partition) -> &mut Slot {
        self.slots.entry(partition).or_default()
    }

    pub(super) fn owned(&mut self, partition: Partition) -> Option<&mut Owned> {
        match &mut self.slots.get_mut(&partition)?.phase {
            Phase::Owned(owned) => Some(owned),
            _ => None,
        }
    }

    /// The partitions that are owned.
    pub(super) fn all_owned(&self) -> Vec<Partition> {
        let owned = self.slots.iter().filter(|(_, slot)| matches!(slot.phase, Phase::Owned(_)));
        owned.map(|(partition, _)| *partition).collect()
    }

    /// Whether this thread has taken all that it is to have of the partitions of a node that has gone.
    pub(super) fn has_taken_those_of(&self, gone: NodeId) -> bool {
        let is_being_taken = |slot: &Slot| matches!(slot.phase, Phase::Taking) || slot.held.is_some();
        !self.view.nodes.contains_key(&gone) && !self.slots.values().any(is_being_taken)
    }

    /// All partitions that have been of concern.
    pub(super) fn all(&self) -> Vec<Partition> {
        self.slots.keys().copied().collect()
    }

    /// The open batch of a partition that is owned.
    pub(super) fn batch(&mut self, partition: Partition) -> Option<&mut Batch> {
        let owned = match &mut self.slots.get_mut(&partition)?.phase {
            Phase::Owned(owned) => owned,
            _ => return None,
        };
        if owned.batch.is_empty() && !self.open.contains(&partition) {
            self.open.push(partition);
        }
        Some(&mut owned.batch)
    }
}

impl Owned {
    /// Whether the event of this reply is still to be handled here. Another owner may have had it meanwhile.
    pub(super) fn has_yet_to_handle(&self, reply: &ReplyTo) -> bool {
        match reply {
            ReplyTo::Node { id, stage: Stage::Waiting } => self.unhandled.contains_key(id),
            _ => true,
        }
    }

    /// Whether an event can be handled now.
    pub(super) fn is_ready(&self) -> bool {
        self.in_flight.len() < MAX_IN_FLIGHT && self.healing.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unseen_node_counts_as_gone_after_a_time() {
        let nodes = |numbers: &[u16]| -> HashSet<NodeId> { numbers.iter().map(|number| NodeId(*number)).collect() };
        let mut absent = Absent::default();
        let mut look = |now, numbers| absent.look(nodes(numbers), &nodes(&[1]), now);
        assert_eq!(look(0, &[1, 2, 3]), (nodes(&[1]), 2));
        assert_eq!(look(ABSENT_MS - 1, &[2]), (nodes(&[]), 1), "the third had just come");
        assert_eq!(look(ABSENT_MS, &[2, 3]), (nodes(&[2]), 1));
    }
}
