//! From a component's bytes to a generation in use: the steps of a load, any of which may say no.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::bindings::{Context, FeaturePre};
use super::cache::CompiledCache;
use super::call;
use super::engine::Ticker;
use super::event::Event;
use super::generation::{Generation, Loaded, Source};
use super::log::PluginLog;
use super::manifest::{Grants, Manifest};
use super::runtime::PluginConfig;
use super::sandbox::{Bounds, HostState, Instance};
use super::scope::State;
use crate::metrics::Metrics;
use crate::model::Clock;

/// The largest component, in bytes. A feature is some hundred KiB; with debug information, a few MiB.
pub const MAX_COMPONENT_BYTES: usize = 16 * 1024 * 1024;

/// The longest that a compilation may take. A feature takes a fraction of a second.
const MAX_COMPILE_TIME: Duration = Duration::from_secs(30);

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
}

/// Why a component was not loaded. What ran before goes on as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct LoadError {
    /// The step that said no.
    pub step: Step,
    /// Why, and what to do.
    pub message: String,
}

impl LoadError {
    pub(super) fn new(step: Step, message: impl Into<String>) -> Self {
        Self { step, message: message.into() }
    }
}

/// Compiles and inspects components.
pub(super) struct Loader {
    engine: Engine,
    linker: Linker<HostState>,
    cache: Option<CompiledCache>,
    ticker: Arc<Ticker>,
    config: Arc<PluginConfig>,
    clock: Clock,
    metrics: Metrics,
    /// Whether the host ends, so that nobody waits for a load any more.
    stopping: Arc<AtomicBool>,
    /// What the features that are part of the host were granted.
    bundled_grants: Mutex<HashMap<String, Grants>>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl Loader {
    pub(super) fn new(
        engine: Engine,
        cache_dir: Option<PathBuf>,
        ticker: Arc<Ticker>,
        config: Arc<PluginConfig>,
        clock: Clock,
        metrics: Metrics,
        stopping: Arc<AtomicBool>,
    ) -> wasmtime::Result<Self> {
        let linker = super::sandbox::linker(&engine)?;
        let cache = cache_dir.and_then(|dir| {
            if !config.keeps_compiled {
                return CompiledCache::read_only(dir, &engine);
            }
            let opened = CompiledCache::open(dir, &engine);
            opened.inspect_err(|error| tracing::warn!(%error, "compiled components are not kept")).ok()
        });
        Ok(Self { engine, linker, cache, ticker, config, clock, metrics, stopping, bundled_grants: Mutex::default() })
    }

    /// Everything that can be said of a component without looking at what else is loaded. `number` is the generation
    /// that it will have, from its name.
    pub(super) fn prepare(
        &self,
        bytes: &[u8],
        expected_digest: Option<&str>,
        source: Source,
        number: impl FnOnce(&str) -> u64,
    ) -> Result<Generation, LoadError> {
        if bytes.len() > MAX_COMPONENT_BYTES {
            let message = format!("the component is {} bytes large, and may be {MAX_COMPONENT_BYTES}", bytes.len());
            return Err(LoadError::new(Step::Size, message));
        }
        let digest = digest(bytes);
        if let Some(expected) = expected_digest.filter(|expected| !expected.eq_ignore_ascii_case(&digest)) {
            let message = format!("the component's SHA-256 is {digest}, not {expected}: was it cut off on its way?");
            return Err(LoadError::new(Step::Digest, message));
        }
        let component = self.compile(bytes, &digest)?;
        let pre = self.link(&component)?;
        let bounds = Bounds { memory_bytes: self.config.memory_bytes, deadline: self.config.call_deadline };
        let log = Arc::new(PluginLog::new("(unnamed)", "", 0, &digest));
        let mut instance = Instance::new(&pre, &self.ticker, bounds, log).map_err(|fault| {
            LoadError::new(Step::Describe, format!("the component cannot be instantiated: {fault}"))
        })?;
        let described = instance
            .describe(&self.ticker)
            .map_err(|fault| LoadError::new(Step::Describe, format!("describe failed: {fault}")))?;
        let manifest = Manifest::check(described).map_err(|message| LoadError::new(Step::Manifest, message))?;
        let configured = self.config.plugins.get(&manifest.name).cloned().unwrap_or_default();
        if !configured.enabled {
            let message = format!("the plugin {0} is switched off: set plugins.{0}.enabled to load it", manifest.name);
            return Err(LoadError::new(Step::Grants, message));
        }
        let grants = configured.grants.unwrap_or_else(|| self.default_grants(&manifest, source));
        let missing = manifest.needs.missing_from(&grants);
        if !missing.is_empty() {
            let message =
                format!("it needs {}, which plugins.{}.grants does not grant", missing.join(", "), manifest.name);
            return Err(LoadError::new(Step::Grants, message));
        }
        let id = Loaded {
            generation: number(&manifest.name),
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            digest,
        };
        let log = Arc::new(PluginLog::new(&id.name, &id.version, id.generation, &id.digest));
        let settings = serde_json::Value::Object(configured.settings).to_string().into_boxed_str();
        let latency = self.metrics.plugin_latency(&id.name, &id.version, id.generation);
        let generation = Generation { id, manifest, source, pre, bounds, grants, settings, log, latency };
        self.try_settings(&generation)?;
        Ok(generation)
    }

    /// What is part of the host is trusted like the host, and a newer build of it as much as the bundled one. Others
    /// are granted nothing by default.
    fn default_grants(&self, manifest: &Manifest, source: Source) -> Grants {
        let mut bundled = self.bundled_grants.lock().unwrap_or_else(PoisonError::into_inner);
        if source == Source::Bundled {
            bundled.insert(manifest.name.clone(), manifest.needs.clone());
        }
        bundled.get(&manifest.name).cloned().unwrap_or_default()
    }

    fn compile(&self, bytes: &[u8], digest: &str) -> Result<Component, LoadError> {
        if let Some(component) = self.cache.as_ref().and_then(|cache| cache.load(digest, &self.engine)) {
            return Ok(component);
        }
        let wrong = |message: String| LoadError::new(Step::Compile, message);
        // On a thread of its own, which is left behind if it takes too long: nothing can stop a compilation.
        let (done, compiled) = mpsc::channel();
        let (engine, owned) = (self.engine.clone(), bytes.to_vec());
        thread::Builder::new()
            .name("plugin-compile".to_owned())
            .spawn(move || {
                // Whoever waited may have given up.
                let _ = done.send(Component::new(&engine, owned));
            })
            .map_err(|error| wrong(format!("cannot start a thread to compile on: {error}")))?;
        let deadline = Instant::now() + MAX_COMPILE_TIME;
        let compiled = loop {
            match compiled.recv_timeout(Duration::from_millis(100)) {
                Err(mpsc::RecvTimeoutError::Timeout) if self.stopping.load(Ordering::Relaxed) => {
                    return Err(wrong("the host is shutting down".to_owned()));
                }
                Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                compiled => break compiled,
            }
        };
        let component = match compiled {
            Ok(Ok(component)) => component,
            Ok(Err(error)) => {
                return Err(wrong(format!(
                    "the file is not a WebAssembly component that this host can run: {}",
                    causes(&error)
                )));
            }
            Err(_) => return Err(wrong(format!("the component did not compile in {} s", MAX_COMPILE_TIME.as_secs()))),
        };
        if let Some(cache) = &self.cache {
            cache.store(digest, &component);
        }
        Ok(component)
    }

    fn link(&self, component: &Component) -> Result<FeaturePre<HostState>, LoadError> {
        let refused = |message: String| LoadError::new(Step::Imports, message);
        let component_type = component.component_type();
        for (name, _) in component_type.imports(&self.engine) {
            // The rest of WASI is linked only because it comes in one piece.
            let is_offered = name.starts_with("roundhouse:feature/")
                || ["cli", "clocks", "io", "random", "filesystem"]
                    .iter()
                    .any(|part| name.starts_with(&format!("wasi:{part}/")));
            if !is_offered {
                return Err(refused(format!(
                    "the component imports {name}, which this host does not offer to features"
                )));
            }
        }
        let pre = self.linker.instantiate_pre(component).map_err(|error| {
            refused(format!("the component imports what this host does not offer: {}", causes(&error)))
        })?;
        FeaturePre::new(pre).map_err(|error| {
            refused(format!("the component is not a feature of roundhouse:feature@1.0.0: {}", causes(&error)))
        })
    }

    /// Gives the feature an event that asks nothing of it, so that it reads its settings.
    fn try_settings(&self, generation: &Generation) -> Result<(), LoadError> {
        let wrong = |message: String| LoadError::new(Step::Settings, message);
        let mut instance = Instance::new(&generation.pre, &self.ticker, generation.bounds, generation.log.clone())
            .map_err(|fault| wrong(format!("the component cannot be instantiated: {fault}")))?;
        let context = Context {
            now: self.clock.now_ms(),
            seed: 0,
            sequence: 0,
            scope: "",
            params: &[],
            room_connections: 0,
            room_users: 0,
            connection_in_room: false,
            user_connections: 0,
            settings: &generation.settings,
        };
        let answered = call::lend(&Event::Configured, |event| instance.handle(&self.ticker, context, event, None));
        match answered {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) => {
                let message = call::failure(failure).message;
                Err(wrong(format!("it refuses plugins.{}.settings: {message}", generation.id.name)))
            }
            Err(fault) => Err(wrong(format!("it failed on its first event: {fault}"))),
        }
    }

