//! The limits of each kind of account.

use crate::model::Quota;

/// The kinds of resources that accounts hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Means {
    /// Scopes that a principal's events made.
    Scopes,
    /// Rooms that a principal's connections are in.
    Rooms,
    /// Scopes that watch a principal's connections.
    Watches,
    /// Timers that are set.
    Timers,
    /// Acknowledgements that features wait for.
    Acknowledgements,
    /// Documents that wait to be stored, or whose outcome waits to be delivered.
    Documents,
    /// States of durable scopes that wait to be written.
    States,
    /// Pages of documents that are being read.
    Fetches,
}

impl Means {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Scopes,
        Self::Rooms,
        Self::Watches,
        Self::Timers,
        Self::Acknowledgements,
        Self::Documents,
        Self::States,
        Self::Fetches,
    ];

    /// The name in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Scopes => "scopes",
            Self::Rooms => "rooms",
            Self::Watches => "watches",
            Self::Timers => "timers",
            Self::Acknowledgements => "acknowledgements",
            Self::Documents => "documents",
            Self::States => "states",
            Self::Fetches => "fetches",
        }
    }

    /// The name in error texts.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Watches => "scopes that watch its connections",
            Self::Acknowledgements => "acknowledgements that are owed",
            Self::Documents => "documents that wait to be stored",
            Self::States => "states that wait to be stored",
            means => means.label(),
        }
    }

    /// The remedy, for error texts.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Scopes => "try again when some have ended",
            Self::Rooms => "leave some first, on any connection",
            Self::Watches => "end something there first, or close a connection",
            Self::Timers => "try again when some are due",
            Self::Acknowledgements => "try again when some are given",
            Self::Documents | Self::States => "try again when some are stored",
            Self::Fetches => "try again when some are answered",
        }
    }
}

/// The limits of one kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The number of resources.
    pub count: usize,
    /// The bytes of all resources together.
    pub bytes: usize,
}

const MIB: usize = 1024 * 1024;

/// Timers of a plugin, and their payloads: those of a hundred users at their default limits.
const PLUGIN_TIMERS: Bound = Bound { count: 1_000_000, bytes: 128 * MIB };

/// Acknowledgements that a plugin waits for. Each takes some 300 bytes, and its tag.
const PLUGIN_ACKNOWLEDGEMENTS: Bound = Bound { count: 200_000, bytes: 64 * MIB };

/// Documents of a plugin that wait: half of the store's limit, so that a plugin with a backlog leaves room for others.
const PLUGIN_DOCUMENTS: Bound = Bound { count: 50_000, bytes: 128 * MIB };

/// States of a plugin that wait: half of the store's limit, as for documents.
const PLUGIN_STATES: Bound = Bound { count: 50_000, bytes: 128 * MIB };

/// Fetches of a plugin: half of the store's limit.
const PLUGIN_FETCHES: Bound = Bound { count: 5_000, bytes: usize::MAX };

/// Payloads of the timers of a scope: the bytes that one event may carry. The number of timers is checked where they
/// are set, because a timer may replace another.
const SCOPE_TIMERS: Bound = Bound { count: usize::MAX, bytes: MIB };

/// Acknowledgements that a scope waits for: one for each member of a large room.
const SCOPE_ACKNOWLEDGEMENTS: Bound = Bound { count: 20_000, bytes: 4 * MIB };

/// Documents of a scope that wait: a minute of the busiest room's messages during an outage of the database.
const SCOPE_DOCUMENTS: Bound = Bound { count: 20_000, bytes: 64 * MIB };

/// Fetches of a scope: those of a large room whose clients all reconnect at once and read.
const SCOPE_FETCHES: Bound = Bound { count: 2_000, bytes: usize::MAX };

impl Bound {
    /// No limit.
    pub(super) const NONE: Self = Self { count: usize::MAX, bytes: usize::MAX };

    /// The limit of a plugin.
    pub(super) fn of_plugin(means: Means) -> Self {
        match means {
            // Scopes are bounded for each thread, and their members by the number of connections.
            Means::Scopes | Means::Rooms | Means::Watches => Self::NONE,
            Means::Timers => PLUGIN_TIMERS,
            Means::Acknowledgements => PLUGIN_ACKNOWLEDGEMENTS,
            Means::Documents => PLUGIN_DOCUMENTS,
            Means::States => PLUGIN_STATES,
            Means::Fetches => PLUGIN_FETCHES,
        }
    }

    /// The limit of a scope.
    pub(super) fn of_scope(means: Means) -> Self {
        match means {
            // A scope has one state, of which only one version waits.
            Means::Scopes | Means::Rooms | Means::Watches | Means::States => Self::NONE,
            Means::Timers => SCOPE_TIMERS,
            Means::Acknowledgements => SCOPE_ACKNOWLEDGEMENTS,
            Means::Documents => SCOPE_DOCUMENTS,
            Means::Fetches => SCOPE_FETCHES,
        }
    }
}

