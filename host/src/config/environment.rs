//! Configuration from the environment, and the variables with its prefix that are no keys.
//!
//! Kubernetes sets variables with the addresses of the namespace's Services in every container, and Docker does for
//! links. For a Service named `roundhouse` these variables have the prefix of the configuration, but are no keys.

use std::collections::HashSet;
use std::ffi::OsString;

use anyhow::anyhow;
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

/// The prefix of environment variables that are configuration.
pub(super) const PREFIX: &str = "ROUNDHOUSE_";

/// The most names that one log line lists: a Service has seven variables and more for each of its ports.
const LISTED: usize = 8;

/// The variables with the prefix.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// Keys without the prefix, and their values.
    keys: Vec<(String, String)>,
    /// Variables with a Service's address.
    services: Vec<String>,
    /// Empty variables, which count as unset.
    empty: Vec<String>,
}

impl Environment {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Where a value is not UTF-8.
    pub(super) fn read() -> anyhow::Result<Self> {
        Self::of(std::env::vars_os())
    }

    /// Sorts variables into keys, Services' variables and empty ones.
    ///
    /// # Errors
    /// Where a value is not UTF-8.
    pub(super) fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> anyhow::Result<Self> {
        let mut found = Self::default();
        let mut ours = Vec::new();
        for (variable, value) in variables {
            let Some(variable) = variable.to_str().filter(|variable| has_prefix(variable)) else { continue };
            let value = value.into_string().map_err(|_| anyhow!("{variable} is not UTF-8: set it to text"))?;
            ours.push((variable.to_owned(), value));
        }
        ours.sort();
        let stems: HashSet<String> =
            ours.iter().filter_map(|(variable, value)| service_stem(variable, value)).collect();
        for (variable, value) in ours {
            if is_of_service(&variable, &value, &stems) {
                found.services.push(variable);
            } else if value.trim().is_empty() {
                found.empty.push(variable);
            } else {
                found.keys.push((variable[PREFIX.len()..].to_owned(), value));
            }
        }
        Ok(found)
    }

    /// Logs the variables that are ignored.
    pub(super) fn log_ignored(&self) {
        if !self.services.is_empty() {
            tracing::info!(
                "passed over {}: these tell where a Service is, and configure nothing (enableServiceLinks: false in a pod \
                 leaves them out)",
                listed(&self.services)
            );
        }
        if !self.empty.is_empty() {
            tracing::info!("{}: empty, which counts as unset", listed(&self.empty));
        }
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (name, value) in &self.keys {
            let value = value.parse::<Value>().unwrap_or_else(|never| match never {});
            insert(&mut root, &name.to_ascii_lowercase(), value);
        }
        Ok(Profile::default().collect(root))
    }
}

/// Inserts a value by a name like `auth__jwt__secret`.
fn insert(dict: &mut Dict, name: &str, value: Value) {
    let Some((section, rest)) = name.split_once("__") else {
        dict.insert(name.to_owned(), value);
        return;
    };
    let entry = dict.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, inner) = entry {
        insert(inner, rest, value);
    } else {
        let mut inner = Dict::new();
        insert(&mut inner, rest, value);
        *entry = Value::from(inner);
    }
}

