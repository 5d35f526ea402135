//! Configuration: a TOML file and the environment, checked, and turned into what each part of the host wants to know.

mod address;
mod budget;
mod environment;
mod explain;
mod file;
mod front;
mod log;
mod prepare;
mod private;
mod secret_file;
mod secrets;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use jsonwebtoken::Algorithm;

use crate::auth::{AuthConfig, JwtConfig};
use crate::conn::ConnConfig;

use crate::api::{ApiConfig, ConfigFile};
use crate::conn::{AllowedOrigin, ClientBundle, ClientConfig};
use crate::model::ConnId;
use crate::plugin::{PluginConfig, bundled, check_namespace};
use crate::store::{StoreConfig, StoreUrl};
use prepare::Needs;
use secrets::Secrets;

pub use address::Address;
pub use budget::Budgets;
pub use front::ShutdownConfig;
pub use log::LogFormat;
pub use secrets::PRIVATE_DIR;

/// The name that configuration files usually have. It is not read by itself.
pub const USUAL_FILE: &str = "roundhouse.toml";

/// The store, where none is configured.
const DEFAULT_STORE: &str = "sqlite://roundhouse.db";

/// What the command line may set, over file and environment.
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
    /// How the host ends.
    pub shutdown: ShutdownConfig,
    /// Connections.
    pub conn: ConnConfig,
    /// The most rooms that one connection may be in.
    pub rooms_per_connection: usize,
    /// What each user, or network of the anonymous, may make the host hold, and each API key.
    pub budgets: Budgets,
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
    /// Where secrets are that are generated in place of configured ones.
    generated: Secrets,
    needs: Needs,
}

impl Config {
    /// Reads the configuration: defaults, then the file, then the environment, then the command line. Secrets that are
    /// not configured are taken from `.roundhouse` under `dir`, if they were generated before. Nothing is made:
    /// [`Config::prepare`] does that.
    ///
    /// # Errors
    /// With what is wrong, and where.
    pub fn load(file: Option<&Path>, overrides: Overrides, dir: &Path) -> anyhow::Result<Self> {
        // Read before the settings are: a change that comes between the two is noticed, not missed.
        let in_use = file.and_then(ConfigFile::read);
        let settings = file::read(file)?;
        let mut config = Self::build(settings, file.is_none(), overrides, dir)?;
        config.api_access.file = in_use;
        Ok(config)
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
        let listen = overrides.listen.unwrap_or(listen).resolve().context("listen")?;
        let api = overrides.api.unwrap_or(api).resolve().context("api")?;
        let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
        ensure!(
            !overrides.plugins.as_ref().is_some_and(is_empty),
            "--plugins is empty: name a folder, or leave it out"
        );
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
        ensure!(
            limits.event_burst_per_user != Some(0) || limits.events_per_second_per_user == Some(0),
            "limits.event_burst_per_user must be more than 0 where limits.events_per_second_per_user is"
        );
        check_duration("heartbeat.interval", heartbeat.interval, Duration::from_millis(10))?;
        check_duration("limits.keep_alive", limits.keep_alive, Duration::from_secs(1))?;
        check_duration("heartbeat.timeout", heartbeat.timeout, Duration::from_millis(10))?;
        check_duration("store.give_up", store.give_up, Duration::from_secs(1))?;
        check_duration("auth.grace", auth.grace, Duration::from_millis(10))?;
        check_duration("socketio.connect_timeout", socketio.connect_timeout, Duration::from_millis(10))?;
        check_duration("auth.jwt.leeway", auth.jwt.leeway, Duration::ZERO)?;
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
        check_plugin_bounds("plugins", Some(plugins.call_deadline), Some(plugins.memory_bytes))?;
        for (name, options) in &plugins.plugins {
            check_plugin_bounds(&format!("plugins.{name}"), options.call_deadline, options.memory_bytes)?;
        }
        ensure!(
            heartbeat.timeout > heartbeat.interval,
            "heartbeat.timeout must be longer than heartbeat.interval, or every connection would time out"
        );
        for algorithm in &auth.jwt.algorithms {
            ensure!(
                matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512),
                "auth.jwt.algorithms names {algorithm:?}, and this version checks HS256, HS384 and HS512"
            );
        }
        let origins = allowed_origins(&cors.origins)?;
        if auth.jwt.cookie.is_some() && !origins.iter().all(AllowedOrigin::is_named) {
            tracing::warn!(
                "cors.origins has \"*\" or \"null\", which count for tokens alone and not for auth.jwt.cookie, or any site \
                 could connect as its visitors: list the origins whose pages connect with the cookie"
            );
        }

