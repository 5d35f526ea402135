//! Errors of the configuration, with the key, its source and the remedy.

use anyhow::anyhow;
use figment::error::{Actual, Kind};

use super::environment;

/// An error with its key, and for an unknown key the nearest known one.
pub(super) fn explain(error: figment::Error, section: &str) -> anyhow::Error {
    let mut messages = Vec::new();
    for error in error {
        let mut path: Vec<String> = (!section.is_empty()).then(|| section.to_owned()).into_iter().collect();
        path.extend(error.path.clone());
        if let Kind::UnknownField(field, _) = &error.kind
            && path.last() != Some(field)
        {
            path.push(field.clone());
        }
        let key = path.join(".");
        let is_env = error.metadata.as_ref().is_some_and(|metadata| metadata.name.contains("environment"));
        let variable = format!("{}{}", environment::PREFIX, path.join("__").to_uppercase());
        let place = if is_env { format!(" (from the environment: {variable})") } else { String::new() };
        messages.push(match &error.kind {
            Kind::UnknownField(field, known) => {
                let nearest = match &**field {
                    // Names of other servers for this key.
                    "port" | "host" | "address" | "bind" if path.len() == 1 => Some(&"listen"),
                    _ => known.iter().max_by(|a, b| strsim::jaro(a, field).total_cmp(&strsim::jaro(b, field))),
                };
                let hint = nearest.map_or_else(String::new, |nearest| format!(": did you mean {nearest}?"));
                format!("unknown key {key}{place}{hint}")
            }
            kind if path.is_empty() => format!("{}{place}", without_excerpt(&kind.to_string())),
            kind if matches!(&*key, "listen" | "api") => {
                format!("{key}{place}: {kind}: it is an address or a host name, and a port, as 127.0.0.1:8080")
            }
            kind if key.ends_with("origins") => {
                format!("{key}{place}: {kind}: it is a list, as [\"https://app.example\"]")
            }
            // A text in place of a table or list may be a secret under the name of its section.
            Kind::InvalidType(Actual::Str(_), expected) | Kind::InvalidValue(Actual::Str(_), expected)
                if may_be_secret(&key) =>
            {
                format!("{key}{place}: found a text, expected {expected}")
            }
            kind => format!("{key}{place}: {kind}"),
        });
    }
    anyhow!(messages.join("; "))
}

/// Whether a key is in a section that has secrets.
fn may_be_secret(key: &str) -> bool {
    let section = key.split('.').next().unwrap_or_default();
    matches!(section, "auth" | "api_keys" | "store" | "cluster")
}

/// A TOML error without its excerpt of the file, which may contain a secret.
fn without_excerpt(message: &str) -> String {
    let told = message.lines().filter(|line| !line.contains('|')).map(str::trim).filter(|line| !line.is_empty());
    told.collect::<Vec<_>>().join(": ")
}
