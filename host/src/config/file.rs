//! The configuration as the operator writes it: the file, overridden by the environment, in sections.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use figment::Figment;
use figment::providers::{Format as _, Toml};
use serde::Deserialize;

use super::address::Address;
use super::environment::Environment;
use super::explain::explain;
use super::log::LogFormat;
use super::sections::api_keys::ApiKeySection;
use super::sections::auth::AuthSection;
use super::sections::cluster::ClusterSection;
use super::sections::cors::CorsSection;
use super::sections::heartbeat::HeartbeatSection;
use super::sections::limits::LimitsSection;
use super::sections::plugins::PluginsTable;
use super::sections::recovery::RecoverySection;
use super::sections::rooms::RoomSection;
use super::sections::shutdown::ShutdownSection;
use super::sections::socketio::SocketIoSection;
use super::sections::store::StoreSection;
use super::sections::tls::TlsSection;
use crate::model::TrustedProxies;

/// All keys of the configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: Address,
    pub(super) api: Address,
    pub(super) shards: usize,
    /// Only validated here: the value was read before everything else, by [`LogFormat::configured`].
    pub(super) log_format: LogFormat,
    pub(super) auth: AuthSection,
    pub(super) limits: LimitsSection,
    pub(super) heartbeat: HeartbeatSection,
    pub(super) cors: CorsSection,
    pub(super) api_keys: Vec<ApiKeySection>,
    pub(super) plugins: PluginsTable,
    pub(super) store: StoreSection,
    pub(super) socketio: SocketIoSection,
    pub(super) recovery: RecoverySection,
    pub(super) shutdown: ShutdownSection,
    pub(super) trusted_proxies: TrustedProxies,
    pub(super) tls: TlsSection,
    pub(super) rooms: Vec<RoomSection>,
    pub(super) cluster: ClusterSection,
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)).into(),
            api: SocketAddr::from(([127, 0, 0, 1], 8081)).into(),
            shards: 0,
            log_format: LogFormat::default(),
            auth: AuthSection::default(),
            limits: LimitsSection::default(),
            heartbeat: HeartbeatSection::default(),
            cors: CorsSection::default(),
            api_keys: Vec::new(),
            plugins: PluginsTable::new(),
            store: StoreSection::default(),
            socketio: SocketIoSection::default(),
            recovery: RecoverySection::default(),
            shutdown: ShutdownSection::default(),
            trusted_proxies: TrustedProxies::default(),
            tls: TlsSection::default(),
            rooms: Vec::new(),
            cluster: ClusterSection::default(),
        }
    }
}

/// Reads the file, if given, and the environment.
pub(super) fn read(file: Option<&Path>) -> anyhow::Result<File> {
    let mut figment = Figment::new();
    if let Some(path) = file {
        let toml = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        figment = figment.merge(Toml::string(&toml));
    }
    let in_file = file.map(|path| format!("in {}", path.display()));
    let environment = Environment::read()?;
    environment.log_ignored();
    let read = figment.merge(environment).extract().map_err(|error| explain(error, ""));
    match in_file {
        Some(place) => read.context(place),
        None => read,
    }
}

/// Reads `toml`, overridden by these environment variables.
#[cfg(test)]
pub(super) fn parse(toml: &str, env: &[(&str, &str)]) -> anyhow::Result<File> {
    let environment = Environment::of(env.iter().map(|(name, value)| (name.into(), value.into())))?;
    Figment::from(Toml::string(toml)).merge(environment).extract().map_err(|error| explain(error, ""))
}
