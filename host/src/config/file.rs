//! The configuration as it is written: sections, keys and defaults.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format as _, Toml};
use figment::value::Value;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer};

use super::front::ShutdownSection;
use crate::http::{ApiKey, KeyScope};
use crate::model::TrustedProxies;
use crate::plugin::PluginOptions;

/// The prefix of environment variables that are configuration.
const ENV_PREFIX: &str = "ROUNDHOUSE_";

/// Everything that can be configured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: SocketAddr,
    pub(super) api: SocketAddr,
    pub(super) shards: usize,
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
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            api: SocketAddr::from(([127, 0, 0, 1], 8081)),
            shards: 0,
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct JwtSection {
    #[serde(deserialize_with = "secret")]
    pub(super) secret: Option<String>,
    #[serde(deserialize_with = "secrets")]
    pub(super) secrets: Vec<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) cookie: Option<String>,
    public_key_file: Option<PathBuf>,
    jwks_url: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) message_bytes: usize,
    pub(super) connections: usize,
    pub(super) connections_per_user: usize,
    pub(super) connections_per_ip: usize,
    pub(super) events_per_second: u32,
    pub(super) event_burst: u32,
    pub(super) outbox_bytes: usize,
    pub(super) rooms_per_connection: usize,
    #[serde(with = "humantime_serde")]
    pub(super) keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 1_000_000,
            connections: 0,
            connections_per_user: 0,
            connections_per_ip: 0,
            events_per_second: 50,
            event_burst: 200,
            outbox_bytes: 1_048_576,
            rooms_per_connection: 1000,
            // Longer than proxies keep connections to their back-ends: a minute, most of them.
            keep_alive: Duration::from_secs(75),
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
}

impl Default for SocketIo {
    fn default() -> Self {
        Self { path: "/socket.io/".to_owned(), connect_timeout: Duration::from_secs(45), namespaces: Vec::new() }
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
    pub(super) url: Option<String>,
    pub(super) journal: Option<PathBuf>,
    #[serde(with = "humantime_serde")]
    pub(super) give_up: Duration,
}

impl Default for StoreSection {
    fn default() -> Self {
        // A database that restarts is back long before, and a page that waits for the end of its message waits no longer.
        Self { url: None, journal: None, give_up: Duration::from_secs(60) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKeySection {
    name: String,
    #[serde(default, deserialize_with = "secret")]
    key: Option<String>,
    key_sha256: Option<String>,
    scopes: Vec<KeyScope>,
}

impl ApiKeySection {
    pub(super) fn into_key(self) -> anyhow::Result<ApiKey> {
        let name = self.name;
        if self.scopes.is_empty() {
            bail!("api_keys: the key {name} has no scopes: give it publish, admin or both");
        }
        match (self.key, self.key_sha256) {
            (Some(key), None) if !key.is_empty() => Ok(ApiKey::new(name, &key, self.scopes)),
            (None, Some(hash)) => {
                let bytes = parse_hex(&hash)
                    .with_context(|| format!("api_keys: key_sha256 of {name} must be 64 hexadecimal digits"))?;
                Ok(ApiKey { name, sha256: bytes, scopes: self.scopes })
            }
            _ => bail!("api_keys: the key {name} needs either key or key_sha256"),
        }
    }
}

/// Text that no error repeats.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let unquoted =
        |_| serde::de::Error::custom("a secret must be text: put it in quotes (in the environment: '\"…\"')");
    Option::<String>::deserialize(deserializer).map_err(unquoted)
}

/// A list of such texts.
fn secrets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let unquoted = |_| serde::de::Error::custom("secrets must be a list of texts: put each in quotes");
    Vec::<String>::deserialize(deserializer).map_err(unquoted)
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
    dir: PathBuf,
    cache: Option<PathBuf>,
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
        let PluginsSection { dir, cache, watch, threads, call_deadline, memory_bytes, state_bytes } = general;
        Ok(Plugins { dir, cache, watch, threads, call_deadline, memory_bytes, state_bytes, plugins })
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
    let read = figment.merge(Env::prefixed(ENV_PREFIX).split("__")).extract().map_err(|error| explain(error, ""));
    match in_file {
        Some(place) => read.context(place),
        None => read,
    }
}

/// Reads `toml` under an environment of these variables.
#[cfg(test)]
pub(super) fn parse(toml: &str, env: &[(&str, &str)]) -> anyhow::Result<File> {
    let mut figment = Figment::from(Toml::string(toml));
    for (name, value) in env {
        let key = name.trim_start_matches(ENV_PREFIX).to_lowercase().replace("__", ".");
        let value: Value = value.parse().map_err(|never| match never {})?;
        figment = figment.merge((key, value));
    }
    figment.extract().map_err(|error| explain(error, ""))
}

/// An error with its key, and for an unknown key the nearest known one.
fn explain(error: figment::Error, section: &str) -> anyhow::Error {
    let mut messages = Vec::new();
    for error in error {
        let mut path: Vec<String> = (!section.is_empty()).then(|| section.to_owned()).into_iter().collect();
        path.extend(error.path.clone());
        if let Kind::UnknownField(field, _) = &error.kind
            && path.last() != Some(field)
        {
            path.push(field.clone());
        }
        let key = path.join(".");
        let is_env = error.metadata.as_ref().is_some_and(|metadata| metadata.name.contains("environment"));
        let variable = format!("{ENV_PREFIX}{}", path.join("__").to_uppercase());
        let place = if is_env { format!(" (from the environment: {variable})") } else { String::new() };
        messages.push(match &error.kind {
            Kind::UnknownField(field, known) => {
                let nearest = known.iter().max_by(|a, b| strsim::jaro(a, field).total_cmp(&strsim::jaro(b, field)));
                let hint = nearest.map_or_else(String::new, |nearest| format!(": did you mean {nearest}?"));
                format!("unknown key {key}{place}{hint}")
            }
            kind if path.is_empty() => format!("{kind}{place}"),
            kind if matches!(&*key, "listen" | "api") => {
                format!("{key}{place}: {kind}: it is an address and a port, as 127.0.0.1:8080")
            }
            kind if key.ends_with("origins") => {
                format!("{key}{place}: {kind}: it is a list, as [\"https://app.example\"]")
            }
            kind => format!("{key}{place}: {kind}"),
        });
    }
    anyhow!(messages.join("; "))
}
