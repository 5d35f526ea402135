//! Configuration: a TOML file and the environment, checked, and turned into what each part of the host wants to know.

mod file;
mod front;
mod secrets;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use hyper::Uri;
use jsonwebtoken::Algorithm;

use crate::auth::{AuthConfig, JwtConfig};
use crate::conn::ConnConfig;
use crate::http::{ApiConfig, ApiKey, ClientConfig, KeyScope};
use crate::model::ConnId;
use crate::plugin::{PluginConfig, bundled, check_namespace};
use crate::store::{StoreConfig, StoreUrl};

pub use front::ShutdownConfig;
pub use secrets::PRIVATE_DIR;

/// The store, where none is configured.
const DEFAULT_STORE: &str = "sqlite://roundhouse.db";

/// What the command line may set, over file and environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The clients' address.
    pub listen: Option<SocketAddr>,
    /// The API's address.
    pub api: Option<SocketAddr>,
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
    /// How the host ends.
    pub shutdown: ShutdownConfig,
    /// Connections.
    pub conn: ConnConfig,
    /// The most rooms that one connection may be in.
    pub rooms_per_connection: usize,
    /// Who may connect.
    pub auth: AuthConfig,
    /// How clients may connect.
    pub client: ClientConfig,
    /// Who may call the API.
    pub api_access: ApiConfig,
    /// Plugins.
    pub plugins: PluginConfig,
    /// Where documents and durable states go.
    pub store: StoreConfig,
    /// The plugin folder.
    pub plugin_dir: PathBuf,
    /// Whether the folder is watched, or read once.
    pub watch_plugins: bool,
    /// Whether this is development mode: no configuration at all, this machine alone, with a demo.
    pub development: bool,
}

impl Config {
    /// Reads the configuration: defaults, then the file, then the environment, then the command line. Secrets that are
    /// not configured are generated in `.roundhouse` under `dir`, and found there again.
    ///
    /// # Errors
    /// With what is wrong, and where.
    pub fn load(file: Option<&Path>, overrides: Overrides, dir: &Path) -> anyhow::Result<Self> {
        let settings = file::read(file)?;
        Self::build(settings, file.is_none(), overrides, dir)
    }

