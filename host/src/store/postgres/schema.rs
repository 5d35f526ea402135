//! The tables: their creation, their version, and the privileges that a host needs.

use std::fmt::Write as _;

use postgres::Client;
use postgres::types::Type;

use super::super::backend::BackendError;
use super::transaction::{Kind, in_transaction};

/// The version of the tables that this host knows. Version 1 had no `roundhouse_schema`, version 2 no epochs of scopes.
const VERSION: i32 = 3;

/// The lock under which a starting host creates the tables: "roundhous" in ASCII, cut to a number.
pub(super) const SCHEMA_LOCK: i64 = 0x726f_756e_6468_6f75;

/// Creates the tables, or migrates those of an older host. Idempotent. The tables are those of SQLite, under longer
/// names, because other programs may share the database. `roundhouse_owner` has one row, the lease of the host that
/// writes, or the mark of a cluster, whose nodes fence each other by the epochs of scopes; an older host must be able to use the table with the columns that it knows, the first ones.
const TABLES: &str = "\
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
ALTER TABLE roundhouse_scopes
    ADD COLUMN IF NOT EXISTS before_version BIGINT,
    ADD COLUMN IF NOT EXISTS before_state BYTEA,
    ADD COLUMN IF NOT EXISTS epoch BIGINT NOT NULL DEFAULT 0;
CREATE TABLE IF NOT EXISTS roundhouse_answered_calls (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    answer TEXT NOT NULL,
    answered_ms BIGINT NOT NULL,
    UNIQUE (caller, key)
);
CREATE TABLE IF NOT EXISTS roundhouse_owner (
    one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
    owner TEXT NOT NULL
);
ALTER TABLE roundhouse_owner
    ADD COLUMN IF NOT EXISTS epoch BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS expires TIMESTAMPTZ NOT NULL DEFAULT '-infinity',
    ADD COLUMN IF NOT EXISTS holder TEXT NOT NULL DEFAULT '';
CREATE TABLE IF NOT EXISTS roundhouse_schema (
    one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
    version INTEGER NOT NULL
);
";

