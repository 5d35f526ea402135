//! Swaps all bundled features again and again under load, checks that nothing is lost, and measures the pauses: `cargo
//! run --release -p roundhouse-tests --bin swaps -- [--swaps 1000] [--seed N] [--clients 60] [--seconds 120]`.

use std::io::Write as _;
use std::time::Duration;

use clap::Parser;
use roundhouse_tests::swaps::{Options, run};

/// Swaps all bundled features under load.
#[derive(Debug, Parser)]
struct Arguments {
    /// The number of swaps, of all features together
    #[arg(long, default_value_t = 1_000)]
    swaps: usize,
    /// The seed of everything that is chosen
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of clients, half of them over Socket.IO
    #[arg(long, default_value_t = 60)]
    clients: usize,
    /// The time within which the swaps have to be made
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// The time without swaps, under the same load, with which the pauses are compared
    #[arg(long, default_value_t = 10)]
    quiet: u64,
    /// Unload each feature before it is loaded again, which the bench has to find out
    #[arg(long)]
    unload: bool,
}

fn main() -> anyhow::Result<()> {
    let Arguments { swaps, seed, clients, seconds, quiet, unload: unloads } = Arguments::parse();
    let (quiet, limit) = (Duration::from_secs(quiet), Duration::from_secs(seconds));
    let mut out = std::io::stdout();
    writeln!(out, "seed {seed}")?;
    let before = stolen()?;
    let report =
        tokio::runtime::Runtime::new()?.block_on(run(Options { seed, swaps, clients, quiet, limit, unloads }))?;
    write!(out, "{report}")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let stolen = stolen()? - before;
    writeln!(
        out,
        "load average of the machine: {}; {stolen:.1} s of processor time were stolen by others",
        load.trim()
    )?;
    anyhow::ensure!(report.tally.is_clean(), "swaps were noticed");
    Ok(())
}

/// The processor time that the hypervisor has given to other machines, in seconds: round trips include it.
fn stolen() -> anyhow::Result<f64> {
    let figures = std::fs::read_to_string("/proc/stat")?;
    // The first line has the sum of all processors in hundredths of a second, the eighth figure of which is this one.
    let stolen = figures.split_whitespace().nth(8).and_then(|stolen| stolen.parse::<f64>().ok());
    Ok(stolen.unwrap_or_default() / 100.0)
}
