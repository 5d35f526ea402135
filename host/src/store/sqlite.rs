//! Documents and states in a SQLite file: the default, which needs no server.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, params};

use super::backend::{
    AnsweredCall, Backend, BackendError, Document, MAX_ANSWERED_CALLS, PAGE_BYTES, Page, ScopeRecord, Write, Written,
    page_of,
};
use super::{PageRequest, Promise};

/// The migrations of the tables, in order. A file's header (`user_version`) has the number of migrations applied.
const SCHEMA: [&str; 3] = [DOCUMENTS_AND_SCOPES, ANSWERED_CALLS, STATES_BEFORE];

/// How long SQLite waits for a lock of another process on the file.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

/// The size to which the write-ahead log is truncated after a checkpoint, in bytes: twice the size to which it grows
/// without a long reader.
const LOG_BYTES: u64 = 8 * 1024 * 1024;

/// The size of the write-ahead log from which on it is logged, in bytes.
const HUGE_LOG_BYTES: u64 = 64 * 1024 * 1024;

/// `seq` is the order in which documents were stored, and of a scope's history.
const DOCUMENTS_AND_SCOPES: &str = "
    CREATE TABLE documents (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        plugin TEXT NOT NULL,
        scope TEXT NOT NULL,
        collection TEXT NOT NULL,
        key TEXT,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX documents_history ON documents (plugin, scope, collection, seq);
    CREATE UNIQUE INDEX documents_key ON documents (plugin, scope, collection, key) WHERE key IS NOT NULL;
    CREATE TABLE scopes (
        plugin TEXT NOT NULL,
        key TEXT NOT NULL,
        version INTEGER NOT NULL,
        state BLOB,
        sequence INTEGER NOT NULL,
        timers TEXT NOT NULL,
        expires_ms INTEGER NOT NULL,
        PRIMARY KEY (plugin, key)
    ) STRICT, WITHOUT ROWID;
";

/// `seq` is the order in which calls were answered, for the deletion of the oldest.
const ANSWERED_CALLS: &str = "
    CREATE TABLE answered_calls (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        caller TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        answer TEXT NOT NULL,
        answered_ms INTEGER NOT NULL,
        UNIQUE (caller, key)
    ) STRICT;
";

/// The states before their migration, for a rollback.
const STATES_BEFORE: &str = "
    ALTER TABLE scopes ADD COLUMN before_version INTEGER;
    ALTER TABLE scopes ADD COLUMN before_state BLOB;
";

/// The indices of these columns.
const BEFORE_VERSION: usize = 7;
const BEFORE_STATE: usize = 8;

/// A connection to a SQLite file.
pub(super) struct Sqlite {
    connection: Connection,
    path: PathBuf,
    /// The inode of the open file, to detect that another file has replaced it.
    file: u64,
    /// Whether the huge write-ahead log was logged already.
    is_huge: bool,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sqlite").field(&self.path).finish()
    }
}

impl Sqlite {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// Where the file cannot be opened, is no SQLite file, or was written by a newer host.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        // SQLite would create the file readable for others. An existing file is not opened here: closing it would
        // release the locks that another connection of this process has on it (https://sqlite.org/howtocorrupt.html,
        // 2.2).
        if let Err(error) = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error).with_context(|| format!("cannot make {}", path.display()));
        }
        let connection = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let is_readable = || format!("cannot use {}", path.display());
        connection.busy_timeout(BUSY_TIMEOUT).with_context(is_readable)?;
        // Readers do not wait for the writer; a commit is on disk when it returns (https://sqlite.org/wal.html).
        connection.pragma_update(None, "journal_mode", "WAL").with_context(is_readable)?;
        connection.pragma_update(None, "synchronous", "FULL").with_context(is_readable)?;
        // A log that grew during a long read is truncated (https://sqlite.org/pragma.html#pragma_journal_size_limit).
        connection
            .pragma_update_and_check(None, "journal_size_limit", LOG_BYTES as i64, |_| Ok(()))
            .with_context(is_readable)?;
        let version: u32 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).with_context(is_readable)?;
        let (version, newest) = (version as usize, SCHEMA.len());
        refuse_newer(version, path)?;
        if version < newest {
            let missing = SCHEMA[version..].concat();
            connection
                .execute_batch(&format!("BEGIN; {missing} PRAGMA user_version = {newest}; COMMIT;"))
                .with_context(is_readable)?;
        }
        let file = fs::metadata(path).with_context(is_readable)?.ino();
        Ok(Self { connection, path: path.to_owned(), file, is_huge: false })
    }

    /// The length of the write-ahead log, in bytes.
    fn log_bytes(&self) -> u64 {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        fs::metadata(log).map_or(0, |log| log.len())
    }

    /// Checkpoints the write-ahead log into the file, and truncates the log. Does nothing while another program reads
    /// an older version.
    fn empty_log(&self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(Duration::ZERO)?;
        let emptied = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        emptied
    }
}