/// The limits of a principal, over all of its connections and in all features. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Scopes that its events made.
    pub scopes: usize,
    /// Rooms of its connections, counted once per connection; the same limit applies to watching scopes.
    pub rooms: usize,
    /// Timers.
    pub timers: usize,
    /// Bytes of the timers' payloads.
    pub timer_bytes: usize,
    /// Acknowledgements that features requested because of its events.
    pub acknowledgements: usize,
    /// Documents that wait to be stored. Durable states have the same limit, and are counted separately.
    pub documents: usize,
    /// Bytes of documents. States have the same limit, and are counted separately.
    pub document_bytes: usize,
    /// Pages of documents that are being read.
    pub fetches: usize,
    /// Bytes of documents written for it, per second.
    pub saved_bytes_per_second: usize,
    /// The burst of writes, in bytes.
    pub saved_burst_bytes: usize,
    /// Bytes of documents read for it, and of answers made from them, per second.
    pub fetched_bytes_per_second: usize,
    /// The burst of reads, in bytes.
    pub fetched_burst_bytes: usize,
}

impl Budget {
    /// The default for a user, or for a network of anonymous users: many times the need of a user with some tabs, and a small
    /// part of the host's capacity.
    pub fn of_user() -> Self {
        Self {
            // Twenty users at this limit fill one plugin thread.
            scopes: 5_000,
            rooms: 10_000,
            timers: 10_000,
            timer_bytes: 4 * MIB,
            acknowledgements: 10_000,
            documents: 10_000,
            document_bytes: 16 * MIB,
            // When clients reconnect, they join all of their rooms at once, and some joins read.
            fetches: 500,
            // No user types a megabyte a second, and a database on one disk takes forty users at this limit.
            saved_bytes_per_second: MIB,
            saved_burst_bytes: 16 * MIB,
            // Thirty-two large pages at once, each read and answered; then four a second.
            fetched_bytes_per_second: 4 * MIB,
            fetched_burst_bytes: 32 * MIB,
        }
    }

    /// The default for an API key, which stands for all users of a back-end.
    pub fn of_service() -> Self {
        /// The number of users whose limits a back-end gets.
        const USERS: usize = 20;
        let user = Self::of_user();
        Self {
            // Each subject that a back-end reports on has a scope, which lives for a day. Over the limit of scopes,
            // idle ones are evicted, the back-end's own first.
            scopes: 0,
            rooms: user.rooms * USERS,
            timers: user.timers * USERS,
            timer_bytes: user.timer_bytes * USERS,
            acknowledgements: user.acknowledgements * USERS,
            // The limit of one plugin.
            documents: PLUGIN_DOCUMENTS.count,
            document_bytes: PLUGIN_DOCUMENTS.bytes,
            fetches: user.fetches * USERS,
            saved_bytes_per_second: user.saved_bytes_per_second * USERS,
            saved_burst_bytes: user.saved_burst_bytes * USERS,
            fetched_bytes_per_second: user.fetched_bytes_per_second * USERS,
            fetched_burst_bytes: user.fetched_burst_bytes * USERS,
        }
    }

    pub(super) fn bound(&self, means: Means) -> Bound {
        let (count, bytes) = match means {
            Means::Scopes => (self.scopes, 0),
            Means::Rooms | Means::Watches => (self.rooms, 0),
            Means::Timers => (self.timers, self.timer_bytes),
            Means::Acknowledgements => (self.acknowledgements, 0),
            Means::Documents | Means::States => (self.documents, self.document_bytes),
            Means::Fetches => (self.fetches, 0),
        };
        let limit = |limit: usize| if limit == 0 { usize::MAX } else { limit };
        Bound { count: limit(count), bytes: limit(bytes) }
    }

    /// The rate of written bytes.
    pub(super) fn saving(&self) -> Quota {
        Quota { per_second: self.saved_bytes_per_second as u64, burst: self.saved_burst_bytes as u64 }
    }

    /// The rate of read bytes.
    pub(super) fn fetching(&self) -> Quota {
        Quota { per_second: self.fetched_bytes_per_second as u64, burst: self.fetched_burst_bytes as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit() {
        let budget = Budget { rooms: 0, timers: 3, timer_bytes: 0, ..Budget::of_user() };
        assert_eq!(budget.bound(Means::Rooms), Bound::NONE);
        assert_eq!(budget.bound(Means::Timers), Bound { count: 3, bytes: usize::MAX });
    }
}