    fn build(file: file::File, no_file: bool, overrides: Overrides, dir: &Path) -> anyhow::Result<Self> {
        file.refuse_unsupported()?;
        let plugins = file.plugins()?;
        let file::File {
            listen,
            api,
            shards,
            auth,
            limits,
            heartbeat,
            cors,
            api_keys,
            store,
            socketio,
            recovery,
            shutdown,
            trusted_proxies,
            ..
        } = file;
        let listen = overrides.listen.unwrap_or(listen);
        let api = overrides.api.unwrap_or(api);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = match overrides.shards.unwrap_or(shards) {
            0 => cores,
            shards => shards,
        };
        ensure!(shards <= ConnId::MAX_SHARDS, "shards is {shards}, and may be {}", ConnId::MAX_SHARDS);
        ensure!(limits.message_bytes > 0, "limits.message_bytes must be more than 0");
        ensure!(limits.outbox_bytes > 0, "limits.outbox_bytes must be more than 0");
        ensure!(
            limits.events_per_second == 0 || limits.event_burst > 0,
            "limits.event_burst must be more than 0 where limits.events_per_second is"
        );
        check_duration("heartbeat.interval", heartbeat.interval, Duration::from_millis(10))?;
        check_duration("limits.keep_alive", limits.keep_alive, Duration::from_secs(1))?;
        check_duration("heartbeat.timeout", heartbeat.timeout, Duration::from_millis(10))?;
        check_duration("store.give_up", store.give_up, Duration::from_secs(1))?;
        check_duration("auth.grace", auth.grace, Duration::from_millis(10))?;
        check_duration("socketio.connect_timeout", socketio.connect_timeout, Duration::from_millis(10))?;
        check_duration("recovery.window", recovery.window, Duration::ZERO)?;
        let path = socketio.path.trim_end_matches('/');
        ensure!(
            path.starts_with('/')
                && path.len() > 1
                && !path.contains(['?', '#'])
                && !["/ws", "/healthz", "/readyz"].contains(&path),
            "socketio.path is {:?}, and must be a path of its own like /socket.io/",
            socketio.path
        );
        for namespace in &socketio.namespaces {
            check_namespace(namespace).map_err(|wrong| anyhow!("socketio.namespaces: {wrong}"))?;
        }
        let longest = Duration::from_secs(10);
        ensure!(
            (Duration::from_millis(10)..=longest).contains(&plugins.call_deadline),
            "plugins.call_deadline is {:?}, and must be 10 ms to 10 s",
            plugins.call_deadline
        );
        ensure!(
            heartbeat.timeout > heartbeat.interval,
            "heartbeat.timeout must be longer than heartbeat.interval, or every connection would time out"
        );
        ensure!(
            (65_536..=1 << 32).contains(&plugins.memory_bytes),
            "plugins.memory_bytes is {}, and must be 65536 (one page) to 4294967296",
            plugins.memory_bytes
        );
        for algorithm in &auth.jwt.algorithms {
            ensure!(
                matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512),
                "auth.jwt.algorithms names {algorithm:?}, and this version checks HS256, HS384 and HS512"
            );
        }
        for origin in &cors.origins {
            let is_origin = origin.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.path() == "/");
            ensure!(
                origin == "*" || is_origin && !origin.ends_with('/'),
                "cors.origins has {origin:?}, which is not an origin like https://app.example"
            );
        }

        let generated = secrets::Secrets::new(dir);
        let mut secrets: Vec<String> = auth.jwt.secret.into_iter().chain(auth.jwt.secrets).collect();
        ensure!(!secrets.iter().any(String::is_empty), "auth.jwt.secret must not be empty");
        let mut is_generated = false;
        if secrets.is_empty() && !auth.anonymous {
            secrets.push(generated.jwt_secret()?);
            is_generated = true;
        }
        let mut keys = api_keys.into_iter().map(file::ApiKeySection::into_key).collect::<anyhow::Result<Vec<_>>>()?;
        for (at, key) in keys.iter().enumerate() {
            if let Some(other) = keys[..at].iter().find(|other| other.sha256 == key.sha256) {
                bail!("api_keys: {} and {} are the same key: give each its own", other.name, key.name);
            }
        }
        if keys.is_empty() {
            keys.push(ApiKey::new("generated", &generated.api_key()?, vec![KeyScope::Publish, KeyScope::Admin]));
        }
        let development = no_file && is_generated;
        if development {
            for (name, address) in [("listen", listen), ("api", api)] {
                if !address.ip().is_loopback() {
                    bail!(
                        "without a configuration this is development mode, which is for this machine alone, but {name} is \
                         {address}: configure auth.jwt.secret and api_keys to serve others"
                    );
                }
            }
        }
        let demo_secret = development.then(|| secrets[0].clone());
        Ok(Self {
            listen,
            api,
            shards,
            shutdown: shutdown.check()?,
            conn: ConnConfig {
                message_bytes: limits.message_bytes,
                outbox_bytes: limits.outbox_bytes,
                connections: limits.connections,
                connections_per_user: limits.connections_per_user,
                connections_per_ip: limits.connections_per_ip,
                events_per_second: limits.events_per_second,
                event_burst: limits.event_burst,
                heartbeat_interval: heartbeat.interval,
                heartbeat_timeout: heartbeat.timeout,
                auth_grace: auth.grace,
                connect_timeout: socketio.connect_timeout,
                namespaces: socketio.namespaces,
                recovery_window: recovery.window,
                recovery_bytes: recovery.memory_bytes,
                trusted_proxies,
                keep_alive: limits.keep_alive,
                shutdown_timeout: shutdown.timeout,
            },
            rooms_per_connection: match limits.rooms_per_connection {
                0 => usize::MAX,
                rooms => rooms,
            },
            auth: AuthConfig {
                anonymous: auth.anonymous,
                jwt: JwtConfig {
                    secrets,
                    algorithms: auth.jwt.algorithms,
                    issuer: auth.jwt.issuer,
                    audience: auth.jwt.audience,
                },
            },
            client: ClientConfig {
                cookie: auth.jwt.cookie,
                origins: cors.origins,
                socketio_path: path.to_owned(),
                message_bytes: limits.message_bytes,
                demo_secret,
                is_conformance: false,
            },
            api_access: ApiConfig { keys, keep_alive: limits.keep_alive },
            plugins: PluginConfig {
                threads: if plugins.threads == 0 { cores } else { plugins.threads },
                call_deadline: plugins.call_deadline,
                memory_bytes: plugins.memory_bytes,
                state_bytes: plugins.state_bytes,
                cache_dir: Some(
                    plugins.cache.map_or_else(|| dir.join(PRIVATE_DIR).join("cache"), |path| dir.join(path)),
                ),
                plugins: plugins.plugins,
            },
            store: StoreConfig {
                url: StoreUrl::parse(store.url.as_deref().unwrap_or(DEFAULT_STORE), dir).context("store.url")?,
                journal: store.journal.map_or_else(|| dir.join(PRIVATE_DIR).join("journal"), |path| dir.join(path)),
                give_up: store.give_up,
            },
            plugin_dir: overrides.plugins.unwrap_or_else(|| dir.join(plugins.dir)),
            watch_plugins: plugins.watch,
            development,
        })
    }

    /// The secret to sign tokens with: the first that is configured.
    ///
    /// # Errors
    /// Where there is none.
    pub fn signing_secret(&self) -> anyhow::Result<&str> {
        self.auth
            .jwt
            .secrets
            .first()
            .map(String::as_str)
            .context("auth.jwt.secret is not configured, so that nothing can be signed")
    }

    /// The bundled features that are not switched off.
    pub fn enabled_features(&self) -> impl Iterator<Item = &'static crate::plugin::Bundled> {
        bundled().iter().filter(|feature| self.plugins.plugins.get(feature.name).is_none_or(|options| options.enabled))
    }
}

