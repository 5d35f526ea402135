//! Reports on plugins, for operators.

use std::collections::BTreeMap;
use std::sync::Arc;

use roundhouse_contract::{CONNECT_EVENT, Grants, PayloadBounds};
use schemars::JsonSchema;
use semver::Version;
use serde::Serialize;
use serde_json::Value;

use super::install::Lifecycle;
use crate::ledger::Means;
use crate::metrics::{Metrics, quantile};
use crate::model::{Clock, Failure, GenerationId};
use crate::plugin::guest::engine::{self, Ticker};
use crate::plugin::load::bundled::bundled;
use crate::plugin::load::cases::CaseReport;
use crate::plugin::load::catalogue::{FailedStart, Plugin, PluginError};
use crate::plugin::load::generation::{Generation, Source};
use crate::plugin::load::loader::{LoadError, Loader, Step};
use crate::plugin::load::options::PluginConfig;
use crate::plugin::load::pins::Pin;

/// A plugin as the API shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Plugin")]
pub struct PluginReport {
    /// Name, version, generation and digest.
    #[serde(flatten)]
    pub id: GenerationId,
    /// What it says it is for.
    pub description: String,
    /// Where the running build came from.
    pub source: Source,
    /// Whether it gets events.
    pub state: PluginState,
    /// The generation that a roll-back would take into use.
    pub previous: Option<GenerationId>,
    /// The build that is part of the host, where it is newer than what is installed: a reset takes it into use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer_bundled: Option<&'static str>,
    /// The nodes of the cluster that run another build, or none. They follow by themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<NodeBehind>,
    /// How many scopes stay on an older generation, because this one cannot take over their states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staying_scopes: Option<usize>,
    /// Some of these scopes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub staying: Vec<Pin>,
    /// The last errors, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<PluginError>,
    /// Events that it handled.
    pub calls: u64,
    /// Events on which it failed.
    pub traps: u64,
    /// The time of calls into the running generation.
    pub latency: Latency,
    /// The feature's own figures, where it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<Value>,
}

/// A node of the cluster that does not run a plugin's build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct NodeBehind {
    /// Its `cluster.node`.
    pub node: String,
    /// The generation that it runs or cannot start; none if it has none, or does not answer.
    pub generation: Option<u64>,
    /// Why it does not run this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Whether a plugin gets events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// It does.
    Running,
    /// It failed too often, and is left alone for a while.
    Quarantined,
    /// It is installed, and could not be started.
    Failed,
}

/// How long calls take.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// The median, in microseconds.
    pub p50_us: f64,
    /// The 99th percentile, in microseconds.
    pub p99_us: f64,
}

/// The contents of a component's manifest.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Name, version and digest. The generation's number has no meaning here.
    #[serde(flatten)]
    pub id: GenerationId,
    /// The feature's purpose, in its own words.
    pub description: String,
    /// The version of the state's schema.
    pub state_version: u32,
    /// The scope templates.
    pub scopes: Vec<String>,
    /// Events that clients may send to the feature.
    pub from_clients: Vec<String>,
    /// Events that services may send to the feature.
    pub from_services: Vec<String>,
    /// Events that the host sends to the feature.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_host: Vec<&'static str>,
    /// The Socket.IO namespaces that the feature adds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The bounds of payloads, by the event's name.
    pub limits: BTreeMap<String, PayloadLimits>,
    /// Queries that services may send to the feature.
    pub queries: Vec<String>,
    /// Events that the feature emits.
    pub emits: Vec<String>,
    /// The grants that the feature needs beyond its own scopes' rooms.
    pub needs: Grants,
}

/// The bounds of a payload.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PayloadLimits {
    /// Bytes; none if only the length of messages bounds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    /// Values, at any depth.
    pub values: usize,
    /// Fields of objects, at any depth.
    pub keys: usize,
    /// The depth of arrays and objects within each other.
    pub depth: usize,
}