fn has_prefix(variable: &str) -> bool {
    variable.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

fn listed(variables: &[String]) -> String {
    let shown = variables[..variables.len().min(LISTED)].join(", ");
    match variables.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The stem of a Service's variable: `ROUNDHOUSE_`, or `ROUNDHOUSE_API_` for a Service named `roundhouse-api`. No key has such
/// a name.
fn service_stem(variable: &str, value: &str) -> Option<String> {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let stem = variable
        .strip_suffix("SERVICE_HOST")
        .or_else(|| variable.strip_suffix("SERVICE_PORT"))
        .or_else(|| variable.split_once("SERVICE_PORT_").map(|(stem, _)| stem))
        .or_else(|| variable.strip_suffix("PORT").filter(|_| is_address))
        .or_else(|| variable.rsplit_once("PORT_").filter(|(_, port)| is_port(port)).map(|(stem, _)| stem))?;
    (stem.len() >= PREFIX.len() && stem.ends_with('_')).then(|| stem.to_owned())
}

/// Whether a text is like `80_TCP` or `80_TCP_ADDR`.
fn is_port(text: &str) -> bool {
    let mut parts = text.split('_');
    parts.next().is_some_and(|number| number.parse::<u16>().is_ok())
        && parts.next().is_some_and(|protocol| matches!(protocol, "TCP" | "UDP" | "SCTP"))
        && parts.next().is_none_or(|part| matches!(part, "ADDR" | "PORT" | "PROTO"))
        && parts.next().is_none()
}

/// Whether a variable is a Service's or a linked Docker container's, which also has variables for its name and environment.
fn is_of_service(variable: &str, value: &str, stems: &HashSet<String>) -> bool {
    service_stem(variable, value).is_some()
        || stems.iter().any(|stem| {
            variable
                .strip_prefix(&**stem)
                .is_some_and(|rest| rest == "NAME" && value.starts_with('/') || rest.starts_with("ENV_"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(variables: &[(&str, &str)]) -> Environment {
        Environment::of(variables.iter().map(|(name, value)| (name.into(), value.into()))).unwrap()
    }

    #[test]
    fn service_discovery_variables_are_not_keys() {
        let of_service = [
            ("ROUNDHOUSE_PORT", "tcp://10.0.0.1:8080"),
            ("ROUNDHOUSE_SERVICE_HOST", "10.0.0.1"),
            ("ROUNDHOUSE_SERVICE_PORT", "8080"),
            ("ROUNDHOUSE_SERVICE_PORT_HTTP", "8080"),
            ("ROUNDHOUSE_SERVICE_PORT_API_PORT", "8081"),
            ("ROUNDHOUSE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("ROUNDHOUSE_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("ROUNDHOUSE_PORT_8080_TCP_PORT", "8080"),
            ("ROUNDHOUSE_PORT_8080_TCP_PROTO", "tcp"),
            ("ROUNDHOUSE_PORT_53_UDP", "udp://10.0.0.1:53"),
            ("ROUNDHOUSE_API_PORT", "tcp://10.0.0.2:8081"),
            ("ROUNDHOUSE_API_SERVICE_HOST", "10.0.0.2"),
            ("ROUNDHOUSE_API_PORT_8081_TCP_PORT", "8081"),
            ("ROUNDHOUSE_NAME", "/app/roundhouse"),
            ("ROUNDHOUSE_ENV_PATH", "/bin"),
        ];
        let found = sorted(&of_service);
        assert_eq!((found.services.len(), &*found.keys), (of_service.len(), &[][..]), "{found:?}");
    }

    #[test]
    fn lookalike_service_variables_count_as_keys() {
        for (variable, value) in [
            ("ROUNDHOUSE_PORT", "8080"),
            ("ROUNDHOUSE_NAME", "/app/roundhouse"),
            ("ROUNDHOUSE_ENV_PATH", "/bin"),
            ("ROUNDHOUSE_PORT_HTTP", "80"),
            ("ROUNDHOUSE_PORT_8080_TCP_HOST", "a"),
            ("ROUNDHOUSE_MICROSERVICE_HOST", "a"),
        ] {
            let found = sorted(&[(variable, value)]);
            assert_eq!((found.keys.len(), &*found.services), (1, &[][..]), "{variable}");
        }
    }

    #[test]
    fn empty_variables_count_as_unset() {
        let found = sorted(&[("ROUNDHOUSE_LISTEN", ""), ("ROUNDHOUSE_PLUGINS__DIR", " \n"), ("PATH", "")]);
        assert_eq!(found.empty, ["ROUNDHOUSE_LISTEN", "ROUNDHOUSE_PLUGINS__DIR"]);
        assert!(found.keys.is_empty() && found.data().unwrap()[&Profile::default()].is_empty());
    }

    #[test]
    fn long_name_lists_are_truncated() {
        let names: Vec<String> = (0..LISTED + 3).map(|n| format!("V{n}")).collect();
        assert!(listed(&names).ends_with("V7 and 3 more"), "{}", listed(&names));
    }
}
