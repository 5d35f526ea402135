//! Strikes several hosts with faults while agents work on them, and checks what everybody sees: `cargo run --release -p
//! roundhouse-tests --bin faults -- --seed 1 --seconds 60 --nodes 3 [--agents 60] [--fault kill,stop,…]`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use roundhouse_tests::fault_bench::{Fault, Options, run};

/// Strikes several hosts with faults while agents work on them.
#[derive(Debug, Parser)]
struct Arguments {
    /// The seed of everything that is chosen
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The time in which faults begin
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The number of hosts; one runs without a cluster
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Run the hosts without a cluster, which the bench has to find out
    #[arg(long)]
    apart: bool,
    /// The number of agents
    #[arg(long, default_value_t = 60)]
    agents: usize,
    /// The faults, by chance one after another; `sentinel` goes without the other faults of Redis
    #[arg(long, value_delimiter = ',', num_args = 0..)]
    fault: Option<Vec<Fault>>,
    /// The seconds after a death within which the dead have to be gone
    #[arg(long, default_value_t = 5.0)]
    ghosts: f64,
    /// Do not check the history of rooms, which hosts with a store each know in part
    #[arg(long)]
    skip_history: bool,
    /// Connect pages through HAProxy
    #[arg(long)]
    balancer: bool,
    /// More configuration of the hosts, in TOML
    #[arg(long, default_value = "")]
    config: String,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let default = if arguments.nodes == 1 || arguments.apart {
        vec![Fault::Kill, Fault::Stop, Fault::Clock, Fault::Swap, Fault::Rollout]
    } else {
        use Fault::{Clock, Cut, Kill, RedisData, RedisEmpty, Rollout, Stop, Swap};
        vec![Kill, Stop, Cut, RedisEmpty, RedisData, Clock, Swap, Rollout]
    };
    let options = Options {
        seed: arguments.seed,
        time: Duration::from_secs(arguments.seconds),
        nodes: arguments.nodes,
        is_apart: arguments.apart,
        agents: arguments.agents,
        faults: arguments.fault.unwrap_or(default),
        ghosts: Duration::from_secs_f64(arguments.ghosts),
        reads_history: !arguments.skip_history,
        is_balanced: arguments.balancer,
        config: arguments.config,
    };
    let tokio = tokio::runtime::Runtime::new()?;
    let (text, code) = match tokio.block_on(run(options)) {
        Ok(report) => (report.to_string(), ExitCode::SUCCESS),
        Err(failure) => (failure.to_string(), ExitCode::FAILURE),
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(code)
}
