//! The scopes of one plugin thread: their states, their timers, and when they have been idle for long enough.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use roundhouse_contract::{Scope as Kind, ScopeAddress};
use slab::Slab;

use super::owners::{LOOKS, Owner, Owners};
use crate::ledger::{Account, Charge};
use crate::model::ConnId;
use crate::plugin::event::{Event, ReplyTo};
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::migrate::State;

/// Scopes of one plugin on one thread, at most. With 64 KiB of state each that is 6 GiB in the worst case.
const MAX_SCOPES: usize = 100_000;

/// Scopes over that bound for owners who have less than their part of it, where all that there are, are in use: others have
/// filled the house, and that is not theirs to suffer from.
const RESERVED_SCOPES: usize = MAX_SCOPES / 4;

/// Events that wait to be told in one scope, at most, departures and outcomes of promises apart; the oldest are dropped.
const MAX_PARKED: usize = 256;

/// One scope of one plugin.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) address: ScopeAddress,
    /// How long it may be idle, in milliseconds.
    pub(crate) idle_ms: u64,
    /// Whether it outlives the process.
    pub(crate) is_durable: bool,
    /// Whether it differs from what was last given to the store.
    pub(crate) is_dirty: bool,
    /// What came in while it is read from the store, until it has been.
    pub(crate) loading: Option<VecDeque<(Event, ReplyTo)>>,
    pub(crate) state: Option<State>,
    /// The state as it was before it was migrated, in case the generation before comes back and cannot migrate down.
    pub(crate) before_migration: Option<State>,
    /// Events handled so far.
    pub(crate) sequence: u64,
    pub(crate) timers: HashMap<Box<str>, Timer>,
    /// The connections that take part. Each is told of once when it goes.
    pub(crate) members: HashMap<ConnId, Part>,
    /// The last event, in milliseconds of uptime.
    pub(crate) touched: u64,
    /// The next look at whether it is idle.
    pub(crate) look: Deadline,
    /// When a durable scope was given to the store last, in milliseconds of uptime.
    pub(crate) written: u64,
    /// In whose account it stands: whoever's event made it. Nobody's, if it was restored.
    pub(crate) owner: Charge,
    /// Its own account, once anything is held for it.
    pub(crate) account: Option<Arc<Account>>,
    /// Whether it has a turn coming for what waits to be told.
    pub(crate) is_deferred: bool,
    /// What must be told, and could not be yet.
    parked: VecDeque<Parked>,
}

/// How a connection takes part in a scope.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Part {
    pub(crate) joined: bool,
    pub(crate) watched: bool,
    /// Whether it came to this scope by itself, with an event, and not by the host's telling of it.
    pub(crate) came: bool,
    /// Whether the scope was told that its client is away.
    pub(crate) is_away: bool,
    /// The last change of its presence that the scope knows of.
    pub(crate) n_changes: u32,
}

/// A timer that is set.
#[derive(Debug)]
pub(crate) struct Timer {
    /// Its place among the deadlines.
    pub(crate) deadline: Deadline,
    /// When it is due, in milliseconds since 1970.
    pub(crate) due_ms: u64,
    /// How long after it was set, in milliseconds.
    pub(crate) after_ms: u64,
    pub(crate) payload: Box<str>,
    pub(crate) charge: Charge,
}

/// An event that must be told, later.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) event: Event,
    /// How often the feature has failed on it.
    pub(crate) attempts: u32,
    /// Not before this, in milliseconds of uptime.
    pub(crate) not_before: u64,
}

impl Scope {
    /// Keeps an event for later. Says whether an older one had to go for it.
    pub(crate) fn park(&mut self, parked: Parked) -> bool {
        if let Some(connection) = parked.event.presence_of()
            && let Some(at) = self.parked.iter().position(|other| other.event.presence_of() == Some(connection))
        {
            // Away and back again, or the other way round: nothing is left to be told.
            self.parked.remove(at);
            return false;
        }
        if parked.attempts > 0 {
            // It was the first, and what waits behind it may build on it.
            self.parked.push_front(parked);
        } else {
            self.parked.push_back(parked);
        }
        if self.parked.len() <= MAX_PARKED {
            return false;
        }
        // Departures and presence stay: there are no more of them than there were members, and nothing would mend a lost
        // one. So do the outcomes of promises, of which the store takes a bounded number.
        let stays = |event: &Event| matches!(event, Event::Left { .. } | Event::Presence { .. } | Event::Saved { .. });
        let droppable = self.parked.iter().position(|parked| !stays(&parked.event));
        droppable.and_then(|at| self.parked.remove(at)).is_some()
    }

