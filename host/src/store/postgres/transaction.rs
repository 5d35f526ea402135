//! Transactions that leave nothing behind in their session. A pooler in transaction mode, such as PgBouncer, runs each
//! transaction on any of its connections: settings and locks of a session would be another client's, and a prepared statement
//! would be missing. So settings are made with `SET LOCAL`, locks belong to transactions, and statements are unnamed and sent
//! with the types of their parameters (`query_typed`), which saves a round trip as well.

use postgres::Client;

use super::super::backend::BackendError;

/// Begins a transaction of the given kind, with timeouts: for one statement, for a lock (a table that another session
/// has locked is an outage), and for an idle transaction, whose host may have died.
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

/// The kind of a transaction.
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

/// Runs `work` in a transaction.
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
            // The first error is reported: later ones follow from it.
            client.batch_execute("ROLLBACK").map_err(|_| match &error {
                BackendError::Refused(why) | BackendError::Unavailable(why) => BackendError::Unavailable(why.clone()),
            })?;
            Err(error)
        }
    }
}
