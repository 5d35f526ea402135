//! The whole configuration, built from the sections: the settings of each part of the host.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::address::Address;
use super::file::{File, read};
use super::secrets::{Needs, Secrets};
use super::sections::api_keys::into_keys;
use super::sections::budget::Budgets;
use super::sections::plugins::PluginsSection;
use super::sections::rooms::into_rules;
use super::sections::shutdown::ShutdownConfig;
use super::sections::tls::TlsConfig;
use crate::api::{ApiConfig, ConfigFile};
use crate::auth::AuthConfig;
use crate::cluster::ClusterConfig;
use crate::conn::{ClientConfig, ConnConfig};
use crate::model::ConnId;
use crate::plugin::{Bundled, PluginConfig, bundled};
use crate::policy::RoomRule;
use crate::store::StoreConfig;

/// Settings of the command line, which override file and environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The clients' address.
    pub listen: Option<Address>,
    /// The API's address.
    pub api: Option<Address>,
    /// The plugin folder.
    pub plugins: Option<PathBuf>,
    /// The number of shards.
    pub shards: Option<usize>,
}

/// A whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The clients' address.
    pub listen: SocketAddr,
    /// The API's address.
    pub api: SocketAddr,
    /// The number of shard threads.
    pub shards: usize,
    /// The times of the shutdown.
    pub shutdown: ShutdownConfig,
    /// Limits and timeouts of connections.
    pub conn: ConnConfig,
    /// The most rooms that one connection may be in.
    pub rooms_per_connection: usize,
    /// The budgets of principals.
    pub budgets: Budgets,
    /// The authentication of clients.
    pub auth: AuthConfig,
    /// Settings of the client listener.
    pub client: ClientConfig,
    /// API keys and settings of the API listener.
    pub api_access: ApiConfig,
    /// Settings of plugins.
    pub plugins: PluginConfig,
    /// The rules of rooms.
    pub rooms: Vec<RoomRule>,
    /// The database, and the journal.
    pub store: StoreConfig,
    /// The cluster; none if the host is alone.
    pub cluster: Option<ClusterConfig>,
    /// The TLS of the listeners.
    pub tls: TlsConfig,
    /// The plugin folder.
    pub plugin_dir: PathBuf,
    /// Whether the plugin folder is watched; otherwise it is read once.
    pub watch_plugins: bool,
    /// Whether this is development mode: without a configuration, on loopback addresses alone, with a demo.
    pub development: bool,
    /// The folder of generated secrets.
    pub(super) generated: Secrets,
    pub(super) needs: Needs,
}

impl Config {
    /// Reads the configuration: defaults, then the file, then the environment, then the command line. Nothing is written:
    /// [`Config::prepare`] generates the secrets in `.roundhouse` under `dir` that are not configured.
    ///
    /// # Errors
    /// With the mistake, and its key.
    pub fn load(file: Option<&Path>, overrides: Overrides, dir: &Path) -> anyhow::Result<Self> {
        // Read before the settings, so that a change between the two reads is noticed.
        let in_use = file.and_then(ConfigFile::read);
        let settings = read(file)?;
        let mut config = Self::build(settings, file.is_none(), overrides, dir)?;
        config.api_access.file = in_use;
        Ok(config)
    }

    fn build(mut file: File, is_without_file: bool, overrides: Overrides, dir: &Path) -> anyhow::Result<Self> {
        file.limits.check()?;
        file.heartbeat.check()?;
        file.recovery.check()?;
        file.socketio.check()?;
        let conn = conn_config(&file)?;
        let plugins = PluginsSection::read(std::mem::take(&mut file.plugins))?;
        let client = client_config(&file, &plugins, dir)?;
        let listen = overrides.listen.unwrap_or(file.listen).resolve().context("listen")?;
        let api = overrides.api.unwrap_or(file.api).resolve().context("api")?;
        let plugin_dir = plugin_dir(overrides.plugins, &plugins, dir)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = match overrides.shards.unwrap_or(file.shards) {
            0 => cores,
            shards => shards,
        };
        ensure!(shards <= ConnId::MAX_SHARDS, "shards is {shards}, and may be {}", ConnId::MAX_SHARDS);
        let limits = file.limits;
        let cluster = file.cluster.into_config(listen, dir, !file.recovery.window.is_zero())?;
        let store = file.store.into_config(cluster.is_some(), dir)?;
        let tls = file.tls.into_config(dir)?;
        let auth = file.auth.into_config(dir)?;
        let keys = into_keys(file.api_keys, dir)?;
        let needs = Needs { jwt_secret: auth.has_no_source() && !auth.anonymous, api_key: keys.is_empty() };
        let development = is_without_file && needs.jwt_secret;
        if development {
            check_loopback("listen", listen)?;
            check_loopback("api", api)?;
        }
        let api_access = ApiConfig {
            keys,
            file: None,
            keep_alive: limits.keep_alive,
            handshake: limits.handshake,
            header_bytes: limits.header_bytes,
            memory_bytes: limits.api_bytes()?,
        };
        Ok(Self {
            listen,
            api,
            shards,
            shutdown: file.shutdown.check()?,
            conn,
            rooms_per_connection: limits.rooms_per_connection(),
            budgets: limits.budgets()?,
            auth,
            client,
            api_access,
            watch_plugins: plugins.watch,
            plugins: plugins.into_config(cores, limits.of_senders(), dir),
            rooms: into_rules(file.rooms)?,
            store,
            cluster,
            tls,
            plugin_dir,
            development,
            generated: Secrets::new(dir),
            needs,
        })
    }

