//! The command line.

mod api_client;
mod cases;
mod component_file;
mod explain;
mod grants;
mod load_config;
mod logs;
mod losses;
mod memory;
mod output;
mod plugin;
mod rollout;
mod scope;
mod serve;
mod signals;
mod why;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use serde_json::{Map, Value};

use self::load_config::load_config;
use self::logs::Log;
use self::output::print;
use crate::auth::{Claims, sign};
use crate::config::{Address, LogFormat, Overrides};
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
        /// Print what the room policy says of a token's user and a room, and why. The token `-` is read from standard
        /// input, where other users of the machine do not see it.
        #[arg(long, num_args = 2, value_names = ["TOKEN", "ROOM"])]
        explain: Option<Vec<String>>,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        overrides: OverrideArgs,
        #[command(flatten)]
        logs: LogArgs,
    },
    /// Print a token for a user, signed with the configured secret.
    Token(TokenArgs),
    /// Manage the plugins of a running host, or look into a component.
    Plugin {
        #[command(subcommand)]
        command: plugin::PluginCommand,
    },
    /// Record what a plugin of a running host gets, and what it makes of it, for `roundhouse replay`.
    Record {
        /// The plugin's name.
        #[arg(long, value_name = "NAME")]
        plugin: String,
        /// The file to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The most events, up to 10000.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        events: u32,
        /// The most seconds, up to 60.
        #[arg(long, value_name = "N", default_value_t = 10)]
        seconds: u32,
        #[command(flatten)]
        api: api_client::ApiArgs,
    },
    /// Print a scope of a running host and its recent events: its state now or before, and what another build would have done.
    Scope(scope::ScopeArgs),
    /// Print what clients of a running host were sent lately, and which build, event and scope it comes from.
    Why(why::WhyArgs),
    /// Have a component handle the events of a case file or a recording, and print what it makes of them. Needs no running host.
    Replay {
        /// The file: see `roundhouse plugin cases` and `roundhouse record`.
        file: PathBuf,
        /// The component.
        #[arg(long, value_name = "FILE")]
        plugin: PathBuf,
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
    /// Address or host name for clients, and a port; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<Address>,
    /// Address or host name of the API, and a port; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    api: Option<Address>,
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
    #[command(flatten)]
    logs: LogArgs,
}

#[derive(Debug, Args)]
struct LogArgs {
    /// How log lines are written to standard error: text unless the configuration's log_format says otherwise. RUST_LOG
    /// says which lines.
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
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

/// Runs the command line. Exit codes: 0 done, 1 failed, 2 wrong usage.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            logs::misused(&error, requested_format(std::env::args_os()));
            return ExitCode::from(error.exit_code().clamp(0, 2) as u8);
        }
    };
    let command = cli.command.unwrap_or(Command::Serve(cli.serve));
    let format = match &command {
        Command::Serve(ServeArgs { config, logs, .. }) | Command::Check { config, logs, .. } => {
            logs.log_format.unwrap_or_else(|| LogFormat::configured(config.config.as_deref()))
        }
        // These commands are run by people, or for their standard output.
        Command::Token(_)
        | Command::Plugin { .. }
        | Command::Record { .. }
        | Command::Scope(_)
        | Command::Why(_)
        | Command::Replay { .. }
        | Command::Store { .. } => LogFormat::Text,
    };
    // Besides their output, commands other than `serve` log only warnings and errors.
    let level = if matches!(command, Command::Serve(_)) { "info" } else { "warn" };
    let log = Log::start(format, level);
    let done = match command {
        Command::Serve(args) => serve::serve(args.config.config.as_deref(), args.overrides.into()),
        Command::Check { explain, config, overrides, .. } => match explain.as_deref() {
            Some([token, room]) => explain::explain(config.config.as_deref(), overrides.into(), token, room),
            _ => serve::check(config.config.as_deref(), overrides.into()),
        },
        Command::Token(args) => token(args),
        Command::Plugin { command } => plugin::run(command),
        Command::Record { plugin, out, events, seconds, api } => cases::record(&api, &plugin, (events, seconds), &out),
        Command::Why(args) => why::why(&args),
        Command::Scope(args) => scope::scope(&args),
        Command::Replay { file, plugin } => cases::replay_file(&file, &plugin),
        Command::Store { command: StoreCommand::Schema { role } } => print(&postgres_schema(role.as_deref())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.failed(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl From<OverrideArgs> for Overrides {
    fn from(args: OverrideArgs) -> Self {
        Self { listen: args.listen, api: args.api, plugins: args.plugins, shards: args.shards }
    }
}

/// The log format that a malformed command line asks for.
fn requested_format(args: impl Iterator<Item = OsString>) -> LogFormat {
    let args: Vec<_> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let is_json = args.iter().any(|arg| arg == "--log-format=json")
        || args.windows(2).any(|pair| pair[0] == "--log-format" && pair[1] == "json");
    if is_json { LogFormat::Json } else { LogFormat::configured(None) }
}

fn token(args: TokenArgs) -> anyhow::Result<()> {
    let config = load_config(args.config.config.as_deref(), Overrides::default())?;
    anyhow::ensure!(
        crate::model::is_valid_id(&args.user),
        "the user id must be 1 to 128 printable characters without whitespace"
    );
    let expires = SystemTime::now().checked_add(args.ttl).context("--ttl is longer than time is reckoned")?;
    let mut other: Map<String, Value> = args.claims.into_iter().collect();
    for (claim, value) in [("iss", config.auth.jwt.issuers.first()), ("aud", config.auth.jwt.audiences.first())] {
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
    let token = sign(&claims, &config.signing_secret()?).context("cannot sign the token")?;
    print(&format!("{token}\n"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        let cli = Cli::try_parse_from(["roundhouse", "--listen", "127.0.0.1:0", "--shards", "2"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.overrides.shards, Some(2));
        assert!(Cli::try_parse_from(["roundhouse", "plugin", "load", "x.wasm", "--key", "k"]).is_ok());
        assert!(Cli::try_parse_from(["roundhouse", "token"]).is_err());
    }

    #[test]
    fn claim_option_takes_a_name_and_json() {
        assert_eq!(parse_claim("team={\"id\":5}").unwrap().1["id"], 5);
        for bad in ["team", "team=blue", "sub=1"] {
            assert!(parse_claim(bad).is_err(), "{bad}");
        }
    }
}