    /// The first event that waits, if its time has come.
    pub(crate) fn unpark(&mut self, now: u64) -> Option<Parked> {
        if self.parked.front()?.not_before > now {
            return None;
        }
        self.parked.pop_front()
    }

    /// All that waits.
    pub(crate) fn take_parked(&mut self) -> VecDeque<Parked> {
        std::mem::take(&mut self.parked)
    }

    /// Gives its state up: it goes on from the copy from before it was migrated forward, or from nothing.
    pub(crate) fn give_up(&mut self) {
        self.state = self.before_migration.take();
        self.is_dirty = true;
    }

    /// Whether anything but its state and its room keeps it.
    pub(crate) fn is_used(&self) -> bool {
        !self.timers.is_empty() || !self.members.is_empty() || self.has_parked() || self.loading.is_some()
    }

    pub(crate) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Whether the feature is still to be told that this connection has opened.
    pub(crate) fn has_parked_opening(&self, connection: ConnId) -> bool {
        self.parked.iter().any(|parked| parked.event.opened() == Some(connection))
    }
}

/// What is due at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    /// A timer of a scope, by name.
    Timer { plugin: u32, scope: Arc<str>, name: Box<str> },
    /// A look at whether a scope has been idle for long enough.
    Idle { plugin: u32, scope: Arc<str> },
    /// The end of the wait for an acknowledgement.
    Acknowledgement(u64),
    /// Time to tell a plugin's scopes what has been waiting.
    Resume { plugin: u32 },
    /// Another attempt to read a scope from the store.
    Load { plugin: u32, scope: Arc<str> },
}

/// The place of something among the deadlines: its time in milliseconds of uptime, and a number that keeps what is due at
/// the same time in the order in which it was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64, u64);

/// Everything that is due, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    due: BTreeMap<Deadline, Due>,
    last: u64,
}

impl Deadlines {
    /// Adds something that is due at `at`, in milliseconds of uptime.
    pub(crate) fn push(&mut self, at: u64, due: Due) -> Deadline {
        self.last += 1;
        let deadline = Deadline(at, self.last);
        self.due.insert(deadline, due);
        deadline
    }

    pub(crate) fn cancel(&mut self, deadline: Deadline) {
        self.due.remove(&deadline);
    }

    /// When the next thing is due.
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

/// All scopes of a thread, by plugin and key.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    scopes: Slab<Scope>,
    /// Where each is.
    slots: HashMap<u32, HashMap<Arc<str>, usize>>,
    /// Whose they are.
    owners: HashMap<u32, Owners>,
    /// The one that was asked for last: most questions of an event are about its own scope.
    last: Cell<Option<usize>>,
    /// Where it is looked next for a scope that may go.
    next_look: usize,
}

/// Whether there may be one scope more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// For whoever asked, if no other goes for it.
    Reserved,
    None,
}

impl Scopes {
    pub(crate) fn get(&self, plugin: u32, key: &str) -> Option<&Scope> {
        self.find(plugin, key).map(|slot| &self.scopes[slot])
    }

    pub(crate) fn get_mut(&mut self, plugin: u32, key: &str) -> Option<&mut Scope> {
        self.find(plugin, key).map(|slot| &mut self.scopes[slot])
    }

    fn find(&self, plugin: u32, key: &str) -> Option<usize> {
        let is_meant = |scope: &Scope| scope.plugin.number == plugin && *scope.address.key == *key;
        if let Some(last) = self.last.get()
            && self.scopes.get(last).is_some_and(is_meant)
        {
            return Some(last);
        }
        let slot = *self.slots.get(&plugin)?.get(key)?;
        self.last.set(Some(slot));
        Some(slot)
    }

