//! The steps of a load, from a component's bytes to a generation that is ready to run. Each step may refuse the
//! component.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use roundhouse_contract::{Grants, Manifest};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::bundled::bundled;
use super::generation::{Generation, Source};
use super::grant_use::GrantUse;
use super::grants::Given;
use super::health::Haste;
use super::options::{PluginConfig, PluginOptions};
use crate::metrics::Metrics;
use crate::model::Clock;
use crate::model::GenerationId;
use crate::plugin::event::Event;
use crate::plugin::guest::cache::CompiledCache;
use crate::plugin::guest::compile::Compiler;
use crate::plugin::guest::convert;
use crate::plugin::guest::engine::{self, Ticker};
use crate::plugin::guest::lift;
use crate::plugin::guest::link::{FeatureLinker, LinkedComponent};
use crate::plugin::guest::log::PluginLog;
use crate::plugin::guest::sandbox::{Instance, MemoryUse};

/// The step of a load that said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Its size is bounded.
    Size,
    /// It must be what was announced.
    Digest,
    /// It must be a component, and compile in time.
    Compile,
    /// It may import what the host offers, and must export what a feature exports.
    Imports,
    /// `describe` must return.
    Describe,
    /// What it describes must make sense.
    Manifest,
    /// No other plugin may handle the same events or have the same scopes.
    Routes,
    /// The operator must grant what it needs.
    Grants,
    /// It must accept the operator's settings.
    Settings,
    /// It must take over the states that there are.
    Migrate,
    /// It must not fail on recent events that the running build handled.
    Trial,
    /// It must be written down for the next start.
    Install,
}

/// Why a component was not loaded. The running generation is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct LoadError {
    /// The step that refused the component.
    pub step: Step,
    /// The reason, and what to do.
    pub message: String,
    /// Whether the same component may be accepted later, unchanged.
    #[serde(skip)]
    pub is_passing: bool,
    /// The grants that are missing, if that is the reason.
    #[serde(skip)]
    pub missing: Grants,
}

impl LoadError {
    pub(crate) fn new(step: Step, message: impl Into<String>) -> Self {
        // These steps depend on other plugins, the present states and the disk, all of which change.
        let is_passing = matches!(step, Step::Routes | Step::Migrate | Step::Install);
        Self { step, message: message.into(), is_passing, missing: Grants::default() }
    }

    /// As [`LoadError::new`], for a reason that may pass.
    pub(crate) fn passing(step: Step, message: impl Into<String>) -> Self {
        Self { is_passing: true, ..Self::new(step, message) }
    }

    /// The error of a load during which the plugin was unloaded.
    pub(crate) fn unloaded_meanwhile() -> Self {
        Self::passing(Step::Install, "the plugin was unloaded meanwhile, and nothing was loaded: load it again")
    }

    /// The error of a load whose record for the next start could not be written.
    pub(crate) fn not_installed(error: std::io::Error) -> Self {
        let message = format!("it cannot be written down for the next start, and is not loaded: {error}");
        Self::new(Step::Install, message)
    }
}

/// Name, version and digest of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The plugin's name.
    pub name: String,
    /// The version of this build.
    pub version: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
}

/// Compiles and inspects components.
pub(crate) struct Loader {
    linker: FeatureLinker,
    compiler: Compiler,
    ticker: Arc<Ticker>,
    config: Arc<PluginConfig>,
    clock: Clock,
    metrics: Metrics,
    /// The grants that bundled features need, by name, as far as they were asked for.
    bundled_needs: Mutex<HashMap<&'static str, Grants>>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("compiler", &self.compiler).finish_non_exhaustive()
    }
}

