//! The lease of the one host that writes to a database: a row with the owner's name, the lease's number (its epoch), and when
//! it expires by the database's clock.
//!
//! - Each writing transaction first checks the row ([`Fence::check`]) and locks it against other hosts until its end:
//!   the epoch is the fencing token. An expired lease is still its holder's, until another host takes it.
//! - The lease is renewed in the background, on a separate connection, so that a slow write does not lose it.
//! - A host ends when another has taken the lease, because its states in memory are stale.
//! - A cluster has no lease: its mark in the row, a name that no host has and an expiry that never comes, keeps hosts
//!   that are alone from taking the database ([`share`]).
//! - The lease does not depend on a session, so it holds behind a pooler in transaction mode as well.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, process};

use anyhow::{Context as _, bail};
use postgres::types::Type;
use postgres::{Client, Row};

use super::super::backend::BackendError;
use super::schema::SCHEMA_LOCK;
use super::tls::Target;
use super::transaction::{Kind, in_transaction};
use crate::model::spawn_essential;

/// How long a lease lasts without renewal: the failover time after a host was cut off or killed, and the longest pause
/// of the machine without failover.
const LASTS: Duration = Duration::from_secs(10);

/// The interval of renewals: three attempts may fail.
const RENEW_EVERY: Duration = Duration::from_millis(2500);

/// How long a start waits for the previous host to end, or for its lease to expire.
const START_TIMEOUT: Duration = Duration::from_secs(12);

/// The time between two attempts of a start.
const RETRY: Duration = Duration::from_millis(100);

/// The advisory lock of older hosts, which they held in their session while connected.
const OLDER_HOSTS_LOCK: i64 = SCHEMA_LOCK + 1;

/// The owner that the row has while a cluster uses the database: no name of a host, which are UUIDs.
const CLUSTER: &str = "cluster";

/// The condition for the row to renew or to release: `$1` is the owner, `$2` the epoch.
macro_rules! of_holder {
    () => {
        " WHERE owner = $1 AND epoch = $2 AND expires > '-infinity'"
    };
}

/// The condition under which the host named `$1` may take the lease.
macro_rules! is_free {
    () => {
        "(owner = $1 OR expires <= clock_timestamp())"
    };
}

/// The lease of this host, renewed until dropped.
#[derive(Debug)]
pub(super) struct Lease {
    fence: Arc<Fence>,
    /// Ends the renewal when dropped.
    renewal: Sender<()>,
}

/// The identity of a lease, which fences off a former holder.
#[derive(Debug)]
pub(super) struct Fence {
    owner: String,
    epoch: i64,
}

/// The reason for which a lease cannot be taken yet.
enum Held {
    /// Another host has it.
    By(String),
    /// A cluster uses the database; the node that marked it.
    ByCluster(String),
    /// A host of an older version has its lock.
    ByOlderHost,
    /// Another host is taking it, or the last transaction of a former holder has not ended.
    Locked,
}

impl Lease {
    /// Takes the lease for the host named `owner`, and keeps renewing it. A lease of this name is this host's own, from
    /// before its restart; the lease of another host is waited for, up to [`START_TIMEOUT`].
    ///
    /// # Errors
    /// Where another host has it, or the database cannot be used.
    pub(super) fn take(target: &Target, client: &mut Client, owner: &str) -> anyhow::Result<Self> {
        let epoch = wait_until_taken(client, owner, Some(lasts_ms()))?;
        let fence = Arc::new(Fence { owner: owner.to_owned(), epoch });
        let (renewal, stopped) = mpsc::channel();
        let renewing = Renewal { target: target.clone(), fence: fence.clone(), stopped, client: None };
        spawn_essential(thread::Builder::new().name("store-lease".to_owned()), move || renewing.run())?;
        Ok(Self { fence, renewal })
    }

    /// The fence that each writing transaction must check.
    pub(super) fn fence(&self) -> Arc<Fence> {
        self.fence.clone()
    }

    /// Releases the lease, so that the next host can take it at once.
    pub(super) fn release(self, client: &mut Client) {
        // The renewal must have ended: it must not renew the next host's lease.
        drop(self.renewal);
        let Fence { owner, epoch } = &*self.fence;
        let released = client.execute_typed(
            concat!("UPDATE roundhouse_owner SET expires = '-infinity'", of_holder!()),
            &[(owner, Type::TEXT), (epoch, Type::INT8)],
        );
        if let Err(error) = released {
            tracing::warn!(%error, "the lease on the database cannot be given back, and expires by itself");
        }
    }
}

