//! Changes of the running plugins: loads, swaps, unloads. Each change is recorded before it is answered, so that the
//! next start finds it. If one of its steps fails, everything is left as it was.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;

use super::component_store::{ComponentStore, FolderFile};
use super::threads::{LifecycleThreads, lock};
use crate::model::GenerationId;
use crate::plugin::load::catalogue::{Catalogue, Idle, Plugin};
use crate::plugin::load::generation::{Generation, Source};
use crate::plugin::load::history::History;
use crate::plugin::load::loader::{Described, LoadError, Loader, Step};
use crate::plugin::load::migrate::{Losses, State};
use crate::plugin::load::rollout::Rollout;
use crate::plugin::run::job::{Job, StatesToMigrate};
use crate::plugin::run::shared::Shared;
use crate::store::StoredScopes;

/// A component that is to be loaded.
#[derive(Debug, Clone)]
pub struct Load {
    /// The component's bytes.
    pub bytes: Vec<u8>,
    /// The name that the component must have; none: any.
    pub name: Option<String>,
    /// The SHA-256 that the component must have, in hexadecimal; none: any.
    pub digest: Option<String>,
    /// The origin of the component.
    pub source: Source,
    /// The name of the component's file, if it is from the plugin folder.
    pub file: Option<String>,
    /// Whether states that the component cannot take over may be lost.
    pub lose_writes: bool,
}

impl Load {
    /// A load of a component of any name and digest, in which no state may be lost.
    pub fn new(bytes: Vec<u8>, source: Source) -> Self {
        Self { bytes, name: None, digest: None, source, file: None, lose_writes: false }
    }
}

/// What a load or a rollback did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The generation that runs now.
    #[serde(flatten)]
    pub id: GenerationId,
    /// Whether the same component ran before, so that nothing has changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// The scopes that lost what a newer build had written to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_scopes: Option<usize>,
    /// What did not go as it should, though the change was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

impl Change {
    pub(crate) fn to(id: &GenerationId) -> Self {
        Self { id: id.clone(), unchanged: false, lost_scopes: None, warning: None }
    }
}

/// Makes the changes of the running plugins, and keeps their records.
#[derive(Debug)]
pub struct Lifecycle {
    pub(super) shared: Arc<Shared>,
    pub(super) threads: LifecycleThreads,
    /// The source of durable states for a host without a store, which only inspects plugins.
    pub(super) looked_at: OnceLock<Box<dyn StoredScopes>>,
    pub(crate) loader: Loader,
    pub(crate) store: ComponentStore,
    /// Held while the catalogue and the records change.
    pub(crate) changes: Mutex<()>,
    /// The plugins that are being loaded, by name.
    loading: Mutex<HashSet<String>>,
    loaded: Condvar,
    last_plugin: AtomicU32,
}

/// A plugin that is being loaded: other loads of the same plugin wait.
pub(super) struct Loading<'a>(&'a Lifecycle, &'a str);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        lock(&self.0.loading).remove(self.1);
        self.0.loaded.notify_all();
    }
}

impl Lifecycle {
    pub(crate) fn new(shared: Arc<Shared>, loader: Loader, store: ComponentStore) -> Self {
        Self {
            shared,
            threads: LifecycleThreads::default(),
            looked_at: OnceLock::new(),
            loader,
            store,
            changes: Mutex::default(),
            loading: Mutex::default(),
            loaded: Condvar::new(),
            last_plugin: AtomicU32::new(0),
        }
    }

