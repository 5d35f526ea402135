//! The requests of operators: each runs on a thread of its own, off every hot path, so that neither a long
//! compilation nor a store that does not answer keeps a failing build from being rolled back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::install::{Change, Lifecycle, Load};
use super::rollback::Goal;
use crate::model::{ErrorCode, Failure};
use crate::plugin::load::bundled::bundled;
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::generation::Source;
use crate::plugin::load::loader::{Described, LoadError, Step};
use crate::store::StoredScopes;

/// The pause between two attempts to read durable scopes while the store is away.
const RESTORE_PAUSE: Duration = Duration::from_secs(5);

impl Lifecycle {
    /// Lets a host without a store read durable states, so that it can report what would start.
    pub fn look_at(&self, stored: Box<dyn StoredScopes>) {
        // Only the first is kept: a host inspects one store.
        let _ = self.looked_at.set(stored);
    }

    /// Ends all requests, and refuses new ones.
    pub(crate) fn stop(&self) {
        self.threads.stop();
    }

    /// The source of durable states: the host's own store, or the one that it inspects.
    pub(super) fn stored(&self) -> Option<&dyn StoredScopes> {
        let own = self.shared.store.as_ref().map(|store| store as &dyn StoredScopes);
        own.or_else(|| self.looked_at.get().map(|stored| &**stored))
    }

