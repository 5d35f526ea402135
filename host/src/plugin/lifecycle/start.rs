//! The start of all plugins: each with its last good installed generation, or with the bundled build if none is
//! installed. A plugin that cannot start is reported as failed, and does not keep others from starting.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::component_store::Record;
use super::install::Lifecycle;
use super::threads::lock;
use crate::plugin::load::bundled::{Bundled, bundled};
use crate::plugin::load::catalogue::{FailedStart, Idle, Plugin, PluginError};
use crate::plugin::load::generation::{Generation, Installed, Source};
use crate::plugin::load::history::{History, KEPT_GENERATIONS};
use crate::plugin::load::loader::{LoadError, Step, digest};

/// A build that a plugin may be started with.
struct Candidate {
    installed: Installed,
    component: Result<Vec<u8>, String>,
    /// Whether this is the build that should run, and not an older or bundled one that stands in for it.
    is_wanted: bool,
}

impl Lifecycle {
    /// Starts all installed plugins, and the bundled features that are neither switched off nor replaced.
    pub async fn start_installed(self: &Arc<Self>) {
        let started = self.request(|lifecycle| lifecycle.start_all()).await;
        if let Err(why) = started {
            tracing::error!("the plugins were not started: {why}");
        }
    }

    fn start_all(self: &Arc<Self>) {
        self.take_over();
        let records = self.store.records();
        // Installed plugins come before bundled ones: a new host's feature must not take an event from them.
        let installed = records.iter().map(|record| record.name.clone());
        let own = bundled().iter().map(|feature| feature.name.to_owned());
        let mut seen = BTreeSet::new();
        for (name, why) in self.store.unreadable() {
            tracing::error!(plugin = %name, "what is installed of the plugin cannot be read: it runs by the bundled build, where there is one: {why}");
        }
        for name in installed.chain(own).filter(|name| seen.insert(name.clone())) {
            if self.shared.config.plugins.get(&name).is_some_and(|options| !options.enabled) {
                continue;
            }
            let record =
                records.iter().find(|record| record.name == name).cloned().unwrap_or_else(|| Record::new(&name));
            self.start(&record);
        }
        // After all plugins have started, when all used components are known.
        self.prune_cache();
    }

    /// Starts a plugin with the first of its builds that can start.
    fn start(self: &Arc<Self>, record: &Record) {
        let name = &record.name;
        let feature = bundled().iter().find(|feature| feature.name == name);
        let is_known = record.current.is_some() || record.last_generation > 0;
        if record.current.is_none() && (is_known || feature.is_none()) {
            tracing::info!(plugin = %name, "the plugin is unloaded, and stays so until it is loaded or reset");
            let events = record.events.clone();
            let _changes = lock(&self.changes);
            self.publish(|_, idle| drop(idle.insert(name.clone(), Idle { failed: None, events })));
            return;
        }
        let mut failed: Option<FailedStart> = None;
        for candidate in self.candidates(record, feature) {
            let installed = candidate.installed.clone();
            match self.try_candidate(record, candidate) {
                Ok(plugin) => {
                    if let Some(before) = failed {
                        tracing::error!(plugin = %name, generation = installed.generation, wanted = before.installed.generation,
                            "the plugin runs by an older build, for the one that was installed last cannot start");
                        plugin.note_error(before.error);
                    }
                    return;
                }
                Err(error) => {
                    let Installed { generation, version, digest, source } = &installed;
                    tracing::error!(plugin = %name, %version, generation, %digest, ?source, step = ?error.step,
                        "a plugin cannot be started: {error}");
                    let error = PluginError {
                        at_ms: self.shared.clock.now_ms(),
                        generation: *generation,
                        scope: None,
                        event: None,
                        message: format!("it could not be started: {error}"),
                    };
                    failed.get_or_insert(FailedStart { installed, error });
                }
            }
        }
        let _changes = lock(&self.changes);
        self.publish(|_, idle| drop(idle.insert(name.clone(), Idle { failed, events: record.events.clone() })));
    }