impl Fence {
    /// Checks, in a writing transaction, that this host still has the lease, and locks it against other hosts until the
    /// transaction ends. Renewals are not blocked.
    ///
    /// # Errors
    /// Where the database cannot be read, or has no lease row.
    ///
    /// # Panics
    /// Where another host has the lease: the panic ends this host.
    pub(super) fn check(&self, client: &mut Client) -> Result<(), BackendError> {
        let row = client.query_typed_opt("SELECT owner, epoch, holder FROM roundhouse_owner FOR KEY SHARE", &[])?;
        match row {
            Some(row) if self.is_in(&row) => Ok(()),
            Some(row) => end(&row),
            None => Err(BackendError::Unavailable("the table roundhouse_owner was emptied".to_owned())),
        }
    }

    /// Inserts the lease into a database that has replaced the former one and has no lease row.
    ///
    /// # Errors
    /// Where the row cannot be written.
    pub(super) fn put_back(&self, client: &mut Client) -> Result<(), BackendError> {
        let Self { owner, epoch } = self;
        in_transaction(client, Kind::Write, |client| {
            client.execute_typed(
                "INSERT INTO roundhouse_owner (owner, epoch, holder, expires)
                 VALUES ($1, $2, $3, clock_timestamp() + $4 * interval '1 ms') ON CONFLICT DO NOTHING",
                &[(owner, Type::TEXT), (epoch, Type::INT8), (&description(), Type::TEXT), (&lasts_ms(), Type::INT8)],
            )?;
            Ok(())
        })
    }

    fn is_in(&self, row: &Row) -> bool {
        row.get::<_, &str>(0) == self.owner && row.get::<_, i64>(1) == self.epoch
    }
}

impl Held {
    fn refusal(&self) -> String {
        let held = match self {
            Self::By(holder) => format!("another host uses this database ({holder})"),
            Self::ByCluster(node) => {
                return format!(
                    "a cluster uses this database ({node} was its first node here): configure cluster.redis to join it, or \
                     give this host a database of its own; if the cluster has ended for good, run UPDATE roundhouse_owner \
                     SET expires = '-infinity' in the database"
                );
            }
            Self::ByOlderHost => format!(
                "another host uses this database, of an older version (it has the advisory lock {OLDER_HOSTS_LOCK}; a pooler \
                 may have that after its host has ended, until it closes its connections)"
            ),
            Self::Locked => {
                "another host uses this database, or a session has the table roundhouse_owner locked".to_owned()
            }
        };
        format!("{held}: end that one first, or give each its own")
    }
}

fn lasts_ms() -> i64 {
    LASTS.as_millis() as i64
}

/// The machine and process of this host, for the operator of another host that cannot take the lease.
fn description() -> String {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}, process {}", machine.trim(), process::id())
}

/// Marks the database as a cluster's, once it is: the lease of a host that is alone is waited for, up to [`START_TIMEOUT`].
///
/// # Errors
/// Where a host that is alone has the lease, or the database cannot be used.
pub(super) fn share(client: &mut Client) -> anyhow::Result<()> {
    wait_until_taken(client, CLUSTER, None).map(drop)
}

/// Marks a database as a cluster's that may have replaced the former one.
///
/// # Errors
/// Where it cannot be marked now.
pub(super) fn mark_as_shared(client: &mut Client) -> Result<(), BackendError> {
    match try_to_take(client, CLUSTER, None)? {
        Ok(_) => Ok(()),
        Err(held) => Err(BackendError::Unavailable(held.refusal())),
    }
}

/// Takes the lease when it is free. Returns its epoch.
///
/// # Errors
/// Where it is not free in time, or the database cannot be used.
fn wait_until_taken(client: &mut Client, owner: &str, lasts_ms: Option<i64>) -> anyhow::Result<i64> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut is_waiting = false;
    loop {
        let held = match try_to_take(client, owner, lasts_ms).context("cannot take the lease on the database")? {
            Ok(epoch) => return Ok(epoch),
            Err(held) => held,
        };
        // A cluster's mark does not expire.
        if Instant::now() > deadline || matches!(held, Held::ByCluster(_)) {
            bail!("{}", held.refusal());
        }
        if let (Held::By(holder), false) = (&held, is_waiting) {
            tracing::info!(holder, "another host had this database last: waiting for its lease to expire");
            is_waiting = true;
        }
        thread::sleep(RETRY);
    }
}

