//! The configuration of plugins: common to all, and of single ones.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use roundhouse_contract::Grants;
use serde::Deserialize;

use crate::plugin::event::senders::SenderLimits;
use crate::plugin::guest::engine;
use crate::plugin::guest::sandbox::InstanceBounds;
use crate::policy::{EventPermission, RoomPolicy};

/// The default bound of a component's size, in bytes. A feature is some hundred KiB; with debug information, a few MiB.
pub const MAX_COMPONENT_BYTES: usize = 16 * 1024 * 1024;

/// The configuration of all plugins.
#[derive(Debug, Clone)]
pub struct PluginConfig {
    /// The number of plugin threads.
    pub threads: usize,
    /// The deadline of a call.
    pub call_deadline: Duration,
    /// The largest linear memory of one instance, in bytes.
    pub memory_bytes: usize,
    /// The largest state of one scope, in bytes.
    pub state_bytes: usize,
    /// The most bytes of the recent calls of one plugin that are remembered; 0 if none are.
    pub recent_bytes: usize,
    /// What ends a canary.
    pub canary: CanaryBounds,
    /// The folder of compiled components; none if they are not kept.
    pub cache_dir: Option<PathBuf>,
    /// The folder of installed components; none for a host that only inspects plugins.
    pub components_dir: Option<PathBuf>,
    /// Whether the host writes no files, because it only inspects plugins.
    pub is_read_only: bool,
    /// Whether features see the credentials of connecting clients. For protocol suites, which send a token to get it
    /// back.
    pub shows_credentials: bool,
    /// The bounds of each sender.
    pub senders: SenderLimits,
    /// Which users may use which rooms; none where rooms have no rules.
    pub rooms: Option<RoomPolicy>,
    /// The configuration of each plugin.
    pub plugins: HashMap<String, PluginOptions>,
}

/// What ends a canary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CanaryBounds {
    /// So many scopes that go back within the window.
    pub scopes: usize,
    /// The time in which scopes that went back are counted.
    pub window: Duration,
    /// Calls that take so many times as long as those of the running build.
    pub slowdown: f64,
}

impl Default for CanaryBounds {
    fn default() -> Self {
        Self { scopes: 5, window: Duration::from_secs(60), slowdown: 3.0 }
    }
}

/// The configuration of one plugin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginOptions {
    /// Whether the plugin may be loaded.
    pub enabled: bool,
    /// The plugin's grants, if they differ from the default of its source.
    pub grants: Option<Grants>,
    /// The deadline of a call, if it differs from [`PluginConfig::call_deadline`].
    #[serde(with = "humantime_serde")]
    pub call_deadline: Option<Duration>,
    /// The largest linear memory of one instance, in bytes, if it differs from [`PluginConfig::memory_bytes`].
    pub memory_bytes: Option<usize>,
    /// The largest state of one scope, in bytes, if it differs from [`PluginConfig::state_bytes`].
    pub state_bytes: Option<usize>,
    /// The largest component, in bytes, if it differs from [`MAX_COMPONENT_BYTES`].
    pub component_bytes: Option<usize>,
    /// Who may send which events, beyond what the manifest says.
    pub events: HashMap<String, EventPermission>,
    /// What is left out of case files.
    pub cases: CaseOptions,
    /// The settings that the feature reads.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// What is left out of the case files of a plugin.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaseOptions {
    /// Whether the claims of users stay in them.
    pub keep_claims: bool,
    /// Fields of events and states whose values are left out.
    pub redact: Vec<String>,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            threads: 1,
            call_deadline: Duration::from_millis(50),
            memory_bytes: 33_554_432,
            state_bytes: 65_536,
            recent_bytes: 1_048_576,
            canary: CanaryBounds::default(),
            cache_dir: None,
            components_dir: None,
            is_read_only: false,
            shows_credentials: false,
            senders: SenderLimits { events_per_second: 0, event_burst: 0, call_time: Duration::ZERO },
            rooms: None,
            plugins: HashMap::new(),
        }
    }
}

impl Default for PluginOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            grants: None,
            call_deadline: None,
            memory_bytes: None,
            state_bytes: None,
            component_bytes: None,
            events: HashMap::new(),
            cases: CaseOptions::default(),
            settings: serde_json::Map::new(),
        }
    }
}

impl PluginConfig {
    /// The bounds of a plugin's instances. Where the name is empty, the bounds common to all plugins.
    pub(crate) fn bounds_of(&self, plugin: &str) -> InstanceBounds {
        let options = self.plugins.get(plugin);
        let deadline = options.and_then(|options| options.call_deadline).unwrap_or(self.call_deadline);
        // At least two ticks, because a call is checked after each half of its deadline.
        let ticks = deadline.as_nanos().div_ceil(engine::tick_of(self.shortest_deadline()).as_nanos()).max(2);
        InstanceBounds {
            memory_bytes: options.and_then(|options| options.memory_bytes).unwrap_or(self.memory_bytes),
            deadline,
            ticks: ticks as u64,
            state_bytes: options.and_then(|options| options.state_bytes).unwrap_or(self.state_bytes),
        }
    }

    pub(crate) fn shortest_deadline(&self) -> Duration {
        let of_plugins = self.plugins.values().filter_map(|options| options.call_deadline);
        of_plugins.min().unwrap_or(self.call_deadline).min(self.call_deadline)
    }

    /// What is left out of the case files of a plugin.
    pub(crate) fn case_options(&self, plugin: &str) -> CaseOptions {
        self.plugins.get(plugin).map(|options| options.cases.clone()).unwrap_or_default()
    }

    /// The most memory that an instance of any plugin may have, in bytes.
    pub(crate) fn most_memory(&self) -> usize {
        let of_plugins = self.plugins.values().filter_map(|options| options.memory_bytes);
        of_plugins.max().unwrap_or(0).max(self.memory_bytes)
    }

    /// The largest component of a plugin, in bytes.
    pub(crate) fn component_bytes_of(&self, plugin: &str) -> usize {
        self.plugins.get(plugin).and_then(|options| options.component_bytes).unwrap_or(MAX_COMPONENT_BYTES)
    }

    /// The largest component of any plugin, in bytes.
    pub fn largest_component(&self) -> usize {
        let of_plugins = self.plugins.values().filter_map(|options| options.component_bytes);
        of_plugins.max().unwrap_or(0).max(MAX_COMPONENT_BYTES)
    }
}