    /// The builds that a plugin may be started with: the one that ran last, those that could be rolled back to, and the
    /// bundled one.
    fn candidates(&self, record: &Record, feature: Option<&'static Bundled>) -> Vec<Candidate> {
        let stored = |installed: &Installed| Candidate {
            component: self.store.read(&installed.digest).map_err(|error| error.to_string()),
            installed: installed.clone(),
            is_wanted: record.current.as_ref() == Some(installed),
        };
        if let Some(current) = record.current.as_ref().filter(|_| record.revision > 0 && self.shared.node.is_some()) {
            // Another build would handle scopes that this one has changed on other nodes.
            return vec![stored(current)];
        }
        let own = feature.map(|feature| {
            let digest = digest(feature.component);
            let known = record.current.iter().chain(&record.previous).find(|installed| installed.digest == digest);
            let generation = known.map_or(record.last_generation + 1, |installed| installed.generation);
            let version = feature.version.to_owned();
            Candidate {
                installed: Installed { generation, version, digest, source: Source::Bundled },
                component: Ok(feature.component.to_vec()),
                is_wanted: record.current.as_ref().is_none_or(|current| current.source == Source::Bundled),
            }
        });
        let mut candidates = Vec::new();
        match &record.current {
            // A recorded bundled build, after a reset or a rollback to it, means the present host's bundled build.
            Some(current) if current.source == Source::Bundled => {
                let is_same = own.as_ref().is_some_and(|own| own.installed.digest == current.digest);
                candidates.extend(own);
                if !is_same {
                    candidates.push(stored(current));
                }
                candidates.extend(record.previous.iter().rev().map(stored));
            }
            Some(current) => {
                candidates.push(stored(current));
                candidates.extend(record.previous.iter().rev().map(stored));
                candidates.extend(own.filter(|own| !record.previous.iter().any(|p| p.digest == own.installed.digest)));
            }
            None => candidates.extend(own),
        }
        candidates
    }

    fn try_candidate(self: &Arc<Self>, record: &Record, candidate: Candidate) -> Result<Arc<Plugin>, LoadError> {
        let Candidate { installed, component, is_wanted } = candidate;
        let component = component.map_err(|why| LoadError::new(Step::Install, why))?;
        let generation = self.prepare_installed(&component, &installed, &record.name)?;
        let history = self.history_of(record, installed.generation);
        let plugin = Plugin::new(self.next_plugin(), Arc::new(generation), history, self.shared.hub.ledger())?;
        let is_new = record.current.is_some() && installed.generation > record.last_generation;
        let written = (is_new && is_wanted).then_some((&component[..], None));
        self.bring_in(plugin, written, false)?;
        if is_new && !is_wanted {
            // A stand-in is not recorded, because the next start tries the wanted build again. The stand-in's number is
            // recorded.
            let used = Record { last_generation: installed.generation, ..record.clone() };
            if let Err(error) = self.store.write(used) {
                tracing::warn!(plugin = %record.name, %error, "the number of a generation could not be written down");
            }
        }
        let plugin = self.shared.plugin(&record.name);
        let plugin = plugin.ok_or_else(|| LoadError::passing(Step::Install, "it was unloaded at once"))?;
        let id = plugin.current().id.clone();
        tracing::info!(plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
            source = ?installed.source, "a plugin was started");
        Ok(plugin)
    }

    /// The generations of a record before this one, without those that cannot be loaded.
    pub(crate) fn history_of(&self, record: &Record, generation: u64) -> History {
        let is_before = |other: &&Installed| other.generation < generation;
        History {
            previous: self.prepare_all(record, record.previous.iter().chain(&record.current).filter(is_before)),
            rolled_back: self.prepare_all(record, record.rolled_back.iter()),
            given_up: record.given_up.clone(),
        }
    }

    /// A generation that is loaded already.
    pub(super) fn loaded(&self, plugin: &str, installed: &Installed) -> Option<Arc<Generation>> {
        let plugin = self.shared.plugin(plugin)?;
        let (current, history) = (plugin.current(), plugin.history());
        let is_it = |g: &&Arc<Generation>| g.id.generation == installed.generation && g.id.digest == installed.digest;
        history.generations().chain([&current]).find(is_it).cloned()
    }

    pub(super) fn prepare_installed(
        &self,
        component: &[u8],
        installed: &Installed,
        name: &str,
    ) -> Result<Generation, LoadError> {
        let digest = Some(&*installed.digest);
        let generation = self.loader.prepare(component, digest, installed.source, |_| installed.generation)?;
        if generation.id.name != name {
            let message = format!("the component calls itself {:?}, not {name:?}", generation.id.name);
            return Err(LoadError::new(Step::Manifest, message));
        }
        Ok(generation)
    }

    /// The generations behind the running one; those that cannot be loaded are left out.
    fn prepare_all<'a>(&self, record: &Record, installed: impl Iterator<Item = &'a Installed>) -> Vec<Arc<Generation>> {
        let mut prepared = Vec::new();
        for installed in installed {
            if let Some(loaded) = self.loaded(&record.name, installed) {
                prepared.push(loaded);
                continue;
            }
            let component = self.store.read(&installed.digest).map_err(|error| error.to_string());
            let generation = component.and_then(|component| {
                self.prepare_installed(&component, installed, &record.name).map_err(|error| error.to_string())
            });
            match generation {
                Ok(generation) => prepared.push(Arc::new(generation)),
                Err(why) => tracing::warn!(
                    plugin = %record.name, version = %installed.version, generation = installed.generation,
                    digest = %installed.digest, "a generation can no longer be rolled back to: {why}"
                ),
            }
        }
        let excess = prepared.len().saturating_sub(KEPT_GENERATIONS);
        prepared.drain(..excess);
        prepared
    }
}
