//! What outlives the process: documents and durable states, in a database; and the journal of what was promised.
//!
//! - [`Store`] is what the rest of the host sees. It never waits for the database: what is to be written is queued, and
//!   what is read is handed to a callback.
//! - `journal` is where a promise is written before anybody hears of it.
//! - `queue` is what waits to be written; `writer` the thread that writes it, in batches, and retries; `reader` the one that
//!   reads.
//! - `identity` is the name of the host that a database knows.
//! - [`Backend`] is the database: `sqlite` or `postgres`. The end-to-end tests hold both to one contract.

mod backend;
mod identity;
mod journal;
mod postgres;
mod queue;
mod reader;
mod sqlite;
mod states_only;
mod writer;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::ledger::Charge;
use crate::metrics::Metrics;
use crate::model::{Clock, ErrorCode, Failure};
use backend::Backend;
pub use backend::{AnsweredCall, Document, MAX_ANSWERED_CALLS, Page, ScopeRecord, TimerRecord};
use journal::{Journal, Unsettled};
use postgres::Postgres;
pub use queue::Acknowledge;
use queue::{Action, Change, Queue, Task};
use reader::Reader;
use sqlite::Sqlite;
pub use states_only::StatesOnly;
use writer::Writer;

/// Scopes that are read at once when a plugin is loaded.
const SCOPES_PAGE: u32 = 1000;

/// How long the end of the host waits for the database: less than supervisors do before they kill.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the loading of a plugin waits for the database.
const SCOPES_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the start of the host waits for what was promised before: a backlog takes a second, and a database that is away
/// must not keep people from each other.
const RESUME_TIMEOUT: Duration = Duration::from_secs(2);

/// For how long, and how often, it is tried to lock a file that another process has locked.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Where things are stored, and for how long that is tried.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The database.
    pub url: StoreUrl,
    /// The journal's folder.
    pub journal: PathBuf,
    /// How long it is tried to store a document before its feature is told that it failed.
    pub give_up: Duration,
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
    /// Where it is neither.
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

/// The statements that make the tables in PostgreSQL, or bring them up to date, for administrators whose hosts may not do so;
/// with what is to be granted to the role that a host connects as, if it is named.
pub fn postgres_schema(role: Option<&str>) -> String {
    postgres::script(role)
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            // It has a password in it.
            Self::Postgres(_) => f.write_str("Postgres(…)"),
        }
    }
}

/// A document that was promised to be stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Promise {
    /// Its place in the order of all promises.
    pub number: u64,
    /// The feature that wants it stored, by name.
    pub plugin: String,
    /// The scope that it belongs to.
    pub scope: String,
    /// Comes back with the outcome.
    pub tag: String,
    /// Where it is stored, within the scope.
    pub collection: String,
    /// Where a document of this key is stored already in the collection, this one is not.
    pub key: Option<String>,
    /// The id that it is stored under.
    pub id: String,
    /// The document: JSON.
    pub document: String,
    /// Whether it was promised before the host was started.
    #[serde(skip, default = "is_restored")]
    pub restored: bool,
    /// In the account of whoever brought it about, until it is settled. An earlier process' promise is in nobody's.
    #[serde(skip)]
    pub charge: Option<Arc<Charge>>,
}

/// What is read from the journal was promised by an earlier process.
fn is_restored() -> bool {
    true
}

/// What became of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored under this id, which is another's where that had its key already.
    Stored(String),
    /// It is not, and will not be.
    Failed(StoreFailure),
}

/// Why something was not stored, or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFailure {
    /// Which of the known kinds.
    pub code: ErrorCode,
    /// Why.
    pub message: String,
    /// Whether the same may go well later.
    pub retryable: bool,
}

impl StoreFailure {
    fn unavailable(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::FeatureUnavailable, message: message.into(), retryable: true }
    }

    /// A refusal that time mends.
    fn passing(Failure { code, message }: Failure) -> Self {
        Self { code, message, retryable: true }
    }

    fn no_such(request: &PageRequest) -> Self {
        let before = request.before.as_deref().unwrap_or_default();
        let message = format!("there is no document {before:?} here");
        Self { code: ErrorCode::NotFound, message, retryable: false }
    }

    fn refused(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::BadRequest, message: message.into(), retryable: false }
    }
}