impl Sqlite {
    /// Opens a file read-only. `None` if the file does not exist yet, or has no tables.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn look_at(path: &Path) -> anyhow::Result<Option<Self>> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
        let is_readable = || format!("cannot read {}", path.display());
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        // Without an open database no log exists, and a reader would create one, unless it treats the file as immutable
        // (https://sqlite.org/wal.html, "Read-Only Databases").
        let immutable = if Path::new(&log).exists() { "" } else { "?immutable=1" };
        let name = percent_encoding::percent_encode(path.as_os_str().as_bytes(), percent_encoding::NON_ALPHANUMERIC);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection =
            Connection::open_with_flags(format!("file:{name}{immutable}"), flags).with_context(is_readable)?;
        connection.busy_timeout(BUSY_TIMEOUT).with_context(is_readable)?;
        let version: u32 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).with_context(is_readable)?;
        if version == 0 {
            return Ok(None);
        }
        refuse_newer(version as usize, path)?;
        Ok(Some(Self { connection, path: path.to_owned(), file: metadata.ino(), is_huge: false }))
    }
}

fn refuse_newer(version: usize, path: &Path) -> anyhow::Result<()> {
    let newest = SCHEMA.len();
    let path = path.display();
    ensure!(version <= newest, "{path} was written by a newer host (schema {version}, this one knows {newest})");
    Ok(())
}

impl From<rusqlite::Error> for BackendError {
    fn from(error: rusqlite::Error) -> Self {
        let refused = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
        );
        // An error of the library itself, such as a value that cannot be bound, is permanent as well.
        if refused || error.sqlite_error_code().is_none() {
            Self::Refused(error.to_string())
        } else {
            Self::Unavailable(error.to_string())
        }
    }
}