    /// Runs `work` on a thread of its own, and returns its result.
    pub(super) async fn request<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> Result<T, &'static str> {
        let (reply, done) = oneshot::channel();
        let lifecycle = self.clone();
        // The work is done even if the caller has gone.
        self.threads.spawn(move || drop(reply.send(work(&lifecycle))))?;
        done.await.map_err(|_| "it failed, for a reason that the log says")
    }

    /// Loads a component, or replaces the running build of the same plugin by it. To load the running build again
    /// leaves it as it is.
    ///
    /// # Errors
    /// With the step that refused the component. Then nothing has changed.
    pub async fn load(self: &Arc<Self>, load: Load) -> Result<Change, LoadError> {
        let done = self.request(move |lifecycle| {
            let done = lifecycle.install(&load);
            if let Ok(change) = &done {
                lifecycle.wait_for_losses(change);
            }
            // `Folder` logs its own refusals: it knows the file, and when a refusal is worth a line.
            if let Err(error) = done.as_ref()
                && load.source != Source::Folder
            {
                let Load { source, name, .. } = &load;
                tracing::warn!(step = ?error.step, ?source, name, "a component was refused: {error}");
            }
            done
        });
        done.await.unwrap_or_else(|why| Err(LoadError::passing(Step::Compile, why)))
    }

    /// Name, version and digest of a component.
    ///
    /// # Errors
    /// With the step that refused the component.
    pub async fn describe(self: &Arc<Self>, bytes: Vec<u8>) -> Result<Described, LoadError> {
        let described = self.request(move |lifecycle| lifecycle.loader.describe(&bytes, None));
        described.await.unwrap_or_else(|why| Err(LoadError::passing(Step::Compile, why)))
    }

    /// The largest component that may be loaded, in bytes.
    pub fn largest_component(&self) -> usize {
        self.shared.config.largest_component()
    }

    /// Whether this component was the last of its plugin that was loaded from the plugin folder.
    pub(crate) fn took_from_folder(&self, described: &Described) -> bool {
        let record = self.store.record(&described.name);
        let is_it = |digest: &String| *digest == described.digest;
        record.folder.as_ref().is_some_and(|file| is_it(&file.digest)) || record.last_file.as_ref().is_some_and(is_it)
    }

    /// The plugins whose running or failed build is from the plugin folder, and the names of their files.
    pub(crate) fn plugins_from_folder(&self) -> Vec<(String, String)> {
        let catalogue = self.shared.catalogue.load();
        let is_in_use = |name: &str| {
            catalogue.plugins.contains_key(name) || catalogue.idle.get(name).is_some_and(|idle| idle.failed.is_some())
        };
        let records = self.store.records().into_iter().filter(|record| is_in_use(&record.name));
        let is_from_folder = |source: Source| source == Source::Folder;
        records
            .filter_map(|record| {
                let (current, file) = (record.current?, record.folder?);
                // In a cluster the build may be of another node's folder.
                let is_its_file =
                    is_from_folder(current.source) && (record.revision == 0 || file.digest == current.digest);
                is_its_file.then_some((record.name, file.name))
            })
            .collect()
    }

    /// Rolls a plugin back: to the generation `to`, or else away from the candidate that is tried, or else to the generation
    /// before.
    ///
    /// # Errors
    /// If there is no such plugin or generation, that generation cannot run now, or changes would be lost and `lose_writes` does
    /// not allow it.
    pub async fn roll_back(
        self: &Arc<Self>,
        name: &str,
        lose_writes: bool,
        to: Option<u64>,
    ) -> Result<Change, Failure> {
        let name = name.to_owned();
        let done = self.request(move |lifecycle| {
            let done = lifecycle.revert(&name, lose_writes, to.map_or(Goal::Before, Goal::To));
            if let Ok(change) = &done {
                lifecycle.wait_for_losses(change);
            }
            done
        });
        done.await.unwrap_or_else(|why| Err(Failure::new(ErrorCode::FeatureUnavailable, why)))
    }

    /// Unloads a plugin: its scopes, timers and rooms are dropped. The plugin stays unloaded over a restart.
    ///
    /// # Errors
    /// If there is no such plugin, or the unload cannot be recorded.
    pub async fn unload(self: &Arc<Self>, name: &str) -> Result<(), Failure> {
        let name = name.to_owned();
        let done = self.request(move |lifecycle| lifecycle.uninstall(&name));
        done.await.unwrap_or_else(|why| Err(Failure::new(ErrorCode::FeatureUnavailable, why)))
    }

    /// Replaces the running build of a feature by the bundled one.
    ///
    /// # Errors
    /// If the host has no such bundled build, or it cannot be loaded.
    pub async fn reset(self: &Arc<Self>, name: &str, lose_writes: bool) -> Result<Change, Result<LoadError, Failure>> {
        let feature = bundled().iter().find(|feature| feature.name == name).ok_or_else(|| {
            let names: Vec<_> = bundled().iter().map(|feature| feature.name).collect();
            let message = format!("the host has no build of {name} of its own: it has {}", names.join(", "));
            Err(Failure::new(ErrorCode::NotFound, message))
        })?;
        let load = Load { lose_writes, ..Load::new(feature.component.to_vec(), Source::Bundled) };
        self.load(load).await.map_err(Ok)
    }

    /// Waits until the states that scopes went back to are stored, so that a restart finds them.
    fn wait_for_losses(&self, change: &Change) {
        if let Some(store) = self.shared.store.as_ref().filter(|_| change.lost_scopes.is_some())
            && !store.wait_until_written(&change.id.name)
        {
            tracing::error!(plugin = %change.id.name, "what scopes went back to is not stored yet: a restart may lose it");
        }
    }

    /// Rolls a plugin back, on a thread of its own, because a plugin thread found that this generation fails too often.
    pub(crate) fn roll_back_failing(self: &Arc<Self>, name: &str, generation: u64) {
        let (lifecycle, plugin) = (self.clone(), name.to_owned());
        let started = self.threads.spawn_own(move || {
            let runs =
                lifecycle.shared.plugin(&plugin).is_some_and(|running| running.current().id.generation == generation);
            if !runs {
                return;
            }
            tracing::error!(plugin = %plugin, generation, "a new generation fails too often and is rolled back");
            if let Err(error) = lifecycle.revert(&plugin, false, Goal::AwayFrom(generation)) {
                tracing::error!(plugin = %plugin, generation, %error, "it cannot be rolled back");
            }
        });
        if let Err(why) = started {
            tracing::error!(plugin = %name, generation, "a generation that fails too often is not rolled back: {why}");
        }
    }

    /// Tries again to read the durable scopes of a plugin, until the store can be read.
    pub(crate) fn restore_later(self: &Arc<Self>, plugin: Arc<Plugin>) {
        let lifecycle = self.clone();
        let name = plugin.name.clone();
        let started = self.threads.spawn_own(move || {
            while lifecycle.threads.pause(RESTORE_PAUSE)
                && !plugin.is_unloaded()
                && !lifecycle.shared.stopping.load(Ordering::Relaxed)
            {
                if lifecycle.restore_again(&plugin) {
                    return tracing::info!(plugin = %plugin.name, "durable scopes were restored");
                }
            }
        });
        if let Err(why) = started {
            tracing::error!(plugin = %name, "its durable scopes are read one by one: {why}");
        }
    }
}