impl From<StoreFailure> for Failure {
    fn from(failure: StoreFailure) -> Self {
        Self { code: failure.code, message: failure.message }
    }
}

/// Is told what became of promises, each at least once until it is [settled](Store::settle).
pub type Listener = Box<dyn Fn(Arc<Promise>, Outcome) + Send + Sync>;

/// Gets what was read, on the reading thread.
pub type Then<T> = Box<dyn FnOnce(Result<T, StoreFailure>) + Send>;

/// Which documents are wanted.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// The feature that they belong to.
    pub plugin: String,
    /// The scope.
    pub scope: String,
    /// The collection.
    pub collection: String,
    /// Only what was stored before the document of this id.
    pub before: Option<String>,
    /// So many, at most.
    pub limit: u32,
}

/// On whose behalf something is read. Reads of different principals take turns; the host's own are one of them.
#[derive(Default)]
pub struct Turn {
    /// The principal; `None` for the host.
    pub principal: Option<Arc<str>>,
    /// Asked when the turn has come: what was read meanwhile may be too much already.
    pub admit: Option<Box<dyn FnOnce() -> Result<(), Failure> + Send>>,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// The database and the journal of a host.
pub struct Store {
    journal: Arc<Journal>,
    queue: Arc<Queue>,
    reads: Arc<Reader>,
    clock: Clock,
    metrics: Metrics,
    give_up: Duration,
    /// What an earlier process promised, until the features that did are there.
    restored: Mutex<Vec<Task>>,
    /// The connections to the database, until the threads have them.
    idle: Mutex<Option<[Box<dyn Backend>; 2]>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _owner: Option<File>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database and the journal. Nothing is written before [`Store::start`].
    ///
    /// # Errors
    /// Where either cannot be used.
    pub fn open(config: &StoreConfig, clock: Clock, metrics: Metrics) -> anyhow::Result<Self> {
        let (journal, unsettled) = Journal::open(&config.journal)?;
        let (writer, reader, owner) = open_database(&config.url, &config.journal)?;
        if !unsettled.is_empty() {
            tracing::info!(documents = unsettled.len(), "the journal has documents that are to be stored still");
        }
        let restored = unsettled
            .into_iter()
            .map(|Unsettled { promise, is_given_up }| Task {
                action: if is_given_up { Action::Withdraw { is_told: false } } else { Action::Insert },
                promise: Arc::new(promise),
                since: clock.uptime_ms(),
            })
            .collect();
        Ok(Self {
            journal: Arc::new(journal),
            queue: Queue::new(clock.clone(), metrics.clone()),
            metrics,
            reads: Arc::default(),
            clock,
            give_up: config.give_up,
            restored: Mutex::new(restored),
            idle: Mutex::new(Some([writer, reader])),
            threads: Mutex::default(),
            _owner: owner,
        })
    }

    /// Starts to write and to read.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn start(&self, listener: Listener) -> io::Result<()> {
        let Some([writing, reading]) = lock(&self.idle).take() else { return Ok(()) };
        let writer = Writer {
            queue: self.queue.clone(),
            backend: writing,
            journal: self.journal.clone(),
            listener,
            metrics: self.metrics.clone(),
            give_up: self.give_up,
            failing: None,
            last_attempts: 0,
        };
        let reads = self.reads.clone();
        let mut threads = lock(&self.threads);
        threads.push(thread::Builder::new().name("store-write".to_owned()).spawn(move || writer.run())?);
        threads.push(thread::Builder::new().name("store-read".to_owned()).spawn(move || reads.run(reading))?);
        Ok(())
    }

    /// From now on no promise is settled: those who would be told of its end are being disconnected, and the next process
    /// tells them.
    pub fn begin_shutdown(&self) {
        self.queue.begin_to_end();
    }

    /// Writes what waits to be written, and ends. What the database does not take stays in the journal.
    pub fn shut_down(&self) {
        self.queue.stop();
        self.reads.stop();
        let deadline = Instant::now() + END_TIMEOUT;
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            if !thread.is_finished() {
                tracing::error!("the database does not answer: the host ends without it");
            } else if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }

