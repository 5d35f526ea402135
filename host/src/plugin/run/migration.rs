//! Migration of states between generations of a plugin, on a plugin thread.

use super::durable::write;
use super::job::StatesToMigrate;
use super::state::ThreadState;
use crate::model::Payload;
use crate::plugin::event::ReplyTo;
use crate::plugin::load::generation::Generation;
use crate::plugin::load::migrate::take_over;

impl ThreadState {
    /// The states that a generation would have to migrate.
    pub(super) fn states_to_migrate(&self, plugin: u32, by: &Generation) -> StatesToMigrate {
        let wanted = by.manifest.state_version;
        let mut found = StatesToMigrate::default();
        for scope in self.scopes.of(plugin) {
            if by.manifest.scope_of_key(&scope.address.key).is_none() {
                found.unroutable_scope = Some(scope.address.key.clone());
            }
            let kept = scope.previous_schema_state.as_ref().map(|kept| kept.version);
            if let Some(state) = scope.state.as_ref().filter(|state| state.version != wanted) {
                found.states.push((state.clone(), kept));
            }
        }
        found
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
            .filter_map(|scope| Some((scope.address.key.clone(), scope.state.clone()?)))
            .filter(|(_, state)| state.version != wanted && running.gives_up(state.version))
            .collect();
        let mut n_scopes = 0;
        for (key, state) in others {
            // Effects of earlier events do not wait for a migration.
            self.wakes.wake();
            let instance = generation.instantiate(&self.shared.ticker);
            let downward = running.downward(state.version, wanted);
            let taken = instance.map(|mut instance| {
                take_over(&self.shared.ticker, &downward, &generation, &mut instance, &state).is_ok()
            });
            if taken.unwrap_or(false) {
                // The state is migrated at the scope's next event.
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
            write(&self.shared, scope, ReplyTo::Nobody, Payload::empty(), None);
            self.drop_if_empty(place);
        }
        n_scopes
    }
}
