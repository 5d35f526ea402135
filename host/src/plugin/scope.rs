//! The scopes of one plugin thread: their states, their timers, and when they have been idle for long enough.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::catalogue::Plugin;
use super::event::Event;
use super::template::ScopeAddress;
use crate::model::ConnId;

/// Events that wait for a quarantined plugin in one scope, at most; the oldest are dropped.
const MAX_PARKED: usize = 256;

/// One scope of one plugin.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) plugin: Arc<Plugin>,
    pub(super) address: ScopeAddress,
    /// The state and the version of its schema.
    pub(super) state: Option<(u32, Vec<u8>)>,
    /// Events handled so far.
    pub(super) sequence: u64,
    pub(super) timers: HashMap<Box<str>, Timer>,
    /// The connections that take part: in the room, or watched. Each is told of once when it goes.
    pub(super) members: HashSet<ConnId>,
    /// The last event, in milliseconds of uptime.
    pub(super) touched: u64,
    /// Whether an idle deadline is in the queue of deadlines.
    pub(super) idle_armed: bool,
    /// What must be told once the plugin is out of quarantine.
    parked: VecDeque<Event>,
}

/// A timer that is set.
#[derive(Debug)]
pub(super) struct Timer {
    /// Tells this timer from one of the same name that was set before.
    pub(super) id: u64,
    /// When it is due, in milliseconds since 1970.
    pub(super) due_ms: u64,
    pub(super) payload: Box<str>,
}

impl Scope {
    pub(super) fn new(plugin: Arc<Plugin>, address: ScopeAddress) -> Self {
        Self {
            plugin,
            address,
            state: None,
            sequence: 0,
            timers: HashMap::new(),
            members: HashSet::new(),
            touched: 0,
            idle_armed: false,
            parked: VecDeque::new(),
        }
    }

    /// Keeps an event for later. Says whether an older one had to go for it.
    pub(super) fn park(&mut self, event: Event) -> bool {
        self.parked.push_back(event);
        if self.parked.len() > MAX_PARKED {
            self.parked.pop_front();
            return true;
        }
        false
    }

    pub(super) fn take_parked(&mut self) -> VecDeque<Event> {
        std::mem::take(&mut self.parked)
    }

    pub(super) fn is_parked(&self) -> bool {
        !self.parked.is_empty()
    }
}

/// What is due at some time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A timer of a scope, by name and id.
    Timer { plugin: u32, scope: Arc<str>, name: Box<str>, id: u64 },
    /// A look at whether a scope has been idle for long enough.
    Idle { plugin: u32, scope: Arc<str> },
    /// The end of the wait for an acknowledgement.
    Acknowledgement(u64),
    /// The end of a quarantine.
    Resume { plugin: u32 },
}

/// Everything that is due, earliest first. What was cancelled stays in until its time and is then passed over.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, u64, Due)>>,
    entries: u64,
}

impl Deadlines {
    /// Adds something that is due at `at`, in milliseconds of uptime.
    pub(super) fn push(&mut self, at: u64, due: Due) {
        // Numbered, so that what is due at the same time comes in the order in which it was set.
        self.entries += 1;
        self.heap.push(Reverse((at, self.entries, due)));
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    pub(super) fn pop_due(&mut self, now: u64) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, due))| due)
    }
}

/// All scopes of a thread, by plugin and key.
#[derive(Debug, Default)]
pub(super) struct Scopes(HashMap<u32, HashMap<Arc<str>, Scope>>);

impl Scopes {
    pub(super) fn get(&self, plugin: u32, key: &str) -> Option<&Scope> {
        self.0.get(&plugin)?.get(key)
    }

    pub(super) fn get_mut(&mut self, plugin: u32, key: &str) -> Option<&mut Scope> {
        self.0.get_mut(&plugin)?.get_mut(key)
    }

    /// The scope, newly made if need be and if there are fewer than `limit` of this plugin.
    pub(super) fn enter(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, limit: usize) -> Option<&mut Scope> {
        let scopes = self.0.entry(plugin.number).or_default();
        if !scopes.contains_key(&address.key) {
            if scopes.len() >= limit {
                return None;
            }
            scopes.insert(address.key.clone(), Scope::new(plugin.clone(), address.clone()));
        }
        scopes.get_mut(&address.key)
    }

    pub(super) fn remove(&mut self, plugin: u32, key: &str) {
        if let Some(scopes) = self.0.get_mut(&plugin) {
            scopes.remove(key);
        }
    }

    pub(super) fn remove_all(&mut self, plugin: u32) -> Vec<Scope> {
        self.0.remove(&plugin).into_iter().flat_map(HashMap::into_values).collect()
    }

    pub(super) fn of(&self, plugin: u32) -> impl Iterator<Item = &Scope> {
        self.0.get(&plugin).into_iter().flat_map(HashMap::values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_at_the_same_time_comes_in_the_order_in_which_it_was_set() {
        let mut deadlines = Deadlines::default();
        for plugin in [3, 1, 2] {
            deadlines.push(10, Due::Resume { plugin });
        }
        deadlines.push(5, Due::Resume { plugin: 9 });
        assert_eq!(deadlines.next(), Some(5));
        let order: Vec<_> = std::iter::from_fn(|| deadlines.pop_due(10)).collect();
        assert_eq!(order, [9, 3, 1, 2].map(|plugin| Due::Resume { plugin }));
        assert_eq!(deadlines.pop_due(u64::MAX), None);
    }
}
