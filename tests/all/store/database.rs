//! A store on a database of each kind, whose database the test can stop.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use roundhouse::ledger::Charge;
use roundhouse::metrics::Metrics;
use roundhouse::model::Clock;
use roundhouse::store::{
    Outcome, Page, PageRequest, Promise, ScopeRecord, Store, StoreConfig, StoreFailure, StoreUrl, TimerRecord, Turn,
};
use roundhouse_tests::{TIMEOUT, TestPostgres, skip};
use tempfile::TempDir;

/// The start of the clock, in milliseconds since 1970.
pub(super) const BEGINNING: u64 = 1_800_000_000_000;

/// A database that the test can stop.
pub(super) enum Database {
    Sqlite(TempDir, Option<rusqlite::Connection>),
    Postgres(TestPostgres),
}

impl Database {
    pub(super) fn url(&self) -> StoreUrl {
        match self {
            Self::Sqlite(dir, _) => StoreUrl::Sqlite(dir.path().join("store.db")),
            Self::Postgres(server) => StoreUrl::parse(&server.url(), &PathBuf::new()).unwrap(),
        }
    }

    /// Makes every write fail from now on.
    pub(super) fn stop(&mut self) {
        match self {
            Self::Sqlite(dir, lock) => {
                let connection = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
                connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
                *lock = Some(connection);
            }
            Self::Postgres(server) => server.stop(),
        }
    }

    pub(super) fn resume(&mut self) {
        match self {
            Self::Sqlite(_, lock) => drop(lock.take()),
            Self::Postgres(server) => server.resume(),
        }
    }
}

/// The outcomes that a store reports.
pub(super) type Outcomes = mpsc::Receiver<(Arc<Promise>, Outcome)>;

pub(super) fn open_store(config: &StoreConfig, clock: Clock) -> anyhow::Result<(Store, Outcomes)> {
    let (report, outcomes) = mpsc::channel();
    // The receiver is gone if the test has ended.
    let listener = Box::new(move |promise, outcome| report.send((promise, outcome)).is_ok());
    Ok((Store::open(config, clock, Metrics::new()?, listener)?, outcomes))
}

/// An open store, and the outcomes that it reports.
pub(super) struct OpenStore {
    pub(super) store: Store,
    clock: Clock,
    pub(super) outcomes: Outcomes,
}

impl OpenStore {
    pub(super) fn new(database: &Database, journal: &TempDir) -> Self {
        Self::open(database.url(), journal, false).unwrap()
    }

    /// Opens a store of a host that is alone, or of a node of a cluster.
    pub(super) fn open(url: StoreUrl, journal: &TempDir, is_shared: bool) -> anyhow::Result<Self> {
        let clock = Clock::manual(BEGINNING);
        let config =
            StoreConfig { url, journal: journal.path().to_owned(), give_up: Duration::from_secs(60), is_shared };
        let (store, outcomes) = open_store(&config, clock.clone())?;
        Ok(Self { store, clock, outcomes })
    }

    pub(super) fn next(&self) -> (Arc<Promise>, Outcome) {
        self.outcomes.recv_timeout(TIMEOUT).expect("an outcome comes")
    }

    pub(super) fn acknowledge(&self, promise: &Promise) {
        drop(self.store.receipt(promise));
    }

    /// Waits for `n` outcomes and acknowledges them.
    pub(super) fn acknowledge_next(&self, n: usize) -> Vec<(String, Outcome)> {
        let outcomes: Vec<_> = (0..n).map(|_| self.next()).collect();
        outcomes.iter().for_each(|(promise, _)| self.acknowledge(promise));
        outcomes.into_iter().map(|(promise, outcome)| (promise.tag.clone(), outcome)).collect()
    }

    pub(super) fn page(&self, scope: &str, before: Option<&str>, limit: u32) -> Result<Page, StoreFailure> {
        let request = PageRequest {
            plugin: "chat".to_owned(),
            scope: scope.to_owned(),
            collection: "messages".to_owned(),
            before: before.map(str::to_owned),
            limit,
        };
        let (reply, answer) = mpsc::channel();
        self.store.page(request, Turn::default(), Box::new(move |page| reply.send(page).unwrap()));
        answer.recv_timeout(TIMEOUT).expect("an answer comes")
    }