impl Loader {
    pub(crate) fn new(
        engine: engine::Engine,
        cache_dir: Option<PathBuf>,
        ticker: Arc<Ticker>,
        config: Arc<PluginConfig>,
        clock: Clock,
        metrics: Metrics,
        stopping: Arc<AtomicBool>,
    ) -> engine::Result<Self> {
        let linker = FeatureLinker::new(engine.clone())?;
        let cache = cache_dir.and_then(|dir| {
            if config.is_read_only {
                return CompiledCache::read_only(dir, &engine);
            }
            let opened = CompiledCache::open(dir, &engine);
            opened.inspect_err(|error| tracing::warn!(%error, "compiled components are not kept")).ok()
        });
        let compiler = Compiler::new(engine, cache, stopping);
        Ok(Self { linker, compiler, ticker, config, clock, metrics, bundled_needs: Mutex::default() })
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.ticker
    }

    /// Deletes compiled components that were not used for long, except those of the digests in `keep`.
    pub(crate) fn prune_cache(&self, keep: &HashSet<String>) {
        self.compiler.prune(keep);
    }

    /// Name, version and digest of a component. Grants, settings and other plugins are not checked.
    ///
    /// # Errors
    /// With the step that refused the component.
    pub(crate) fn describe(&self, bytes: &[u8], expected_digest: Option<&str>) -> Result<Described, LoadError> {
        let (digest, _, manifest) = self.look_into(bytes, expected_digest)?;
        Ok(Described { name: manifest.name, version: manifest.version, digest })
    }

    fn look_into(
        &self,
        bytes: &[u8],
        expected_digest: Option<&str>,
    ) -> Result<(String, LinkedComponent, Manifest), LoadError> {
        let largest = self.config.largest_component();
        if bytes.len() > largest {
            return Err(too_large(bytes.len(), largest));
        }
        let digest = digest(bytes);
        if let Some(expected) = expected_digest.filter(|expected| !expected.eq_ignore_ascii_case(&digest)) {
            let message = format!("the component's SHA-256 is {digest}, not {expected}: was it cut off on its way?");
            return Err(LoadError::new(Step::Digest, message));
        }
        let component = self.compiler.compile(bytes, &digest).map_err(|error| LoadError {
            is_passing: error.is_passing,
            ..LoadError::new(Step::Compile, error.message)
        })?;
        let component = self.linker.link(&component).map_err(|message| LoadError::new(Step::Imports, message))?;
        let log = Arc::new(PluginLog::new("(unnamed)", "", 0, &digest));
        let mut instance =
            Instance::new(&component, &self.ticker, self.config.bounds_of(""), log, &MemoryUse::default()).map_err(
                |fault| LoadError::new(Step::Describe, format!("the component cannot be instantiated: {fault}")),
            )?;
        let described = instance
            .describe(&self.ticker)
            .map_err(|fault| LoadError::new(Step::Describe, format!("describe failed: {fault}")))?;
        let manifest =
            Manifest::check(lift::manifest(described)).map_err(|message| LoadError::new(Step::Manifest, message))?;
        let allowed = self.config.component_bytes_of(&manifest.name);
        if bytes.len() > allowed {
            return Err(too_large(bytes.len(), allowed));
        }
        Ok((digest, component, manifest))
    }

