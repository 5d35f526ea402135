//! What is written down of a change, before it is answered.

use std::sync::Arc;

use super::bundled::bundled;
use super::catalogue::{History, Plugin};
use super::component_store::{FolderFile, Installed, Record};
use super::generation::{Generation, Source};
use super::install::{Installer, lock};
use super::loader::{LoadError, Step, digest};

impl Installer {
    /// The running component was put into the plugin folder: that is noted, so that it is not loaded again from there.
    pub(super) fn keep_as_is(&self, plugin: &Plugin, folder: Option<FolderFile>) -> Result<(), LoadError> {
        let _changes = lock(&self.changes);
        let record = self.store.record(&plugin.name);
        if folder.is_none() || record.folder == folder {
            return Ok(());
        }
        self.write(plugin, &plugin.current(), &plugin.history(), folder).map_err(not_installed)
    }

    /// Writes down what runs of a plugin from now on.
    pub(super) fn write(
        &self,
        plugin: &Plugin,
        generation: &Generation,
        history: &History,
        folder: Option<FolderFile>,
    ) -> std::io::Result<()> {
        let before = self.store.record(&plugin.name);
        let list = |generations: &[Arc<Generation>]| generations.iter().map(|g| g.installed()).collect::<Vec<_>>();
        let mut events: Vec<String> = generation.manifest.routes.keys().cloned().collect();
        events.sort_unstable();
        let record = Record {
            current: Some(generation.installed()),
            previous: list(&history.previous),
            rolled_back: list(&history.rolled_back),
            given_up: history.given_up.clone(),
            last_generation: before.last_generation.max(generation.id.generation),
            folder: folder.or(before.folder),
            events,
            ..Record::new(&plugin.name)
        };
        for installed in record.current.iter().chain(&record.previous).chain(&record.rolled_back) {
            self.keep_bundled(&plugin.name, installed)?;
        }
        self.store.write(record)
    }

    /// A later host may have another bundled build: what can be rolled back to is kept.
    fn keep_bundled(&self, name: &str, installed: &Installed) -> std::io::Result<()> {
        let feature = bundled().iter().find(|feature| installed.source == Source::Bundled && feature.name == name);
        match feature.filter(|feature| digest(feature.component) == installed.digest) {
            Some(feature) => self.store.keep(feature.component, &installed.digest),
            None => Ok(()),
        }
    }
}

pub(super) fn not_installed(error: std::io::Error) -> LoadError {
    let message = format!("it cannot be written down for the next start, and is not loaded: {error}");
    LoadError::new(Step::Install, message)
}
