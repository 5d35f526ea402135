//! Ids: of connections, which the host makes, and of everything else, which others make and the host checks.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use super::invisible::is_invisible;

/// The longest id that a payload or an identity may carry, in characters.
pub const MAX_ID_CHARS: usize = 128;

/// Whether `id` is 1 to 128 printable characters without whitespace, all of which can be seen.
pub fn is_valid_id(id: &str) -> bool {
    is_word(id, MAX_ID_CHARS)
}

/// The longest name of a room, in characters: some ids, and what stands between them.
pub const MAX_ROOM_CHARS: usize = 512;

/// Whether `room` is 1 to 512 printable characters without whitespace.
pub fn is_valid_room(room: &str) -> bool {
    is_word(room, MAX_ROOM_CHARS)
}

/// Whether `text` is 1 to `max_chars` printable characters without whitespace.
fn is_word(text: &str, max_chars: usize) -> bool {
    !text.is_empty()
        && text.len() <= max_chars * 4
        && text.chars().count() <= max_chars
        && !text.chars().any(|c| c.is_whitespace() || c.is_control() || is_invisible(c))
}

/// A connection's id. It says where the connection lives, so that nothing needs to be looked up to reach it:
/// 8 bits for the shard, 24 for the slot there, and a stamp that tells one tenant of the slot from the next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    /// Shards that an id has room for.
    pub const MAX_SHARDS: usize = 1 << 8;
    /// Connections of one shard that an id has room for.
    pub const MAX_SLOTS: usize = 1 << 24;

    /// The id of the connection in `slot` of `shard`. `stamp` differs for each tenant of the slot.
    pub fn new(shard: usize, slot: usize, stamp: u32) -> Self {
        debug_assert!(shard < Self::MAX_SHARDS && slot < Self::MAX_SLOTS);
        Self((shard as u64) << 56 | (slot as u64) << 32 | u64::from(stamp))
    }

    /// The shard that owns the connection.
    pub fn shard(self) -> usize {
        (self.0 >> 56) as usize
    }

    /// The connection's place in its shard.
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
    fn an_id_says_where_its_connection_lives() {
        let id = ConnId::new(255, ConnId::MAX_SLOTS - 1, u32::MAX);
        assert_eq!((id.shard(), id.slot()), (255, ConnId::MAX_SLOTS - 1));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn ids_are_printable_and_bounded() {
        for good in ["a", "507f1f77bcf86cd799439011", "ticket:1", "é", &"x".repeat(128)] {
            assert!(is_valid_id(good), "{good}");
        }
        let unseen = ["a\u{200b}", "\u{202e}a", "a\u{2066}b", "\u{feff}a", "a\u{ad}b", "a\u{fe0f}", "a\u{e0041}"];
        for bad in ["", " ", "a b", "a\n", "\u{7f}", "\u{2003}", &"x".repeat(129)].into_iter().chain(unseen) {
            assert!(!is_valid_id(bad), "{bad:?}");
        }
    }
}
