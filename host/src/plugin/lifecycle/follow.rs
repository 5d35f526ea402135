//! How a node follows the changes of plugins that other nodes of its cluster make, and takes over what runs when it starts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::component_store::Record;
use super::install::Lifecycle;
use super::threads::lock;
use crate::cluster::{Contents, Registered};
use crate::plugin::load::catalogue::{FailedStart, Idle, Plugin, PluginError};
use crate::plugin::load::generation::Installed;
use crate::plugin::load::loader::{LoadError, Step};
use crate::plugin::run::clustered::news::News;
use crate::plugin::run::clustered::operators::{Builds, RunningBuild, TryBuild};
use crate::plugin::run::job::Job;

/// The pause before changes that could not be made are tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// After so many attempts a plugin whose change cannot be made stands still, so that partitions wait for it no longer.
const MAX_ATTEMPTS: u32 = 3;

/// Changes that could not be made, and when that is tried again.
#[derive(Debug, Clone, Copy)]
struct Again {
    revision: u64,
    at: Instant,
    n_attempts: u32,
}

/// What follows the cluster's changes on this node.
#[derive(Debug)]
struct Following {
    lifecycle: Weak<Lifecycle>,
    is_busy: Arc<AtomicBool>,
    again: Arc<Mutex<Option<Again>>>,
}

impl Builds for Following {
    fn follow(&self, revision: u64) {
        let Some(lifecycle) = self.lifecycle.upgrade() else { return };
        let Some(node) = &lifecycle.shared.node else { return };
        let before = lock(&self.again).filter(|again| again.revision == revision);
        let is_later = before.is_some_and(|again| Instant::now() < again.at);
        let is_made = revision == node.revisions.made() && revision >= node.revisions.used();
        if is_made || is_later || self.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (is_busy, again, following) = (self.is_busy.clone(), self.again.clone(), lifecycle.clone());
        let started = lifecycle.threads.spawn_own(move || {
            let n_attempts = before.map_or(1, |again| again.n_attempts + 1);
            let is_made = following.catch_up(n_attempts >= MAX_ATTEMPTS).unwrap_or_else(|error| {
                tracing::error!("the cluster's changes of plugins are not made yet: {error:#}");
                false
            });
            *lock(&again) = (!is_made).then(|| Again { revision, at: Instant::now() + PAUSE, n_attempts });
            is_busy.store(false, Ordering::Release);
        });
        if started.is_err() {
            self.is_busy.store(false, Ordering::Release);
        }
    }

    fn try_build(&self, build: TryBuild, answer: Box<dyn FnOnce(Option<String>) + Send>) {
        let Some(lifecycle) = self.lifecycle.upgrade() else { return };
        let trying = lifecycle.clone();
        let started = lifecycle
            .threads
            .spawn_own(move || answer(trying.try_for_cluster(&build).err().map(|error| error.to_string())));
        if let Err(why) = started {
            tracing::warn!("a build is not tried for the cluster: {why}");
        }
    }

    fn running(&self) -> Vec<RunningBuild> {
        let Some(lifecycle) = self.lifecycle.upgrade() else { return Vec::new() };
        let catalogue = lifecycle.shared.catalogue.load();
        let running = catalogue.plugins.values().map(|plugin| {
            let id = plugin.current().id.clone();
            RunningBuild {
                plugin: id.name.clone(),
                generation: id.generation,
                digest: id.digest.clone(),
                failure: None,
            }
        });
        let failed = catalogue.idle.iter().filter_map(|(name, idle)| {
            let FailedStart { installed, error } = idle.failed.clone()?;
            let Installed { generation, digest, .. } = installed;
            Some(RunningBuild { plugin: name.clone(), generation, digest, failure: Some(error.message) })
        });
        running.chain(failed).collect()
    }
}