    /// Promises to store documents. When this returns, the promise outlives the process; it is kept in the background, in
    /// this order.
    ///
    /// # Errors
    /// Where too much waits to be stored, or the journal cannot be written. Nothing is promised then.
    pub fn promise(&self, mut promises: Vec<Promise>) -> Result<(), Failure> {
        self.queue.has_room_for(promises.len(), promises.iter().map(|promise| promise.document.len()).sum())?;
        self.journal.promise(&mut promises).map_err(|error| {
            tracing::error!(%error, journal = %self.journal.dir().display(), "the journal cannot be written: is the disk full?");
            Failure::new(ErrorCode::FeatureUnavailable, "the host cannot promise to store anything: try again later")
        })?;
        let since = self.clock.uptime_ms();
        let task = |promise| Task { promise: Arc::new(promise), action: Action::Insert, since };
        self.queue.push(promises.into_iter().map(task));
        Ok(())
    }

    /// Goes on with what a plugin promised before the host was started. Says how many documents there are.
    pub fn resume(&self, plugin: &str) -> usize {
        let (mut resumed, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut *lock(&self.restored)).into_iter().partition(|task| task.promise.plugin == plugin);
        *lock(&self.restored) = others;
        let since = self.clock.uptime_ms();
        resumed.iter_mut().for_each(|task| task.since = since);
        let n_resumed = resumed.len();
        self.queue.push(resumed);
        n_resumed
    }

    /// Waits, for some time, until what was promised before the host was started is stored: whoever comes back and says
    /// again what it is not sure of is then recognised.
    pub fn wait_until_resumed(&self) {
        let left = self.queue.wait_until_restored(RESUME_TIMEOUT);
        if left > 0 {
            tracing::warn!(documents = left, "the host serves, though documents of before are not stored yet");
        }
    }

    /// Notes that the feature knows what became of a promise.
    pub fn settle(&self, promise: &Promise) {
        if self.queue.settle(promise.number) {
            self.journal.settle_or_log(vec![promise.number]);
        }
    }

    /// Keeps a promise for when its feature is loaded again: what became of it cannot be told now.
    pub fn put_back(&self, promise: &Promise) {
        let action =
            if self.journal.is_given_up(promise.number) { Action::Withdraw { is_told: false } } else { Action::Insert };
        let promise = Arc::new(Promise { restored: true, ..promise.clone() });
        lock(&self.restored).push(Task { promise, action, since: self.clock.uptime_ms() });
    }

    /// Whether the store takes changes of scopes. What must be told to a feature may lead to some all the same.
    ///
    /// # Errors
    /// Where too much waits to be written.
    pub fn takes_changes(&self) -> Result<(), Failure> {
        self.queue.has_room_for_change()
    }

    /// Writes a scope, and with it what the call was answered that changed it. `acknowledge` is called when both are on
    /// disk; `charge` is dropped then, or when a later version takes the place of this one.
    pub fn put_scope(
        &self,
        record: ScopeRecord,
        charge: Charge,
        acknowledge: Option<Acknowledge>,
        answered: Option<AnsweredCall>,
    ) {
        let (plugin, key) = (record.plugin.clone(), record.key.clone());
        self.queue.change(plugin, key, Change::Put { record, _charge: charge }, acknowledge, answered);
    }

    /// Deletes a scope, as [`Store::put_scope`] writes one.
    pub fn drop_scope(
        &self,
        plugin: &str,
        key: &str,
        acknowledge: Option<Acknowledge>,
        answered: Option<AnsweredCall>,
    ) {
        self.queue.change(plugin.to_owned(), key.to_owned(), Change::Drop, acknowledge, answered);
    }

    /// The calls that were answered and stored since, the oldest first. Waits for the database.
    ///
    /// # Errors
    /// Where the database cannot be used.
    pub fn answered_calls(&self, since_ms: u64) -> Result<Vec<AnsweredCall>, StoreFailure> {
        self.read(move |backend| Ok(backend.answered_calls(since_ms)?))
    }

    /// Reads a page of documents when its turn comes, if that is still allowed then.
    pub fn page(&self, request: PageRequest, turn: Turn, then: Then<Page>) {
        let Turn { principal, admit } = turn;
        let read = move |backend: Result<&mut dyn Backend, StoreFailure>| {
            let page = backend.and_then(|backend| {
                admit.map_or(Ok(()), |admit| admit()).map_err(StoreFailure::passing)?;
                backend.page(&request)?.ok_or_else(|| StoreFailure::no_such(&request))
            });
            then(page);
        };
        self.reads.push(principal, Box::new(read));
    }

