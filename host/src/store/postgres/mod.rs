//! Documents and states in PostgreSQL.

mod lease;
mod schema;
mod tls;
mod transaction;
mod write;

use std::fmt;
use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use postgres::config::TargetSessionAttrs;
use postgres::types::Type;
use postgres::{Client, Row};

use self::lease::{Lease, mark_as_shared, share};
use self::tls::Target;
use self::transaction::{Kind, in_transaction};
use self::write::{Rule, write_run};
use super::PageRequest;
use super::backend::{
    AnsweredCall, Backend, BackendError, Document, PAGE_BYTES, Page, ScopeRecord, Write, Written, page_of,
};

pub(super) use self::schema::script;

/// The connection timeout, unless the URL has one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time between two attempts to connect, so that queued reads fail at once instead of after an attempt each.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// The indices of the columns that hold the state before its migration.
const BEFORE_VERSION: usize = 7;
const BEFORE_STATE: usize = 8;

/// The index of the column of the owner's epoch.
const EPOCH: usize = 9;

/// A connection to a PostgreSQL server, which reconnects when it was lost.
pub(super) struct Postgres {
    target: Target,
    client: Option<Client>,
    left_alone_until: Option<Instant>,
    access: Access,
}

/// What a connection may do.
enum Access {
    Read,
    /// Write as the one owner of the database.
    Own(Lease),
    /// Write beside the other nodes of a cluster.
    Share,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("hosts", &self.target.config.get_hosts()).finish_non_exhaustive()
    }
}

/// Checks a connection string.
///
/// # Errors
/// Where it is malformed, or has parameters that the host does not support.
pub(super) fn check_url(url: &str) -> anyhow::Result<()> {
    Target::parse(url).map(drop)
}

impl Postgres {
    /// Connects to read and to write: creates missing tables, and takes the lease for the host of this name.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses the host, tables are missing and cannot be created, or another host has the
    /// lease.
    pub(super) fn open_to_write(url: &str, owner: &str) -> anyhow::Result<Self> {
        Self::open_prepared(url, |target, client| Ok(Access::Own(Lease::take(target, client, owner)?)))
    }

    /// Connects to read and to write beside the other nodes of a cluster: creates missing tables, and marks the database
    /// as a cluster's.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses the host, tables are missing and cannot be created, or a host that is
    /// alone has the lease.
    pub(super) fn open_to_share(url: &str) -> anyhow::Result<Self> {
        Self::open_prepared(url, |_, client| share(client).map(|()| Access::Share))
    }

    fn open_prepared(
        url: &str,
        access: impl FnOnce(&Target, &mut Client) -> anyhow::Result<Access>,
    ) -> anyhow::Result<Self> {
        let mut postgres = Self::open_to_read(url)?;
        let Some(client) = &mut postgres.client else { unreachable!("it was connected above") };
        in_transaction(client, Kind::Write, |_| Ok(()))
            .context("cannot begin a transaction (a pooler must be in session or transaction mode)")?;
        schema::prepare(client)?;
        postgres.access = access(&postgres.target, client)?;
        Ok(postgres)
    }

    /// Connects to read.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses the host.
    pub(super) fn open_to_read(url: &str) -> anyhow::Result<Self> {
        let mut target = Target::parse(url)?;
        let config = &mut target.config;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        // Timeouts of the same order for a server behind a broken network.
        config.tcp_user_timeout(CONNECT_TIMEOUT * 2).keepalives_idle(CONNECT_TIMEOUT * 2);
        config.keepalives_interval(CONNECT_TIMEOUT).keepalives_retries(3);
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            // Of several servers, the primary.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.application_name("roundhouse");
        let client = target.connect().context("cannot connect to PostgreSQL")?;
        Ok(Self { target, client: Some(client), left_alone_until: None, access: Access::Read })
    }

