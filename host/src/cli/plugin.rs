//! `roundhouse plugin …`: the API's calls about plugins, from the command line.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Subcommand;
use hyper::Method;
use serde_json::Value;

use super::api_client::ApiArgs;
use super::cases;
use super::component_file::{checked, read};
use super::grants::grants_text;
use super::load_config::load_config;
use super::losses::LossArgs;
use super::output::{print, print_json};
use super::rollout;
use crate::config::Overrides;
use crate::plugin::{Source, inspect};

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// List the plugins of a running host.
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Load a component, or replace the running build of the same plugin.
    Load(rollout::LoadArgs),
    /// Make the candidate of a plugin, a shadow or a canary, the build of all scopes.
    Promote {
        /// The plugin's name.
        name: String,
        #[command(flatten)]
        losses: LossArgs,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print how the candidate of a plugin does that is tried, or was last.
    Rollout {
        /// The plugin's name.
        name: String,
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
    /// Take the generation before into use again; where a candidate is tried, that goes instead.
    Rollback {
        /// The plugin's name.
        name: String,
        /// Go back to the generation of this number.
        #[arg(long, value_name = "GENERATION", value_parser = clap::value_parser!(u64).range(1..))]
        to: Option<u64>,
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
    /// Print what a plugin asks for, is given, and made use of.
    Grants {
        /// The plugin's name.
        name: String,
        /// Print the least grants for what the plugin did, as lines of the configuration.
        #[arg(long)]
        suggest: bool,
        /// Count the uses in so many last events alone. Default: all since the build was loaded.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        last: Option<u64>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// List the events on which a plugin failed, or write them as case files, which `roundhouse replay` reads.
    Cases {
        /// The plugin's name.
        name: String,
        /// Write the case files into this folder.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
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

pub(super) fn run(command: PluginCommand) -> anyhow::Result<()> {
    match command {
        PluginCommand::List { api } => list(&api.call(Method::GET, "/v1/plugins", Bytes::new())?),
        PluginCommand::Load(args) => rollout::load(&args),
        PluginCommand::Promote { name, losses, api } => {
            let path = losses.path(&format!("/v1/plugins/{}/promote", checked(&name)?));
            print_json(&api.call(Method::POST, &path, Bytes::new())?)
        }
        PluginCommand::Rollout { name, api } => rollout::show(&name, &api),
        PluginCommand::Unload { name, api } => {
            print_json(&api.call(Method::DELETE, &format!("/v1/plugins/{}", checked(&name)?), Bytes::new())?)
        }
        PluginCommand::Rollback { name, to, losses, api } => {
            let mut path = losses.path(&format!("/v1/plugins/{}/rollback", checked(&name)?));
            if let Some(generation) = to {
                path += if path.contains('?') { "&" } else { "?" };
                path += &format!("to={generation}");
            }
            print_json(&api.call(Method::POST, &path, Bytes::new())?)
        }
        PluginCommand::Reset { name, losses, api } => {
            let path = losses.path(&format!("/v1/plugins/{}/reset", checked(&name)?));
            print_json(&api.call(Method::POST, &path, Bytes::new())?)
        }
        PluginCommand::Grants { name, suggest, last, api } => {
            let last = last.map(|last| format!("?last={last}")).unwrap_or_default();
            let path = format!("/v1/plugins/{}/grants{last}", checked(&name)?);
            print(&grants_text(&api.call(Method::GET, &path, Bytes::new())?, suggest)?)
        }
        PluginCommand::Cases { name, out, api } => {
            let cases = api.call(Method::GET, &format!("/v1/plugins/{}/cases", checked(&name)?), Bytes::new())?;
            cases::list(&name, &cases, out.as_deref())
        }
        PluginCommand::Inspect { file, config } => print_json(&inspect_file(&read(&file)?, config.as_deref())?),
    }
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
        for behind in plugin["behind"].as_array().into_iter().flatten() {
            let (name, node) = (text("name"), behind["node"].as_str().unwrap_or_default());
            let runs = match behind["generation"].as_u64() {
                Some(generation) => format!("is at generation {generation}"),
                None => "does not run it".to_owned(),
            };
            let why = behind["message"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            notes += &format!("{name}: the node {node} {runs}{why}\n");
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