    /// Whether a plugin may have one more scope, which would be this owner's.
    pub(crate) fn room(&self, plugin: u32, owner: Option<&Arc<Account>>) -> Room {
        let n_scopes = self.slots.get(&plugin).map_or(0, HashMap::len);
        if n_scopes < MAX_SCOPES {
            return Room::Free;
        }
        let has_share_left =
            |owners: &Owners| owners.has_fair_share_left(Owner::of_account(owner.map(Arc::as_ref)), MAX_SCOPES);
        let is_reserved =
            n_scopes < MAX_SCOPES + RESERVED_SCOPES && self.owners.get(&plugin).is_some_and(has_share_left);
        if is_reserved { Room::Reserved } else { Room::None }
    }

    /// Makes a scope that is not there.
    pub(crate) fn insert(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        kind: &Kind,
        now: u64,
        look: Deadline,
        owner: Charge,
    ) {
        self.owners.entry(plugin.number).or_default().add(Owner::of(&owner));
        let scope = Scope {
            plugin: plugin.clone(),
            address: address.clone(),
            idle_ms: kind.idle.as_millis() as u64,
            is_durable: kind.is_durable,
            is_dirty: false,
            loading: None,
            state: None,
            before_migration: None,
            sequence: 0,
            timers: HashMap::new(),
            members: HashMap::new(),
            touched: now,
            look,
            written: now,
            owner,
            account: None,
            is_deferred: false,
            parked: VecDeque::new(),
        };
        let slot = self.scopes.insert(scope);
        self.slots.entry(plugin.number).or_default().insert(address.key.clone(), slot);
        self.last.set(Some(slot));
    }

    /// Takes out a scope of a plugin that has as many as it may have: one that nobody uses, of the owner who has most, and
    /// that has been left alone for longer than the others that were looked at. It makes way for one of `asker`, to whom nobody
    /// with fewer loses any.
    pub(crate) fn evict(
        &mut self,
        plugin: u32,
        asker: Option<&Arc<Account>>,
        mut is_used: impl FnMut(&Scope) -> bool,
    ) -> Option<Scope> {
        let owners = self.owners.get_mut(&plugin)?;
        let mut choice = owners.choose(Owner::of_account(asker.map(Arc::as_ref)));
        let n_slots = self.scopes.capacity();
        let start = self.next_look;
        for slot in (start..n_slots).chain(0..start.min(n_slots)).take(LOOKS) {
            self.next_look = slot + 1;
            let Some(scope) = self.scopes.get(slot).filter(|scope| scope.plugin.number == plugin) else { continue };
            let owner = Owner::of(&scope.owner);
            let held = owners.held(owner);
            if choice.wants(owner, held) && !scope.is_used() && !is_used(scope) {
                choice.offer(owner, held, scope.touched, slot);
                if choice.is_ready() {
                    break;
                }
            }
        }
        let slot = choice.slot()?;
        self.slots.get_mut(&plugin)?.remove(&self.scopes[slot].address.key);
        Some(self.take(slot))
    }

    /// Takes a scope out whose key is out already.
    fn take(&mut self, slot: usize) -> Scope {
        let scope = self.scopes.remove(slot);
        if let Some(owners) = self.owners.get_mut(&scope.plugin.number) {
            owners.remove(Owner::of(&scope.owner));
        }
        scope
    }

    pub(crate) fn remove(&mut self, plugin: u32, key: &str) {
        if let Some(slot) = self.slots.get_mut(&plugin).and_then(|slots| slots.remove(key)) {
            self.take(slot);
        }
    }

    pub(crate) fn remove_all(&mut self, plugin: u32) -> Vec<Scope> {
        self.owners.remove(&plugin);
        let slots = self.slots.remove(&plugin).into_iter().flat_map(HashMap::into_values);
        slots.map(|slot| self.scopes.remove(slot)).collect()
    }

    pub(crate) fn of(&self, plugin: u32) -> impl Iterator<Item = &Scope> {
        self.slots.get(&plugin).into_iter().flat_map(HashMap::values).map(|slot| &self.scopes[*slot])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_at_the_same_time_comes_in_the_order_in_which_it_was_set() {
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
