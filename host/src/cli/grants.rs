//! The text of `roundhouse plugin grants`.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::Value;

/// The kinds of grants: their fields in the API's answer, and their names.
const KINDS: [(&str, &str); 3] = [("rooms", "room"), ("audiences", "audience"), ("actions", "action")];

/// The API's answer as a table, or its suggestion alone.
///
/// # Errors
/// Where the answer is not about grants.
pub(super) fn grants_text(answer: &Value, suggest: bool) -> anyhow::Result<String> {
    let suggestion = answer["suggestion"].as_str().context("the host's answer is not about grants")?;
    if suggest {
        return Ok(suggestion.to_owned());
    }
    let mut text = heading(answer);
    let _ = writeln!(text, "\n{:<40} {:<6} {:<6} LAST USED", "GRANT", "ASKED", "GIVEN");
    for (field, kind) in KINDS {
        let names = |of: &str| answer[of][field].as_array().into_iter().flatten().filter_map(Value::as_str);
        let has = |of: &str, name: &str| names(of).any(|other| other == name);
        let only_given = names("given").filter(|name| !has("asked", name));
        for name in names("asked").chain(only_given) {
            let yes = |is: bool| if is { "yes" } else { "no" };
            let is_asked = has("asked", name);
            let last = match is_asked {
                true => last_use(answer, kind, name),
                false => "nothing asks for it".to_owned(),
            };
            let (asked, given) = (yes(is_asked), yes(!has("missing", name)));
            let _ = writeln!(text, "{:<40} {asked:<6} {given:<6} {last}", format!("{kind} {name}"));
        }
    }
    Ok(text)
}

/// The build, its events, and where the grants come from.
fn heading(answer: &Value) -> String {
    let word = |field: &str| answer[field].as_str().unwrap_or_default();
    let number = |field: &str| answer[field].as_u64().unwrap_or_default();
    let (name, version, state) = (word("name"), word("version"), word("state"));
    let mut text = format!("{name} {version}, generation {}: {state}\n", number("generation"));
    if let Some(since) = answer["sinceMs"].as_u64() {
        let _ = writeln!(text, "Uses in {} events; loaded {}.", number("events"), date(since));
    }
    text += &match answer["configured"].as_bool() {
        Some(true) => format!("Given by plugins.{name}.grants of the configuration.\n"),
        _ => "Given by default, for the configuration has no grants for it.\n".to_owned(),
    };
    if KINDS.iter().any(|(field, _)| answer["missing"][field].as_array().is_some_and(|names| !names.is_empty())) {
        text += "It asks for what is not given, and does not run: --suggest prints the grants with which it starts.\n";
    }
    text
}

fn last_use(answer: &Value, kind: &str, name: &str) -> String {
    let uses = answer["lastUses"].as_array().into_iter().flatten();
    let used = uses.into_iter().find(|used| used["kind"] == kind && used["name"] == name);
    match used.and_then(|used| Some((used["eventsAgo"].as_u64()?, used["atMs"].as_u64()?))) {
        // Not each use is noted: the last one may be younger.
        Some((ago, at_ms)) => format!("{}, within the last {} events", date(at_ms), ago.saturating_add(1)),
        None => "not used".to_owned(),
    }
}

fn date(ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