impl From<PayloadBounds> for PayloadLimits {
    fn from(PayloadBounds { bytes, values, keys, depth }: PayloadBounds) -> Self {
        Self { bytes: Some(bytes).filter(|bytes| *bytes != usize::MAX), values, keys, depth }
    }
}

impl Inspection {
    fn of(generation: &Generation) -> Self {
        let manifest = &generation.manifest;
        let mut routes: Vec<_> = manifest.routes.iter().collect();
        routes.sort_by_key(|(event, _)| *event);
        let mut queries: Vec<_> = manifest.queries.keys().cloned().collect();
        queries.sort();
        Self {
            id: GenerationId::clone(&generation.id),
            description: manifest.description.clone(),
            state_version: manifest.state_version,
            scopes: manifest.scopes.iter().map(|scope| scope.template.as_str().to_owned()).collect(),
            from_clients: routes
                .iter()
                .filter(|(_, route)| route.from_client)
                .map(|(event, _)| (*event).clone())
                .collect(),
            from_services: routes
                .iter()
                .filter(|(_, route)| route.from_service)
                .map(|(event, _)| (*event).clone())
                .collect(),
            from_host: manifest.connect_scope.iter().map(|_| CONNECT_EVENT).collect(),
            namespaces: manifest.namespaces.iter().cloned().collect(),
            limits: routes.iter().map(|(event, route)| ((*event).clone(), route.limits.into())).collect(),
            queries,
            emits: manifest.emits.iter().cloned().collect(),
            needs: manifest.needs.clone(),
        }
    }
}

/// Runs the steps of a load that need no running host, and returns the contents of the component's manifest.
///
/// # Errors
/// With the step that refuses the component.
pub fn inspect(component: &[u8], source: Source, config: &PluginConfig) -> Result<Inspection, LoadError> {
    let (loader, ticker) = loader_for_inspection(config)?;
    let inspection = loader.prepare(component, None, source, |_| 1).map(|generation| Inspection::of(&generation));
    ticker.stop();
    inspection
}

/// A loader without a running host, and the ticker of its engine, which is to be stopped.
///
/// # Errors
/// If this machine cannot run WebAssembly.
pub(super) fn loader_for_inspection(config: &PluginConfig) -> Result<(Loader, Arc<Ticker>), LoadError> {
    let cannot = |error: String| LoadError::new(Step::Compile, error);
    let engine = engine::engine(config.most_memory()).map_err(|error| cannot(error.to_string()))?;
    let ticker =
        Ticker::start(engine.clone(), config.shortest_deadline()).map_err(|error| cannot(error.to_string()))?;
    let ticker = Arc::new(ticker);
    let metrics = Metrics::new().map_err(|error| cannot(error.to_string()))?;
    let cache = config.cache_dir.clone();
    let loader =
        Loader::new(engine, cache, ticker.clone(), Arc::new(config.clone()), Clock::system(), metrics, Arc::default())
            .map_err(|error| cannot(error.to_string()))?;
    Ok((loader, ticker))
}

impl Lifecycle {
    /// The reports of all plugins, sorted by name, without the features' own figures.
    pub fn reports(&self) -> Vec<PluginReport> {
        let catalogue = self.shared.catalogue.load();
        let failed =
            catalogue.idle.iter().filter_map(|(name, idle)| Some(report_of_failed(name, idle.failed.as_ref()?)));
        let mut reports: Vec<_> =
            catalogue.plugins.values().map(|plugin| self.report_of(plugin)).chain(failed).collect();
        reports.sort_by(|a, b| a.id.name.cmp(&b.id.name));
        reports
    }

