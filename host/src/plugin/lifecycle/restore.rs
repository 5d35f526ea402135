//! Restoring a plugin's durable scopes from the store, at a start or after an unload.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::install::Lifecycle;
use crate::model::Mailbox;
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::loader::LoadError;
use crate::plugin::load::migrate::Losses;
use crate::plugin::load::migrate::State;
use crate::plugin::run::job::Job;
use crate::plugin::run::shared::Shared;
use crate::store::ScopeRecord;

impl Lifecycle {
    /// Restores the durable scopes of all plugins that this node of a cluster owns and that the cluster does not have.
    pub(crate) fn restore_owned(self: &Arc<Self>) {
        for plugin in self.shared.catalogue.load().plugins.values() {
            if let Err(error) = self.restore(plugin, false) {
                tracing::error!(plugin = %plugin.name, %error, "durable scopes cannot be restored");
            }
            self.resume(plugin);
        }
    }

    /// Restores the durable scopes of a plugin that does not run yet, and returns the losses. If the store cannot be
    /// read, the restoration is tried again later; until then each scope is read at its first event.
    ///
    /// # Errors
    /// If the plugin cannot be instantiated, or cannot take over a state that may not be lost.
    pub(crate) fn restore(self: &Arc<Self>, plugin: &Arc<Plugin>, lose_writes: bool) -> Result<Losses, LoadError> {
        let generation = plugin.current();
        let is_durable = generation.manifest.scopes.iter().any(|scope| scope.is_durable);
        let Some(stored) = self.stored().filter(|_| is_durable) else { return Ok(Losses::default()) };
        let mut losses = Losses::of(&generation, &plugin.history().previous);
        let mut refused = None;
        let restored = stored.scopes(&plugin.name, &mut |records| {
            let states: Vec<_> = records
                .iter()
                .filter(|record| lose_writes || !plugin.gives_up(record.version))
                .filter_map(|record| {
                    let of = |version: u32, bytes: &Vec<u8>| State { version, bytes: bytes.clone().into() };
                    let kept = record.before.as_ref().map(|(version, bytes)| of(*version, bytes));
                    Some((of(record.version, record.state.as_ref()?), kept))
                })
                .collect();
            let checked = losses.add(self.loader.ticker(), plugin, None, &generation, &states);
            if let Err(error) = checked {
                refused = Some(error);
                return ControlFlow::Break(());
            }
            hand_over(&self.shared, plugin, records);
            ControlFlow::Continue(())
        });
        let verdict = refused.map_or_else(|| losses.permit(lose_writes), Err);
        if let Err(refused) = verdict {
            plugin.mark_unloaded();
            let sets_aside = self.shared.node.is_some();
            self.shared.submit_to_all(|| Job::Forget { plugin: plugin.number, sets_aside });
            return Err(refused);
        }
        if !losses.is_empty() {
            plugin.switch(generation, plugin.history().giving_up(losses.schemas.iter().copied()));
        }
        if let Err(failure) = restored {
            tracing::error!(
                plugin = %plugin.name, "durable scopes cannot be restored yet, and their timers do not run: {}",
                failure.message
            );
            self.restore_later(plugin.clone());
        }
        Ok(losses)
    }

    /// Tries again to restore durable scopes. Returns whether the store could be read.
    pub(crate) fn restore_again(&self, plugin: &Arc<Plugin>) -> bool {
        let Some(stored) = self.stored() else { return true };
        let restored = stored.scopes(&plugin.name, &mut |records| {
            // A state that the generation cannot take over stays stored, and its scope refuses events.
            hand_over(&self.shared, plugin, records);
            ControlFlow::Continue(())
        });
        self.resume(plugin);
        restored.is_ok()
    }
}

/// Hands each plugin thread the records of its own scopes.
fn hand_over(shared: &Shared, plugin: &Arc<Plugin>, records: Vec<ScopeRecord>) {
    // A host without a store only inspects plugins, and runs no scopes.
    if shared.store.is_none() {
        return;
    }
    let mut by_thread: HashMap<*const _, (&Arc<Mailbox<Job>>, Vec<ScopeRecord>)> = HashMap::new();
    for record in records {
        let inbox = shared.inboxes.of(&record.key);
        by_thread.entry(Arc::as_ptr(inbox)).or_insert_with(|| (inbox, Vec::new())).1.push(record);
    }
    for (inbox, records) in by_thread.into_values() {
        inbox.push(Job::Restore { plugin: plugin.clone(), records });
    }
}
