//! The format of log lines, which must be known before anything can be logged.

use std::path::Path;

use clap::ValueEnum;
use figment::Figment;
use figment::providers::{Format as _, Toml};
use serde::Deserialize;

use super::environment::PREFIX;

/// The format of log lines on standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The configured format. Mistakes are reported later, in this format.
    pub fn configured(file: Option<&Path>) -> Self {
        Self::in_environment().or_else(|| Self::in_file(file?)).unwrap_or_default()
    }

    fn in_environment() -> Option<Self> {
        let value = std::env::var(format!("{PREFIX}LOG_FORMAT")).ok()?;
        <Self as ValueEnum>::from_str(value.trim(), false).ok()
    }

    fn in_file(file: &Path) -> Option<Self> {
        let toml = std::fs::read_to_string(file).ok()?;
        Figment::from(Toml::string(&toml)).extract_inner("log_format").ok().or_else(|| {
            // Malformed TOML may still have the format in one of its lines.
            let mut lines = toml.lines().filter_map(|line| line.split_once('='));
            let (_, value) = lines.find(|(key, _)| key.trim() == "log_format")?;
            <Self as ValueEnum>::from_str(value.trim().trim_matches('"'), false).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_format_is_read_from_malformed_files() {
        let file = std::env::temp_dir().join(format!("roundhouse-log-format-{}", std::process::id()));
        for (toml, format) in [
            ("log_format = \"json\"", LogFormat::Json),
            ("log_format = \"json\"\nlissten = 1", LogFormat::Json),
            ("log_format = \"json\"\nlisten = ", LogFormat::Json),
            ("log_format = \"xml\"", LogFormat::Text),
            ("shards = 1", LogFormat::Text),
        ] {
            std::fs::write(&file, toml).unwrap();
            assert_eq!(LogFormat::in_file(&file).unwrap_or_default(), format, "{toml}");
        }
        std::fs::remove_file(&file).unwrap();
    }
}
