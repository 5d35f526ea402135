//! The command line.

mod plugin;
mod serve;

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing_subscriber::EnvFilter;

use crate::auth::{Claims, sign};
use crate::config::{Config, Overrides};
use crate::store::postgres_schema;

/// A realtime host: it owns the connections, WebAssembly components decide what happens on them.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients and the API (the default).
    Serve(ServeArgs),
    /// Validate configuration and plugins, and print what would run.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        overrides: OverrideArgs,
    },
    /// Print a token for a user, signed with the configured secret.
    Token(TokenArgs),
    /// Manage the plugins of a running host, or look into a component.
    Plugin {
        #[command(subcommand)]
        command: plugin::PluginCommand,
    },
    /// Prepare the database.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Print the SQL statements that make the tables in PostgreSQL, or bring those of an older host up to date. Needs no
    /// database.
    Schema {
        /// The role that the host connects as, which is granted what a host needs and no more.
        #[arg(long, value_name = "NAME")]
        role: Option<String>,
    },
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file (TOML). Without one, and without ROUNDHOUSE_… variables: development mode.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct OverrideArgs {
    /// Address for clients; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address of the API; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    api: Option<SocketAddr>,
    /// Plugin folder.
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Shard threads; 0 is one per core.
    #[arg(long, value_name = "N")]
    shards: Option<usize>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    overrides: OverrideArgs,
    /// How log lines are written to standard error. RUST_LOG says which.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Args)]
struct TokenArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The user's id.
    #[arg(long, value_name = "ID")]
    user: String,
    /// The display name.
    #[arg(long, value_name = "N")]
    name: Option<String>,
    /// A role; may be repeated.
    #[arg(long = "role", value_name = "R")]
    roles: Vec<String>,
    /// Another claim, as JSON; may be repeated.
    #[arg(long = "claim", value_name = "K=JSON", value_parser = parse_claim)]
    claims: Vec<(String, Value)>,
    /// How long the token is valid.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("a claim is written as name=JSON")?;
    if matches!(name, "sub" | "name" | "roles" | "exp") {
        return Err(format!("{name} has an option of its own"));
    }
    let value = serde_json::from_str(value).map_err(|error| format!("the value of {name} is not JSON: {error}"))?;
    Ok((name.to_owned(), value))
}

/// Does what the command line says. Exit codes: 0 done, 1 failed, 2 wrong usage.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Serve(cli.serve));
    let log_format = match &command {
        Command::Serve(args) => args.log_format,
        _ => LogFormat::Text,
    };
    // Whoever runs a single command wants its answer, and of the rest only what is wrong.
    let level = if matches!(command, Command::Serve(_)) { "info" } else { "warn" };
    init_logs(log_format, level);
    let done = match command {
        Command::Serve(args) => serve::serve(args.config.config.as_deref(), args.overrides.into()),
        Command::Check { config, overrides } => serve::check(config.config.as_deref(), overrides.into()),
        Command::Token(args) => token(args),
        Command::Plugin { command } => plugin::run(command),
        Command::Store { command: StoreCommand::Schema { role } } => print(&postgres_schema(role.as_deref())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell if this cannot be written.
            let _ = writeln!(std::io::stderr(), "roundhouse: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl From<OverrideArgs> for Overrides {
    fn from(args: OverrideArgs) -> Self {
        Self { listen: args.listen, api: args.api, plugins: args.plugins, shards: args.shards }
    }
}

fn init_logs(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // It would report a log that cannot be written by writing to it, and panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}

fn token(args: TokenArgs) -> anyhow::Result<()> {
    let config = load_config(args.config.config.as_deref(), Overrides::default())?;
    anyhow::ensure!(
        crate::model::is_valid_id(&args.user),
        "the user id must be 1 to 128 printable characters without whitespace"
    );
    let expires = SystemTime::now().checked_add(args.ttl).context("--ttl is longer than time is reckoned")?;
    let mut other: Map<String, Value> = args.claims.into_iter().collect();
    for (claim, value) in [("iss", &config.auth.jwt.issuer), ("aud", &config.auth.jwt.audience)] {
        if let Some(value) = value {
            other.entry(claim).or_insert_with(|| value.clone().into());
        }
    }
    let claims = Claims {
        sub: args.user,
        name: args.name,
        roles: args.roles,
        exp: Some(expires.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64().floor()),
        other,
    };
    let token = sign(&claims, config.signing_secret()?).context("cannot sign the token")?;
    print(&format!("{token}\n"))
}

fn load_config(file: Option<&Path>, overrides: Overrides) -> anyhow::Result<Config> {
    let dir = std::env::current_dir().context("the current folder is gone")?;
    Config::load(file, overrides, &dir)
}

/// Writes to standard output, where a closed pipe is an error like any other.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serving_needs_no_command() {
        let cli = Cli::try_parse_from(["roundhouse", "--listen", "127.0.0.1:0", "--shards", "2"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.overrides.shards, Some(2));
        assert!(Cli::try_parse_from(["roundhouse", "plugin", "load", "x.wasm", "--key", "k"]).is_ok());
        assert!(Cli::try_parse_from(["roundhouse", "token"]).is_err());
    }

    #[test]
    fn a_claim_is_json() {
        assert_eq!(parse_claim("team={\"id\":5}").unwrap().1["id"], 5);
        for bad in ["team", "team=blue", "sub=1"] {
            assert!(parse_claim(bad).is_err(), "{bad}");
        }
    }
}
