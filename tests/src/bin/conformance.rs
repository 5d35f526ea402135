//! The host for third-party protocol suites: `cargo run --release -p roundhouse-tests --bin conformance -- --port
//! 3000`.
//!
//! The real server with features for such suites (`tests/guests/conformance` and `relay`), anonymous access, no
//! recovery and no rate limits. In addition, `/echo` is a WebSocket that sends back each message, and `/engine.io/`
//! sends back each message of Engine.IO.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use roundhouse::config::{Config, Overrides};
use roundhouse::model::Clock;
use roundhouse::plugin::bundled;
use roundhouse::server::Server;
use roundhouse_tests::guests;
use serde_json::json;

/// The options of the suites.
#[derive(Debug, Parser)]
struct Options {
    /// The port to listen on; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Time between pings, in milliseconds.
    #[arg(long, default_value_t = 300)]
    ping_interval_ms: u64,
    /// Time to answer a ping, in milliseconds.
    #[arg(long, default_value_t = 200)]
    ping_timeout_ms: u64,
    /// The longest message, in bytes.
    #[arg(long, default_value_t = 1_000_000)]
    max_payload: usize,
    /// Time to connect to a first namespace, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    connect_timeout_ms: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir().context("cannot make a temporary folder")?;
    let features = dir.path().join("plugins.d");
    std::fs::create_dir(&features)?;
    std::fs::write(features.join("conformance.wasm"), guests::conformance())?;
    std::fs::write(features.join("relay.wasm"), guests::relay())?;
    let file = dir.path().join("roundhouse.toml");
    std::fs::write(&file, configuration(&options))?;

    let address = |port| Some(([127, 0, 0, 1], port).into());
    let overrides = Overrides { listen: address(options.port), api: address(0), ..Overrides::default() };
    let mut config = Config::load(Some(&file), overrides, dir.path())?;
    config.client.is_conformance = true;
    config.plugins.shows_credentials = true;
    let server = Server::start(config, Clock::system())?;
    let (listening, api) = (format!("ws://{}", server.listening), format!("http://{}", server.api));
    writeln!(std::io::stdout(), "{}", json!({ "listening": listening, "api": api, "pid": std::process::id() }))?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    })?;
    server.shut_down();
    Ok(())
}

fn configuration(options: &Options) -> String {
    let interval = Duration::from_millis(options.ping_interval_ms);
    let timeout = interval + Duration::from_millis(options.ping_timeout_ms);
    let off: String =
        bundled().iter().map(|feature| format!("[plugins.{}]\nenabled = false\n", feature.name)).collect();
    format!(
        r#"
auth.anonymous = true
recovery.window = "0s"
heartbeat.interval = "{}"
heartbeat.timeout = "{}"
socketio.connect_timeout = "{}ms"
[limits]
message_bytes = {}
outbox_bytes = 268435456
events_per_second = 0
rooms_per_connection = 0
user = {{ rooms = 0, scopes = 0 }}
[plugins.conformance]
grants = {{ actions = ["connect"] }}
{off}"#,
        humantime::format_duration(interval),
        humantime::format_duration(timeout),
        options.connect_timeout_ms,
        options.max_payload,
    )
}
