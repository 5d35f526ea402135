//! Unloads of plugins.

use std::sync::Arc;

use super::component_store::Record;
use super::install::Lifecycle;
use super::threads::lock;
use crate::model::{ErrorCode, Failure};
use crate::plugin::load::catalogue::Idle;
use crate::plugin::run::clustered::news::News;
use crate::plugin::run::job::Job;

impl Lifecycle {
    /// Unloads a plugin: its scopes, timers and rooms are dropped, and durable states stay stored.
    ///
    /// # Errors
    /// If there is no such plugin, or the unload cannot be recorded. Then nothing has changed.
    pub(super) fn uninstall(&self, name: &str) -> Result<(), Failure> {
        let _changes = lock(&self.changes);
        let idle = self.shared.catalogue.load().idle.get(name).cloned();
        let plugin = self.shared.plugin(name);
        if plugin.is_none() && idle.is_none_or(|idle| idle.failed.is_none()) {
            return Err(self.shared.no_plugin(name));
        }
        let mut record = self.store.record(name);
        if let Some(plugin) = &plugin {
            let current = plugin.current();
            record.last_generation = record.last_generation.max(current.id.generation);
            record.events = current.manifest.routes.keys().cloned().collect();
        }
        let events = record.events.clone();
        let record = Record { current: None, previous: Vec::new(), rolled_back: Vec::new(), ..record };
        self.put(record).map_err(|error| {
            let message = format!("the unload of {name} cannot be written down, and was not done: {error}");
            Failure::new(ErrorCode::Internal, message)
        })?;
        self.take_out(name, events, false);
        Ok(())
    }

    /// Ends a plugin whose unload is recorded. With `sets_aside`, its scopes stay with the cluster until it runs here again.
    pub(crate) fn take_out(&self, name: &str, events: Vec<String>, sets_aside: bool) {
        if self.shared.node.is_some() && !sets_aside {
            let name: Arc<str> = name.into();
            self.shared.submit_to_all(|| Job::News(News::Unloaded(name.clone())));
        }
        let plugin = self.shared.plugin(name);
        if let Some(plugin) = &plugin {
            plugin.mark_unloaded();
            if let Some(rollout) = plugin.rollout() {
                self.shared.end_rollout(plugin, &rollout, "the plugin was unloaded");
            }
        }
        self.publish(|plugins, idle| {
            plugins.remove(name);
            idle.insert(name.to_owned(), Idle { failed: None, events });
        });
        if let Some(plugin) = plugin {
            self.shared.submit_to_all(|| Job::Forget { plugin: plugin.number, sets_aside });
            let (current, history) = (plugin.current(), plugin.history());
            history.generations().chain([&current]).for_each(|gone| self.shared.metrics.hide_latency(&gone.latency));
            self.shared.metrics.hide_plugin(&plugin.metrics);
            let id = &current.id;
            tracing::info!(plugin = %name, version = %id.version, generation = id.generation, digest = %id.digest,
                "a plugin was unloaded");
        }
    }
}
