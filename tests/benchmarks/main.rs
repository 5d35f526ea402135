//! Roundhouse and its peers, measured in one run on one machine: `cargo bench -p roundhouse-tests`. See `README.md`
//! here.
//!
//! # Layout
//! - `servers`: how servers are built and started; `process`: pinned to a core; `floor`: least work
//! - `wire`: each server's protocol; `generator`: all clients, on one thread
//! - `audience`: members and publishers, and the ways to load them
//! - `throughput`, `idle`, `plugin`, `chat`, `growth`: the workloads
//! - `report`: figures, tables in Markdown, JSON; `goals`: which are met; `plot`: bars and curves

mod audience;
mod chat;
mod floor;
mod generator;
mod goals;
mod growth;
mod idle;
mod plot;
mod plugin;
mod process;
mod report;
mod servers;
mod throughput;
mod wire;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use roundhouse_tests::bench::say;

use generator::Generator;
use report::Report;
use servers::{Field, prepare};

/// The workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// One room of 1,000: the next event when all have the last.
    #[value(alias = "a")]
    Single,
    /// The same with 64 events in flight.
    #[value(alias = "b")]
    Pipelined,
    /// The latency of 50 events a second to 1,000.
    #[value(alias = "c")]
    Latency,
    /// 100 rooms of 10, 20 events a second in each.
    #[value(alias = "d")]
    Rooms,
    /// Memory and CPU of idle connections.
    #[value(alias = "e")]
    Idle,
    /// 5,000 that connect at once.
    #[value(alias = "f")]
    Storm,
    /// Events of a bundled feature with acknowledgements, beside an echo.
    #[value(alias = "g")]
    Plugin,
    /// Messages that are shown, stored and confirmed.
    #[value(alias = "h")]
    Chat,
    /// Up to 18,000 connections, one message a second to each.
    #[value(alias = "i")]
    Connections,
    /// The growth of cost with members and rooms.
    Growth,
}

/// How a floor writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Merging {
    /// Each frame by itself.
    Separate,
    /// All due frames at once.
    Merged,
}

impl Merging {
    /// The number of writes for `due` frames, and the frames in each.
    fn writes(self, due: usize) -> (usize, usize) {
        match self {
            Self::Separate => (due, 1),
            Self::Merged => (usize::from(due > 0), due),
        }
    }
}

impl Merging {
    fn name(self) -> &'static str {
        match self {
            Self::Separate => "separate",
            Self::Merged => "merged",
        }
    }
}

/// Measures Roundhouse and its peers: servers on core 0, the generator on core 1.
#[derive(Debug, Parser)]
struct Options {
    /// Only these workloads.
    #[arg(value_enum)]
    workloads: Vec<Workload>,
    /// Only these servers.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(servers::NAMES))]
    servers: Vec<String>,
    /// How often each server has its turn, where turns are short.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Another build of the host; several, as NAME=PATH, run in turn.
    #[arg(long = "host", value_parser = named_path)]
    hosts: Vec<(String, PathBuf)>,
    /// Less of everything: a check that it works.
    #[arg(long)]
    quick: bool,
    /// The file of the figures, as JSON; by default in the target folder.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The file of the tables, as Markdown; by default in the target folder.
    #[arg(long)]
    tables: Option<PathBuf>,
    /// The file of the plot; by default in the target folder.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// The argument that cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Run as a floor.
    #[arg(long, hide = true, value_enum)]
    floor: Option<Merging>,
}

fn named_path(text: &str) -> anyhow::Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').unwrap_or(("", text));
    Ok((name.to_owned(), std::path::absolute(path)?))
}

impl Options {
    fn wants(&self, workload: Workload) -> bool {
        self.workloads.is_empty() || self.workloads.contains(&workload)
    }

    fn rounds(&self) -> usize {
        if self.quick { self.rounds.min(2) } else { self.rounds }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(merging) = options.floor {
        return floor::run(merging);
    }
    let field = prepare(&options)?;
    process::prepare()?;
    let mut bench = Bench { report: Report::new(&field)?, generator: Generator::new()?, field, options };
    let outcome = run(&mut bench);
    // Figures so far are worth showing.
    let Bench { report, options, .. } = bench;
    let tables = report.to_markdown();
    say(&format!("\n{tables}"))?;
    let path = |path: Option<PathBuf>, name| path.unwrap_or_else(|| roundhouse_tests::target_dir().join(name));
    write(&path(options.tables, "benchmarks.md"), tables.as_bytes())?;
    write(&path(options.json, "benchmarks.json"), &serde_json::to_vec_pretty(&report.to_json())?)?;
    write(&path(options.plot, "benchmarks.svg"), plot::svg(&report).as_bytes())?;
    outcome
}

/// All workloads, beginning with those that all servers take part in.
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

/// Shared by all workloads.
struct Bench {
    options: Options,
    field: Field,
    generator: Generator,
    report: Report,
}