    /// Connects to read, and creates nothing. `None` if the tables do not exist yet.
    ///
    /// # Errors
    /// Where the server cannot be reached, or refuses the host.
    pub(super) fn look_at(url: &str) -> anyhow::Result<Option<Self>> {
        let mut postgres = Self::open_to_read(url)?;
        let is_there = postgres.read(|client| {
            schema::check_readable(client)?;
            let row = client.query_typed_one("SELECT to_regclass('roundhouse_scopes') IS NOT NULL", &[])?;
            Ok(row.get(0))
        })?;
        Ok(if is_there { Some(postgres) } else { None })
    }

    fn connect(&mut self) -> Result<Client, BackendError> {
        if self.left_alone_until.is_some_and(|until| Instant::now() < until) {
            return Err(BackendError::Unavailable("the database could not be connected to a moment ago".to_owned()));
        }
        let connected = self.target.connect().map_err(BackendError::from).and_then(|mut client| {
            // The database may have been replaced by an empty one.
            match &self.access {
                Access::Read => {}
                Access::Own(lease) => {
                    schema::prepare(&mut client)?;
                    lease.fence().put_back(&mut client)?;
                }
                Access::Share => {
                    schema::prepare(&mut client)?;
                    mark_as_shared(&mut client)?;
                }
            }
            Ok(client)
        });
        self.left_alone_until = connected.is_err().then(|| Instant::now() + LEFT_ALONE);
        connected
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Client) -> Result<T, BackendError>) -> Result<T, BackendError> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.client = Some(self.connect()?);
        }
        let Some(client) = &mut self.client else { unreachable!("it was connected above") };
        let result = work(client);
        if matches!(result, Err(BackendError::Unavailable(_))) {
            // The connection is in an unknown state, so it is replaced.
            self.client = None;
        }
        result
    }

    /// Reads with `work`, and once more on a new connection if the old one is dead.
    fn read<T>(&mut self, work: impl Fn(&mut Client) -> Result<T, BackendError>) -> Result<T, BackendError> {
        let read = |client: &mut Client| in_transaction(client, Kind::Read, &work);
        match self.with(read) {
            Err(BackendError::Unavailable(_)) => self.with(read),
            result => result,
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Without a connection, the lease expires.
        if let (Access::Own(lease), Some(client)) = (mem::replace(&mut self.access, Access::Read), &mut self.client)
            && !thread::panicking()
            && !client.is_closed()
        {
            lease.release(client);
        }
    }
}

