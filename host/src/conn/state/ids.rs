//! The id of a transport.

use mio::Token;

/// A transport's slot on its shard, and a stamp that distinguishes successive transports in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransportId {
    slot: u32,
    stamp: u32,
}

impl TransportId {
    pub(crate) fn new(slot: usize, stamp: u32) -> Self {
        Self { slot: slot as u32, stamp }
    }

    pub(crate) fn slot(self) -> usize {
        self.slot as usize
    }

    /// The id as one number, for other threads and for the kernel.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.stamp) << u32::BITS | u64::from(self.slot)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, stamp: (bits >> u32::BITS) as u32 }
    }

    /// The token by which the kernel reports the transport's socket.
    pub(crate) fn token(self) -> Token {
        const { assert!(usize::BITS >= u64::BITS, "a token holds a slot and a stamp") };
        Token(self.to_bits() as usize)
    }

    pub(crate) fn from_token(token: Token) -> Self {
        Self::from_bits(token.0 as u64)
    }
}
