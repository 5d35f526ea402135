//! `[store]`: the database for documents and durable states, and the journal.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::config::secret_file::value_of;
use crate::config::secrets::PRIVATE_DIR;
use crate::config::values::{check_duration, path, secret};
use crate::store::{StoreConfig, StoreUrl};

/// The default database.
const DEFAULT_URL: &str = "sqlite://roundhouse.db";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct StoreSection {
    #[serde(deserialize_with = "secret")]
    url: Option<String>,
    #[serde(deserialize_with = "path")]
    url_file: Option<PathBuf>,
    #[serde(deserialize_with = "path")]
    journal: Option<PathBuf>,
    #[serde(with = "humantime_serde")]
    give_up: Duration,
}

impl fmt::Debug for StoreSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets are left out.
        f.debug_struct("StoreSection")
            .field("url_file", &self.url_file)
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

impl Default for StoreSection {
    fn default() -> Self {
        // A database restarts in less, and a page does not wait longer for its message to be stored.
        Self { url: None, url_file: None, journal: None, give_up: Duration::from_secs(60) }
    }
}

impl StoreSection {
    /// `is_shared`: whether the host is a node of a cluster.
    ///
    /// # Errors
    /// Where the time is too short or too long, the URL cannot be read or is malformed, or the database cannot be shared.
    pub(in crate::config) fn into_config(self, is_shared: bool, dir: &Path) -> anyhow::Result<StoreConfig> {
        check_duration("store.give_up", self.give_up, Duration::from_secs(1))?;
        let url = value_of("store.url", self.url, self.url_file.as_ref(), dir)?;
        let url = StoreUrl::parse(url.as_deref().unwrap_or(DEFAULT_URL), dir).context("store.url")?;
        if let (true, Some(file)) = (is_shared, url.file()) {
            bail!(
                "store.url is sqlite://{}, and a cluster needs a database that its nodes share: \
                 store.url = \"postgres://user:password@host/database\"",
                file.display()
            );
        }
        Ok(StoreConfig {
            url,
            journal: self.journal.map_or_else(|| dir.join(PRIVATE_DIR).join("journal"), |path| dir.join(path)),
            give_up: self.give_up,
            is_shared,
        })
    }
}