        let store_url = store.url(dir)?;
        let generated = Secrets::new(dir);
        let secrets = auth.jwt.all_secrets(dir)?;
        let key_of = |section: file::ApiKeySection| section.into_key(dir);
        let keys = api_keys.into_iter().map(key_of).collect::<anyhow::Result<Vec<_>>>()?;
        let needs = Needs { jwt_secret: secrets.is_empty() && !auth.anonymous, api_key: keys.is_empty() };
        for (at, key) in keys.iter().enumerate() {
            if let Some(other) = keys[..at].iter().find(|other| other.sha256 == key.sha256) {
                bail!("api_keys: {} and {} are the same key: give each its own", other.name, key.name);
            }
        }
        let development = no_file && needs.jwt_secret;
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
                user_overflow: limits.user_overflow,
                connections_per_ip: limits.connections_per_ip,
                counts_anonymous: auth.anonymous,
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
                unfinished_bytes: limits.unfinished_bytes()?,
                keep_alive: limits.keep_alive,
                shutdown_timeout: shutdown.timeout,
            },
            rooms_per_connection: match limits.rooms_per_connection {
                0 => usize::MAX,
                rooms => rooms,
            },
            budgets: Budgets::of(limits.user, limits.service)?,
            auth: AuthConfig {
                anonymous: auth.anonymous,
                jwt: JwtConfig {
                    secrets,
                    algorithms: auth.jwt.algorithms,
                    issuer: auth.jwt.issuer,
                    audience: auth.jwt.audience,
                    leeway: auth.jwt.leeway,
                },
            },
            client: ClientConfig {
                cookie: auth.jwt.cookie,
                origins,
                socketio_path: path.to_owned(),
                bundle: ClientBundle::read(&socketio.client, dir)
                    .map_err(|wrong| anyhow!("socketio.client: {wrong}"))?,
                message_bytes: limits.message_bytes,
                demo_secret: None,
                is_conformance: false,
            },
            api_access: ApiConfig {
                keys,
                file: None,
                keep_alive: limits.keep_alive,
                memory_bytes: limits.api_bytes()?,
            },
            plugins: PluginConfig {
                threads: if plugins.threads == 0 { cores } else { plugins.threads },
                call_deadline: plugins.call_deadline,
                memory_bytes: plugins.memory_bytes,
                state_bytes: plugins.state_bytes,
                cache_dir: Some(
                    plugins.cache.map_or_else(|| dir.join(PRIVATE_DIR).join("cache"), |path| dir.join(path)),
                ),
                components_dir: Some(
                    plugins.components.map_or_else(|| dir.join(PRIVATE_DIR).join("components"), |path| dir.join(path)),
                ),
                is_read_only: false,
                shows_credentials: false,
                senders: limits.of_senders(),
                plugins: plugins.plugins,
            },
            store: StoreConfig {
                url: StoreUrl::parse(store_url.as_deref().unwrap_or(DEFAULT_STORE), dir).context("store.url")?,
                journal: store.journal.map_or_else(|| dir.join(PRIVATE_DIR).join("journal"), |path| dir.join(path)),
                give_up: store.give_up,
            },
            plugin_dir: overrides.plugins.unwrap_or_else(|| dir.join(plugins.dir)),
            watch_plugins: plugins.watch,
            development,
            generated,
            needs,
        })
    }

    /// The bundled features that are not switched off.
    pub fn enabled_features(&self) -> impl Iterator<Item = &'static crate::plugin::Bundled> {
        bundled().iter().filter(|feature| self.plugins.plugins.get(feature.name).is_none_or(|options| options.enabled))
    }
}

fn allowed_origins(origins: &[String]) -> anyhow::Result<Vec<AllowedOrigin>> {
    let parse = |origin: &String| {
        AllowedOrigin::parse(origin)
            .map_err(|wrong| anyhow!("cors.origins has {origin:?}, which no page can have: {wrong}"))
    };
    origins.iter().map(parse).collect()
}

fn check_duration(name: &str, duration: Duration, least: Duration) -> anyhow::Result<()> {
    let most = Duration::from_secs(24 * 60 * 60);
    ensure!((least..=most).contains(&duration), "{name} is {duration:?}, and must be {least:?} to 1 day");
    Ok(())
}

