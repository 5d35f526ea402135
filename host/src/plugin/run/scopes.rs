//! The scopes of one plugin thread, found by plugin and key, and the eviction of scopes over the bound.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use roundhouse_contract::{Scope as Kind, ScopeAddress};
use slab::Slab;

use super::deadlines::Deadline;
use super::owners::{LOOKS, Owner, Owners};
use super::scope::Scope;
use crate::ledger::{Account, Charge};
use crate::plugin::load::catalogue::Plugin;

/// The most scopes of one plugin on one thread. With 64 KiB of state each that is 6 GiB in the worst case.
const MAX_SCOPES: usize = 100_000;

/// Scopes over [`MAX_SCOPES`], for owners with less than their even share when no scope can be evicted: such an owner
/// must not be refused because others hold too many scopes.
const RESERVED_SCOPES: usize = MAX_SCOPES / 4;

/// The place of a scope among those of its thread, valid until the scope is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

/// All scopes of a thread, by plugin and key.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    scopes: Slab<Scope>,
    /// The slot of each scope, by plugin number and key.
    slots: HashMap<u32, HashMap<Arc<str>, usize>>,
    /// The owners of each plugin's scopes.
    owners: HashMap<u32, Owners>,
    /// The slot that was found last: events often come in runs for one scope.
    last: Cell<Option<usize>>,
    /// The slot at which the next search for a scope to evict begins.
    next_look: usize,
}

impl Index<Place> for Scopes {
    type Output = Scope;

    fn index(&self, place: Place) -> &Scope {
        &self.scopes[place.0]
    }
}

impl IndexMut<Place> for Scopes {
    fn index_mut(&mut self, place: Place) -> &mut Scope {
        &mut self.scopes[place.0]
    }
}

/// Whether there is room for one more scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vacancy {
    Free,
    /// In the reserve, for the asking owner: only if no scope can be evicted.
    Reserved,
    None,
}

impl Scopes {
    pub(crate) fn get_mut(&mut self, plugin: u32, key: &str) -> Option<&mut Scope> {
        self.find(plugin, key).map(|place| &mut self[place])
    }

    /// The place of the scope of this key, if it is in memory.
    pub(super) fn find(&self, plugin: u32, key: &str) -> Option<Place> {
        let is_meant = |scope: &Scope| scope.plugin.number == plugin && *scope.address.key == *key;
        if let Some(last) = self.last.get()
            && self.scopes.get(last).is_some_and(is_meant)
        {
            return Some(Place(last));
        }
        let slot = *self.slots.get(&plugin)?.get(key)?;
        self.last.set(Some(slot));
        Some(Place(slot))
    }

    /// Whether a plugin may have one more scope, which would be this owner's.
    pub(crate) fn vacancy(&self, plugin: u32, owner: Option<&Arc<Account>>) -> Vacancy {
        let n_scopes = self.slots.get(&plugin).map_or(0, HashMap::len);
        if n_scopes < MAX_SCOPES {
            return Vacancy::Free;
        }
        let has_share_left =
            |owners: &Owners| owners.has_fair_share_left(Owner::of_account(owner.map(Arc::as_ref)), MAX_SCOPES);
        let is_reserved =
            n_scopes < MAX_SCOPES + RESERVED_SCOPES && self.owners.get(&plugin).is_some_and(has_share_left);
        if is_reserved { Vacancy::Reserved } else { Vacancy::None }
    }

    /// Adds a scope that is not in memory.
    pub(crate) fn insert(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        kind: &Kind,
        now: u64,
        idle_check: Deadline,
        owner: Charge,
    ) -> Place {
        self.owners.entry(plugin.number).or_default().add(Owner::of(&owner));
        let scope = Scope::new(plugin.clone(), address.clone(), kind, now, idle_check, owner);
        let slot = self.scopes.insert(scope);
        self.slots.entry(plugin.number).or_default().insert(address.key.clone(), slot);
        self.last.set(Some(slot));
        Place(slot)
    }

    /// Evicts a scope of a plugin that has as many as it may have: an unused one of the largest owner, whose last event
    /// is longest ago among the scopes that were examined. It makes room for a scope of `asker`; owners with fewer
    /// scopes lose none to it.
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
                choice.offer(owner, held, scope.last_event_ms, slot);
                if choice.is_ready() {
                    break;
                }
            }
        }
        let slot = choice.slot()?;
        self.slots.get_mut(&plugin)?.remove(&self.scopes[slot].address.key);
        Some(self.take(slot))
    }

    fn take(&mut self, slot: usize) -> Scope {
        let mut scope = self.scopes.remove(slot);
        scope.stay_no_longer();
        if let Some(owners) = self.owners.get_mut(&scope.plugin.number) {
            owners.remove(Owner::of(&scope.owner));
        }
        scope
    }

    pub(super) fn remove(&mut self, place: Place) {
        let scope = self.take(place.0);
        if let Some(slots) = self.slots.get_mut(&scope.plugin.number) {
            slots.remove(&scope.address.key);
        }
    }

    /// All scopes, of all plugins.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.iter().map(|(_, scope)| scope)
    }

    /// Removes the scopes for which `is_meant`.
    pub(super) fn take_where(&mut self, is_meant: impl Fn(&Scope) -> bool) -> Vec<Scope> {
        let meant: Vec<_> = self.scopes.iter().filter(|(_, scope)| is_meant(scope)).map(|(slot, _)| slot).collect();
        let take = |slot: usize| {
            let scope = self.take(slot);
            if let Some(slots) = self.slots.get_mut(&scope.plugin.number) {
                slots.remove(&scope.address.key);
            }
            scope
        };
        meant.into_iter().map(take).collect()
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
