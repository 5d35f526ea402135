//! Migration of states between generations of a plugin, on a plugin thread: of each scope at its first event after a change, and
//! of the others in turns between the events.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deadlines::{BUSY_MS, Due};
use super::deferred::RETRY_MS;
use super::durable::rewrite;
use super::instances::Role;
use super::job::{Job, Migration, StatesToMigrate, Underway};
use super::scope::Scope;
use super::scopes::Place;
use super::state::ThreadState;
use crate::ledger::Means;
use crate::plugin::event::Flow;
use crate::plugin::load::catalogue::{Plugin, PluginError};
use crate::plugin::load::generation::Generation;
use crate::plugin::load::migrate::{State, take_over};

/// The time after which a turn gives way to events: a few migrations.
const LONG_TURN: Duration = Duration::from_micros(250);

/// So many states of a plugin, and bytes of them, that wait to be written have its migration wait: a small part of what is refused
/// to events.
const MAX_UNWRITTEN: usize = 1000;
const MAX_UNWRITTEN_BYTES: usize = 8 * 1024 * 1024;

impl ThreadState {
    /// The states that a generation would have to migrate.
    pub(super) fn states_to_migrate(&self, plugin: u32, by: &Generation) -> StatesToMigrate {
        let wanted = by.manifest.state_version;
        let mut found = StatesToMigrate::default();
        for scope in self.scopes.of(plugin) {
            if by.manifest.scope_of_key(&scope.address.key).is_none() {
                found.unroutable_scope = Some(scope.address.key.clone());
            }
            if let Some(state) = scope.state.as_ref().filter(|state| state.version != wanted) {
                found.states.push((state.clone(), scope.previous_schema_state.clone()));
            }
        }
        found
    }

    /// Queues turns in which the states of a plugin are migrated to the running generation's schema, and copies are dropped that
    /// no rollback needs any more.
    pub(super) fn queue_migration(&mut self, plugin: u32) {
        let Some(plugin) = self.scopes.of(plugin).next().map(|scope| scope.plugin.clone()) else { return };
        if let Some(underway) = self.migrating.get_mut(&plugin.number) {
            underway.again = true;
            return;
        }
        if plugin.is_undecided() {
            // It is queued when the rollback is decided.
            return;
        }
        let generation = plugin.current();
        let scopes = self.scopes.of(plugin.number).filter(|scope| is_outdated(scope, &plugin, &generation));
        let left: VecDeque<_> = scopes.map(|scope| scope.address.key.clone()).collect();
        if !left.is_empty() {
            self.migrating.insert(plugin.number, Underway::default());
            self.give_migration_turn(Migration { plugin, generation: generation.id.generation, left });
        }
    }

    /// Looks for states to migrate in a while, of all plugins.
    pub(super) fn migrate_soon(&mut self) {
        let catalogue = self.shared.catalogue.load();
        catalogue.plugins.values().for_each(|plugin| self.look_again(plugin.number));
    }

    fn look_again(&mut self, plugin: u32) {
        match self.migrating.entry(plugin) {
            Entry::Occupied(mut underway) => underway.get_mut().again = true,
            Entry::Vacant(none) => {
                none.insert(Underway::default());
                self.deadlines.push(self.shared.clock.uptime_ms() + RETRY_MS, Due::Migrate { plugin });
            }
        }
    }

    /// Goes on with a migration that was put off, or looks for states to migrate.
    pub(super) fn go_on_migrating(&mut self, plugin: u32) {
        match self.migrating.get_mut(&plugin).and_then(|underway| underway.put_off.take()) {
            Some(migration) => self.give_migration_turn(migration),
            None => {
                self.migrating.remove(&plugin);
                self.queue_migration(plugin);
            }
        }
    }

    fn give_migration_turn(&mut self, migration: Migration) {
        self.turns.push(migration.plugin.number, Flow::Migration, "".into(), Job::Migrate(migration));
    }

