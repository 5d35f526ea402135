//! Transactions that leave nothing behind in their session. A pooler such as PgBouncer, in transaction mode, gives each
//! transaction any of its own connections: settings and locks of a session would be somebody else's, and a prepared statement
//! would be looked for where it is not. So settings are made with `SET LOCAL`, locks are a transaction's, and statements are
//! unnamed and go out with the types of their parameters (`query_typed`), which is one round trip as well.

use postgres::Client;

use super::super::backend::BackendError;

/// Begins a transaction of the given kind, with the bounds of all: how long the server may take for one statement and wait for
/// a lock (a table that another session has locked is an outage), and after how long it ends a transaction whose host is gone.
macro_rules! begin {
    ($kind:literal) => {
        concat!(
            "BEGIN ISOLATION LEVEL READ COMMITTED ",
            $kind,
            "; SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '5s'; \
             SET LOCAL idle_in_transaction_session_timeout = '10s'"
        )
    };
}

/// What a transaction does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Read,
    Write,
}

impl Kind {
    fn begin(self) -> &'static str {
        match self {
            Self::Read => begin!("READ ONLY"),
            Self::Write => begin!("READ WRITE"),
        }
    }
}

/// Does `work` in a transaction: whole, or not at all.
pub(super) fn in_transaction<T>(
    client: &mut Client,
    kind: Kind,
    work: impl FnOnce(&mut Client) -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    client.batch_execute(kind.begin())?;
    match work(client) {
        Ok(done) => {
            client.batch_execute("COMMIT")?;
            Ok(done)
        }
        Err(error) => {
            // The first error says more than what follows from it.
            client.batch_execute("ROLLBACK").map_err(|_| match &error {
                BackendError::Refused(why) | BackendError::Unavailable(why) => BackendError::Unavailable(why.clone()),
            })?;
            Err(error)
        }
    }
}
