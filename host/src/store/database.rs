//! The connections to the database, and the lock files that exclude other hosts.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::backend::Backend;
use super::config::{StoreConfig, StoreUrl};
use super::identity;
use super::postgres::Postgres;
use super::sqlite::Sqlite;

/// How long to wait for a file that another process has locked, and the interval of attempts.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// A database that this host owns, or shares with the nodes of its cluster. A host writes whole states from its memory, so
/// a database has one owner, or each of its scopes has.
pub(super) struct Database {
    /// The connection to write with.
    pub(super) writing: Box<dyn Backend>,
    /// The connection to read with.
    pub(super) reading: Box<dyn Backend>,
    /// The lock file that excludes other hosts, for SQLite.
    pub(super) lock: Option<File>,
}

impl Database {
    /// Connects to a database. The journal's folder has this host's name.
    ///
    /// # Errors
    /// Where the database cannot be used, or another host owns it.
    pub(super) fn open(config: &StoreConfig) -> anyhow::Result<Self> {
        match &config.url {
            StoreUrl::Sqlite(path) => {
                // One lock for all names of a file.
                let path = &fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                let mut name = path.clone().into_os_string();
                name.push(".owner");
                let lock = Some(lock_file(Path::new(&name), "the database").context("store.url")?);
                let open = || Sqlite::open(path).context("store.url");
                Ok(Self { writing: Box::new(open()?), reading: Box::new(open()?), lock })
            }
            StoreUrl::Postgres(url) => {
                let opened = match config.is_shared {
                    true => Postgres::open_to_share(url),
                    false => Postgres::open_to_write(url, &identity::read_or_make(&config.journal)?),
                };
                let writing = Box::new(opened.context("store.url")?);
                let reading = Box::new(Postgres::open_to_read(url).context("store.url")?);
                Ok(Self { writing, reading, lock: None })
            }
        }
    }
}

/// A file that is locked for as long as it is open.
///
/// # Errors
/// Where the file cannot be opened, or another process keeps it locked.
pub(super) fn lock_file(path: &Path, what: &str) -> anyhow::Result<File> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = opened.with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // The previous host may be about to end, or a child of it has not closed an inherited descriptor yet.
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => {
                bail!("another host uses {what} ({} is locked): end that one first", path.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}