impl Backend for Sqlite {
    fn write(&mut self, writes: &[Write<'_>]) -> Result<Vec<Written>, BackendError> {
        // Data in an unlinked file is lost: no process can open the file again.
        if !fs::metadata(&self.path).is_ok_and(|now| now.ino() == self.file) {
            let message = "was removed or replaced while the host had it open: put it back, or start the host anew";
            return Err(BackendError::Unavailable(format!("{} {message}", self.path.display())));
        }
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let written = writes.iter().map(|write| write_one(&transaction, write)).collect::<Result<Vec<_>, _>>()?;
        if writes.iter().any(|write| matches!(write, Write::Remember(_))) {
            transaction
                .prepare_cached("DELETE FROM answered_calls WHERE seq <= (SELECT max(seq) FROM answered_calls) - ?")?
                .execute([MAX_ANSWERED_CALLS as i64])?;
        }
        transaction.commit()?;
        Ok(written)
    }

    fn page(&mut self, request: &PageRequest) -> Result<Option<Page>, BackendError> {
        let PageRequest { plugin, scope, collection, before, limit } = request;
        let before = match before {
            None => i64::MAX,
            Some(id) => {
                let seq = self
                    .connection
                    .prepare_cached(
                        "SELECT seq FROM documents WHERE id = ? AND plugin = ? AND scope = ? AND collection = ?",
                    )?
                    .query_row(params![id, plugin, scope, collection], |row| row.get(0))
                    .optional()?;
                let Some(seq) = seq else { return Ok(None) };
                seq
            }
        };
        let mut statement = self.connection.prepare_cached(
            "SELECT id, body FROM documents WHERE plugin = ? AND scope = ? AND collection = ? AND seq < ?
             ORDER BY seq DESC LIMIT ?",
        )?;
        let mut rows = statement.query(params![plugin, scope, collection, before, limit + 1])?;
        let (mut documents, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let document = Document { id: row.get(0)?, body: row.get(1)? };
            let before = bytes;
            bytes += document.body.len();
            documents.push(document);
            // One document more than the limit shows that older ones exist.
            if before > PAGE_BYTES {
                break;
            }
        }
        Ok(Some(page_of(documents, *limit)))
    }

    fn scope(&mut self, plugin: &str, key: &str) -> Result<Option<ScopeRecord>, BackendError> {
        let scope = self
            .connection
            .prepare_cached("SELECT * FROM scopes WHERE plugin = ? AND key = ?")?
            .query_row(params![plugin, key], record)
            .optional()?;
        Ok(scope)
    }

    fn scopes(&mut self, plugin: &str, after: &str, limit: u32) -> Result<Vec<ScopeRecord>, BackendError> {
        let scopes = self
            .connection
            .prepare_cached("SELECT * FROM scopes WHERE plugin = ? AND key > ? ORDER BY key LIMIT ?")?
            .query_map(params![plugin, after, limit], record)?
            .collect::<Result<Vec<_>, _>>()?;
        Ok(scopes)
    }

    fn answered_calls(&mut self, since_ms: u64) -> Result<Vec<AnsweredCall>, BackendError> {
        let calls = self
            .connection
            .prepare(
                "SELECT caller, key, fingerprint, answer, answered_ms FROM answered_calls
                 WHERE answered_ms >= ? ORDER BY seq",
            )?
            .query_map([since_ms as i64], |row| {
                Ok(AnsweredCall {
                    caller: row.get(0)?,
                    key: row.get(1)?,
                    fingerprint: row.get(2)?,
                    answer: row.get(3)?,
                    answered_ms: row.get::<_, i64>(4)? as u64,
                })
            })?
            .collect::<Result<Vec<_>, _>>()?;
        Ok(calls)
    }

    fn tidy(&mut self) -> bool {
        if self.log_bytes() <= LOG_BYTES {
            self.is_huge = false;
            return false;
        }
        if let Err(error) = self.empty_log() {
            tracing::debug!(%error, "the write-ahead log cannot be emptied now");
        }
        let bytes = self.log_bytes();
        let is_huge = bytes > HUGE_LOG_BYTES;
        if is_huge && !std::mem::replace(&mut self.is_huge, is_huge) {
            tracing::warn!(
                bytes, database = %self.path.display(),
                "the write-ahead log grows, for another program has been reading the database for long: end its transaction"
            );
        }
        bytes > LOG_BYTES
    }
}

fn write_one(connection: &Connection, write: &Write<'_>) -> Result<Written, BackendError> {
    match write {
        Write::Insert(promise) => return insert(connection, promise),
        Write::Retract(promise) => {
            connection.prepare_cached("DELETE FROM documents WHERE id = ?")?.execute(params![promise.id])?
        }
        Write::PutScope(scope) => {
            let timers =
                serde_json::to_string(&scope.timers).map_err(|error| BackendError::Refused(error.to_string()))?;
            connection.prepare_cached("REPLACE INTO scopes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
                scope.plugin,
                scope.key,
                scope.version,
                scope.state,
                scope.sequence as i64,
                timers,
                scope.expires_ms as i64,
                scope.before.as_ref().map(|(version, _)| version),
                scope.before.as_ref().map(|(_, state)| state),
            ])?
        }
        Write::DropScope { plugin, key, .. } => connection
            .prepare_cached("DELETE FROM scopes WHERE plugin = ? AND key = ?")?
            .execute(params![plugin, key])?,
        Write::Remember(call) => connection
            .prepare_cached(
                "REPLACE INTO answered_calls (caller, key, fingerprint, answer, answered_ms) VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![call.caller, call.key, call.fingerprint, call.answer, call.answered_ms as i64])?,
    };
    Ok(Written::AsAsked)
}

fn insert(connection: &Connection, promise: &Promise) -> Result<Written, BackendError> {
    let Promise { id, plugin, scope, collection, key, document, .. } = promise;
    let inserted = connection
        .prepare_cached(
            "INSERT INTO documents (id, plugin, scope, collection, key, body) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![id, plugin, scope, collection, key, document])?;
    if inserted > 0 {
        return Ok(Written::AsAsked);
    }
    // An earlier attempt stored the document although it seemed to fail, or another document has the same key.
    let stored = connection
        .prepare_cached(
            "SELECT id, body FROM documents WHERE id = ?1
             UNION ALL SELECT id, body FROM documents
                 WHERE plugin = ?2 AND scope = ?3 AND collection = ?4 AND key = ?5",
        )?
        .query_row(params![id, plugin, scope, collection, key], |row| {
            Ok(Document { id: row.get(0)?, body: row.get(1)? })
        })?;
    Ok(if stored.id == *id { Written::AsAsked } else { Written::Before(stored) })
}

fn record(row: &Row<'_>) -> rusqlite::Result<ScopeRecord> {
    let timers: String = row.get(5)?;
    // A table that is only read may have an older schema.
    let before = match row.as_ref().column_count() > BEFORE_STATE {
        true => row.get::<_, Option<u32>>(BEFORE_VERSION)?.zip(row.get(BEFORE_STATE)?),
        false => None,
    };
    Ok(ScopeRecord {
        plugin: row.get(0)?,
        key: row.get(1)?,
        version: row.get(2)?,
        state: row.get(3)?,
        sequence: row.get::<_, i64>(4)? as u64,
        timers: serde_json::from_str(&timers).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Text, Box::new(error))
        })?,
        expires_ms: row.get::<_, i64>(6)? as u64,
        before,
        epoch: 0,
    })
}
