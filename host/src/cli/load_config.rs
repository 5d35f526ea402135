//! Loading of the configuration for a command.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::config::{Config, Overrides, USUAL_FILE};

/// Reads the configuration from `file`, the environment and the command line, in the current folder.
///
/// # Errors
/// Where it has a mistake.
pub(super) fn load_config(file: Option<&Path>, overrides: Overrides) -> anyhow::Result<Config> {
    let dir = std::env::current_dir().context("the current folder is gone")?;
    ensure!(file.is_none_or(|file| !file.as_os_str().is_empty()), "--config is empty: name a file, or leave it out");
    let is_usual_file_unread = file.is_none() && dir.join(USUAL_FILE).exists();
    if is_usual_file_unread {
        tracing::warn!("{USUAL_FILE} lies in this folder, and is not read: add --config {USUAL_FILE} to have it read");
    }
    Config::load(file, overrides, &dir)
}