    /// Whether a generation takes over these states of other schemas, of each of which a copy in its own may be kept.
    pub(super) fn try_migrations(&self, generation: &Generation, states: &[(State, bool)]) -> Result<(), LoadError> {
        let wrong = |message: String| LoadError::new(Step::Migrate, message);
        let mut instance = None;
        for (State { version, bytes }, is_kept) in states {
            let instance = match &mut instance {
                Some(instance) => instance,
                none => none.insert(
                    Instance::new(&generation.pre, &self.ticker, generation.bounds, generation.log.clone())
                        .map_err(|fault| wrong(format!("the component cannot be instantiated: {fault}")))?,
                ),
            };
            match instance.migrate(&self.ticker, *version, bytes) {
                Ok(Ok(state)) if state.len() <= self.config.state_bytes => {}
                // The copy from before will do.
                Ok(_) if *is_kept => {}
                Ok(Ok(state)) => return Err(wrong(format!("it migrated a state to {} bytes", state.len()))),
                Ok(Err(failure)) => {
                    let message = call::failure(failure).message;
                    return Err(wrong(format!("it cannot take over the state of schema {version}: {message}")));
                }
                Err(fault) => return Err(wrong(format!("it failed on a state of schema {version}: {fault}"))),
            }
        }
        Ok(())
    }
}

/// SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error with what caused it, on one line.
fn causes(error: &wasmtime::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ").replace('\n', " ")
}
