//! How log lines are written, which must be known before anything else can be told.

use std::path::Path;

use clap::ValueEnum;
use figment::Figment;
use figment::providers::{Format as _, Toml};
use serde::Deserialize;

use super::environment::PREFIX;

/// How log lines are written to standard error.
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
    /// The configured format. Mistakes are not told here: whatever else is wrong with a configuration is reported in the
    /// format that it asks for.
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
            // A file that is no TOML may still say so in one of its lines.
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
    fn a_broken_file_still_says_the_format() {
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
