//! Configurations from TOML, environment and command line.

use std::time::Duration;

use super::super::file;
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
fn defaults_match_the_documentation() {
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
fn mistakes_are_named_with_their_place() {
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
        ("[tls]\ncertificate_file = \"a\"", "tls.key_file"),
        ("[auth.session]\ncookie = \"c\"", "auth.session.url"),
        ("[auth.session]\nurl = \"ftp://x\"", "auth.session.url"),
        ("auth.jwt.cookie = \"c\"\n[auth.session]\nurl = \"http://localhost\"\ncookie = \"c\"", "are both"),
        ("[auth.jwt]\njwks_url = \"ftp://x\"", "auth.jwt.jwks_url"),
        ("[auth.jwt]\njwks_url = \"https://u:p@x\"", "auth.jwt.jwks_url"),
        ("[auth.jwt]\nclaims = { id = \"\" }", "auth.jwt.claims.id"),
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
fn cluster_needs_a_database_to_share() {
    let cluster = "auth.jwt.secret = \"s\"\n[cluster]\nredis = \"redis://127.0.0.1\"\n";
    for store in ["", "[store]\nurl = \"sqlite://roundhouse.db\""] {
        let error = format!("{:#}", load(&format!("{cluster}{store}")).unwrap_err());
        assert!(error.contains("store.url is sqlite://") && error.contains("store.url = \"postgres://"), "{error}");
    }
    let shared = load(&format!("{cluster}[store]\nurl = \"postgres://h/d\"")).unwrap();
    assert!(shared.store.is_shared && !load("auth.jwt.secret = \"s\"").unwrap().store.is_shared);
}

#[test]
fn empty_values_are_refused_by_key() {
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
fn empty_variable_leaves_the_files_value() {
    let env = [("ROUNDHOUSE_AUTH__JWT__ISSUER", ""), ("ROUNDHOUSE_PLUGINS__DIR", " ")];
    let file = file::parse("auth.jwt.issuer = \"us\"\nauth.jwt.secret = \"s\"", &env).unwrap();
    let config = Config::build(file, false, Overrides::default(), Path::new("/srv")).unwrap();
    assert_eq!(config.auth.jwt.issuers, ["us"]);
    assert_eq!(config.plugin_dir, Path::new("/srv/plugins.d"));
}

#[test]
fn only_prepare_generates_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::load(None, Overrides::default(), dir.path()).unwrap();
    assert!(config.signing_secret().unwrap_err().to_string().contains("jwt-secret"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    config.prepare().unwrap();
    let secret = config.signing_secret().unwrap();
    assert_eq!(config.client.demo_secret.as_ref(), Some(&secret));
    config.prepare().unwrap();
    assert_eq!((config.auth.jwt.secrets.len(), config.api_access.keys.len()), (1, 1), "nothing is generated twice");
    let again = Config::load(None, Overrides::default(), dir.path()).unwrap();
    assert_eq!(again.signing_secret().unwrap(), secret);
}

#[test]
fn environment_overrides_the_file() {
    let env = [
        ("ROUNDHOUSE_LIMITS__MESSAGE_BYTES", "77"),
        ("ROUNDHOUSE_HEARTBEAT__INTERVAL", "7s"),
        ("ROUNDHOUSE_PLUGINS__TICKET_COLLISION__SETTINGS", "{typingSeconds=3}"),
        ("ROUNDHOUSE_AUTH__JWT__SECRET", "from-the-environment"),
    ];
    let file = file::parse("[limits]\nmessage_bytes = 5", &env).unwrap();
    let config =
        Config::build(file, true, Overrides::default(), &std::env::temp_dir().join("roundhouse-config-env")).unwrap();
    assert_eq!(config.conn.message_bytes, 77);
    assert_eq!(config.conn.heartbeat_interval, Duration::from_secs(7));
    assert_eq!(config.plugins.plugins["ticket-collision"].settings["typingSeconds"], 3);
    assert_eq!(config.signing_secret().unwrap(), "from-the-environment");
    assert!(!config.development, "authentication is configured");
}
