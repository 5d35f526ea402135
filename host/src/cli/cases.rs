//! Case files and recordings: what plugins got, on disk and replayed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use hyper::Method;
use roundhouse_contract::Tally;
use roundhouse_contract::case::Case;
use serde_json::{Value, json};

use super::api_client::ApiArgs;
use super::component_file::{checked, read};
use super::output::print;
use crate::plugin::{PluginConfig, replay};

/// Lists the cases of a plugin. With a folder, writes each into a file there.
pub(super) fn list(plugin: &str, answer: &Value, out: Option<&Path>) -> anyhow::Result<()> {
    let cases = answer["cases"].as_array().context("the host's answer is not a list of cases")?;
    if let Some(dir) = out {
        fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    }
    let mut table = format!("{:>5} {:>8}  {:<28} {:<28} FAULT\n", "CASE", "TIMES", "EVENT", "SCOPE");
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap_or_default();
        let (id, count) = (case["id"].as_u64().unwrap_or_default(), case["count"].as_u64().unwrap_or_default());
        // A string takes what is written.
        let _ = writeln!(table, "{id:>5} {count:>8}  {:<28} {:<28} {}", text("event"), text("scope"), text("fault"));
        if let Some(dir) = out {
            let file = dir.join(format!("{plugin}-{id}.case"));
            let written = fs::write(&file, format!("{:#}\n", case["case"]));
            written.with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    if cases.is_empty() {
        table = format!("{plugin} has failed on no event since it was loaded\n");
    }
    print(&table)
}

/// Records what a plugin gets, and writes it into a file.
pub(super) fn record(api: &ApiArgs, plugin: &str, (events, seconds): (u32, u32), out: &Path) -> anyhow::Result<()> {
    let wanted = json!({ "events": events, "seconds": seconds }).to_string();
    let path = format!("/v1/plugins/{}/record", checked(plugin)?);
    let recorded = api.call(Method::POST, &path, wanted.into())?;
    let cases = recorded["cases"].as_array().context("the host's answer is not a list of cases")?;
    let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
    fs::write(out, lines).with_context(|| format!("cannot write {}", out.display()))?;
    print(&format!("{} events of {plugin}, in {}\n", cases.len(), out.display()))
}

/// Has a component handle the events of a file, and prints what it makes of them. Fails if the component does, or makes
/// something else of an event than the build that had it.
pub(super) fn replay_file(file: &Path, plugin: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let cases = Case::read_all(&text).map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
    let first = cases.first().with_context(|| format!("{} is empty", file.display()))?;
    let config = PluginConfig { is_read_only: true, ..PluginConfig::default() };
    let replayed = replay(&read(plugin)?, &cases, &config)
        .map_err(|error| anyhow::anyhow!("{} is refused at the step {:?}: {error}", plugin.display(), error.step))?;
    let (then, now) = (&first.build, &replayed.id);
    ensure!(
        then.name == now.name,
        "{} is of the plugin {}, and {} is a build of {}",
        file.display(),
        then.name,
        plugin.display(),
        now.name
    );
    let builds = format!(
        "{} {} (generation {}, {:.12}), and now {} ({:.12})\n",
        then.name, then.version, then.generation, then.digest, now.version, now.digest
    );
    let redacted: BTreeSet<&str> = cases.iter().flat_map(|case| &case.redacted).map(String::as_str).collect();
    let note = match redacted.is_empty() {
        true => String::new(),
        false => format!(
            "What was recorded is without {}: with them it may go another way.\n",
            redacted.into_iter().collect::<Vec<_>>().join(", ")
        ),
    };
    match (&cases[..], &replayed.ends[..]) {
        ([case], [end]) => {
            let event = format!("{} in {}\n", case.event.name(), case.context.scope);
            print(&format!("{event}{builds}then it {}now it {end}{note}", case.end))?;
            ensure!(!end.is_fault(), "{} fails on this event", plugin.display());
        }
        (cases, ends) => {
            let mut tally = Tally::default();
            for (number, (case, end)) in cases.iter().zip(ends).enumerate() {
                tally.add(case.event.name(), &format!("line {}", number + 1), &case.end, end);
            }
            print(&format!("{builds}{tally}{note}"))?;
            ensure!(tally.different == 0, "{} makes something else of {} events", plugin.display(), tally.different);
        }
    }
    Ok(())
}
