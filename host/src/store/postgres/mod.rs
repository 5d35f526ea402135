//! Documents and states in PostgreSQL, for those who have one and want theirs there.

mod tls;

use std::collections::HashSet;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use postgres::config::TargetSessionAttrs;
use postgres::{Client, Row, Transaction};

use self::tls::Target;
use super::backend::{
    AnsweredCall, Backend, BackendError, Document, MAX_ANSWERED_CALLS, PAGE_BYTES, Page, ScopeRecord, Write, Written,
    page_of,
};
use super::{PageRequest, Promise};

/// Time for a server to take a connection, where the URL does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps two hosts that start at once from making the tables at once: "roundhous" in ASCII, cut to a number.
const SCHEMA_LOCK: i64 = 0x726f_756e_6468_6f75;

/// As in SQLite; the names are longer, for the database may be shared with others.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS roundhouse_documents (
        seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        plugin TEXT NOT NULL,
        scope TEXT NOT NULL,
        collection TEXT NOT NULL,
        key TEXT,
        body TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS roundhouse_documents_history
        ON roundhouse_documents (plugin, scope, collection, seq);
    CREATE UNIQUE INDEX IF NOT EXISTS roundhouse_documents_key
        ON roundhouse_documents (plugin, scope, collection, key) WHERE key IS NOT NULL;
    CREATE TABLE IF NOT EXISTS roundhouse_scopes (
        plugin TEXT NOT NULL,
        key TEXT COLLATE \"C\" NOT NULL,
        version BIGINT NOT NULL,
        state BYTEA,
        sequence BIGINT NOT NULL,
        timers TEXT NOT NULL,
        expires_ms BIGINT NOT NULL,
        PRIMARY KEY (plugin, key)
    );
    CREATE TABLE IF NOT EXISTS roundhouse_answered_calls (
        seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        caller TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BYTEA NOT NULL,
        answer TEXT NOT NULL,
        answered_ms BIGINT NOT NULL,
        UNIQUE (caller, key)
    );
";

/// Held by the host whose database it is, for as long as it is connected.
const OWNER_LOCK: i64 = SCHEMA_LOCK + 1;

/// How long the server may take for one statement, and wait for a lock: a table that somebody has locked is an outage. And
/// after how long it gives a host up that is gone, whose lock the next one waits for.
const SESSION: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'; SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";

/// The host that has the database, or had it last: one that lost it without noticing must not write what it still has in
/// memory over what another has written since.
const OWNER: &str = "
    CREATE TABLE IF NOT EXISTS roundhouse_owner (
        one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
        owner TEXT NOT NULL
    );
";

/// How long a server that could not be connected to is left alone: what waits must not wait for each attempt in turn.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// How long a start waits for the host before to be gone, as the server sees it.
const OWNER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// To write. One host does.
    Own,
    Read,
}

/// A connection to a PostgreSQL server, made anew when it was lost.
pub(super) struct Postgres {
    target: Target,
    purpose: Use,
    client: Option<Client>,
    left_alone_until: Option<Instant>,
    /// What tells this host from others.
    owner: String,
    /// The server's process of the connection, and when it began.
    backend: Option<(i32, SystemTime)>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("hosts", &self.target.config.get_hosts()).finish_non_exhaustive()
    }
}

/// Whether a connection string is one.
///
/// # Errors
/// With what is wrong.
pub(super) fn check_url(url: &str) -> anyhow::Result<()> {
    Target::parse(url).map(drop)
}