    pub(super) fn scope(&self, key: &str) -> Option<ScopeRecord> {
        let (reply, answer) = mpsc::channel();
        self.store.scope("campaign", key, None, Box::new(move |scope| reply.send(scope).unwrap()));
        answer.recv_timeout(TIMEOUT).expect("an answer comes").unwrap()
    }

    /// Deletes a scope, and waits until that is on disk.
    pub(super) fn drop_scope(&self, key: &str, epoch: u64) {
        let (reply, written) = mpsc::channel();
        let acknowledge = Box::new(move |result| reply.send(result).unwrap());
        self.store.drop_scope("campaign", key, epoch, Some(acknowledge), None);
        written.recv_timeout(TIMEOUT).expect("it is written").unwrap();
    }

    /// Stores a scope's state, and waits until it is on disk.
    pub(super) fn put(&self, record: &ScopeRecord) {
        let (reply, written) = mpsc::channel();
        self.store.put_scope(
            record.clone(),
            Charge::default(),
            Some(Box::new(move |result| reply.send(result).unwrap())),
            None,
        );
        written.recv_timeout(TIMEOUT).expect("it is written").unwrap();
    }
}

pub(super) fn promise(tag: &str) -> Promise {
    Promise {
        number: 0,
        plugin: "chat".to_owned(),
        scope: "room:1".to_owned(),
        tag: tag.to_owned(),
        collection: "messages".to_owned(),
        key: None,
        id: format!("id-{tag}"),
        document: format!(r#"{{"body":"{tag} \u0000 é"}}"#),
        restored: false,
        charge: None,
    }
}

pub(super) fn ids(page: &Page) -> Vec<&str> {
    page.documents.iter().map(|document| document.id.as_str()).collect()
}

pub(super) fn stored(tag: &str, id: &str) -> (String, Outcome) {
    (tag.to_owned(), Outcome::Stored(id.to_owned()))
}

pub(super) fn record(key: &str, state: Option<&[u8]>) -> ScopeRecord {
    ScopeRecord {
        plugin: "campaign".to_owned(),
        key: key.to_owned(),
        version: 7,
        state: state.map(<[u8]>::to_vec),
        before: state.map(|_| (6, b"as it was".to_vec())),
        sequence: 41,
        timers: vec![TimerRecord { name: "end \"é\"".to_owned(), due_ms: 5, after_ms: 5, payload: "{}".to_owned() }],
        expires_ms: BEGINNING + 1000,
        epoch: 0,
    }
}

/// Runs a test on each kind of database.
pub(super) fn on_each_database(part: &str, run: fn(Database)) {
    run(Database::Sqlite(tempfile::tempdir().unwrap(), None));
    match TestPostgres::start() {
        Ok(server) => run(Database::Postgres(server)),
        Err(why) => skip(&format!("{part}, on PostgreSQL"), &why),
    }
}

/// Moves the clock, a second at a time, until `probe` has returned `n` values. Returns them.
pub(super) fn advance_until<T>(open: &OpenStore, probe: impl Fn() -> Option<T>, n: usize) -> Vec<T> {
    let deadline = std::time::Instant::now() + TIMEOUT;
    let mut found = Vec::new();
    while found.len() < n {
        assert!(std::time::Instant::now() < deadline, "it does not come");
        open.clock.advance(Duration::from_secs(1));
        match probe() {
            Some(one) => found.push(one),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    found
}

/// Promises the document `tag` while the database is stopped, and moves the clock until the promise expires.
pub(super) fn expire(open: &OpenStore, tag: &str) -> Arc<Promise> {
    open.store.promise(vec![promise(tag)]).unwrap();
    let (document, outcome) = advance_until(open, || open.outcomes.try_recv().ok(), 1).remove(0);
    assert!(document.tag == tag && matches!(outcome, Outcome::Failed(_)), "{document:?} {outcome:?}");
    document
}
