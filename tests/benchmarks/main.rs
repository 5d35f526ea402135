//! Roundhouse and its peers, measured in one run on one machine: `cargo bench -p roundhouse-tests`. See `README.md`
//! here.
//!
//! # Layout
//! - `options`: the command line; `bench`: the state that the workloads share
//! - `servers`: how servers are built and started; `process`: a server on its core; `floor`: the least work of a server
//! - `wire`: each server's protocol; `generator`: all clients, on one thread
//! - `audience`: members and publishers, and the ways to load them
//! - `throughput`, `idle`, `plugin`, `chat`, `growth`: the workloads
//! - `report`: figures, tables in Markdown, JSON; `goals`: the goals that are met; `plot`: bars and curves

mod audience;
mod bench;
mod chat;
mod client;
mod floor;
mod generator;
mod goals;
mod growth;
mod idle;
mod options;
mod plot;
mod plugin;
mod process;
mod report;
mod servers;
mod throughput;
mod wire;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser as _;
use roundhouse_tests::bench::say;

use bench::Bench;
use generator::Generator;
use options::Options;
use report::Report;
use servers::prepare;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(merging) = options.floor {
        return floor::run(merging);
    }
    let field = prepare(&options)?;
    process::prepare()?;
    let mut bench = Bench { report: Report::new(&field)?, generator: Generator::new()?, field, options };
    let outcome = run(&mut bench);
    // The figures so far are written although a workload has failed.
    let Bench { report, options, .. } = bench;
    let tables = report.to_markdown();
    say(&format!("\n{tables}"))?;
    let path = |path: Option<PathBuf>, name| path.unwrap_or_else(|| roundhouse_tests::target_dir().join(name));
    write(&path(options.tables, "benchmarks.md"), tables.as_bytes())?;
    write(&path(options.json, "benchmarks.json"), &serde_json::to_vec_pretty(&report.to_json())?)?;
    write(&path(options.plot, "benchmarks.svg"), plot::svg(&report).as_bytes())?;
    outcome
}

/// Runs all workloads, those that all servers take part in first.
fn run(bench: &mut Bench) -> anyhow::Result<()> {
    throughput::one_room(bench)?;
    throughput::many_rooms(bench)?;
    idle::run(bench)?;
    idle::storm(bench)?;
    plugin::run(bench)?;
    chat::run(bench)?;
    growth::connections(bench)?;
    growth::members_and_rooms(bench)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!("written: {}", path.display()))
}