impl Postgres {
    /// Connects, and makes the tables if they are not there.
    ///
    /// # Errors
    /// Where the server cannot be reached, does not let the host in or make tables, or another host has the database.
    pub(super) fn open(url: &str, purpose: Use) -> anyhow::Result<Self> {
        let mut target = Target::parse(url)?;
        let config = &mut target.config;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        // A server that a broken network hides is given up as soon.
        config.tcp_user_timeout(CONNECT_TIMEOUT * 2).keepalives_idle(CONNECT_TIMEOUT * 2);
        config.keepalives_interval(CONNECT_TIMEOUT).keepalives_retries(3);
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            // Of several servers, the one that can be written to.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.application_name("roundhouse");
        let mut client = target.connect().context("cannot connect to PostgreSQL")?;
        client.batch_execute(SESSION)?;
        let deadline = Instant::now() + OWNER_TIMEOUT;
        while purpose == Use::Own && !owns(&mut client)? {
            if Instant::now() > deadline {
                bail!("another host uses this database: end that one first, or give each its own");
            }
            thread::sleep(LEFT_ALONE / 10);
        }
        make_tables(&mut client).context("cannot make the tables")?;
        let mut postgres = Self {
            target,
            purpose,
            client: None,
            left_alone_until: None,
            owner: uuid::Uuid::from_u128(getrandom::u64()?.into()).to_string(),
            backend: None,
        };
        if purpose == Use::Own {
            client.execute(
                "INSERT INTO roundhouse_owner (owner) VALUES ($1)
                 ON CONFLICT (one) DO UPDATE SET owner = excluded.owner",
                &[&postgres.owner],
            )?;
            postgres.backend = Some(backend_of(&mut client)?);
        }
        postgres.client = Some(client);
        Ok(postgres)
    }

    /// Connects to read, and makes nothing. Nothing where there are no tables yet.
    ///
    /// # Errors
    /// Where the server cannot be reached, or does not let the host in.
    pub(super) fn look_at(url: &str) -> anyhow::Result<Option<Self>> {
        let target = Target::parse(url)?;
        let mut client = target.connect().context("cannot connect to PostgreSQL")?;
        let row = client.query_one("SELECT to_regclass('roundhouse_scopes') IS NOT NULL", &[])?;
        let purpose = Use::Read;
        let (left_alone_until, owner, backend) = (None, String::new(), None);
        Ok(row.get::<_, bool>(0).then_some(Self {
            target,
            purpose,
            client: Some(client),
            left_alone_until,
            owner,
            backend,
        }))
    }

    fn connect(&mut self) -> Result<Client, BackendError> {
        if self.left_alone_until.is_some_and(|until| Instant::now() < until) {
            return Err(BackendError::Unavailable("the database could not be connected to a moment ago".to_owned()));
        }
        let connected = self.target.connect().map_err(BackendError::from).and_then(|mut client| {
            client.batch_execute(SESSION)?;
            if self.purpose == Use::Own {
                self.own_again(&mut client)?;
            }
            Ok(client)
        });
        self.left_alone_until = connected.is_err().then(|| Instant::now() + LEFT_ALONE);
        connected
    }

    /// Makes a new connection the one that writes.
    fn own_again(&mut self, client: &mut Client) -> Result<(), BackendError> {
        if let Some((pid, since)) = self.backend {
            // The server may not have noticed that the connection before is gone, which has the lock.
            client.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2",
                &[&pid, &since],
            )?;
        }
        if !owns(client)? {
            return Err(BackendError::Unavailable("another host uses this database".to_owned()));
        }
        // The database may have been replaced by an empty one.
        make_tables(client)?;
        let owner = client.query_opt("SELECT owner FROM roundhouse_owner", &[])?;
        let owner: Option<&str> = owner.as_ref().map(|row| row.get(0));
        assert!(
            owner.is_none_or(|owner| owner == self.owner),
            "another host has used the database since this one lost its connection: what this one has in memory is out of \
             date, and it ends; start it anew where no other runs"
        );
        self.backend = Some(backend_of(client)?);
        Ok(())
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Client) -> Result<T, BackendError>) -> Result<T, BackendError> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.client = Some(self.connect()?);
        }
        let Some(client) = &mut self.client else { unreachable!("it was connected above") };
        let result = work(client);
        if matches!(result, Err(BackendError::Unavailable(_))) {
            // Whatever state the connection is in, a new one is in none.
            self.client = None;
        }
        result
    }

    /// Does `work`, and once more on a new connection where the old one turns out to be dead.
    fn read<T>(&mut self, work: impl Fn(&mut Client) -> Result<T, BackendError>) -> Result<T, BackendError> {
        match self.with(&work) {
            Err(BackendError::Unavailable(_)) => self.with(&work),
            result => result,
        }
    }
}

