//! The kinds of faults.

use clap::ValueEnum;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// A host is killed, and started again later. Some of its agents do not come back.
    Kill,
    /// A host is suspended, for a moment or until others take it for dead.
    Stop,
    /// A host's way to Redis breaks, hangs, or is refused.
    Cut,
    /// Redis starts again without data.
    RedisEmpty,
    /// Redis starts again with its data.
    RedisData,
    /// Redis fails over to a replica that lacks the last writes.
    Sentinel,
    /// A host's wall clock is put off by an hour, and back.
    Clock,
    /// Another build of a feature is loaded.
    Swap,
    /// Another build of a feature is tried, in the shadow or as a canary, and promoted or rolled back.
    Rollout,
}

impl Fault {
    /// Whether the fault needs a cluster.
    pub(super) fn needs_cluster(self) -> bool {
        matches!(self, Self::Cut | Self::RedisEmpty | Self::RedisData | Self::Sentinel)
    }

    /// Whether the fault needs a Redis without a Sentinel.
    pub(super) fn needs_one_redis(self) -> bool {
        matches!(self, Self::Cut | Self::RedisEmpty | Self::RedisData)
    }
}