    /// Runs the steps of a load that do not depend on other plugins. `number` gives the generation its number, from its
    /// id.
    pub(crate) fn prepare(
        &self,
        bytes: &[u8],
        expected_digest: Option<&str>,
        source: Source,
        number: impl FnOnce(&GenerationId) -> u64,
    ) -> Result<Generation, LoadError> {
        let (digest, component, manifest) = self.look_into(bytes, expected_digest)?;
        let bounds = self.config.bounds_of(&manifest.name);
        let configured = self.config.plugins.get(&manifest.name).cloned().unwrap_or_default();
        if !configured.enabled {
            let message = format!("the plugin {0} is switched off: set plugins.{0}.enabled to load it", manifest.name);
            return Err(LoadError::new(Step::Grants, message));
        }
        let given = self.given(&manifest, &configured, source);
        given
            .check(&manifest)
            .map_err(|(missing, message)| LoadError { missing, ..LoadError::new(Step::Grants, message) })?;
        let permissions = configured.events;
        let is_sent = |event: &str| manifest.routes.get(event).is_some_and(|route| route.from_client);
        if let Some(event) = permissions.keys().find(|event| !is_sent(event)) {
            let message = format!(
                "plugins.{}.events narrows {event:?}, which clients cannot send to it anyway: mend the name, or leave it out",
                manifest.name
            );
            return Err(LoadError::new(Step::Grants, message));
        }
        let (name, version) = (manifest.name.clone(), manifest.version.clone());
        let mut id = GenerationId { name, version, generation: 0, digest };
        id.generation = number(&id);
        let id = Arc::new(id);
        let log = Arc::new(PluginLog::new(&id.name, &id.version, id.generation, &id.digest));
        let settings = serde_json::Value::Object(configured.settings).to_string().into();
        let latency = self.metrics.plugin_latency(&id.name, &id.version, id.generation);
        let latency = latency.map_err(|error| LoadError::new(Step::Manifest, error.to_string()))?;
        let grant_use = GrantUse::new(&manifest.needs, &self.clock);
        let generation = Generation {
            memory: MemoryUse::default(),
            id,
            manifest,
            source,
            component,
            bounds,
            given,
            grant_use,
            permissions,
            settings,
            log,
            haste: Haste::default(),
            latency,
        };
        self.try_settings(&generation)?;
        Ok(generation)
    }

    /// The manifest of a component, and the grants of its plugin, whether these are enough or not.
    ///
    /// # Errors
    /// With the step that refused the component.
    pub(crate) fn asked_and_given(&self, bytes: &[u8], source: Source) -> Result<(Manifest, Given), LoadError> {
        let (_, _, manifest) = self.look_into(bytes, None)?;
        let configured = self.config.plugins.get(&manifest.name).cloned().unwrap_or_default();
        let given = self.given(&manifest, &configured, source);
        Ok((manifest, given))
    }

    fn given(&self, manifest: &Manifest, configured: &PluginOptions, source: Source) -> Given {
        Given::new(configured, || self.default_grants(manifest, source))
    }

    /// The grants of a plugin for which none are configured. Bundled features are trusted like the host, and other
    /// builds of them as much as the bundled ones; other components get no grants.
    fn default_grants(&self, manifest: &Manifest, source: Source) -> Grants {
        if source == Source::Bundled {
            return manifest.needs.clone();
        }
        let Some(feature) = bundled().iter().find(|feature| feature.name == manifest.name) else {
            return Grants::default();
        };
        let known = |needs: &HashMap<_, Grants>| needs.get(feature.name).cloned();
        if let Some(needs) = known(&self.bundled_needs.lock().unwrap_or_else(PoisonError::into_inner)) {
            return needs;
        }
        match self.look_into(feature.component, None) {
            Ok((_, _, bundled)) => {
                let mut needs = self.bundled_needs.lock().unwrap_or_else(PoisonError::into_inner);
                needs.insert(feature.name, bundled.needs.clone());
                bundled.needs
            }
            Err(error) => {
                tracing::error!(plugin = feature.name, "the bundled build cannot be looked into: {error}");
                Grants::default()
            }
        }
    }

    /// Has the feature handle `Configured`, an event on which it only reads its settings.
    fn try_settings(&self, generation: &Generation) -> Result<(), LoadError> {
        let wrong = |message: String| LoadError::new(Step::Settings, message);
        let mut instance = generation
            .instantiate(&self.ticker)
            .map_err(|fault| wrong(format!("the component cannot be instantiated: {fault}")))?;
        let context = convert::context_without_scope(self.clock.now_ms(), &generation.settings);
        match instance.handle(&self.ticker, context, &Event::Configured, None) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) => {
                Err(wrong(format!("it refuses plugins.{}.settings: {}", generation.id.name, failure.message)))
            }
            Err(fault) => Err(wrong(format!("it failed on its first event: {fault}"))),
        }
    }
}

fn too_large(bytes: usize, allowed: usize) -> LoadError {
    LoadError::new(Step::Size, format!("the component is {bytes} bytes large, and may be {allowed}"))
}

/// SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