    pub(crate) fn next_plugin(&self) -> u32 {
        self.last_plugin.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn wait_to_load<'a>(&'a self, name: &'a str) -> Loading<'a> {
        let mut loading = lock(&self.loading);
        while !loading.insert(name.to_owned()) {
            loading = self.loaded.wait(loading).unwrap_or_else(PoisonError::into_inner);
        }
        Loading(self, name)
    }

    /// Loads a component, or replaces the running build of the same plugin by it. To load the running build again
    /// leaves it as it is.
    ///
    /// # Errors
    /// With the step that refused the component. Then nothing has changed.
    pub(super) fn install(self: &Arc<Self>, load: &Load) -> Result<Change, LoadError> {
        let described = self.described(load)?;
        let _only_one = self.wait_to_load(&described.name);
        let record = self.store.record(&described.name);
        let generation = self.prepare(load, &described)?;
        let is_new = self.shared.plugin(&described.name).is_none_or(|p| p.current().id.digest != described.digest);
        if is_new {
            self.have_others_try(&generation, &load.bytes, load.lose_writes)?;
        }
        let folder = load.file.clone().map(|name| FolderFile { name, digest: described.digest.clone() });
        match self.shared.plugin(&described.name) {
            Some(plugin) if plugin.current().id.digest == described.digest => {
                self.keep_as_is(&plugin, folder, load.source)?;
                Ok(Change { unchanged: true, ..Change::to(&plugin.current().id) })
            }
            Some(plugin) => self.swap(&plugin, generation, folder, load, None),
            None => {
                // A plugin that could not be started may have a history.
                let history = self.history_of(&record, generation.id.generation);
                let plugin = Plugin::new(self.next_plugin(), generation.clone(), history, self.shared.hub.ledger())?;
                let lost = self.bring_in(plugin, Some((&load.bytes, folder)), load.lose_writes)?;
                self.prune_cache();
                let id = generation.id.clone();
                tracing::info!(plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
                    source = ?load.source, "a plugin was loaded");
                Ok(Change { lost_scopes: lost, ..Change::to(&id) })
            }
        }
    }

    /// Name, version and digest of a component that is to be loaded.
    ///
    /// # Errors
    /// With the step that refuses the component.
    pub(super) fn described(&self, load: &Load) -> Result<Described, LoadError> {
        let described = self.loader.describe(&load.bytes, load.digest.as_deref())?;
        if let Some(name) = load.name.as_ref().filter(|name| **name != described.name) {
            let message = format!("the component calls itself {:?}, not {name:?}", described.name);
            return Err(LoadError::new(Step::Manifest, message));
        }
        Ok(described)
    }

    /// Makes the next generation of a plugin of a component.
    ///
    /// # Errors
    /// With the step that refuses the component.
    pub(super) fn prepare(&self, load: &Load, described: &Described) -> Result<Arc<Generation>, LoadError> {
        let recorded = self.store.record(&described.name).last_generation;
        // A bundled build that nothing was installed over has no record, and a candidate that was only tried has none either.
        let used = self
            .shared
            .plugin(&described.name)
            .map_or(0, |plugin| plugin.current().id.generation.max(plugin.last_candidate.load(Ordering::Relaxed)));
        let next = |_: &GenerationId| recorded.max(used) + 1;
        self.loader.prepare(&load.bytes, load.digest.as_deref(), load.source, next).map(Arc::new)
    }

    /// Replaces the build that runs: by a candidate only while its trial goes on.
    pub(super) fn swap(
        &self,
        plugin: &Arc<Plugin>,
        generation: Arc<Generation>,
        folder: Option<FolderFile>,
        load: &Load,
        candidate_of: Option<&Arc<Rollout>>,
    ) -> Result<Change, LoadError> {
        let _changes = lock(&self.changes);
        if plugin.is_unloaded() {
            return Err(LoadError::unloaded_meanwhile());
        }
        if candidate_of.is_some_and(|rollout| !plugin.tries(rollout)) {
            return Err(LoadError::passing(Step::Trial, "its trial has ended meanwhile: load it, or try it again"));
        }
        self.try_routes(&generation)?;
        let losses = self.losses(plugin, &generation)?;
        losses.permit(load.lose_writes)?;
        let before = plugin.current();
        let history = plugin.history().after_replacing(before.clone(), &generation).giving_up(losses.schemas.clone());
        self.store.keep(&load.bytes, &generation.id.digest).map_err(LoadError::not_installed)?;
        self.write(plugin, &generation, &history, folder).map_err(LoadError::not_installed)?;
        let lost = self.switch(plugin, &generation, history, &losses);
        self.resume(plugin);
        if let Some(store) = &self.shared.store {
            // The store sends the outcomes again that the previous build did not take.
            store.resume(&plugin.name);
        }
        let id = generation.id.clone();
        tracing::info!(plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
            source = ?load.source, before = before.id.generation, "a plugin was replaced");
        Ok(Change { lost_scopes: lost, ..Change::to(&id) })
    }

    /// Makes a generation of a running plugin the current one; the caller calls [`Self::resume`] afterwards. Returns the
    /// number of scopes that lost changes or their state; none if there are no losses.
    pub(crate) fn switch(
        &self,
        plugin: &Arc<Plugin>,
        generation: &Arc<Generation>,
        history: History,
        losses: &Losses,
    ) -> Option<usize> {
        let before = (plugin.current(), plugin.history());
        plugin.health.activate(generation.id.generation, self.shared.clock.uptime_ms());
        plugin.switch(generation.clone(), history);
        // Only now, or the scopes of a canary that is promoted would go back to the build before for a moment.
        if let Some(rollout) = plugin.rollout() {
            let is_it = Arc::ptr_eq(&rollout.candidate, generation);
            let loaded = || format!("generation {} was taken into use", generation.id.generation);
            self.shared.end_rollout(plugin, &rollout, &if is_it { "promoted".to_owned() } else { loaded() });
        }
        self.shared.metrics.show_latency(&generation.latency);
        self.publish(|_, _| {});
        self.retire(plugin, &before.0, &before.1);
        (!losses.is_empty()).then(|| self.give_up(plugin, losses))
    }

    /// Has the plugin threads handle the events that were deferred under the previous generation, and migrate the states.
    pub(super) fn resume(&self, plugin: &Plugin) {
        self.shared.submit_to_all(|| Job::Resume { plugin: plugin.number });
    }

    /// Removes generations that are no longer loaded from the metrics, and prunes the cache.
    fn retire(&self, plugin: &Plugin, current: &Arc<Generation>, history: &History) {
        let (now, kept) = (plugin.current(), plugin.history());
        for gone in history.generations().chain([current]) {
            if !kept.generations().chain([&now]).any(|other| Arc::ptr_eq(other, gone)) {
                self.shared.metrics.hide_latency(&gone.latency);
            }
        }
        self.prune_cache();
    }

    /// Has the plugin threads give up states that the running generation cannot take over.
    pub(crate) fn give_up(&self, plugin: &Plugin, losses: &Losses) -> usize {
        let mut n_scopes = 0;
        for inbox in self.shared.inboxes.iter() {
            let (reply, answer) = tokio::sync::oneshot::channel();
            inbox.push(Job::GiveUp { plugin: plugin.number, reply });
            // A thread that has ended drops the job.
            n_scopes += answer.blocking_recv().unwrap_or(0);
        }
        let id = &plugin.current().id;
        tracing::error!(
            plugin = %id.name, version = %id.version, generation = id.generation, scopes = n_scopes,
            "scopes lost what a newer build had written to them: {}", losses.reason
        );
        n_scopes
    }

    /// Starts a plugin that does not run yet: restores its stored states, and adds it to the catalogue. `component` and
    /// its file are recorded first; none if they are recorded already. Returns the number of scopes with losses.
    ///
    /// # Errors
    /// With the step that refused the component. Then nothing has changed.
    pub(crate) fn bring_in(
        self: &Arc<Self>,
        plugin: Plugin,
        component: Option<(&[u8], Option<FolderFile>)>,
        lose_writes: bool,
    ) -> Result<Option<usize>, LoadError> {
        let generation = plugin.current();
        let name = plugin.name.clone();
        self.try_routes(&generation)?;
        let plugin = Arc::new(plugin);
        let losses = self.restore(&plugin, lose_writes)?;
        let changes = lock(&self.changes);
        let noted = self.try_routes(&generation).and_then(|()| {
            let Some((component, folder)) = component else { return Ok(()) };
            self.store.keep(component, &generation.id.digest).map_err(LoadError::not_installed)?;
            self.write(&plugin, &generation, &plugin.history(), folder).map_err(LoadError::not_installed)
        });
        if let Err(refused) = noted {
            // The plugin's scopes may still be being restored.
            plugin.mark_unloaded();
            let sets_aside = self.shared.node.is_some();
            self.shared.submit_to_all(|| Job::Forget { plugin: plugin.number, sets_aside });
            return Err(refused);
        }
        for loaded in plugin.history().generations().chain([&generation]) {
            self.shared.metrics.show_latency(&loaded.latency);
        }
        self.shared.metrics.show_plugin(&plugin.metrics);
        plugin.health.activate(generation.id.generation, self.shared.clock.uptime_ms());
        self.publish(|plugins, idle| {
            idle.remove(&name);
            plugins.insert(name.clone(), plugin.clone());
        });
        // What a cluster kept of its scopes is taken up.
        self.shared.submit_to_all(|| Job::Resume { plugin: plugin.number });
        let lost = (!losses.is_empty()).then(|| self.give_up(&plugin, &losses));
        drop(changes);
        if let Some(n) = self.shared.store.as_ref().map(|store| store.resume(&name)).filter(|n| *n > 0) {
            tracing::info!(plugin = %name, documents = n, "documents that were promised before are being stored");
        }
        Ok(lost)
    }

    /// Checks that no other plugin has the events or scopes of a generation.
    pub(crate) fn try_routes(&self, generation: &Generation) -> Result<(), LoadError> {
        match self.shared.catalogue.load().conflict(generation) {
            Some(conflict) => Err(LoadError::new(Step::Routes, conflict)),
            None => Ok(()),
        }
    }

    /// The states of present scopes that a generation could not take over.
    ///
    /// # Errors
    /// If the generation lacks a template for a present scope, or cannot be instantiated.
    pub(crate) fn losses(&self, plugin: &Plugin, by: &Arc<Generation>) -> Result<Losses, LoadError> {
        let current = plugin.current();
        let mut losses = Losses::of(by, &plugin.history().before(by, &current));
        for found in self.find_states(plugin, by) {
            let found = found?;
            if let Some(scope) = found.unroutable_scope {
                let message = format!("it has no template for the scope {scope}, which there is");
                return Err(LoadError::new(Step::Migrate, message));
            }
            losses.add(self.loader.ticker(), plugin, Some(&current), by, &found.states)?;
        }
        Ok(losses)
    }

    /// The states of present scopes that a generation would have to migrate, of each thread.
    fn find_states<'a>(
        &'a self,
        plugin: &'a Plugin,
        by: &'a Arc<Generation>,
    ) -> impl Iterator<Item = Result<StatesToMigrate, LoadError>> + 'a {
        self.shared.inboxes.iter().map(|inbox| {
            let (reply, answer) = tokio::sync::oneshot::channel();
            inbox.push(Job::FindStates { plugin: plugin.number, by: by.clone(), reply });
            // A thread that has ended drops the job.
            answer.blocking_recv().map_err(|_| LoadError::passing(Step::Migrate, "the host is shutting down"))
        })
    }

    /// The states of present scopes that a generation would have to migrate.
    ///
    /// # Errors
    /// If the host is shutting down.
    pub(super) fn present_states(&self, plugin: &Plugin, by: &Arc<Generation>) -> Result<Vec<State>, LoadError> {
        let mut states = Vec::new();
        for found in self.find_states(plugin, by) {
            states.extend(found?.states.into_iter().map(|(state, _)| state));
        }
        Ok(states)
    }

    /// Replaces the catalogue by a changed copy.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut BTreeMap<String, Arc<Plugin>>, &mut BTreeMap<String, Idle>)) {
        let catalogue = self.shared.catalogue.load();
        let (mut plugins, mut idle) = (catalogue.plugins.clone(), catalogue.idle.clone());
        change(&mut plugins, &mut idle);
        self.shared.metrics.plugins_failed.set(idle.values().filter(|idle| idle.failed.is_some()).count() as i64);
        self.shared.catalogue.store(Arc::new(Catalogue::new(plugins, idle)));
    }

    pub(crate) fn prune_cache(&self) {
        let mut keep = HashSet::new();
        for plugin in self.shared.catalogue.load().plugins.values() {
            let (current, history) = (plugin.current(), plugin.history());
            keep.extend(history.generations().chain([&current]).map(|generation| generation.id.digest.clone()));
        }
        self.loader.prune_cache(&keep);
    }
}
