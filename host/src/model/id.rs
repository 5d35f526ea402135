//! Ids of connections, which the host assigns. Ids that clients and features choose are checked by the contract.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// A connection's id. It encodes the connection's place, so that routing needs no look-up: 8 bits for the shard, 24 for
/// the slot there, and 32 for a stamp that differs for each connection that uses the slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    /// The most shards that an id can address.
    pub const MAX_SHARDS: usize = 1 << 8;
    /// The most connections of one shard that an id can address.
    pub const MAX_SLOTS: usize = 1 << 24;

    /// The id of the connection in `slot` of `shard`. `stamp` differs for each connection that uses the slot.
    pub fn new(shard: usize, slot: usize, stamp: u32) -> Self {
        debug_assert!(shard < Self::MAX_SHARDS && slot < Self::MAX_SLOTS);
        Self((shard as u64) << 56 | (slot as u64) << 32 | u64::from(stamp))
    }

    /// The shard that owns the connection.
    pub fn shard(self) -> usize {
        (self.0 >> 56) as usize
    }

    /// The connection's slot in its shard.
    pub fn slot(self) -> usize {
        (self.0 >> 32) as usize & (Self::MAX_SLOTS - 1)
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
    fn connection_id_holds_shard_and_slot() {
        let id = ConnId::new(255, ConnId::MAX_SLOTS - 1, u32::MAX);
        assert_eq!((id.shard(), id.slot()), (255, ConnId::MAX_SLOTS - 1));
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