impl Lifecycle {
    /// What makes the cluster's changes on this node.
    pub(crate) fn builds(self: &Arc<Self>) -> Box<dyn Builds> {
        Box::new(Following { lifecycle: Arc::downgrade(self), is_busy: Arc::default(), again: Arc::default() })
    }

    /// Takes over what the cluster runs, before the plugins of a node are started, and tells the cluster what it does not know.
    pub(super) fn take_over(self: &Arc<Self>) {
        let Some((node, registry)) = self.clustered() else { return };
        let taken = registry.read().and_then(|contents| {
            self.forget_other_clusters(contents.id.as_deref())?;
            let mut all_taken = true;
            for entry in &contents.plugins {
                if let Err(error) = self.take_record(entry, contents.id.as_deref()) {
                    tracing::error!(plugin = %entry.name, "what the cluster runs of it cannot be taken over yet: {error:#}");
                    all_taken = false;
                }
            }
            self.put_back(&registry, &contents.plugins)?;
            for record in self.store.records().into_iter().filter(|record| record.revision == 0) {
                let name = record.name.clone();
                if let Err(error) = self.announce(record).and_then(|record| self.store.write(record)) {
                    tracing::error!(plugin = %name, "the cluster does not take over what this node runs of it: {error}");
                }
            }
            let own = self.store.records().iter().map(|record| record.revision).max();
            anyhow::Ok(all_taken.then_some(contents.revision.max(own.unwrap_or(0))))
        });
        match taken {
            Ok(Some(revision)) => {
                node.revisions.use_up_to(revision);
                node.revisions.set_made(revision);
            }
            Ok(None) => {}
            // They are made when Redis is back. Until then this node takes no partition that they concern.
            Err(error) => tracing::error!("what plugins the cluster runs cannot be read: {error:#}"),
        }
    }

    fn take_record(&self, entry: &Registered, registry: Option<&str>) -> anyhow::Result<()> {
        let record = record_of(entry, registry)?;
        let own = self.store.record(&entry.name);
        if record.revision > own.revision {
            self.fetch_components(&record)?;
            self.store.write(Record { folder: own.folder, ..record })?;
        }
        Ok(())
    }

    /// Has records that were written as part of another cluster count as those of a host that was alone.
    fn forget_other_clusters(&self, id: Option<&str>) -> anyhow::Result<()> {
        let is_other = |record: &Record| record.revision > 0 && id.is_some() && record.registry.as_deref() != id;
        for record in self.store.records().into_iter().filter(is_other) {
            self.store.write(Record { revision: 0, registry: None, ..record })?;
        }
        Ok(())
    }