impl From<postgres::Error> for BackendError {
    fn from(error: postgres::Error) -> Self {
        let message = match error.as_db_error() {
            Some(db) => db.message().to_owned(),
            None => causes(&error),
        };
        // The classes of SQLSTATE (PostgreSQL, appendix A) that are about the data: exceptions, constraints, limits.
        let is_about_data = error.code().is_some_and(|code| {
            let class = &code.code()[..2];
            matches!(class, "22" | "23" | "54")
        });
        if is_about_data { Self::Refused(message) } else { Self::Unavailable(message) }
    }
}

/// Whether this connection is the one that writes, or becomes it now.
fn owns(client: &mut Client) -> Result<bool, postgres::Error> {
    Ok(client.query_one("SELECT pg_try_advisory_lock($1)", &[&OWNER_LOCK])?.get(0))
}

/// The server's process of a connection, and when it began.
fn backend_of(client: &mut Client) -> Result<(i32, SystemTime), postgres::Error> {
    let row = client.query_one("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()", &[])?;
    Ok((row.get(0), row.get(1)))
}

fn make_tables(client: &mut Client) -> Result<(), postgres::Error> {
    let mut transaction = client.transaction()?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&SCHEMA_LOCK])?;
    transaction.batch_execute(SCHEMA)?;
    transaction.batch_execute(OWNER)?;
    transaction.commit()
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
        self.with(|client| {
            let mut transaction = client.transaction()?;
            let mut written = Vec::with_capacity(writes.len());
            for run in writes.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
                write_run(&mut transaction, run, &mut written)?;
            }
            transaction.commit()?;
            Ok(written)
        })
    }

    fn page(&mut self, request: &PageRequest) -> Result<Option<Page>, BackendError> {
        let PageRequest { plugin, scope, collection, before, limit } = request;
        self.read(|client| {
            let before = match before {
                None => i64::MAX,
                Some(id) => {
                    let found = client.query_opt(
                        "SELECT seq FROM roundhouse_documents
                         WHERE id = $1 AND plugin = $2 AND scope = $3 AND collection = $4",
                        &[id, plugin, scope, collection],
                    )?;
                    let Some(row) = found else { return Ok(None) };
                    row.get(0)
                }
            };
            let rows = client.query(
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
                &[plugin, scope, collection, &before, &(i64::from(*limit) + 1), &(PAGE_BYTES as i64)],
            )?;
            let documents = rows.iter().map(|row| Document { id: row.get(0), body: row.get(1) }).collect();
            Ok(Some(page_of(documents, *limit)))
        })
    }

    fn scope(&mut self, plugin: &str, key: &str) -> Result<Option<ScopeRecord>, BackendError> {
        self.read(|client| {
            let row = client.query_opt(
                "SELECT plugin, key, version, state, sequence, timers, expires_ms FROM roundhouse_scopes
                 WHERE plugin = $1 AND key = $2",
                &[&plugin, &key],
            )?;
            row.as_ref().map(record).transpose()
        })
    }

    fn scopes(&mut self, plugin: &str, after: &str, limit: u32) -> Result<Vec<ScopeRecord>, BackendError> {
        self.read(|client| {
            let rows = client.query(
                "SELECT plugin, key, version, state, sequence, timers, expires_ms FROM roundhouse_scopes
                 WHERE plugin = $1 AND key > $2 ORDER BY key LIMIT $3",
                &[&plugin, &after, &i64::from(limit)],
            )?;
            rows.iter().map(record).collect()
        })
    }

    fn answered_calls(&mut self, since_ms: u64) -> Result<Vec<AnsweredCall>, BackendError> {
        self.read(|client| {
            let rows = client.query(
                "SELECT caller, key, fingerprint, answer, answered_ms FROM roundhouse_answered_calls
                 WHERE answered_ms >= $1 ORDER BY seq",
                &[&(since_ms as i64)],
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

/// Writes of one kind, in one round trip where that is possible.
fn write_run(
    transaction: &mut Transaction<'_>,
    run: &[Write<'_>],
    written: &mut Vec<Written>,
) -> Result<(), BackendError> {
    let promises: Vec<&Promise> = run
        .iter()
        .filter_map(|write| match write {
            Write::Insert(promise) | Write::Withdraw(promise) => Some(*promise),
            _ => None,
        })
        .collect();
    match run.first() {
        Some(Write::Insert(_)) => return insert(transaction, &promises, written),
        Some(Write::Withdraw(_)) => {
            let withdrawn: Vec<&str> = promises.iter().map(|promise| promise.id.as_str()).collect();
            transaction.execute("DELETE FROM roundhouse_documents WHERE id = ANY($1)", &[&withdrawn])?;
        }
        _ => {
            let put: Vec<_> = run
                .iter()
                .filter_map(|write| if let Write::PutScope(put) = write { Some(*put) } else { None })
                .collect();
            if !put.is_empty() {
                put_scopes(transaction, &put)?;
            }
            let calls: Vec<_> = run
                .iter()
                .filter_map(|write| if let Write::Remember(call) = write { Some(*call) } else { None })
                .collect();
            if !calls.is_empty() {
                remember(transaction, &calls)?;
            }
            for write in run {
                if let Write::DropScope { plugin, key } = write {
                    transaction
                        .execute("DELETE FROM roundhouse_scopes WHERE plugin = $1 AND key = $2", &[plugin, key])?;
                }
            }
        }
    }
    written.extend(run.iter().map(|_| Written::AsAsked));
    Ok(())
}

fn insert(
    transaction: &mut Transaction<'_>,
    promises: &[&Promise],
    written: &mut Vec<Written>,
) -> Result<(), BackendError> {
    let column = |of: fn(&Promise) -> &str| promises.iter().map(|promise| of(promise)).collect::<Vec<&str>>();
    let keys: Vec<Option<&str>> = promises.iter().map(|promise| promise.key.as_deref()).collect();
    let inserted = transaction.query(
        "INSERT INTO roundhouse_documents (id, plugin, scope, collection, key, body)
         SELECT id, plugin, scope, collection, key, body
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
             WITH ORDINALITY AS new (id, plugin, scope, collection, key, body, n)
         ORDER BY n
         ON CONFLICT DO NOTHING RETURNING id",
        &[
            &column(|promise| &promise.id),
            &column(|promise| &promise.plugin),
            &column(|promise| &promise.scope),
            &column(|promise| &promise.collection),
            &keys,
            &column(|promise| &promise.document),
        ],
    )?;
    let inserted: HashSet<&str> = inserted.iter().map(|row| row.get(0)).collect();
    for promise in promises {
        if inserted.contains(promise.id.as_str()) {
            written.push(Written::AsAsked);
            continue;
        }
        // It was stored by an attempt of which nobody heard, or another has its key.
        let Promise { id, plugin, scope, collection, key, .. } = promise;
        let stored = transaction.query_one(
            "SELECT id, body FROM roundhouse_documents WHERE id = $1
             UNION ALL SELECT id, body FROM roundhouse_documents
                 WHERE plugin = $2 AND scope = $3 AND collection = $4 AND key = $5
             LIMIT 1",
            &[id, plugin, scope, collection, key],
        )?;
        let stored = Document { id: stored.get(0), body: stored.get(1) };
        written.push(if stored.id == *id { Written::AsAsked } else { Written::Before(stored) });
    }
    Ok(())
}

fn put_scopes(transaction: &mut Transaction<'_>, scopes: &[&ScopeRecord]) -> Result<(), BackendError> {
    let plugins: Vec<&str> = scopes.iter().map(|scope| scope.plugin.as_str()).collect();
    let keys: Vec<&str> = scopes.iter().map(|scope| scope.key.as_str()).collect();
    let versions: Vec<i64> = scopes.iter().map(|scope| scope.version.into()).collect();
    let states: Vec<Option<&[u8]>> = scopes.iter().map(|scope| scope.state.as_deref()).collect();
    let sequences: Vec<i64> = scopes.iter().map(|scope| scope.sequence as i64).collect();
    let timers = scopes.iter().map(|scope| serde_json::to_string(&scope.timers)).collect::<Result<Vec<_>, _>>();
    let timers = timers.map_err(|error| BackendError::Refused(error.to_string()))?;
    let expiries: Vec<i64> = scopes.iter().map(|scope| scope.expires_ms as i64).collect();
    transaction.execute(
        "INSERT INTO roundhouse_scopes (plugin, key, version, state, sequence, timers, expires_ms)
         SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[], $6::text[], $7::bigint[])
         ON CONFLICT (plugin, key) DO UPDATE SET version = excluded.version, state = excluded.state,
             sequence = excluded.sequence, timers = excluded.timers, expires_ms = excluded.expires_ms",
        &[&plugins, &keys, &versions, &states, &sequences, &timers, &expiries],
    )?;
    Ok(())
}

fn remember(transaction: &mut Transaction<'_>, calls: &[&AnsweredCall]) -> Result<(), BackendError> {
    let callers: Vec<&str> = calls.iter().map(|call| call.caller.as_str()).collect();
    let keys: Vec<&str> = calls.iter().map(|call| call.key.as_str()).collect();
    let fingerprints: Vec<&[u8]> = calls.iter().map(|call| &call.fingerprint[..]).collect();
    let answers: Vec<&str> = calls.iter().map(|call| call.answer.as_str()).collect();
    let times: Vec<i64> = calls.iter().map(|call| call.answered_ms as i64).collect();
    transaction.execute(
        // A row can be inserted or updated once in a statement.
        "INSERT INTO roundhouse_answered_calls (caller, key, fingerprint, answer, answered_ms)
         SELECT caller, key, fingerprint, answer, answered_ms FROM (
             SELECT DISTINCT ON (caller, key) *
             FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[])
                 WITH ORDINALITY AS new (caller, key, fingerprint, answer, answered_ms, n)
             ORDER BY caller, key, n DESC
         ) AS last ORDER BY n
         ON CONFLICT (caller, key) DO UPDATE SET seq = DEFAULT, fingerprint = excluded.fingerprint,
             answer = excluded.answer, answered_ms = excluded.answered_ms",
        &[&callers, &keys, &fingerprints, &answers, &times],
    )?;
    transaction.execute(
        "DELETE FROM roundhouse_answered_calls
         WHERE seq <= (SELECT max(seq) FROM roundhouse_answered_calls) - $1",
        &[&(MAX_ANSWERED_CALLS as i64)],
    )?;
    Ok(())
}

fn record(row: &Row) -> Result<ScopeRecord, BackendError> {
    let timers: String = row.get(5);
    Ok(ScopeRecord {
        plugin: row.get(0),
        key: row.get(1),
        version: row.get::<_, i64>(2) as u32,
        state: row.get(3),
        sequence: row.get::<_, i64>(4) as u64,
        timers: serde_json::from_str(&timers).map_err(|error| BackendError::Refused(error.to_string()))?,
        expires_ms: row.get::<_, i64>(6) as u64,
    })
}