    /// The bundled features that are enabled.
    pub fn enabled_features(&self) -> impl Iterator<Item = &'static Bundled> {
        bundled().iter().filter(|feature| self.plugins.plugins.get(feature.name).is_none_or(|options| options.enabled))
    }
}

/// # Errors
/// Where a path, an origin, a cookie or a header cannot be what it is configured as.
fn client_config(file: &File, plugins: &PluginsSection, dir: &Path) -> anyhow::Result<ClientConfig> {
    let (cookie, session_cookie) = (file.auth.jwt.cookie.clone(), file.auth.session_cookie()?);
    Ok(ClientConfig {
        origins: file.cors.allowed(cookie.is_some() || session_cookie.is_some())?,
        cookie,
        session_cookie,
        connect_headers: plugins.connect_headers()?,
        socketio_path: file.socketio.path()?,
        bundle: file.socketio.bundle(dir)?,
        message_bytes: file.limits.message_bytes,
        demo_secret: None,
        is_conformance: false,
    })
}

fn conn_config(file: &File) -> anyhow::Result<ConnConfig> {
    let File { auth, limits, heartbeat, socketio, recovery, shutdown, trusted_proxies, .. } = file;
    Ok(ConnConfig {
        message_bytes: limits.message_bytes,
        outbox_bytes: limits.outbox_bytes,
        connections: limits.connections,
        connections_per_user: limits.connections_per_user,
        user_overflow: limits.user_overflow,
        connections_per_ip: limits.connections_per_ip,
        http_connections_per_ip: limits.http_connections_per_ip(),
        requests_per_second_per_ip: limits.requests_per_second_per_ip,
        request_burst_per_ip: limits.request_burst_per_ip,
        counts_anonymous: auth.anonymous,
        events_per_second: limits.events_per_second,
        event_burst: limits.event_burst,
        event_limits: limits.events()?,
        heartbeat_interval: heartbeat.interval,
        heartbeat_timeout: heartbeat.timeout,
        auth_grace: auth.grace,
        connect_timeout: socketio.connect_timeout,
        namespaces: socketio.namespaces.clone(),
        recovery_window: recovery.window,
        recovery_bytes: recovery.memory_bytes,
        trusted_proxies: trusted_proxies.clone(),
        unfinished_bytes: limits.unfinished_bytes()?,
        handshake: limits.handshake,
        header_bytes: limits.header_bytes,
        keep_alive: limits.keep_alive,
        shutdown_timeout: shutdown.timeout,
    })
}

/// The plugin folder: the command line's, or the configured one in `dir`.
fn plugin_dir(overriding: Option<PathBuf>, plugins: &PluginsSection, dir: &Path) -> anyhow::Result<PathBuf> {
    let is_empty = overriding.as_ref().is_some_and(|path| path.as_os_str().is_empty());
    ensure!(!is_empty, "--plugins is empty: name a folder, or leave it out");
    Ok(overriding.unwrap_or_else(|| dir.join(&plugins.dir)))
}

/// # Errors
/// Where an address is not a loopback address: development mode is for this machine alone.
fn check_loopback(name: &str, address: SocketAddr) -> anyhow::Result<()> {
    ensure!(
        address.ip().is_loopback(),
        "without a configuration this is development mode, which is for this machine alone, but {name} is {address}: \
         configure auth.jwt.secret and api_keys to serve others"
    );
    Ok(())
}

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;