    fn fetch_components(&self, record: &Record) -> anyhow::Result<()> {
        for installed in record.installed() {
            match self.fetch(&installed.digest) {
                Err(error) if record.current.as_ref() == Some(installed) => return Err(error),
                Err(error) => tracing::warn!(plugin = %record.name, generation = installed.generation,
                    "a generation cannot be rolled back to here: {error:#}"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Makes the cluster's changes that this node has not made. Returns whether all are made. With `is_last`, a plugin whose
    /// change cannot be made stands still.
    fn catch_up(self: &Arc<Self>, is_last: bool) -> anyhow::Result<bool> {
        let Some((node, registry)) = self.clustered() else { return Ok(true) };
        let Contents { id, revision, mut plugins } = registry.read()?;
        self.put_back(&registry, &plugins)?;
        let mut all_made = true;
        // In their order: what one gives up another may have taken.
        plugins.sort_unstable_by_key(|plugin| plugin.revision);
        for entry in plugins {
            let record = match record_of(&entry, id.as_deref()) {
                Ok(record) => record,
                Err(error) => {
                    tracing::error!(plugin = %entry.name, "a change of the cluster is not made here: {error:#}");
                    all_made = false;
                    continue;
                }
            };
            let Err(error) = self.adopt(&record) else { continue };
            tracing::error!(plugin = %entry.name, step = ?error.step, "a change of the cluster is not made here: {error}");
            match is_last || !error.is_passing {
                true => self.stand_still(&record, &error),
                false => all_made = false,
            }
        }
        if all_made {
            node.revisions.set_made(revision);
            self.shared.submit_to_all(|| Job::News(News::PluginsChanged));
        }
        Ok(all_made && revision >= node.revisions.used())
    }

    fn is_made(&self, record: &Record) -> bool {
        self.store.record(&record.name).revision >= record.revision
    }

    /// Makes a change that another node has made.
    fn adopt(self: &Arc<Self>, record: &Record) -> Result<(), LoadError> {
        let _only_one = self.wait_to_load(&record.name);
        // The change may be this node's own, which is made meanwhile.
        drop(lock(&self.changes));
        if self.is_made(record) {
            return Ok(());
        }
        let passing = |error: anyhow::Error| LoadError::passing(Step::Install, format!("{error:#}"));
        self.fetch_components(record).map_err(passing)?;
        let Some(current) = &record.current else { return self.adopt_unload(record) };
        let generation = self.generation_of(&record.name, current)?;
        let history = self.history_of(record, current.generation);
        let (name, version, number) = (&record.name, &current.version, current.generation);
        match self.shared.plugin(&record.name) {
            Some(plugin) => {
                let _changes = lock(&self.changes);
                if self.is_made(record) || plugin.is_unloaded() {
                    return Ok(());
                }
                let losses = self.losses(&plugin, &generation)?;
                self.write_adopted(record)?;
                if Arc::ptr_eq(&plugin.current(), &generation) {
                    plugin.switch(generation, history);
                    return Ok(());
                }
                let history = history.giving_up(losses.schemas.iter().copied());
                self.switch(&plugin, &generation, history, &losses);
                self.resume(&plugin);
                if let Some(store) = &self.shared.store {
                    store.resume(name);
                }
            }
            None => {
                let plugin = Plugin::new(self.next_plugin(), generation, history, self.shared.hub.ledger())?;
                if let Some(node) = &self.shared.node {
                    node.revisions.use_up_to(record.revision);
                }
                self.bring_in(plugin, None, true)?;
                self.write_adopted(record)?;
            }
        }
        tracing::info!(plugin = %name, %version, generation = number, digest = %current.digest,
            "another node of the cluster has changed a plugin, and so has this one");
        Ok(())
    }

    fn adopt_unload(&self, record: &Record) -> Result<(), LoadError> {
        let _changes = lock(&self.changes);
        self.write_adopted(record)?;
        self.take_out(&record.name, record.events.clone(), false);
        Ok(())
    }

    fn write_adopted(&self, record: &Record) -> Result<(), LoadError> {
        if let Some(node) = &self.shared.node {
            node.revisions.use_up_to(record.revision);
        }
        let folder = self.store.record(&record.name).folder;
        self.store.write(Record { folder, ..record.clone() }).map_err(LoadError::not_installed)
    }

    /// Stops a plugin whose change cannot be made here: an older build must not go on with what the newer one writes.
    fn stand_still(&self, record: &Record, error: &LoadError) {
        let Some(installed) = record.current.clone() else { return };
        let _changes = lock(&self.changes);
        self.take_out(&record.name, record.events.clone(), true);
        let error = PluginError {
            at_ms: self.shared.clock.now_ms(),
            generation: installed.generation,
            scope: None,
            event: None,
            message: format!("the cluster runs it, and it cannot run here: {error}"),
        };
        let idle = Idle { failed: Some(FailedStart { installed, error }), events: record.events.clone() };
        self.publish(|_, all| drop(all.insert(record.name.clone(), idle)));
    }
}

fn record_of(entry: &Registered, registry: Option<&str>) -> anyhow::Result<Record> {
    let record: Record = serde_json::from_slice(&entry.record)
        .with_context(|| format!("what the cluster runs of {} was written by a newer host", entry.name))?;
    Ok(Record { revision: entry.revision, registry: registry.map(str::to_owned), ..record })
}
