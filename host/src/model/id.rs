//! Ids of connections, which the host assigns. Ids that clients and features choose are checked by the contract.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// The number of a node in its cluster, at most 4095. A host that is alone has 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

/// A connection's id. It encodes the connection's place, so that routing needs no look-up: 12 bits for the node, 8 for the
/// shard, 20 for the slot there, and 24 for a stamp that differs for each connection that uses the slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    /// The most shards that an id can address.
    pub const MAX_SHARDS: usize = 1 << 8;
    /// The most connections of one shard that an id can address.
    pub const MAX_SLOTS: usize = 1 << 20;

    const STAMP_BITS: u32 = 24;
    const SHARD_SHIFT: u32 = 44;
    const NODE_SHIFT: u32 = 52;

    /// The id of the connection in `slot` of `shard`, on a host that is alone. `stamp` differs for each connection that uses
    /// the slot; its upper 8 bits are not used.
    pub fn new(shard: usize, slot: usize, stamp: u32) -> Self {
        debug_assert!(shard < Self::MAX_SHARDS && slot < Self::MAX_SLOTS);
        let stamp = u64::from(stamp) & ((1 << Self::STAMP_BITS) - 1);
        Self((shard as u64) << Self::SHARD_SHIFT | (slot as u64) << Self::STAMP_BITS | stamp)
    }

    /// The same place on a node of a cluster.
    pub fn on(self, node: NodeId) -> Self {
        Self(self.0 & ((1 << Self::NODE_SHIFT) - 1) | u64::from(node.0) << Self::NODE_SHIFT)
    }

    /// The node that the connection began on.
    pub fn node(self) -> NodeId {
        NodeId((self.0 >> Self::NODE_SHIFT) as u16)
    }

    /// The shard that the connection began on.
    pub fn shard(self) -> usize {
        (self.0 >> Self::SHARD_SHIFT) as usize & (Self::MAX_SHARDS - 1)
    }

    /// The connection's slot there.
    pub fn slot(self) -> usize {
        (self.0 >> Self::STAMP_BITS) as usize & (Self::MAX_SLOTS - 1)
    }

    /// The id as one number, for other nodes.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The id of this number.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

impl FromStr for ConnId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_id_holds_its_place() {
        let id = ConnId::new(255, ConnId::MAX_SLOTS - 1, u32::MAX).on(NodeId(4095));
        assert_eq!((id.node(), id.shard(), id.slot()), (NodeId(4095), 255, ConnId::MAX_SLOTS - 1));
        let moved = id.on(NodeId(7));
        assert_eq!((moved.node(), moved.shard(), moved.slot()), (NodeId(7), 255, ConnId::MAX_SLOTS - 1));
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
