//! Attacks on a host, and their cost to its other clients: `cargo run --release --bin abuse`.
//!
//! Each attack is made on a host of its own, from this machine, while good clients, newcomers and an operator are
//! measured. It takes about twenty minutes; with `--short`, one. Exit code 1: a good client lost service, or good
//! clients waited longer than twice their time without the attack and one deadline of a call.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use roundhouse_tests::abuse::{Attack, Campaign, GOOD_CLIENTS, Group, Length, Verdict, all, page, page_of_one, table};
use roundhouse_tests::bench::say;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The command line.
#[derive(Debug, Parser)]
struct Options {
    /// Runs only attacks whose name or group begins with this.
    #[arg(long)]
    only: Vec<String>,
    /// Lists the attacks, and runs none.
    #[arg(long)]
    list: bool,
    /// Runs each briefly, on shared hosts; no latency is judged.
    #[arg(long)]
    short: bool,
    /// How long each attack runs, instead of 4 s; some take a multiple.
    #[arg(long)]
    seconds: Option<f64>,
    /// How many good clients there are, in pairs.
    #[arg(long, default_value_t = GOOD_CLIENTS, value_parser = even)]
    good: usize,
    /// Runs each attack so often, and reports the run with the median ratio, or one with a loss.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=25))]
    repeat: u8,
    /// Runs each attack against a second host first, to measure its cost to the machine.
    #[arg(long)]
    control: bool,
    /// Also writes the results to a file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Another binary of the host.
    #[arg(long)]
    host: Option<PathBuf>,
    /// Runs no attack: prints the rows of the page of attacks from the JSON of two runs, or of one.
    #[arg(long, num_args = 1..=2, value_names = ["BEFORE", "AFTER"])]
    page: Option<Vec<PathBuf>>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    match options.page.as_deref() {
        Some([before, after]) => {
            say(&page(&read(before)?, &read(after)?))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some([run]) => {
            say(&page_of_one(&read(run)?))?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let attacks: Vec<(Group, &Attack)> = all().filter(|(group, attack)| is_wanted(&options, *group, attack)).collect();
    ensure!(!attacks.is_empty(), "no attack is called so; --list names them");
    if options.list {
        for (group, attack) in attacks {
            say(&format!("{} {}: {}, {}", group.name(), attack.name, attack.who, attack.what))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    prepare(&options)?;
    let campaign = Campaign {
        length: if options.short { Length::Short } else { Length::Full },
        time: options.seconds.map(Duration::from_secs_f64),
        binary: options.host.clone(),
        n_good: options.good,
        repetitions: usize::from(options.repeat),
        has_control: options.control,
    };
    let mut verdicts = Vec::new();
    campaign.run(&attacks, |verdict| {
        // Progress of a run of twenty minutes.
        let _ = say(&verdict.row());
        verdicts.push(verdict);
        let written = options.json.as_ref().map(|path| write(path, &verdicts));
        if let Some(Err(error)) = written {
            let _ = say(&format!("{error:#}"));
        }
    })?;
    say(&format!("\n{}", table(&verdicts)))?;
    let bad: Vec<&str> = verdicts.iter().filter(|verdict| !verdict.is_good()).map(|v| v.name.as_str()).collect();
    say(&format!("\n{} attacks, {} of which hurt others: {}", verdicts.len(), bad.len(), bad.join(", ")))?;
    Ok(if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The number of good clients, who work in pairs.
fn even(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 && n <= 1000 && n % 2 == 0 => Ok(n),
        _ => Err("it is an even number up to 1,000".to_owned()),
    }
}

fn is_wanted(options: &Options, group: Group, attack: &Attack) -> bool {
    let names = |wanted: &String| attack.name.starts_with(wanted.as_str()) || group.name() == wanted;
    options.only.is_empty() || options.only.iter().any(names)
}

/// Raises the limit of open files for the attackers, and checks that the host is built.
fn prepare(options: &Options) -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the limit of files")?;
    let beside = std::env::current_exe()?.with_file_name("roundhouse");
    if options.host.is_none() && !beside.is_file() {
        let built = Command::new("cargo").args(["build", "--release", "-p", "roundhouse"]).status();
        ensure!(built.is_ok_and(|status| status.success()), "the host is not built: run `cargo build --release`");
    }
    if let Some(host) = &options.host {
        ensure!(host.is_file(), "there is no host at {}", host.display());
    }
    Ok(())
}

fn read(path: &PathBuf) -> anyhow::Result<Vec<Verdict>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no run of attacks", path.display()))
}

fn write(path: &PathBuf, verdicts: &[Verdict]) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(verdicts)?;
    std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}
