//! `roundhouse why`: what clients of a running host were sent, and what it comes from.

use std::fmt::Write as _;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::api_client::ApiArgs;
use super::output::{date, print};

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// All connections of this user.
    #[arg(long, value_name = "ID", conflicts_with = "connection", required_unless_present = "connection")]
    user: Option<String>,
    /// This connection.
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
    /// How many events of each connection.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    last: u64,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) fn why(args: &WhyArgs) -> anyhow::Result<()> {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let who = match (&args.user, &args.connection) {
        (Some(user), _) => format!("users/{}", encoded(user)),
        (None, connection) => format!("connections/{}", encoded(connection.as_deref().unwrap_or_default())),
    };
    let answer = args.api.call(Method::GET, &format!("/v1/{who}/why?last={}", args.last), Bytes::new())?;
    let events = answer["events"].as_array().context("the host's answer has no events")?;
    // The newest is the last line.
    let lines: String = events.iter().rev().map(describe).collect();
    print(if lines.is_empty() { "nothing was sent lately\n" } else { &lines })
}

fn describe(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut line = format!("{} to {}", text(&event["event"]), text(&event["connection"]));
    let cause = &event["cause"];
    // A string takes what is written.
    let _ = match (cause.is_object(), &cause["build"]) {
        (false, _) => write!(line, ": another node of the cluster made it"),
        (true, Value::Null) => write!(line, ": the service {} emitted it", text(&cause["sender"])),
        (true, build) => write!(
            line,
            ": {} {} (generation {}, {:.12}) for {} in {} (#{})",
            text(&build["name"]),
            text(&build["version"]),
            build["generation"],
            text(&build["digest"]),
            text(&cause["event"]),
            text(&cause["scope"]),
            cause["sequence"]
        ),
    };
    if let (Some(sender), false) = (cause["sender"].as_str(), cause["build"].is_null()) {
        let _ = write!(line, " of {sender}");
    }
    if let Some(at) = cause["atMs"].as_u64() {
        line.insert_str(0, &format!("{} ", date(at)));
    }
    line + "\n"
}