    /// Migrates states for a turn, and the others in later turns. What cannot be migrated is left to its scope's next event.
    pub(super) fn migrate_rest(&mut self, mut migration: Migration) {
        let (plugin, started) = (migration.plugin.clone(), Instant::now());
        let number = plugin.number;
        if plugin.is_unloaded() || plugin.is_undecided() {
            self.migrating.remove(&number);
            return;
        }
        if let Some(after_ms) = self.store_pause(&plugin) {
            if let Some(underway) = self.migrating.get_mut(&number) {
                underway.put_off = Some(migration);
                self.deadlines.push(self.shared.clock.uptime_ms() + after_ms, Due::Migrate { plugin: number });
            }
            return;
        }
        // Effects of earlier events do not wait for a migration.
        self.wakes.wake();
        let generation = plugin.current();
        while let Some(key) = migration.left.pop_front() {
            // The cluster may have yet to take earlier commits.
            let is_ready = self.is_ready(&key);
            if let Some(place) = self.scopes.find(number, &key).filter(|_| is_ready) {
                self.migrate_scope(place, &plugin, &generation);
            } else if let Some(underway) = self.migrating.get_mut(&number) {
                underway.again |= !is_ready;
            }
            if started.elapsed() >= LONG_TURN && !migration.left.is_empty() {
                return self.give_migration_turn(migration);
            }
        }
        let again = self.migrating.remove(&number).is_some_and(|underway| underway.again);
        if again || migration.generation != generation.id.generation {
            self.look_again(number);
        }
    }

    /// How long migrations of a plugin wait, in milliseconds, because so much waits to be written: events come first.
    fn store_pause(&self, plugin: &Plugin) -> Option<u64> {
        let store = self.shared.store.as_ref()?;
        if store.takes_changes().is_err() {
            return Some(RETRY_MS);
        }
        let (states, bytes) = plugin.account.held(Means::States);
        (states > MAX_UNWRITTEN || bytes > MAX_UNWRITTEN_BYTES).then_some(BUSY_MS)
    }

    /// Migrates the state of a scope, if its build can, and writes it.
    fn migrate_scope(&mut self, place: Place, plugin: &Arc<Plugin>, generation: &Arc<Generation>) {
        let key = self.scopes[place].address.key.clone();
        let is_elsewhere = self.partitions.is_some() && self.batch_of(&key).is_none();
        if is_elsewhere || !is_outdated(&self.scopes[place], plugin, generation) {
            return;
        }
        let (wanted, slot) = (generation.manifest.state_version, (plugin.number, Role::Running));
        let Self { scopes, instances, shared, wakes, .. } = self;
        let scope = &mut scopes[place];
        if let Some(stored) = scope.state.as_ref().filter(|state| state.version != wanted) {
            let Ok(instance) = instances.warm(slot, generation, &shared.ticker, wakes) else { return };
            let newer = plugin.newer(stored.version, wanted);
            let states = (stored, scope.previous_schema_state.as_ref());
            let taken =
                instance.lend(wakes, |instance| take_over(&shared.ticker, &newer, generation, instance, states));
            match taken {
                Ok(bytes) => {
                    let migrated = State { version: wanted, bytes: bytes.into() };
                    scope.previous_schema_state = scope.state.replace(migrated);
                    scope.stay_no_longer();
                    shared.metrics.plugin_migrated_states.inc();
                }
                Err(cannot) if cannot.is_fault => return instances.drop_instance(slot),
                Err(cannot) => return self.stay(place, generation, &cannot.to_string()),
            }
        }
        let scope = &mut self.scopes[place];
        scope.previous_schema_state.take_if(|before| !plugin.can_go_back_to(before.version));
        self.rewrite(place);
    }

