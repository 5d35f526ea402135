//! `roundhouse plugin load` with a trial of the component first, and `promote`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::Args;
use hyper::Method;
use roundhouse_contract::Kind;
use serde_json::Value;

use super::api_client::ApiArgs;
use super::component_file::{checked, read};
use super::losses::LossArgs;
use super::output::{eprint, print, print_json};
use crate::plugin::ComparisonReport;

/// How often the host is asked whether a shadow has ended.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// What to load, and how carefully.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// The component.
    file: PathBuf,
    /// Load nothing: have the component and the running build handle the recent events of all scopes, and print the
    /// differences.
    #[arg(long, conflicts_with_all = ["shadow", "canary"])]
    dry_run: bool,
    /// Have the component handle copies of all events for this time, and print the differences. Nothing of it counts.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with_all = ["canary", "lose_writes"])]
    shadow: Option<Duration>,
    /// Load it after the shadow, if it made the same of all events.
    #[arg(long, requires = "shadow")]
    promote_if_equal: bool,
    /// Have the component handle this share of the scopes, as `5%`, until it is promoted or rolled back.
    #[arg(long, value_name = "SHARE", value_parser = parse_share, conflicts_with = "lose_writes")]
    canary: Option<f64>,
    #[command(flatten)]
    losses: LossArgs,
    #[command(flatten)]
    api: ApiArgs,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).parse().ok();
    let percent = percent.filter(|percent| (0.1..=100.0).contains(percent));
    percent.ok_or_else(|| "a share of scopes is 0.1% to 100%".to_owned())
}

pub(super) fn load(args: &LoadArgs) -> anyhow::Result<()> {
    let component: Bytes = read(&args.file)?.into();
    if args.dry_run {
        let trial = args.api.call(Method::POST, &args.losses.path("/v1/trials"), component)?;
        return show_trial(&args.file, &trial);
    }
    if let Some(time) = args.shadow {
        let seconds = time.as_secs().max(1);
        let path = format!("/v1/shadows?seconds={seconds}&promoteIfEqual={}", args.promote_if_equal);
        let begun = args.api.call(Method::POST, &path, component)?;
        return await_shadow(&args.api, &begun, args.promote_if_equal);
    }
    if let Some(percent) = args.canary {
        let begun = args.api.call(Method::POST, &format!("/v1/canaries?percent={percent}"), component)?;
        return print(&describe(&begun)?);
    }
    let loaded = args.api.call(Method::POST, &args.losses.path("/v1/plugins"), component)?;
    if loaded["unchanged"] == true {
        eprint("this component runs already, and nothing has changed: settings are read when the host starts");
    }
    if let Some(warning) = loaded["warning"].as_str() {
        eprint(warning);
    }
    print_json(&loaded)
}

/// Prints the result of a trial. Fails if the component is refused.
fn show_trial(file: &Path, trial: &Value) -> anyhow::Result<()> {
    print(&differences(&comparison_of(trial)?))?;
    match trial["refused"].as_str() {
        Some(why) => bail!("{} would be refused: {why}", file.display()),
        None => Ok(()),
    }
}

/// Waits until a shadow has ended, and prints its result. Fails if the component made something else of any event.
fn await_shadow(api: &ApiArgs, begun: &Value, promotes: bool) -> anyhow::Result<()> {
    let name = begun["candidate"]["name"].as_str().context("the host's answer names no plugin")?;
    let path = format!("/v1/plugins/{}/rollout", checked(name)?);
    eprint(&format!("{name} is tried on live events; `roundhouse plugin rollout {name}` shows how it does"));
    let report = loop {
        sleep(ASK_INTERVAL);
        let report = api.call(Method::GET, &path, Bytes::new())?;
        let is_it = report["candidate"] == begun["candidate"];
        ensure!(is_it, "another candidate of {name} is tried meanwhile");
        if report["ended"].is_string() {
            break report;
        }
    };
    print(&describe(&report)?)?;
    let is_promoted = report["ended"] == "promoted";
    ensure!(comparison_of(&report)?.different == 0, "the component makes something else of events");
    ensure!(is_promoted || !promotes, "the component is not promoted");
    Ok(())
}

/// Prints the candidate of a plugin that is tried, or was last.
pub(super) fn show(name: &str, api: &ApiArgs) -> anyhow::Result<()> {
    print(&describe(&api.call(Method::GET, &format!("/v1/plugins/{}/rollout", checked(name)?), Bytes::new())?)?)
}

fn comparison_of(report: &Value) -> anyhow::Result<ComparisonReport> {
    serde_json::from_value(report["comparison"].clone()).context("the host's answer is no report")
}

/// A rollout in words.
fn describe(report: &Value) -> anyhow::Result<String> {
    let id = &report["candidate"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let place = match report["percent"].as_f64() {
        Some(percent) => format!("a canary on {percent} % of the scopes"),
        None => "in the shadow".to_owned(),
    };
    let state = report["ended"].as_str().map_or("under way".to_owned(), |how| format!("ended: {how}"));
    let mut words = format!(
        "{} {} (generation {}, {:.12}), {place}, {state}\n",
        text(&id["name"]),
        text(&id["version"]),
        id["generation"],
        text(&id["digest"])
    );
    if let Some(n) = report["pinnedScopes"].as_u64().filter(|n| *n > 0) {
        // A string takes what is written.
        let _ = writeln!(words, "{n} scopes went back to the running build:");
        for pin in report["pinned"].as_array().into_iter().flatten() {
            let _ = writeln!(words, "  {}, because {}", text(&pin["scope"]), text(&pin["reason"]));
        }
    }
    words += &differences(&comparison_of(report)?);
    Ok(words)
}

/// The differences in words, the most frequent first.
fn differences(comparison: &ComparisonReport) -> String {
    let ComparisonReport { events, different, skipped, running_mean_us, candidate_mean_us, .. } = comparison;
    let mut words = format!("of {events} events {different} differ\n");
    for kind in &comparison.differences {
        let (event, difference, first) = (&kind.event, &kind.difference, &kind.first_scope);
        // A string takes what is written.
        let _ = writeln!(words, "{}", Kind { event, difference, calls: kind.events, first });
    }
    if *skipped > 0 {
        let _ = writeln!(words, "{skipped} events were left out, because the host was busy");
    }
    if *events > 0 {
        let _ = writeln!(
            words,
            "mean CPU time for an event: {candidate_mean_us:.0} µs, of the running build {running_mean_us:.0} µs"
        );
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_a_percentage() {
        assert_eq!((parse_share("5%"), parse_share("0.5")), (Ok(5.0), Ok(0.5)));
        assert!(["0%", "101%", "NaN", "five"].iter().all(|bad| parse_share(bad).is_err()));
    }
}
