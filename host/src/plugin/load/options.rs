//! The configuration of plugins: of all of them, and of single ones.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use roundhouse_contract::Grants;
use serde::Deserialize;

use crate::plugin::event::senders::SenderLimits;
use crate::plugin::guest::engine;
use crate::plugin::guest::sandbox::InstanceBounds;

/// The largest component, in bytes, where nothing else is configured. A feature is some hundred KiB; with debug
/// information, a few MiB.
pub const MAX_COMPONENT_BYTES: usize = 16 * 1024 * 1024;

/// What plugins may do, and which there are.
#[derive(Debug, Clone)]
pub struct PluginConfig {
    /// Plugin threads.
    pub threads: usize,
    /// How long a call may run.
    pub call_deadline: Duration,
    /// The linear memory of one instance, in bytes.
    pub memory_bytes: usize,
    /// The state of one scope, in bytes.
    pub state_bytes: usize,
    /// Where compiled components are kept.
    pub cache_dir: Option<PathBuf>,
    /// The folder of installed components; none for a host that only inspects plugins.
    pub components_dir: Option<PathBuf>,
    /// Whether nothing is written, for a host that only inspects plugins.
    pub is_read_only: bool,
    /// Whether features see the credentials of who connects. For protocol suites, which send a token to get it back.
    pub shows_credentials: bool,
    /// The bounds of each sender.
    pub senders: SenderLimits,
    /// The configuration of each plugin.
    pub plugins: HashMap<String, PluginOptions>,
}

/// The configuration of one plugin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginOptions {
    /// Whether it may be loaded.
    pub enabled: bool,
    /// Its grants, where they are not the default.
    pub grants: Option<Grants>,
    /// How long a call may run, where that is not as for all.
    #[serde(with = "humantime_serde")]
    pub call_deadline: Option<Duration>,
    /// The linear memory of one instance, in bytes, where that is not as for all.
    pub memory_bytes: Option<usize>,
    /// The state of one scope, in bytes, where that is not as for all.
    pub state_bytes: Option<usize>,
    /// The largest component, in bytes, where that is not as for all.
    pub component_bytes: Option<usize>,
    /// Its settings, as it reads them.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            threads: 1,
            call_deadline: Duration::from_millis(50),
            memory_bytes: 33_554_432,
            state_bytes: 65_536,
            cache_dir: None,
            components_dir: None,
            is_read_only: false,
            shows_credentials: false,
            senders: SenderLimits { events_per_second: 0, event_burst: 0, call_time: Duration::ZERO },
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
            settings: serde_json::Map::new(),
        }
    }
}

impl PluginConfig {
    /// The bounds of a plugin; of one of no name, the general ones.
    pub(crate) fn bounds_of(&self, plugin: &str) -> InstanceBounds {
        let options = self.plugins.get(plugin);
        let deadline = options.and_then(|options| options.call_deadline).unwrap_or(self.call_deadline);
        // Half a deadline is the time between two looks at a call.
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