fn check_plugin_bounds(section: &str, deadline: Option<Duration>, memory_bytes: Option<usize>) -> anyhow::Result<()> {
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
        assert_eq!((config.conn.unfinished_bytes, config.api_access.memory_bytes), (67_108_864, 134_217_728));
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
            ("limits.unfinished_bytes = 1000000", "limits.unfinished_bytes is 1000000"),
            ("[limits]\nmessage_bytes = 50000000\nunfinished_bytes = 67108864", "limits.unfinished_bytes"),
            ("limits.api_bytes = 1", "limits.api_bytes is 1"),
            ("shutdown.delay = \"2d\"", "shutdown.delay is 172800s"),
            ("shutdown.drian = \"1s\"", "did you mean drain?"),
            ("[tls]\ncertificate_file = \"a\"", "tls"),
            ("[[rooms]]\npattern = \"a\"\nallow = \"true\"", "rooms"),
            ("[auth.jwt]\njwks_url = \"http://x\"", "auth.jwt.jwks_url"),
            ("[auth.jwt]\nalgorithms = [\"RS256\"]", "RS256"),
            ("[[api_keys]]\nname = \"a\"\nscopes = []", "api_keys"),
            ("[[api_keys]]\nname = \"a\"\nkey = \"k\"\nscopes = [\"root\"]", "root"),
            ("[cors]\norigins = [\"app.example\"]", "cors.origins"),
            ("[cors]\norigins = [\"https://app.example/\"]", "write https://app.example"),
            ("[auth.jwt]\nleeway = \"2d\"", "auth.jwt.leeway"),
            ("[auth.jwt]\nsecret = \"s\"\nsecret_file = \"f\"", "both"),
            ("[store]\nurl_file = \"/no/such/file\"", "store.url_file"),
            ("log_format = \"xml\"", "log_format"),
            ("port = 8080", "did you mean listen?"),
            ("[plugins.x]\ngrants = { audiences = [\"everyone\"] }", "everyone"),
            ("shards = 1000", "shards"),
            ("[auth.jwt]\nsecret = 12345", "quotes"),
            ("[auth.jwt]\nsecret = \"12345", "line 2, column"),
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
    fn an_empty_value_is_refused_by_its_key() {
        for (toml, key) in [
            ("[auth.jwt]\nsecret = \"\"", "auth.jwt.secret"),
            ("[auth.jwt]\nsecret_file = \"\"", "auth.jwt.secret_file"),
            ("[auth.jwt]\nsecrets = [\"a\", \"\"]", "auth.jwt.secrets"),
            ("[auth.jwt]\nissuer = \"\"", "auth.jwt.issuer"),
            ("[auth.jwt]\naudience = \" \"", "auth.jwt.audience"),
            ("[auth.jwt]\ncookie = \"\"", "auth.jwt.cookie"),
            ("[auth.jwt]\ncookie = \"a b\"", "auth.jwt.cookie"),
            ("[plugins]\ndir = \"\"", "plugins.dir"),
            ("[plugins]\ncache = \"\"", "plugins.cache"),
            ("[store]\nurl = \"\"", "store.url"),
            ("[store]\nurl_file = \"\"", "store.url_file"),
            ("[store]\njournal = \"\"", "store.journal"),
            ("[socketio]\npath = \"\"", "socketio.path"),
            ("[socketio]\nnamespaces = [\"\"]", "socketio.namespaces"),
            ("[cors]\norigins = [\"\"]", "cors.origins"),
            ("listen = \"\"", "listen"),
            ("log_format = \"\"", "log_format"),
            ("[[api_keys]]\nname = \"\"\nkey = \"k\"\nscopes = [\"admin\"]", "api_keys"),
            ("[[api_keys]]\nname = \"a\"\nkey = \"\"\nscopes = [\"admin\"]", "api_keys"),
        ] {
            let error = format!("{:#}", load(toml).expect_err(toml));
            assert!(error.contains(key), "{toml}: {error}");
        }
        let plugins = Some(PathBuf::new());
        let built = file::parse("", &[])
            .and_then(|file| Config::build(file, false, Overrides { plugins, ..Overrides::default() }, Path::new(".")));
        assert!(built.unwrap_err().to_string().contains("--plugins"));
    }

    #[test]
    fn an_empty_variable_leaves_the_file_s_value() {
        let env = [("ROUNDHOUSE_AUTH__JWT__ISSUER", ""), ("ROUNDHOUSE_PLUGINS__DIR", " ")];
        let file = file::parse("auth.jwt.issuer = \"us\"\nauth.jwt.secret = \"s\"", &env).unwrap();
        let config = Config::build(file, false, Overrides::default(), Path::new("/srv")).unwrap();
        assert_eq!(config.auth.jwt.issuer.as_deref(), Some("us"));
        assert_eq!(config.plugin_dir, Path::new("/srv/plugins.d"));
    }

    #[test]
    fn nothing_is_made_before_it_is_prepared() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::load(None, Overrides::default(), dir.path()).unwrap();
        assert!(config.signing_secret().unwrap_err().to_string().contains("jwt-secret"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        config.prepare().unwrap();
        let secret = config.signing_secret().unwrap();
        assert_eq!(config.client.demo_secret.as_ref(), Some(&secret));
        config.prepare().unwrap();
        assert_eq!((config.auth.jwt.secrets.len(), config.api_access.keys.len()), (1, 1), "once is enough");
        let again = Config::load(None, Overrides::default(), dir.path()).unwrap();
        assert_eq!(again.signing_secret().unwrap(), secret);
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