    /// Notes that a scope stays on an older generation, if there is one for it, for this one cannot take over its state.
    pub(super) fn stay(&mut self, place: Place, generation: &Generation, cannot: &str) {
        let scope = &mut self.scopes[place];
        let (plugin, key, id) = (&scope.plugin, scope.address.key.clone(), &generation.id);
        let older = scope.state.as_ref().and_then(|state| plugin.stays_on(generation, state.version));
        let Some(older) = older.filter(|_| scope.stays_from != Some(id.generation)) else { return };
        scope.stays_from = Some(id.generation);
        let message = format!(
            "{key} stays on generation {}, because generation {} cannot go on from its state: {cannot}",
            older.id.generation, id.generation
        );
        self.shared.metrics.plugin_pinned_scopes.inc();
        tracing::warn!(
            plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest, scope = %key,
            "{message}"
        );
        plugin.staying().insert(key.clone(), id.generation, message.clone());
        plugin.note_error(PluginError {
            at_ms: self.shared.clock.now_ms(),
            generation: id.generation,
            scope: Some(key.to_string()),
            event: None,
            message,
        });
    }

    /// Gives up the states of a plugin that its running generation cannot take over and that may be given up. Returns
    /// the number of scopes.
    pub(super) fn give_up_states(&mut self, plugin: u32) -> usize {
        let Some(running) = self.scopes.of(plugin).next().map(|scope| scope.plugin.clone()) else { return 0 };
        let generation = running.current();
        let wanted = generation.manifest.state_version;
        let others: Vec<_> = self
            .scopes
            .of(plugin)
            .filter_map(|scope| {
                Some((scope.address.key.clone(), scope.state.clone()?, scope.previous_schema_state.clone()))
            })
            .filter(|(_, state, _)| state.version != wanted && running.gives_up(state.version))
            .collect();
        let mut n_scopes = 0;
        for (key, state, kept) in others {
            // Effects of earlier events do not wait for a migration.
            self.wakes.wake();
            let instance = generation.instantiate(&self.shared.ticker);
            let newer = running.newer(state.version, wanted);
            let taken = instance.map(|mut instance| {
                take_over(&self.shared.ticker, &newer, &generation, &mut instance, (&state, kept.as_ref())).is_ok()
            });
            if taken.unwrap_or(false) {
                // The state is migrated later.
                continue;
            }
            let Some(place) = self.scopes.find(plugin, &key) else { continue };
            let scope = &mut self.scopes[place];
            scope.give_up();
            // A copy of yet another schema is of no use either.
            scope.state = scope.state.take().filter(|kept| kept.version == wanted);
            n_scopes += 1;
            self.shared.metrics.plugin_lost_states.inc();
            tracing::warn!(plugin = %running.name, scope = %key, generation = generation.id.generation,
                "a scope lost what a newer build had written to it");
            self.rewrite(place);
            self.drop_if_empty(place);
        }
        n_scopes
    }

    /// Keeps a scope that has changed without an event.
    fn rewrite(&mut self, place: Place) {
        let scope = &mut self.scopes[place];
        if self.partitions.is_none() {
            return rewrite(&self.shared, scope, 0);
        }
        // The store follows with the scope's next event: what it has of events must not come before Redis has taken them.
        scope.is_dirty = true;
        let (plugin, key) = (scope.plugin.clone(), scope.address.key.clone());
        self.mark_state(&plugin, &key);
    }
}

/// Whether a scope's state has to be migrated to a generation's schema, or has a copy that no rollback needs any more.
fn is_outdated(scope: &Scope, plugin: &Plugin, generation: &Generation) -> bool {
    let key = &scope.address.key;
    // The scopes of a canary have its schema.
    if scope.loading.is_some() || plugin.rollout().is_some_and(|rollout| rollout.handles(key)) {
        return false;
    }
    let stays = scope.stays_from == Some(generation.id.generation);
    let is_foreign = |state: &State| state.version != generation.manifest.state_version;
    let is_useless = |before: &State| !plugin.can_go_back_to(before.version);
    let copy = scope.previous_schema_state.as_ref();
    // A second migration would replace the copy from before the first, which a rollback may need.
    let may_migrate = !stays && copy.is_none_or(|before| is_useless(before) || !is_foreign(before));
    may_migrate && scope.state.as_ref().is_some_and(is_foreign) || copy.is_some_and(is_useless)
}
