//! `[plugins]`: settings of all plugins, and a table for each plugin with settings of its own.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use figment::Figment;
use figment::providers::Serialized;
use figment::value::Value;
use hyper::header::HeaderName;
use serde::Deserialize;

use crate::config::explain::explain;
use crate::config::secrets::PRIVATE_DIR;
use crate::config::values::{path, some_path};
use crate::plugin::{CanaryBounds, PluginConfig, PluginOptions, SenderLimits};

/// Headers that features never see.
const WITH_CREDENTIALS: [&str; 6] =
    ["authorization", "cookie", "proxy-authorization", "sec-websocket-key", "set-cookie", "x-api-key"];

/// The section as parsed from the file.
pub(in crate::config) type PluginsTable = BTreeMap<String, Value>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct PluginsSection {
    #[serde(deserialize_with = "some_path")]
    pub(in crate::config) dir: PathBuf,
    #[serde(deserialize_with = "path")]
    cache: Option<PathBuf>,
    #[serde(deserialize_with = "path")]
    components: Option<PathBuf>,
    pub(in crate::config) watch: bool,
    threads: usize,
    #[serde(with = "humantime_serde")]
    call_deadline: Duration,
    memory_bytes: usize,
    state_bytes: usize,
    recent_bytes: usize,
    canary_scopes: usize,
    #[serde(with = "humantime_serde")]
    canary_window: Duration,
    canary_slowdown: f64,
    /// Headers of the handshake that features may see.
    connect_headers: Vec<String>,
    /// The tables of single plugins.
    #[serde(skip)]
    plugins: HashMap<String, PluginOptions>,
}

impl Default for PluginsSection {
    fn default() -> Self {
        let PluginConfig { call_deadline, memory_bytes, state_bytes, recent_bytes, canary, .. } =
            PluginConfig::default();
        Self {
            dir: "plugins.d".into(),
            cache: None,
            components: None,
            watch: true,
            threads: 0,
            call_deadline,
            memory_bytes,
            state_bytes,
            recent_bytes,
            canary_scopes: canary.scopes,
            canary_window: canary.window,
            canary_slowdown: canary.slowdown,
            connect_headers: Vec::new(),
            plugins: HashMap::new(),
        }
    }
}

impl PluginsSection {
    /// The headers of the handshake that features may see.
    ///
    /// # Errors
    /// Where one is no header's name, or has credentials.
    pub(in crate::config) fn connect_headers(&self) -> anyhow::Result<Vec<HeaderName>> {
        let parse = |name: &String| {
            let header: HeaderName =
                name.parse().map_err(|_| anyhow!("plugins.connect_headers has {name:?}, which is no header's name"))?;
            let is_secret = WITH_CREDENTIALS.contains(&header.as_str());
            ensure!(
                !is_secret,
                "plugins.connect_headers has {name:?}, which carries credentials: features never get them"
            );
            Ok(header)
        };
        self.connect_headers.iter().map(parse).collect()
    }

    /// # Errors
    /// Where a key is unknown, a bound is out of range or a grant is malformed.
    pub(in crate::config) fn read(table: PluginsTable) -> anyhow::Result<Self> {
        let (tables, values): (BTreeMap<_, _>, BTreeMap<_, _>) =
            table.into_iter().partition(|(_, value)| value.as_dict().is_some());
        let general = Figment::from(Serialized::defaults(&values));
        let mut section: Self = general.extract().map_err(|error| explain(error, "plugins"))?;
        check_bounds("plugins", Some(section.call_deadline), Some(section.memory_bytes))?;
        section.check_canary()?;
        for (name, table) in tables {
            let options: PluginOptions =
                table.deserialize().map_err(|error| explain(error, &format!("plugins.{name}")))?;
            if let Some(grants) = &options.grants {
                grants.check().map_err(|error| anyhow!("plugins.{name}.grants: {error}"))?;
            }
            // Names of environment variables have no hyphens.
            let name = name.replace('_', "-");
            check_bounds(&format!("plugins.{name}"), options.call_deadline, options.memory_bytes)?;
            section.plugins.insert(name, options);
        }
        Ok(section)
    }

    /// # Errors
    /// If a bound of canaries is out of range.
    fn check_canary(&self) -> anyhow::Result<()> {
        let Self { canary_scopes: scopes, canary_window: window, canary_slowdown: slowdown, .. } = self;
        ensure!((1..=10_000).contains(scopes), "plugins.canary_scopes is {scopes}, and must be 1 to 10000");
        let is_sensible = (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(window);
        ensure!(is_sensible, "plugins.canary_window is {window:?}, and must be 1 s to 1 day");
        ensure!((1.0..=1000.0).contains(slowdown), "plugins.canary_slowdown is {slowdown}, and must be 1 to 1000");
        Ok(())
    }

    /// Converts the section. `cores` is the default number of threads.
    pub(in crate::config) fn into_config(self, cores: usize, senders: SenderLimits, dir: &Path) -> PluginConfig {
        let place = |configured: Option<PathBuf>, name: &str| {
            configured.map_or_else(|| dir.join(PRIVATE_DIR).join(name), |path| dir.join(path))
        };
        PluginConfig {
            threads: if self.threads == 0 { cores } else { self.threads },
            call_deadline: self.call_deadline,
            memory_bytes: self.memory_bytes,
            state_bytes: self.state_bytes,
            recent_bytes: self.recent_bytes,
            canary: CanaryBounds {
                scopes: self.canary_scopes,
                window: self.canary_window,
                slowdown: self.canary_slowdown,
            },
            cache_dir: Some(place(self.cache, "cache")),
            components_dir: Some(place(self.components, "components")),
            senders,
            plugins: self.plugins,
            ..PluginConfig::default()
        }
    }
}

fn check_bounds(section: &str, deadline: Option<Duration>, memory_bytes: Option<usize>) -> anyhow::Result<()> {
    if let Some(deadline) = deadline {
        let is_sensible = (Duration::from_millis(10)..=Duration::from_secs(10)).contains(&deadline);
        ensure!(is_sensible, "{section}.call_deadline is {deadline:?}, and must be 10 ms to 10 s");
    }
    if let Some(bytes) = memory_bytes {
        let is_sensible = (65_536..=1 << 32).contains(&bytes);
        ensure!(is_sensible, "{section}.memory_bytes is {bytes}, and must be 65536 (one page) to 4294967296");
    }
    Ok(())
}