/// The privileges that a host needs on each table.
const PRIVILEGES: [(&str, &[&str]); 5] = [
    ("roundhouse_documents", &["SELECT", "INSERT", "DELETE"]),
    ("roundhouse_scopes", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("roundhouse_answered_calls", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("roundhouse_owner", &["SELECT", "INSERT", "UPDATE"]),
    ("roundhouse_schema", &["SELECT"]),
];

fn statements() -> String {
    format!(
        "{TABLES}INSERT INTO roundhouse_schema (version) VALUES ({VERSION})
    ON CONFLICT (one) DO UPDATE SET version = excluded.version WHERE roundhouse_schema.version < excluded.version;\n"
    )
}

/// The statements for an administrator who creates or migrates the tables, and grants a role the privileges of a host.
pub(in super::super) fn script(role: Option<&str>) -> String {
    let mut script = format!(
        "-- The tables of Roundhouse, schema {VERSION}, for PostgreSQL. Makes them, or brings those of an older host up to\n\
         -- date; to run it again changes nothing. The database must be encoded as UTF8.\n\
         BEGIN;\nSET LOCAL client_min_messages = warning;\n{}",
        statements()
    );
    let (start, role) = match role {
        Some(role) => ("", format!("\"{}\"", role.replace('"', "\"\""))),
        None => {
            script.push_str("-- All that the role of a host needs; --role NAME fills the name in:\n");
            ("-- ", "NAME".to_owned())
        }
    };
    for (table, privileges) in PRIVILEGES {
        // Writing to a string does not fail.
        let _ = writeln!(script, "{start}GRANT {} ON {table} TO {role};", privileges.join(", "));
    }
    script.push_str("COMMIT;\n");
    script
}

/// Checks that the tables exist, are current and can be used. Creates or migrates them only if necessary, because a
/// role of least privilege may not.
///
/// # Errors
/// With the remedy, where they cannot be created or migrated.
pub(super) fn prepare(client: &mut Client) -> Result<(), BackendError> {
    let (place, known) = in_transaction(client, Kind::Read, look)?;
    if known != Some(VERSION) {
        place.make(client, known)?;
    }
    in_transaction(client, Kind::Read, |client| place.check_privileges(client))
}

/// The place of the tables and, if they exist, their version, in a database that a host can use.
///
/// # Errors
/// With the remedy, where the encoding is unsuitable, or the tables are a newer host's.
fn look(client: &mut Client) -> Result<(Place, Option<i32>), BackendError> {
    let place = Place::of(client)?;
    place.check_encoding()?;
    match place.version(client)? {
        Some(newer) if newer > VERSION => Err(BackendError::Unavailable(format!(
            "the tables were made by a newer host (schema {newer}, this one knows {VERSION}): start that version, or give \
             this one a database of its own"
        ))),
        known => Ok((place, known)),
    }
}

/// Whether this host can read the tables.
///
/// # Errors
/// With the remedy, where it cannot.
pub(super) fn check_readable(client: &mut Client) -> Result<(), BackendError> {
    look(client).map(drop)
}

/// The place of the tables, and the role of the host.
struct Place {
    database: String,
    encoding: String,
    role: String,
}

impl Place {
    fn of(client: &mut Client) -> Result<Self, BackendError> {
        let row = client.query_typed_one(
            "SELECT current_database()::text, current_setting('server_encoding'), current_user::text",
            &[],
        )?;
        Ok(Self { database: row.get(0), encoding: row.get(1), role: row.get(2) })
    }

    /// An error about unsuitable tables that cannot be migrated, with the remedy.
    fn refusal(&self, what: &str) -> BackendError {
        let Self { database, role, .. } = self;
        BackendError::Unavailable(format!(
            "{what}: have an administrator of the database {database} run what `roundhouse store schema --role '{role}'` prints"
        ))
    }

    /// A database of another encoding takes only the characters of that encoding; one without an encoding takes all bytes.
    fn check_encoding(&self) -> Result<(), BackendError> {
        let Self { database, encoding, .. } = self;
        if matches!(encoding.as_str(), "UTF8" | "SQL_ASCII") {
            return Ok(());
        }
        Err(BackendError::Unavailable(format!(
            "the database {database} is encoded as {encoding}, which lacks most of the characters that people write: make one \
             with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0 (dump and restore what is in the old one), and name \
             that in store.url"
        )))
    }

    fn version(&self, client: &mut Client) -> Result<Option<i32>, BackendError> {
        let row = client.query_typed_one("SELECT to_regclass('roundhouse_schema') IS NOT NULL", &[])?;
        if !row.get::<_, bool>(0) {
            return Ok(None);
        }
        let row = client.query_typed_opt("SELECT version FROM roundhouse_schema", &[]).map_err(|error| {
            self.refusal(&format!("cannot read the version of the tables: {}", BackendError::from(error)))
        })?;
        Ok(row.map(|row| row.get(0)))
    }

    fn make(&self, client: &mut Client, older: Option<i32>) -> Result<(), BackendError> {
        let made = in_transaction(client, Kind::Write, |client| {
            client.batch_execute("SET LOCAL client_min_messages = warning")?;
            client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&SCHEMA_LOCK, Type::INT8)])?;
            // Another node of the cluster may have made them meanwhile, and be using them.
            if self.version(client)?.is_some_and(|version| version >= VERSION) {
                return Ok(());
            }
            Ok(client.batch_execute(&statements())?)
        });
        made.map_err(|error| {
            let found =
                older.map_or_else(|| "none, or older ones".to_owned(), |older| format!("those of schema {older}"));
            self.refusal(&format!("cannot make the tables of schema {VERSION} (there are {found}): {error}"))
        })
    }

    fn check_privileges(&self, client: &mut Client) -> Result<(), BackendError> {
        let (mut tables, mut privileges): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        for (table, needed) in PRIVILEGES {
            tables.extend(needed.iter().map(|_| table));
            privileges.extend(needed);
        }
        let missing = client.query_typed(
            "SELECT name, privilege FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS needed (name, privilege, n)
             WHERE NOT coalesce(has_table_privilege(to_regclass(name), privilege), FALSE) ORDER BY n",
            &[(&tables, Type::TEXT_ARRAY), (&privileges, Type::TEXT_ARRAY)],
        )?;
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<String> =
            missing.iter().map(|row| format!("{} on {}", row.get::<_, &str>(1), row.get::<_, &str>(0))).collect();
        Err(self.refusal(&format!("the role {} lacks {}", self.role, missing.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_quotes_the_role() {
        let script = script(Some("my \"host\""));
        assert!(
            script.contains("GRANT SELECT, INSERT, UPDATE ON roundhouse_owner TO \"my \"\"host\"\"\";"),
            "{script}"
        );
        assert!(!script.contains("NAME"), "{script}");
        assert!(super::script(None).contains("-- GRANT SELECT ON roundhouse_schema TO NAME;"));
    }
}