fn check_duration(name: &str, duration: Duration, least: Duration) -> anyhow::Result<()> {
    let most = Duration::from_secs(24 * 60 * 60);
    ensure!((least..=most).contains(&duration), "{name} is {duration:?}, and must be {least:?} to 1 day");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str) -> anyhow::Result<Config> {
        let dir = std::env::temp_dir().join(format!(
            "roundhouse-config-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&dir).unwrap();
        let config = file::parse(toml, &[]).and_then(|file| Config::build(file, false, Overrides::default(), &dir));
        std::fs::remove_dir_all(&dir).unwrap();
        config
    }

    #[test]
    fn the_defaults_are_those_of_the_manual() {
        let config = load("auth.jwt.secret = \"s\"").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.api.to_string(), "127.0.0.1:8081");
        assert_eq!(config.conn.message_bytes, 1_000_000);
        assert_eq!(config.conn.outbox_bytes, 1_048_576);
        assert_eq!((config.conn.events_per_second, config.conn.event_burst), (50, 200));
        assert_eq!(config.conn.heartbeat_interval, Duration::from_secs(25));
        assert_eq!(config.conn.heartbeat_timeout, Duration::from_secs(60));
        assert_eq!(config.conn.auth_grace, Duration::from_secs(5));
        assert_eq!(config.rooms_per_connection, 1000);
        assert_eq!(config.plugins.call_deadline, Duration::from_millis(50));
        assert_eq!((config.plugins.memory_bytes, config.plugins.state_bytes), (33_554_432, 65_536));
        assert!(config.watch_plugins && !config.development);
        assert_eq!(config.conn.keep_alive, Duration::from_secs(75));
        assert!(config.shutdown.delay.is_zero() && config.shutdown.drain.is_zero());
        assert_eq!(config.conn.shutdown_timeout, Duration::from_secs(10));
    }

    #[test]
    fn each_mistake_is_named_with_its_place() {
        for (toml, said) in [
            ("lissten = \"127.0.0.1:1\"", "lissten"),
            ("lissten = \"127.0.0.1:1\"", "did you mean listen?"),
            ("[limits]\nmessage_byte = 1", "did you mean message_bytes?"),
            ("[plugins]\nwach = true", "did you mean watch?"),
            ("[plugins.x]\nsetings = {}", "did you mean settings?"),
            ("listen = \"here\"", "listen"),
            ("[heartbeat]\ninterval = \"25\"", "heartbeat.interval"),
            ("[heartbeat]\ninterval = \"70s\"", "heartbeat.timeout must be longer"),
            ("trusted_proxies = [\"proxy\"]", "trusted_proxies"),
            ("limits.keep_alive = \"0s\"", "limits.keep_alive"),
            ("shutdown.delay = \"2d\"", "shutdown.delay is 172800s"),
            ("shutdown.drian = \"1s\"", "did you mean drain?"),
            ("[tls]\ncertificate_file = \"a\"", "tls"),
            ("[[rooms]]\npattern = \"a\"\nallow = \"true\"", "rooms"),
            ("[auth.jwt]\njwks_url = \"http://x\"", "auth.jwt.jwks_url"),
            ("[auth.jwt]\nalgorithms = [\"RS256\"]", "RS256"),
            ("[[api_keys]]\nname = \"a\"\nscopes = []", "api_keys"),
            ("[[api_keys]]\nname = \"a\"\nkey = \"k\"\nscopes = [\"root\"]", "root"),
            ("[cors]\norigins = [\"app.example\"]", "cors.origins"),
            ("[plugins.x]\ngrants = { audiences = [\"everyone\"] }", "everyone"),
            ("shards = 1000", "shards"),
            ("[auth.jwt]\nsecret = 12345", "quotes"),
            (
                "[[api_keys]]\nname=\"a\"\nkey=\"k\"\nscopes=[\"admin\"]\n[[api_keys]]\nname=\"b\"\nkey=\"k\"\nscopes=[\"publish\"]",
                "same key",
            ),
        ] {
            let error = format!("{:#}", load(toml).expect_err(toml));
            assert!(error.contains(said), "{toml}: {error}");
            assert!(!error.contains("12345"), "a secret is not repeated: {error}");
        }
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let env = [
            ("ROUNDHOUSE_LIMITS__MESSAGE_BYTES", "77"),
            ("ROUNDHOUSE_HEARTBEAT__INTERVAL", "7s"),
            ("ROUNDHOUSE_PLUGINS__TICKET_COLLISION__SETTINGS", "{typingSeconds=3}"),
            ("ROUNDHOUSE_AUTH__JWT__SECRET", "from-the-environment"),
        ];
        let file = file::parse("[limits]\nmessage_bytes = 5", &env).unwrap();
        let config =
            Config::build(file, true, Overrides::default(), &std::env::temp_dir().join("roundhouse-config-env"))
                .unwrap();
        assert_eq!(config.conn.message_bytes, 77);
        assert_eq!(config.conn.heartbeat_interval, Duration::from_secs(7));
        assert_eq!(config.plugins.plugins["ticket-collision"].settings["typingSeconds"], 3);
        assert_eq!(config.signing_secret().unwrap(), "from-the-environment");
        assert!(!config.development, "somebody configured how to authenticate");
    }
}
