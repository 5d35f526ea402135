//! `roundhouse scope`: a scope of a running host, and its past.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Args;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use roundhouse_contract::case::CaseEnd;
use serde_json::Value;

use super::api_client::ApiArgs;
use super::component_file::read;
use super::output::{date, print};

/// The events that are listed where no time is given.
const LISTED: usize = 20;

#[derive(Debug, Args)]
pub(super) struct ScopeArgs {
    /// The scope's key, such as ticket:507f.
    key: String,
    /// Show the state at this time, and the events since: a time before now, as -30s, or a date, as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse_time)]
    at: Option<i64>,
    /// Show the outcome of each event.
    #[arg(long)]
    step: bool,
    /// Show what this component would have made of the events.
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
    #[command(flatten)]
    api: ApiArgs,
}

/// Milliseconds since 1970, or, negative, before now.
fn parse_time(text: &str) -> Result<i64, String> {
    let ms = |time: Duration| i64::try_from(time.as_millis()).ok();
    let parsed = match text.strip_prefix('-') {
        Some(before) => humantime::parse_duration(before).ok().and_then(ms).map(|ms| -ms),
        None => {
            let date = humantime::parse_rfc3339_weak(text).ok();
            date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()).and_then(ms)
        }
    };
    parsed.ok_or_else(|| "a time is written as -30s or -5m, or as a date such as 2026-01-31T12:00:00Z".to_owned())
}

pub(super) fn scope(args: &ScopeArgs) -> anyhow::Result<()> {
    ensure!(!args.key.is_empty(), "a scope has a key, such as ticket:507f");
    let at = args.at.map(|at| format!("?at={at}")).unwrap_or_default();
    let path = format!("/v1/scopes/{}", utf8_percent_encode(&args.key, NON_ALPHANUMERIC));
    let report = match &args.with {
        Some(file) => args.api.call(Method::POST, &format!("{path}/replay{at}"), read(file)?.into())?,
        None => args.api.call(Method::GET, &format!("{path}{at}"), Bytes::new())?,
    };
    print(&describe(&report, args)?)
}

fn describe(report: &Value, args: &ScopeArgs) -> anyhow::Result<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let build = &report["build"];
    let kind = match (report["durable"] == true, report["inMemory"] == true) {
        (true, true) => "durable",
        (true, false) => "durable, not in memory",
        (false, true) => "volatile",
        (false, false) => "gone",
    };
    let mut words = format!(
        "{} of {} {} (generation {}, {:.12}), {kind}\n",
        text(&report["scope"]),
        text(&build["name"]),
        text(&build["version"]),
        build["generation"],
        text(&build["digest"])
    );
    // A string takes what is written.
    let when = if args.with.is_some() {
        "in the end"
    } else if args.at.is_some() {
        "then"
    } else {
        "now"
    };
    let schema = report["schema"].as_u64().map(|schema| format!(" (schema {schema})")).unwrap_or_default();
    let _ = writeln!(words, "state {when}{schema}: {:#}", report["state"]);
    let _ = writeln!(words, "{} events handled, {} waiting", report["sequence"], report["waiting"]);
    for timer in report["timers"].as_array().into_iter().flatten() {
        let due = timer["dueMs"].as_u64().unwrap_or_default();
        let _ = writeln!(words, "timer {}, due {}", text(&timer["name"]), date(due));
    }
    for member in report["members"].as_array().into_iter().flatten() {
        let place = if member["inRoom"] == true { "in the room" } else { "watched" };
        let user = member["user"].as_str().unwrap_or("an unknown user");
        let _ = writeln!(words, "member {} of {user}, {place}", text(&member["connection"]));
    }
    let events = report["events"].as_array().context("the host's answer has no events")?;
    let is_whole = args.at.is_some() || args.step || args.with.is_some();
    let listed = if is_whole { &events[..] } else { &events[events.len().saturating_sub(LISTED)..] };
    let _ = writeln!(words, "{} events are remembered{}", events.len(), if listed.is_empty() { "" } else { ":" });
    for event in listed {
        words += &describe_event(event, args.step)?;
    }
    if args.with.is_some() {
        let n = events.iter().filter(|event| event["differences"].is_array()).count();
        let _ = writeln!(words, "of {} events {n} differ", events.len());
    }
    Ok(words)
}

fn describe_event(event: &Value, is_step: bool) -> anyhow::Result<String> {
    let case = &event["case"];
    let context = &case["context"];
    let (name, sender) = name_and_sender(&case["event"]);
    let sender = sender.map(|sender| format!(" of {sender}")).unwrap_or_default();
    let at = context["now"].as_u64().unwrap_or_default();
    let generation = &case["build"]["generation"];
    let mut words = format!("{} #{} {name}{sender}, by generation {generation}", date(at), context["sequence"]);
    let end = |end: &Value| -> anyhow::Result<CaseEnd> {
        serde_json::from_value(end.clone()).context("the host's answer has an event without an end")
    };
    let then = end(&case["end"])?;
    // A string takes what is written.
    let _ = if is_step { write!(words, ": it {then}") } else { writeln!(words, ": it {}", then.kind()) };
    for difference in event["differences"].as_array().into_iter().flatten() {
        let _ = writeln!(words, "  instead: {}", difference.as_str().unwrap_or_default());
    }
    if is_step && event["differences"].is_array() {
        let _ = write!(words, "  instead it {}", end(&event["instead"])?);
    }
    Ok(words)
}

/// The name of an event in a case file, and the user or service that it came from.
fn name_and_sender(event: &Value) -> (String, Option<String>) {
    let Some((kind, body)) = event.as_object().and_then(|object| object.iter().next()) else {
        return ("an event".to_owned(), None);
    };
    let name = body["event"].as_str().or_else(|| body["name"].as_str()).unwrap_or(kind);
    let member = body["userId"].as_str().or_else(|| body["member"]["userId"].as_str());
    let origin = &body["origin"];
    let sender = member.or_else(|| origin["client"]["userId"].as_str()).or_else(|| origin["service"].as_str());
    (name.to_owned(), sender.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_before_now_or_a_date() {
        assert_eq!((parse_time("-30s"), parse_time("-1m 5s")), (Ok(-30_000), Ok(-65_000)));
        assert_eq!(parse_time("1970-01-01T00:00:02Z"), Ok(2000));
        assert!(["30s", "-", "yesterday"].iter().all(|bad| parse_time(bad).is_err()));
    }
}
