//! Partitions of scopes, and the choice of their owners.

use super::nodes::View;
use crate::model::NodeId;

/// A partition of all scopes. Its number is part of the cluster's data: it must never change for a scope's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u8);

impl Partition {
    /// The number of partitions.
    pub const COUNT: usize = 256;

    /// The partition of a scope's key (FNV-1a, of which the upper bits are folded in).
    pub fn of(key: &str) -> Self {
        Self(mix(fnv(key.as_bytes())) as u8)
    }

    /// All partitions.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// The node that is to own the partition: the one with the highest hash of both (rendezvous hashing, Thaler and
    /// Ravishankar 1998). A node that comes or goes moves only its own share. Without nodes there is none.
    pub fn owner(self, view: &View) -> Option<NodeId> {
        let weight = |node: &NodeId| mix(u64::from(node.0) << 8 | u64::from(self.0));
        view.nodes.keys().copied().max_by_key(weight)
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of MurmurHash3, after which each bit depends on all bits.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn view(nodes: &[u16]) -> View {
        View { nodes: nodes.iter().map(|node| (NodeId(*node), Default::default())).collect(), ..View::default() }
    }

    #[test]
    fn partition_of_key_never_changes() {
        // These are in the data of running clusters.
        let of = ["ticket:1", "ticket:507f", "campaign:autumn", ""].map(|key| Partition::of(key).0);
        assert_eq!(of, PINNED);
    }

    /// As first released.
    const PINNED: [u8; 4] = [238, 53, 80, 38];

    #[test]
    fn each_node_owns_about_its_share() {
        let view = view(&[1, 2, 3, 4]);
        let mut owned: HashMap<NodeId, usize> = HashMap::new();
        Partition::all().for_each(|partition| *owned.entry(partition.owner(&view).unwrap()).or_default() += 1);
        assert!(owned.len() == 4 && owned.values().all(|n| (40..=90).contains(n)), "{owned:?}");
    }

    #[test]
    fn departure_moves_only_its_own_partitions() {
        let (before, after) = (view(&[1, 2, 3]), view(&[1, 3]));
        for partition in Partition::all() {
            let owner = partition.owner(&before).unwrap();
            if owner != NodeId(2) {
                assert_eq!(partition.owner(&after), Some(owner));
            }
        }
        assert_eq!(Partition(0).owner(&view(&[])), None);
    }
}
