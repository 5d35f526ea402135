//! The configuration as it is written: sections, keys and defaults.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use figment::Figment;
use figment::providers::{Format as _, Toml};
use figment::value::Value;
use jsonwebtoken::Algorithm;
use serde::Deserialize;

use super::address::Address;
use super::budget::BudgetSection;
use super::environment::Environment;
use super::explain::explain;
use super::front::ShutdownSection;
use super::log::LogFormat;
use super::secret_file::{value_of, values_of};
use super::values::{cookie_name, path, secret, secrets, some_path, text};
use crate::api::{ApiKey, KeyScope};
use crate::conn::UserOverflow;
use crate::model::TrustedProxies;
use crate::plugin::{PluginOptions, SenderLimits};

/// Everything that can be configured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: Address,
    pub(super) api: Address,
    pub(super) shards: usize,
    /// Read before all else ([`LogFormat::configured`]), and here to be checked.
    pub(super) log_format: LogFormat,
    pub(super) auth: AuthSection,
    pub(super) limits: Limits,
    pub(super) heartbeat: Heartbeat,
    pub(super) cors: Cors,
    pub(super) api_keys: Vec<ApiKeySection>,
    /// Settings of all plugins, and one table for each that has its own.
    plugins: BTreeMap<String, Value>,
    pub(super) store: StoreSection,
    pub(super) socketio: SocketIo,
    pub(super) recovery: RecoverySection,
    pub(super) shutdown: ShutdownSection,
    pub(super) trusted_proxies: TrustedProxies,
    tls: Option<Value>,
    rooms: Option<Value>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)).into(),
            api: SocketAddr::from(([127, 0, 0, 1], 8081)).into(),
            shards: 0,
            log_format: LogFormat::default(),
            auth: AuthSection::default(),
            limits: Limits::default(),
            heartbeat: Heartbeat::default(),
            cors: Cors::default(),
            api_keys: Vec::new(),
            plugins: BTreeMap::new(),
            store: StoreSection::default(),
            socketio: SocketIo::default(),
            recovery: RecoverySection::default(),
            shutdown: ShutdownSection::default(),
            trusted_proxies: TrustedProxies::default(),
            tls: None,
            rooms: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuthSection {
    pub(super) anonymous: bool,
    #[serde(with = "humantime_serde")]
    pub(super) grace: Duration,
    pub(super) jwt: JwtSection,
    session: Option<Value>,
}