/// Takes the lease if it is free, or this host's own, for a time or for ever. Returns its epoch.
fn try_to_take(client: &mut Client, owner: &str, lasts_ms: Option<i64>) -> Result<Result<i64, Held>, BackendError> {
    let taken = in_transaction(client, Kind::Write, |client| {
        // New hosts share this lock while they check; an older host holds it exclusively.
        let free = client
            .query_typed_one("SELECT pg_try_advisory_xact_lock_shared($1)", &[(&OLDER_HOSTS_LOCK, Type::INT8)])?;
        if !free.get::<_, bool>(0) {
            return Ok(Err(Held::ByOlderHost));
        }
        client.execute_typed("INSERT INTO roundhouse_owner (owner) VALUES ('') ON CONFLICT DO NOTHING", &[])?;
        let row = client.query_typed_one(
            concat!("SELECT holder, ", is_free!(), ", owner, epoch, expires = 'infinity' FROM roundhouse_owner"),
            &[(&owner, Type::TEXT)],
        )?;
        let (holder, is_free, of, epoch, is_forever): (_, bool, &str, _, bool) =
            (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
        if !is_free {
            return Ok(Err(if of == CLUSTER { Held::ByCluster(holder) } else { Held::By(holder) }));
        }
        // The nodes of a cluster leave its mark as it is.
        if of == owner && is_forever {
            return Ok(Ok(epoch));
        }
        // A row that a transaction of the holder has locked is skipped and tried again later, so that the next host
        // reads that transaction's result.
        let locked = client.query_typed_opt(
            concat!("SELECT one FROM roundhouse_owner WHERE ", is_free!(), " FOR UPDATE SKIP LOCKED"),
            &[(&owner, Type::TEXT)],
        )?;
        if locked.is_none() {
            return Ok(Err(Held::Locked));
        }
        let taken = client.query_typed_one(
            "UPDATE roundhouse_owner
             SET owner = $1, epoch = epoch + 1, holder = $2, 
                 expires = coalesce(clock_timestamp() + $3 * interval '1 ms', 'infinity')
             RETURNING epoch",
            &[(&owner, Type::TEXT), (&description(), Type::TEXT), (&lasts_ms, Type::INT8)],
        )?;
        Ok(Ok(taken.get(0)))
    })?;
    Ok(taken)
}

/// Ends the host by a panic on a thread of the store.
fn end(row: &Row) -> ! {
    let (epoch, holder): (i64, &str) = (row.get(1), row.get(2));
    panic!(
        "another host has taken the database since this one was cut off from it ({holder}, epoch {epoch}): what this one has in \
         memory is out of date, and it ends; start it anew where no other runs"
    );
}

/// The renewal of a lease.
struct Renewal {
    target: Target,
    fence: Arc<Fence>,
    stopped: Receiver<()>,
    client: Option<Client>,
}

impl Renewal {
    fn run(mut self) {
        let mut is_failing = false;
        while self.stopped.recv_timeout(RENEW_EVERY) == Err(RecvTimeoutError::Timeout) {
            match self.renew() {
                Ok(()) if is_failing => {
                    tracing::info!("the lease on the database is renewed again");
                    is_failing = false;
                }
                Ok(()) => {}
                Err(error) => {
                    self.client = None;
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(
                            "the lease on the database cannot be renewed, and another host may take it: {error}"
                        );
                    }
                }
            }
        }
    }

    fn renew(&mut self) -> Result<(), BackendError> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.client = Some(self.target.connect()?);
        }
        let Some(client) = &mut self.client else { unreachable!("it was connected above") };
        let Fence { owner, epoch } = &*self.fence;
        let found = in_transaction(client, Kind::Write, |client| {
            let n_renewed = client.execute_typed(
                concat!("UPDATE roundhouse_owner SET expires = clock_timestamp() + $3 * interval '1 ms'", of_holder!()),
                &[(owner, Type::TEXT), (epoch, Type::INT8), (&lasts_ms(), Type::INT8)],
            )?;
            if n_renewed > 0 {
                return Ok(None);
            }
            Ok(client.query_typed_opt("SELECT owner, epoch, holder FROM roundhouse_owner", &[])?)
        })?;
        match found {
            // Unless the lease was released at shutdown, after which another host may have it.
            Some(row) if !self.fence.is_in(&row) && self.stopped.try_recv() == Err(TryRecvError::Empty) => end(&row),
            // Without a row, the next write inserts it again.
            _ => Ok(()),
        }
    }
}
