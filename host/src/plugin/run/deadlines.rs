//! The deadlines of a plugin thread.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The shortest time between two checks of a scope in use or a paused plugin, in milliseconds.
pub(super) const MIN_CHECK_MS: u64 = 1000;

/// The pause before work of a scope is tried again whose commits the cluster has yet to take, in milliseconds.
pub(super) const BUSY_MS: u64 = 50;

/// The work that is due at a deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    /// A timer of a scope, by name.
    Timer { plugin: u32, scope: Arc<str>, name: Box<str> },
    /// A check of whether a scope has been idle for long enough.
    Idle { plugin: u32, scope: Arc<str> },
    /// The end of the wait for an acknowledgement.
    Acknowledgement(u64),
    /// The deferred events of a plugin's scopes.
    Resume { plugin: u32 },
    /// Another look for states of a plugin that are to be migrated.
    Migrate { plugin: u32 },
    /// The refusal of events that wait for the cluster.
    Waiting,
    /// Another attempt to read a scope from the store.
    Load { plugin: u32, scope: Arc<str> },
}

/// The key of a deadline: its time in milliseconds of uptime, and a number that keeps deadlines
/// of the same time in the order in which they were set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64, u64);

/// All deadlines, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    due: BTreeMap<Deadline, Due>,
    last: u64,
}

impl Deadlines {
    /// Adds a deadline at `at`, in milliseconds of uptime.
    pub(crate) fn push(&mut self, at: u64, due: Due) -> Deadline {
        self.last += 1;
        let deadline = Deadline(at, self.last);
        self.due.insert(deadline, due);
        deadline
    }

    pub(crate) fn cancel(&mut self, deadline: Deadline) {
        self.due.remove(&deadline);
    }

    /// The time of the next deadline, in milliseconds of uptime.
    pub(crate) fn next(&self) -> Option<u64> {
        self.due.first_key_value().map(|(Deadline(at, _), _)| *at)
    }

    pub(crate) fn pop_due(&mut self, now: u64) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, due)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simultaneous_deadlines_come_in_insertion_order() {
        let mut deadlines = Deadlines::default();
        let cancelled = deadlines.push(10, Due::Resume { plugin: 7 });
        for plugin in [3, 1, 2] {
            deadlines.push(10, Due::Resume { plugin });
        }
        deadlines.push(5, Due::Resume { plugin: 9 });
        deadlines.cancel(cancelled);
        assert_eq!(deadlines.next(), Some(5));
        let order: Vec<_> = std::iter::from_fn(|| deadlines.pop_due(10)).collect();
        assert_eq!(order, [9, 3, 1, 2].map(|plugin| Due::Resume { plugin }));
        assert_eq!(deadlines.pop_due(u64::MAX), None);
    }
}