impl Default for AuthSection {
    fn default() -> Self {
        Self { anonymous: false, grace: Duration::from_secs(5), jwt: JwtSection::default(), session: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct JwtSection {
    #[serde(deserialize_with = "secret")]
    secret: Option<String>,
    #[serde(deserialize_with = "path")]
    secret_file: Option<PathBuf>,
    #[serde(deserialize_with = "secrets")]
    secrets: Vec<String>,
    #[serde(deserialize_with = "path")]
    secrets_file: Option<PathBuf>,
    pub(super) algorithms: Vec<Algorithm>,
    #[serde(deserialize_with = "text")]
    pub(super) issuer: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) audience: Option<String>,
    #[serde(deserialize_with = "cookie_name")]
    pub(super) cookie: Option<String>,
    #[serde(with = "humantime_serde")]
    pub(super) leeway: Duration,
    public_key_file: Option<PathBuf>,
    jwks_url: Option<String>,
}

impl Default for JwtSection {
    fn default() -> Self {
        Self {
            secret: None,
            secret_file: None,
            secrets: Vec::new(),
            secrets_file: None,
            algorithms: Vec::new(),
            issuer: None,
            audience: None,
            cookie: None,
            // More than clocks are apart that are set at all.
            leeway: Duration::from_secs(60),
            public_key_file: None,
            jwks_url: None,
        }
    }
}

impl JwtSection {
    /// All secrets, that to sign with first.
    ///
    /// # Errors
    /// Where a file of secrets cannot be read.
    pub(super) fn all_secrets(&self, dir: &Path) -> anyhow::Result<Vec<String>> {
        let first = value_of("auth.jwt.secret", self.secret.clone(), self.secret_file.as_ref(), dir)?;
        let more = values_of("auth.jwt.secrets", self.secrets.clone(), self.secrets_file.as_ref(), dir)?;
        Ok(first.into_iter().chain(more).collect())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) message_bytes: usize,
    pub(super) connections: usize,
    pub(super) connections_per_user: usize,
    pub(super) user_overflow: UserOverflow,
    pub(super) connections_per_ip: usize,
    pub(super) events_per_second: u32,
    pub(super) event_burst: u32,
    pub(super) events_per_second_per_user: Option<u32>,
    pub(super) event_burst_per_user: Option<u32>,
    #[serde(with = "humantime_serde")]
    pub(super) call_time_per_user: Option<Duration>,
    pub(super) outbox_bytes: usize,
    pub(super) rooms_per_connection: usize,
    pub(super) unfinished_bytes: Option<usize>,
    pub(super) api_bytes: Option<usize>,
    #[serde(with = "humantime_serde")]
    pub(super) keep_alive: Duration,
    pub(super) user: BudgetSection,
    pub(super) service: BudgetSection,
}

impl Limits {
    /// What a client may have features do, over all of its connections. What is not configured follows from what one
    /// connection may send.
    pub(super) fn of_senders(&self) -> SenderLimits {
        /// Connections that one person has in earnest: some tabs on some devices.
        const CONNECTIONS: u32 = 10;
        /// Time for each event that it may send: some dozen times what a light one takes.
        const CALL_TIME: Duration = Duration::from_micros(500);
        let of_all = |configured: Option<u32>, of_one: u32| configured.unwrap_or(of_one.saturating_mul(CONNECTIONS));
        let events_per_second = of_all(self.events_per_second_per_user, self.events_per_second);
        SenderLimits {
            events_per_second,
            event_burst: of_all(self.event_burst_per_user, self.event_burst),
            call_time: self.call_time_per_user.unwrap_or(CALL_TIME.saturating_mul(events_per_second)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 1_000_000,
            connections: 0,
            connections_per_user: 0,
            user_overflow: UserOverflow::default(),
            connections_per_ip: 0,
            events_per_second: 50,
            event_burst: 200,
            events_per_second_per_user: None,
            event_burst_per_user: None,
            call_time_per_user: None,
            outbox_bytes: 1_048_576,
            rooms_per_connection: 1000,
            unfinished_bytes: None,
            api_bytes: None,
            // Longer than proxies keep connections to their back-ends: a minute, most of them.
            keep_alive: Duration::from_secs(75),
            user: BudgetSection::default(),
            service: BudgetSection::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Heartbeat {
    #[serde(with = "humantime_serde")]
    pub(super) interval: Duration,
    #[serde(with = "humantime_serde")]
    pub(super) timeout: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(25), timeout: Duration::from_secs(60) }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cors {
    pub(super) origins: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SocketIo {
    pub(super) path: String,
    #[serde(with = "humantime_serde")]
    pub(super) connect_timeout: Duration,
    pub(super) namespaces: Vec<String>,
    pub(super) client: String,
}

impl Default for SocketIo {
    fn default() -> Self {
        Self {
            path: "/socket.io/".to_owned(),
            connect_timeout: Duration::from_secs(45),
            namespaces: Vec::new(),
            client: String::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RecoverySection {
    #[serde(with = "humantime_serde")]
    pub(super) window: Duration,
    pub(super) memory_bytes: usize,
}

impl Default for RecoverySection {
    fn default() -> Self {
        Self { window: Duration::from_secs(120), memory_bytes: 268_435_456 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StoreSection {
    #[serde(deserialize_with = "secret")]
    url: Option<String>,
    #[serde(deserialize_with = "path")]
    url_file: Option<PathBuf>,
    #[serde(deserialize_with = "path")]
    pub(super) journal: Option<PathBuf>,
    #[serde(with = "humantime_serde")]
    pub(super) give_up: Duration,
}

impl Default for StoreSection {
    fn default() -> Self {
        // A database that restarts is back long before, and a page that waits for the end of its message waits no longer.
        Self { url: None, url_file: None, journal: None, give_up: Duration::from_secs(60) }
    }
}

impl StoreSection {
    /// # Errors
    /// Where the file with the URL cannot be read.
    pub(super) fn url(&self, dir: &Path) -> anyhow::Result<Option<String>> {
        value_of("store.url", self.url.clone(), self.url_file.as_ref(), dir)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKeySection {
    name: String,
    #[serde(default, deserialize_with = "secret")]
    key: Option<String>,
    #[serde(default, deserialize_with = "path")]
    key_file: Option<PathBuf>,
    key_sha256: Option<String>,
    scopes: Vec<KeyScope>,
}

impl ApiKeySection {
    pub(super) fn into_key(self, dir: &Path) -> anyhow::Result<ApiKey> {
        let name = self.name;
        if name.trim().is_empty() {
            bail!("api_keys: a key has an empty name: it is what the log calls the caller");
        }
        if self.scopes.is_empty() {
            bail!("api_keys: the key {name} has no scopes: give it publish, admin or both");
        }
        let key = value_of("key", self.key, self.key_file.as_ref(), dir);
        match (key.with_context(|| format!("api_keys: the key {name}"))?, self.key_sha256) {
            (Some(key), None) => Ok(ApiKey::new(name, &key, self.scopes)),
            (None, Some(hash)) => {
                let bytes = parse_hex(&hash)
                    .with_context(|| format!("api_keys: key_sha256 of {name} must be 64 hexadecimal digits"))?;
                Ok(ApiKey { name, sha256: bytes, scopes: self.scopes })
            }
            _ => bail!("api_keys: the key {name} needs one of key, key_file and key_sha256"),
        }
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// `[plugins]`, with the tables of single plugins apart.
#[derive(Debug)]
pub(super) struct Plugins {
    pub(super) dir: PathBuf,
    /// Where compiled components are kept.
    pub(super) cache: Option<PathBuf>,
    /// Where what is installed is kept.
    pub(super) components: Option<PathBuf>,
    pub(super) watch: bool,
    pub(super) threads: usize,
    pub(super) call_deadline: Duration,
    pub(super) memory_bytes: usize,
    pub(super) state_bytes: usize,
    pub(super) plugins: HashMap<String, PluginOptions>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PluginsSection {
    #[serde(deserialize_with = "some_path")]
    dir: PathBuf,
    #[serde(deserialize_with = "path")]
    cache: Option<PathBuf>,
    #[serde(deserialize_with = "path")]
    components: Option<PathBuf>,
    watch: bool,
    threads: usize,
    #[serde(with = "humantime_serde")]
    call_deadline: Duration,
    memory_bytes: usize,
    state_bytes: usize,
}

impl Default for PluginsSection {
    fn default() -> Self {
        Self {
            dir: "plugins.d".into(),
            cache: None,
            components: None,
            watch: true,
            threads: 0,
            call_deadline: Duration::from_millis(50),
            memory_bytes: 33_554_432,
            state_bytes: 65_536,
        }
    }
}

impl File {
    /// # Errors
    /// Where a key is unknown or a grant makes no sense.
    pub(super) fn plugins(&self) -> anyhow::Result<Plugins> {
        let (tables, values): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.plugins.clone().into_iter().partition(|(_, value)| value.as_dict().is_some());
        let general = Figment::from(figment::providers::Serialized::defaults(&values));
        let general: PluginsSection = general.extract().map_err(|error| explain(error, "plugins"))?;
        let mut plugins = HashMap::new();
        for (name, table) in tables {
            let options: PluginOptions =
                table.deserialize().map_err(|error| explain(error, &format!("plugins.{name}")))?;
            if let Some(grants) = &options.grants {
                grants.check().map_err(|error| anyhow!("plugins.{name}.grants: {error}"))?;
            }
            // Environment variables have no hyphens.
            plugins.insert(name.replace('_', "-"), options);
        }
        let PluginsSection { dir, cache, components, watch, threads, call_deadline, memory_bytes, state_bytes } =
            general;
        Ok(Plugins { dir, cache, components, watch, threads, call_deadline, memory_bytes, state_bytes, plugins })
    }

    /// Keys whose meaning this version does not have must not be taken for done.
    pub(super) fn refuse_unsupported(&self) -> anyhow::Result<()> {
        let jwt = &self.auth.jwt;
        for (key, is_set) in [
            ("tls", self.tls.is_some()),
            ("rooms", self.rooms.is_some()),
            ("auth.session", self.auth.session.is_some()),
            ("auth.jwt.public_key_file", jwt.public_key_file.is_some()),
            ("auth.jwt.jwks_url", jwt.jwks_url.is_some()),
        ] {
            if is_set {
                bail!("{key} is configured, and this version does not support it yet: leave it out");
            }
        }
        Ok(())
    }
}

/// Reads the file, if there is one, and the environment.
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

/// Reads `toml` under an environment of these variables.
#[cfg(test)]
pub(super) fn parse(toml: &str, env: &[(&str, &str)]) -> anyhow::Result<File> {
    let environment = Environment::of(env.iter().map(|(name, value)| (name.into(), value.into())))?;
    Figment::from(Toml::string(toml)).merge(environment).extract().map_err(|error| explain(error, ""))
}
