//! The worst cost of each client event of each bundled feature: `cargo run --release -p roundhouse-tests --bin cost --
//! [--seconds 600] [--seed N]`.
//!
//! Payloads within an event's limits, built to cost, go through the real host into the real components, which have half
//! of the usual time and a quarter of the usual memory. A fault is a finding, and ends this with exit code 1.

use std::io::Write as _;
use std::time::Duration;

use clap::Parser;
use roundhouse_tests::cost::{Plan, Until, run};

/// The duration and the seed.
#[derive(Debug, Parser)]
struct Options {
    /// The duration in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The seed of all payloads.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let plan = Plan {
        seed: options.seed,
        until: Until::Elapsed(Duration::from_secs(options.seconds)),
        call_deadline: "25ms",
        memory_bytes: 8 * 1024 * 1024,
        is_timed: true,
    };
    let outcome = tokio::runtime::Runtime::new()?.block_on(run(plan))?;
    write!(std::io::stdout(), "{outcome}")?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: unknown");
    writeln!(std::io::stdout(), "host and clients together, {peak}")?;
    anyhow::ensure!(outcome.faults.values().all(|faults| *faults == 0), "features failed");
    Ok(())
}
