//! The configuration of the store: database and journal.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;

use super::postgres;

/// The database, the journal, and the time after which a write is given up.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The database.
    pub url: StoreUrl,
    /// The journal's folder.
    pub journal: PathBuf,
    /// How long a document may wait to be stored before its promise expires.
    pub give_up: Duration,
    /// Whether the nodes of a cluster share the database, instead of one host owning it.
    pub is_shared: bool,
}

/// A database.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file.
    Sqlite(PathBuf),
    /// A server, by its connection string.
    Postgres(String),
}

impl StoreUrl {
    /// Reads `sqlite://PATH` or `postgres://…`. A relative path is one in `dir`.
    ///
    /// # Errors
    /// Where the URL is neither.
    pub fn parse(url: &str, dir: &Path) -> anyhow::Result<Self> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            if path.is_empty() || path.starts_with(':') || path.contains('?') {
                bail!("it must name a file, as sqlite://roundhouse.db or sqlite:///var/lib/roundhouse/roundhouse.db");
            }
            return Ok(Self::Sqlite(dir.join(path)));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            postgres::check_url(url)?;
            return Ok(Self::Postgres(url.to_owned()));
        }
        bail!("it must begin with sqlite:// or postgres://")
    }

    /// The file, where the database is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            // The connection string may contain a password.
            Self::Postgres(_) => f.write_str("Postgres(…)"),
        }
    }
}
