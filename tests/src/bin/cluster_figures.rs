//! Several hosts as one, in figures: `cargo build --release && cargo run --release -p roundhouse-tests --bin
//! cluster-figures [-- --only latency,commits,fanout,kill,growth --rounds N --quick]`.
//!
//! - `field`: the hosts that are measured, each cluster with a Redis of its own
//! - `latency`: what a cluster adds to an event
//! - `load`, `commits`: events per second, and what each costs Redis and the hosts
//! - `reckoning`, `growth`: the same for more nodes than one machine can run
//! - `peers`, `fanout`: a room of 1,000, beside Socket.IO over its adapters for Redis
//! - `kill`: the time from a host's death until the others hear of it
//! - `table`: tables in Markdown
//!
//! The load generator is that of the benchmarks.

#[path = "../../benchmarks/client.rs"]
mod client;
#[path = "../cluster_figures/commits.rs"]
mod commits;
#[path = "../cluster_figures/fanout.rs"]
mod fanout;
#[path = "../cluster_figures/field.rs"]
mod field;
#[path = "../../benchmarks/generator.rs"]
#[expect(dead_code, reason = "the benchmarks use the rest")]
mod generator;
#[path = "../cluster_figures/growth.rs"]
mod growth;
#[path = "../cluster_figures/kill.rs"]
mod kill;
#[path = "../cluster_figures/latency.rs"]
mod latency;
#[path = "../cluster_figures/load.rs"]
mod load;
#[path = "../cluster_figures/peers.rs"]
mod peers;
#[path = "../../benchmarks/process.rs"]
#[expect(dead_code, reason = "the benchmarks use the rest")]
mod process;
#[path = "../cluster_figures/reckoning.rs"]
mod reckoning;
#[path = "../cluster_figures/table.rs"]
mod table;
#[path = "../../benchmarks/wire.rs"]
#[expect(dead_code, reason = "the benchmarks use the rest")]
mod wire;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use roundhouse_tests::bench::say;

use crate::field::{Extent, Field};

/// Measures several hosts that behave as one.
#[derive(Debug, Parser)]
struct Arguments {
    /// The parts to measure
    #[arg(long, value_delimiter = ',', default_value = "latency,commits,fanout,kill,growth")]
    only: Vec<Part>,
    /// The number of rounds; figures are medians of them
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One short round of each part, which shows that everything works
    #[arg(long)]
    quick: bool,
}

/// A part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The added latency of an event.
    Latency,
    /// Events and commits per second.
    Commits,
    /// A room of 1,000.
    Fanout,
    /// From a kill to `agent:left`.
    Kill,
    /// What more nodes would take, reckoned.
    Growth,
}

fn main() -> anyhow::Result<()> {
    let began = Instant::now();
    let arguments = Arguments::parse();
    ensure!((1..=5).contains(&arguments.rounds), "--rounds is between 1 and 5");
    process::prepare()?;
    let extent = if arguments.quick {
        Extent { rounds: 1, time: Duration::from_millis(500), n_asks: 300, n_kills: 2 }
    } else {
        Extent { rounds: arguments.rounds, time: Duration::from_millis(1_500), n_asks: 2_000, n_kills: 10 }
    };
    say(&described()?)?;
    let wants = |part| arguments.only.contains(&part);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    measure(&wants, extent, runtime)?;
    say(&format!("\nIt took {:.0} s; load average {}.", began.elapsed().as_secs_f64(), load_average()?))
}

fn measure(wants: &dyn Fn(Part) -> bool, extent: Extent, runtime: tokio::runtime::Runtime) -> anyhow::Result<()> {
    let throughput = wants(Part::Commits) || wants(Part::Growth);
    let mut field = Field::new(runtime)?;
    if wants(Part::Latency) {
        say(&latency::measure(&mut field, extent)?.to_string())?;
    }
    if throughput {
        let levels = commits::measure(&mut field, extent)?;
        if wants(Part::Commits) {
            say(&commits::table(&levels).to_string())?;
        }
        if wants(Part::Growth) {
            say(&growth::table(&levels).to_string())?;
        }
    }
    if wants(Part::Fanout) {
        say(&fanout::measure(&mut field, extent)?.to_string())?;
    }
    if wants(Part::Kill) {
        say(&kill::measure(&field, extent)?.to_string())?;
    }
    Ok(())
}

/// The machine, and how to read the tables.
fn described() -> anyhow::Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{}, Linux {}; all servers on one core, the generator on another; load average at the start {}.\n\
         Figures are medians of the rounds; in brackets the range over the rounds.",
        model.unwrap_or("an unknown processor"),
        kernel.trim(),
        load_average()?
    ))
}

/// The load averages of the last minute and of the last five.
fn load_average() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let mut figures = text.split(' ');
    let minute = figures.next().context("no load average")?;
    Ok(format!("{minute} and {}", figures.next().context("no load average")?))
}
