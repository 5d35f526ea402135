//! `roundhouse plugin …`: the API's calls about plugins, from the command line.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::load_config::load_config;
use super::output::{print, print_json};
use crate::config::{Address, Overrides, PRIVATE_DIR};
use crate::plugin::{Source, digest, inspect};

/// Timeout of a call: on a busy machine a component compiles for up to five minutes, and may wait for another
/// compilation.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// List the plugins of a running host.
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Load a component, or replace the running build of the same plugin.
    Load {
        /// The component.
        file: PathBuf,
        #[command(flatten)]
        losses: LossArgs,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Unload a plugin. It stays unloaded over a restart, until it is loaded or reset.
    Unload {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Take the generation before into use again.
    Rollback {
        /// The plugin's name.
        name: String,
        #[command(flatten)]
        losses: LossArgs,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Go back to the build that is part of the host.
    Reset {
        /// The plugin's name.
        name: String,
        #[command(flatten)]
        losses: LossArgs,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print what a component says about itself. Needs no running host.
    Inspect {
        /// The component.
        file: PathBuf,
        /// Configuration whose grants and settings are to be checked.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct LossArgs {
    /// Go on though states are lost that the build cannot take over.
    #[arg(long)]
    lose_writes: bool,
}

impl LossArgs {
    /// The path of a call, with `loseWrites` where states may be lost.
    fn path(&self, path: &str) -> String {
        if self.lose_writes { format!("{path}?loseWrites=true") } else { path.to_owned() }
    }
}

#[derive(Debug, Args)]
pub(super) struct ApiArgs {
    /// The host's API: an address or a host name, and a port; http:// may stand before it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081", value_parser = parse_api)]
    api: Address,
    /// API key with the scope admin. Default: the one in .roundhouse/api-key.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

fn parse_api(text: &str) -> Result<Address, String> {
    if text.starts_with("https://") {
        return Err("the API is plain HTTP: give its own address as host:port, not that of a proxy with TLS".to_owned());
    }
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    address.parse().map_err(|error| format!("{error}: it is an address or a host name, and a port, as 127.0.0.1:8081"))
}

pub(super) fn run(command: PluginCommand) -> anyhow::Result<()> {
    match command {
        PluginCommand::List { api } => list(&api.call(Method::GET, "/v1/plugins", Bytes::new())?),
        PluginCommand::Load { file, losses, api } => {
            let loaded = api.call(Method::POST, &losses.path("/v1/plugins"), read(&file)?.into())?;
            if loaded["unchanged"] == true {
                eprint("this component runs already, and nothing has changed: settings are read when the host starts");
            }
            if let Some(warning) = loaded["warning"].as_str() {
                eprint(warning);
            }
            print_json(&loaded)
        }
        PluginCommand::Unload { name, api } => {
            print_json(&api.call(Method::DELETE, &format!("/v1/plugins/{}", checked(&name)?), Bytes::new())?)
        }
        PluginCommand::Rollback { name, losses, api } => {
            let path = losses.path(&format!("/v1/plugins/{}/rollback", checked(&name)?));
            print_json(&api.call(Method::POST, &path, Bytes::new())?)
        }
        PluginCommand::Reset { name, losses, api } => {
            let path = losses.path(&format!("/v1/plugins/{}/reset", checked(&name)?));
            print_json(&api.call(Method::POST, &path, Bytes::new())?)
        }
        PluginCommand::Inspect { file, config } => print_json(&inspect_file(&read(&file)?, config.as_deref())?),
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    // The host has a bound of its own; this one keeps a device or a disk image from filling memory.
    const MOST_BYTES: u64 = 1 << 30;
    let mut component = Vec::new();
    let read = fs::File::open(file).and_then(|open| open.take(MOST_BYTES + 1).read_to_end(&mut component));
    read.with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(component.len() as u64 <= MOST_BYTES, "{} is larger than {MOST_BYTES} bytes", file.display());
    Ok(component)
}

fn checked(name: &str) -> anyhow::Result<&str> {
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    ensure!(is_name, "a plugin's name is lower-case letters, digits and hyphens");
    Ok(name)
}

/// Inspects a component. Without a configuration it gets all grants that it requests, so that every component can be
/// inspected.
fn inspect_file(component: &[u8], config: Option<&Path>) -> anyhow::Result<crate::plugin::Inspection> {
    let settings = crate::plugin::PluginConfig::default();
    let (mut plugins, source) = match config {
        Some(_) => (load_config(config, Overrides::default())?.plugins, Source::Folder),
        None => (settings, Source::Bundled),
    };
    // An inspection writes nothing.
    plugins.is_read_only = true;
    inspect(component, source, &plugins)
        .map_err(|error| anyhow::anyhow!("refused at the step {:?}: {error}", error.step))
}

/// Writes a line for people to standard error. Failures are ignored.
fn eprint(line: &str) {
    let _ = writeln!(std::io::stderr(), "roundhouse: {line}");
}

fn list(answer: &Value) -> anyhow::Result<()> {
    let plugins = answer["plugins"].as_array().context("the host's answer is not a list of plugins")?;
    let mut table = format!(
        "{:<24} {:<12} {:>10}  {:<12} {:<8} {:<12} {:>10} {:>6}\n",
        "NAME", "VERSION", "GENERATION", "DIGEST", "SOURCE", "STATE", "CALLS", "TRAPS"
    );
    let mut notes = String::new();
    for plugin in plugins {
        let text = |key: &str| plugin[key].as_str().unwrap_or_default();
        let number = |key: &str| plugin[key].as_u64().unwrap_or_default();
        table += &format!(
            "{:<24} {:<12} {:>10}  {:<12.12} {:<8} {:<12} {:>10} {:>6}\n",
            text("name"),
            text("version"),
            number("generation"),
            text("digest"),
            text("source"),
            text("state"),
            number("calls"),
            number("traps")
        );
        if text("state") == "failed" {
            notes += &format!("{}: {}\n", text("name"), plugin["errors"][0]["message"].as_str().unwrap_or_default());
        }
        if let Some(newer) = plugin["newerBundled"].as_str() {
            let name = text("name");
            notes +=
                &format!("{name}: the host has the newer build {newer}: `roundhouse plugin reset {name}` takes it\n");
        }
    }
    if let Some(notice) = answer["notice"].as_str() {
        notes += &format!("{notice}\n");
    }
    if !notes.is_empty() {
        table += &format!("\n{notes}");
    }
    print(&table)
}

impl ApiArgs {
    fn key(&self) -> anyhow::Result<String> {
        if let Some(key) = &self.key {
            ensure!(
                !key.is_empty(),
                "--key is empty: give a key, or leave it out to take the one in {PRIVATE_DIR}/api-key"
            );
            return Ok(key.clone());
        }
        let path = Path::new(PRIVATE_DIR).join("api-key");
        let key = fs::read_to_string(&path);
        Ok(key.with_context(|| format!("no --key was given, and {} cannot be read", path.display()))?.trim().to_owned())
    }

    fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.api.to_string())
            .header("authorization", format!("Bearer {}", self.key()?))
            .header("x-content-sha256", digest(&body))
            .body(Full::new(body))?;
        tokio.block_on(async {
            tokio::time::timeout(CALL_TIMEOUT, self.send(request)).await.context("the host did not answer in time")?
        })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
        let socket = TcpStream::connect(self.api.to_string());
        let socket =
            socket.await.with_context(|| format!("cannot reach a host's API at {}: does it run there?", self.api))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.context("the host did not answer")?;
        let status = response.status();
        let body = response.into_body().collect().await.context("the host's answer broke off")?.to_bytes();
        connection.abort();
        let answer: Value =
            serde_json::from_slice(&body).context("the host's answer is not JSON: is this the API's address?")?;
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer["message"].as_str().unwrap_or("no reason given");
        match answer["step"].as_str() {
            Some(step) => bail!("refused at the step {step}: {message}"),
            None => bail!("{message} ({status})"),
        }
    }
}
