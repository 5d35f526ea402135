//! The records of changes, which are written before a change is answered.

use std::sync::Arc;

use super::component_store::{FolderFile, Record};
use super::install::Lifecycle;
use super::threads::lock;
use crate::plugin::load::bundled::bundled;
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::generation::{Generation, Installed, Source};
use crate::plugin::load::history::History;
use crate::plugin::load::loader::{LoadError, digest};

impl Lifecycle {
    /// Records that the running component was loaded again: if it came from the plugin folder, so that it is not loaded
    /// again from there, or if the record differs.
    ///
    /// # Errors
    /// If the record cannot be written, or the plugin was unloaded meanwhile.
    pub(crate) fn keep_as_is(
        &self,
        plugin: &Plugin,
        folder: Option<FolderFile>,
        source: Source,
    ) -> Result<(), LoadError> {
        let _changes = lock(&self.changes);
        if plugin.is_unloaded() {
            return Err(LoadError::unloaded_meanwhile());
        }
        let record = self.store.record(&plugin.name);
        let is_reset = source == Source::Bundled && plugin.current().source != Source::Bundled;
        // A build that stands in for one that cannot start is not in the record yet.
        let is_written = record.current.as_ref().is_none_or(|current| current.digest == plugin.current().id.digest);
        if is_written && !is_reset && (folder.is_none() || record.folder == folder) {
            return Ok(());
        }
        let mut record = self.record_of(plugin, &plugin.current(), &plugin.history(), folder);
        if let Some(current) = record.current.as_mut().filter(|_| is_reset) {
            current.source = Source::Bundled;
        }
        self.put(record).map_err(LoadError::not_installed)
    }

    /// Records the generation of a plugin that runs from now on.
    pub(crate) fn write(
        &self,
        plugin: &Plugin,
        generation: &Generation,
        history: &History,
        folder: Option<FolderFile>,
    ) -> std::io::Result<()> {
        self.put(self.record_of(plugin, generation, history, folder))
    }

    fn record_of(
        &self,
        plugin: &Plugin,
        generation: &Generation,
        history: &History,
        folder: Option<FolderFile>,
    ) -> Record {
        let before = self.store.record(&plugin.name);
        let list = |generations: &[Arc<Generation>]| generations.iter().map(|g| g.installed()).collect::<Vec<_>>();
        let last = before.last_generation.max(generation.id.generation);
        let mut events: Vec<String> = generation.manifest.routes.keys().cloned().collect();
        events.sort_unstable();
        Record {
            current: Some(generation.installed()),
            previous: list(&history.previous),
            rolled_back: list(&history.rolled_back),
            given_up: history.given_up.clone(),
            last_generation: history.generations().map(|other| other.id.generation).fold(last, u64::max),
            folder: folder.or(before.folder),
            events,
            ..Record::new(&plugin.name)
        }
    }

    /// Records a change, for all nodes of a cluster and for the next start.
    ///
    /// # Errors
    /// If the record cannot be written, or another node has changed the plugin at the same time. Then nothing has changed.
    pub(crate) fn put(&self, record: Record) -> std::io::Result<()> {
        for installed in record.current.iter().chain(&record.previous).chain(&record.rolled_back) {
            self.keep_bundled(&record.name, installed)?;
        }
        self.store.write(self.announce(record)?)
    }

    /// Keeps a bundled component on disk for rollbacks, because a later host may have another bundled build.
    fn keep_bundled(&self, name: &str, installed: &Installed) -> std::io::Result<()> {
        let feature = bundled().iter().find(|feature| installed.source == Source::Bundled && feature.name == name);
        match feature.filter(|feature| digest(feature.component) == installed.digest) {
            Some(feature) => self.store.keep(feature.component, &installed.digest),
            None => Ok(()),
        }
    }
}