impl From<postgres::Error> for BackendError {
    fn from(error: postgres::Error) -> Self {
        let message = match error.as_db_error() {
            Some(db) => db.message().to_owned(),
            None => causes(&error),
        };
        // The classes of SQLSTATE (PostgreSQL, appendix A) that concern the data: exceptions, constraints, limits.
        let is_about_data = error.code().is_some_and(|code| {
            let class = &code.code()[..2];
            matches!(class, "22" | "23" | "54")
        });
        if is_about_data { Self::Refused(message) } else { Self::Unavailable(message) }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Backend for Postgres {
    fn write(&mut self, writes: &[Write<'_>]) -> Result<Vec<Written>, BackendError> {
        let (fence, rule) = match &self.access {
            Access::Read => return Err(BackendError::Refused("this connection only reads".to_owned())),
            Access::Own(lease) => (Some(lease.fence()), Rule::Always),
            Access::Share => (None, Rule::UnlessNewer),
        };
        self.with(|client| {
            in_transaction(client, Kind::Write, |client| {
                if let Some(fence) = &fence {
                    fence.check(client)?;
                }
                let mut written = Vec::with_capacity(writes.len());
                for run in writes.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
                    write_run(client, rule, run, &mut written)?;
                }
                Ok(written)
            })
        })
    }

    fn page(&mut self, request: &PageRequest) -> Result<Option<Page>, BackendError> {
        let PageRequest { plugin, scope, collection, before, limit } = request;
        self.read(|client| {
            let before = match before {
                None => i64::MAX,
                Some(id) => {
                    let found = client.query_typed_opt(
                        "SELECT seq FROM roundhouse_documents
                         WHERE id = $1 AND plugin = $2 AND scope = $3 AND collection = $4",
                        &[(id, Type::TEXT), (plugin, Type::TEXT), (scope, Type::TEXT), (collection, Type::TEXT)],
                    )?;
                    let Some(row) = found else { return Ok(None) };
                    row.get(0)
                }
            };
            let rows = client.query_typed(
                "SELECT id, body FROM (
                     SELECT id, body, seq,
                            -- One more than fits says that there is more.
                            sum(octet_length(body)) OVER (
                                ORDER BY seq DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING
                            ) AS bytes_before
                     FROM (
                         SELECT id, body, seq FROM roundhouse_documents
                         WHERE plugin = $1 AND scope = $2 AND collection = $3 AND seq < $4
                         ORDER BY seq DESC LIMIT $5
                     ) AS newest
                 ) AS weighed
                 WHERE coalesce(bytes_before, 0) <= $6 ORDER BY seq DESC",
                &[
                    (plugin, Type::TEXT),
                    (scope, Type::TEXT),
                    (collection, Type::TEXT),
                    (&before, Type::INT8),
                    (&(i64::from(*limit) + 1), Type::INT8),
                    (&(PAGE_BYTES as i64), Type::INT8),
                ],
            )?;
            let documents = rows.iter().map(|row| Document { id: row.get(0), body: row.get(1) }).collect();
            Ok(Some(page_of(documents, *limit)))
        })
    }

    fn scope(&mut self, plugin: &str, key: &str) -> Result<Option<ScopeRecord>, BackendError> {
        self.read(|client| {
            let row = client.query_typed_opt(
                "SELECT * FROM roundhouse_scopes
                 WHERE plugin = $1 AND key = $2",
                &[(&plugin, Type::TEXT), (&key, Type::TEXT)],
            )?;
            row.as_ref().map(record).transpose()
        })
    }

    fn scopes(&mut self, plugin: &str, after: &str, limit: u32) -> Result<Vec<ScopeRecord>, BackendError> {
        self.read(|client| {
            let rows = client.query_typed(
                "SELECT * FROM roundhouse_scopes
                 WHERE plugin = $1 AND key > $2 ORDER BY key LIMIT $3",
                &[(&plugin, Type::TEXT), (&after, Type::TEXT), (&i64::from(limit), Type::INT8)],
            )?;
            rows.iter().map(record).collect()
        })
    }

    fn answered_calls(&mut self, since_ms: u64) -> Result<Vec<AnsweredCall>, BackendError> {
        self.read(|client| {
            let rows = client.query_typed(
                "SELECT caller, key, fingerprint, answer, answered_ms FROM roundhouse_answered_calls
                 WHERE answered_ms >= $1 ORDER BY seq",
                &[(&(since_ms as i64), Type::INT8)],
            )?;
            let call = |row: &Row| {
                Ok(AnsweredCall {
                    caller: row.get(0),
                    key: row.get(1),
                    fingerprint: row.get::<_, &[u8]>(2).try_into().map_err(|_| {
                        BackendError::Refused("a fingerprint in roundhouse_answered_calls is not one".to_owned())
                    })?,
                    answer: row.get(3),
                    answered_ms: row.get::<_, i64>(4) as u64,
                })
            };
            rows.iter().map(call).collect()
        })
    }
}

fn record(row: &Row) -> Result<ScopeRecord, BackendError> {
    let timers: String = row.get(5);
    // A table that is only read may have an older schema.
    let before = match row.len() > BEFORE_STATE {
        true => row.get::<_, Option<i64>>(BEFORE_VERSION).map(|version| version as u32).zip(row.get(BEFORE_STATE)),
        false => None,
    };
    Ok(ScopeRecord {
        plugin: row.get(0),
        key: row.get(1),
        version: row.get::<_, i64>(2) as u32,
        state: row.get(3),
        sequence: row.get::<_, i64>(4) as u64,
        timers: serde_json::from_str(&timers).map_err(|error| BackendError::Refused(error.to_string()))?,
        expires_ms: row.get::<_, i64>(6) as u64,
        before,
        epoch: if row.len() > EPOCH { row.get::<_, i64>(EPOCH) as u64 } else { 0 },
    })
}