    /// Reads a scope, for this principal if it is for one.
    pub fn scope(&self, plugin: &str, key: &str, asker: Option<Arc<str>>, then: Then<Option<ScopeRecord>>) {
        if let Some(pending) = self.queue.pending(plugin, key) {
            return then(Ok(pending));
        }
        let (plugin, key) = (plugin.to_owned(), key.to_owned());
        let read = move |backend: Result<&mut dyn Backend, StoreFailure>| {
            then(backend.and_then(|backend| Ok(backend.scope(&plugin, &key)?)));
        };
        self.reads.push(asker, Box::new(read));
    }

    /// Waits, for some time, until all changes of a plugin's scopes are written. Says whether they are.
    pub fn wait_until_written(&self, plugin: &str) -> bool {
        self.queue.wait_until_written(plugin, SCOPES_TIMEOUT)
    }

    /// Forgets the scopes of a plugin that have expired, and gives the others to `take`, page by page,
    /// until it takes no more. Waits for the database: not for a thread that handles events.
    ///
    /// # Errors
    /// Where the database cannot be read. Some may have been given then.
    pub fn scopes(
        &self,
        plugin: &str,
        mut take: impl FnMut(Vec<ScopeRecord>) -> ControlFlow<()>,
    ) -> Result<(), StoreFailure> {
        if !self.wait_until_written(plugin) {
            return Err(StoreFailure::unavailable("the store does not keep up"));
        }
        let mut after = String::new();
        loop {
            let (of, behind) = (plugin.to_owned(), after);
            let page = self.read(move |backend| Ok(backend.scopes(&of, &behind, SCOPES_PAGE)?))?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.key.clone();
            let now = self.clock.now_ms();
            let (expired, kept): (Vec<_>, Vec<_>) = page.into_iter().partition(|scope| scope.expires_ms < now);
            if !expired.is_empty() {
                tracing::info!(
                    plugin,
                    scopes = expired.len(),
                    "scopes that were left alone for their idle time are deleted"
                );
            }
            expired.iter().for_each(|scope| self.drop_scope(&scope.plugin, &scope.key, None, None));
            if take(kept).is_break() {
                return Ok(());
            }
        }
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Backend) -> Result<T, StoreFailure> + Send + 'static,
    ) -> Result<T, StoreFailure> {
        let (reply, answer) = mpsc::sync_channel(1);
        let read = move |backend: Result<&mut dyn Backend, StoreFailure>| {
            // Whoever asked may have given up.
            let _ = reply.send(backend.and_then(work));
        };
        self.reads.push(None, Box::new(read));
        let silent = |_| Err(StoreFailure::unavailable("the store does not answer"));
        answer.recv_timeout(SCOPES_TIMEOUT).unwrap_or_else(silent)
    }
}

/// The connections to write and to read with, and what keeps other hosts from the database: each host writes whole states
/// from its own memory.
type Database = (Box<dyn Backend>, Box<dyn Backend>, Option<File>);

fn open_database(url: &StoreUrl, journal: &Path) -> anyhow::Result<Database> {
    match url {
        StoreUrl::Sqlite(path) => {
            // By whatever name a host knows it, it is one file.
            let path = &fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            let mut name = path.clone().into_os_string();
            name.push(".owner");
            let owner = lock_file(Path::new(&name), "the database").context("store.url")?;
            let open = || Sqlite::open(path).context("store.url");
            Ok((Box::new(open()?), Box::new(open()?), Some(owner)))
        }
        StoreUrl::Postgres(url) => {
            let owner = identity::read_or_make(journal)?;
            let writer = Postgres::open_to_write(url, &owner).context("store.url")?;
            let reader = Postgres::open_to_read(url).context("store.url")?;
            Ok((Box::new(writer), Box::new(reader), None))
        }
    }
}

/// A file that is locked for as long as it is open.
fn lock_file(path: &Path, what: &str) -> anyhow::Result<File> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = opened.with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // The one before may be about to end, or a process that it starts has not let go yet of what it inherited.
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
impl Promise {
    /// A promise to fill in.
    fn of_test() -> Self {
        Self {
            number: 0,
            plugin: "chat".to_owned(),
            scope: "room:1".to_owned(),
            tag: "tag".to_owned(),
            collection: "messages".to_owned(),
            key: None,
            id: "id".to_owned(),
            document: "{}".to_owned(),
            restored: false,
            charge: None,
        }
    }
}