    /// The report of one plugin, with the feature's own figures if it has any.
    ///
    /// # Errors
    /// If there is no such plugin.
    pub async fn report(&self, name: &str) -> Result<PluginReport, Failure> {
        let failed = self.shared.catalogue.load().idle.get(name).and_then(|idle| idle.failed.clone());
        if let Some(failed) = failed {
            return Ok(report_of_failed(name, &failed));
        }
        let plugin = self.shared.plugin(name).ok_or_else(|| self.shared.no_plugin(name))?;
        let mut report = self.report_of(&plugin);
        if plugin.current().manifest.queries.contains_key("stats") {
            let stats = self.shared.query(name, "stats", "null").await;
            report.stats = Some(match stats {
                Ok(stats) => stats
                    .arguments()
                    .first()
                    .and_then(|stats| serde_json::from_str(stats.get()).ok())
                    .unwrap_or(Value::Null),
                // Without the feature's own figures, the report is still of use.
                Err(failure) => serde_json::json!({ "error": failure }),
            });
        }
        Ok(report)
    }

    /// The events on which a plugin failed, the newest first.
    ///
    /// # Errors
    /// If there is no such plugin.
    pub fn cases(&self, name: &str) -> Result<Vec<CaseReport>, Failure> {
        let plugin = self.shared.plugin(name).ok_or_else(|| self.shared.no_plugin(name))?;
        Ok(plugin.cases.reports())
    }

    /// The events on which any plugin failed.
    pub fn all_cases(&self) -> Vec<CaseReport> {
        self.shared.catalogue.load().plugins.values().flat_map(|plugin| plugin.cases.reports()).collect()
    }

    /// Brings the metrics of all plugins up to date that are of the moment.
    pub fn refresh_metrics(&self) {
        for plugin in self.shared.catalogue.load().plugins.values() {
            let (events, bytes) = plugin.backlog.size();
            let (timers, _) = plugin.account.held(Means::Timers);
            let (_, unwritten) = plugin.account.held(Means::States);
            let metrics = &plugin.metrics;
            metrics.queued_events.set(events as i64);
            metrics.queued_bytes.set(bytes as i64);
            metrics.timers.set(timers as i64);
            metrics.unwritten_bytes.set(unwritten as i64);
            metrics.memory_bytes.set(plugin.memory_bytes() as i64);
        }
    }

    pub(super) fn state_of(&self, plugin: &Plugin) -> PluginState {
        match plugin.health.paused_until(self.shared.clock.uptime_ms()) {
            Some(_) => PluginState::Quarantined,
            None => PluginState::Running,
        }
    }

    fn report_of(&self, plugin: &Plugin) -> PluginReport {
        let generation = plugin.current();
        let (staying_scopes, staying) = plugin.staying().report(generation.id.generation);
        PluginReport {
            id: GenerationId::clone(&generation.id),
            description: generation.manifest.description.clone(),
            source: generation.source,
            state: self.state_of(plugin),
            previous: plugin.before().map(|before| GenerationId::clone(&before.id)),
            newer_bundled: newer_bundled(&generation),
            behind: Vec::new(),
            staying_scopes: Some(staying_scopes).filter(|n| *n > 0),
            staying,
            errors: plugin.errors(),
            calls: plugin.metrics.handled.get(),
            traps: plugin.metrics.traps.get(),
            latency: Latency {
                p50_us: quantile(&generation.latency, 0.5) * 1e6,
                p99_us: quantile(&generation.latency, 0.99) * 1e6,
            },
            stats: None,
        }
    }
}

fn report_of_failed(name: &str, failed: &FailedStart) -> PluginReport {
    PluginReport {
        id: failed.installed.generation_id(name),
        description: String::new(),
        source: failed.installed.source,
        state: PluginState::Failed,
        previous: None,
        newer_bundled: None,
        behind: Vec::new(),
        staying_scopes: None,
        staying: Vec::new(),
        errors: vec![failed.error.clone()],
        calls: 0,
        traps: 0,
        latency: Latency { p50_us: 0.0, p99_us: 0.0 },
        stats: None,
    }
}

/// The version of the bundled build, if it is newer than the installed one.
fn newer_bundled(generation: &Generation) -> Option<&'static str> {
    let feature = bundled().iter().find(|feature| feature.name == generation.id.name)?;
    let is_newer = Version::parse(feature.version).ok()? > Version::parse(&generation.id.version).ok()?;
    is_newer.then_some(feature.version)
}
