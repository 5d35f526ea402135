//! Persistence: documents and durable states in a database, and the journal of promises.
//!
//! - [`Store`] is the interface for the rest of the host. Unless a method's comment says so, no method waits for the
//!   database: writes are queued, and the results of reads go to a callback.
//! - `promise` is a document that will be stored, and the outcome; `journal` holds a promise before any client gets its
//!   event.
//! - `write_queue` is the queue of writes. `writer` is the thread that writes them, in batches, and retries; it owns
//!   the `acknowledgements`, which it gets as signals (`receipt`) whose senders never wait.
//! - `read_queue` is the queue of reads, for the thread `store-read`.
//! - [`Backend`] is the database: `sqlite` or `postgres`. The end-to-end tests hold both to one contract. `database` opens it,
//!   and `identity` is the name by which a database knows the host.

mod acknowledgements;
mod backend;
mod config;
mod database;
mod failure;
mod identity;
mod journal;
mod page;
mod postgres;
mod promise;
mod read_queue;
mod receipt;
mod sqlite;
mod states_only;
mod stored_scopes;
mod write_queue;
mod writer;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::ledger::Charge;
use crate::metrics::Metrics;
use crate::model::{Clock, ErrorCode, Failure, spawn_essential};
use acknowledgements::Acknowledgements;
use backend::Backend;
pub use backend::{AnsweredCall, Document, MAX_ANSWERED_CALLS, Page, ScopeRecord, TimerRecord};
pub use config::{StoreConfig, StoreUrl};
use database::Database;
pub use failure::StoreFailure;
use journal::Journal;
pub use page::PageRequest;
use promise::FIRST_SAVED;
pub use promise::{Listener, Outcome, Promise};
use read_queue::ReadQueue;
pub use read_queue::{Then, Turn};
pub use receipt::DeliveryReceipt;
use receipt::Signal;
pub use states_only::StatesOnly;
pub use stored_scopes::StoredScopes;
use stored_scopes::{SCOPES_PAGE, each_page};
pub use write_queue::Acknowledge;
use write_queue::{Action, Change, Task, WriteQueue};
use writer::Writer;

/// How long the shutdown waits for the database: less than supervisors wait before they kill.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the loading of a plugin waits for the database.
const SCOPES_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the start of the host waits for the promises of earlier processes: a backlog takes a second, and an outage
/// of the database must not keep clients from connecting.
const RESUME_TIMEOUT: Duration = Duration::from_secs(2);

/// The statements that create or migrate the tables in PostgreSQL, for administrators whose hosts may not; with grants
/// to `role`, the role of the host, if given.
pub fn postgres_schema(role: Option<&str>) -> String {
    postgres::script(role)
}

/// The database and the journal of a host. Dropping it shuts it down.
pub struct Store {
    journal: Arc<Journal>,
    queue: Arc<WriteQueue>,
    reads: Arc<ReadQueue>,
    signals: mpsc::Sender<Signal>,
    clock: Clock,
    /// The number of the next promise that is saved without the journal.
    next_saved: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: Option<File>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database and the journal, and starts to write and to read. Outcomes go to `listener`, on the writing thread.
    ///
    /// # Errors
    /// Where the database or the journal cannot be used, or a thread cannot be started.
    pub fn open(config: &StoreConfig, clock: Clock, metrics: Metrics, listener: Listener) -> anyhow::Result<Self> {
        let (journal, unacknowledged) = Journal::open(&config.journal)?;
        let Database { writing, reading, lock } = Database::open(config)?;
        if !unacknowledged.is_empty() {
            tracing::info!(documents = unacknowledged.len(), "the journal has documents that are to be stored still");
        }
        let (signals, received) = mpsc::channel();
        let store = Self {
            journal: Arc::new(journal),
            queue: Arc::new(WriteQueue::new(signals.clone(), metrics.clone())),
            reads: Arc::default(),
            signals,
            clock,
            next_saved: AtomicU64::new(FIRST_SAVED),
            threads: Mutex::default(),
            _lock: lock,
        };
        let now = store.clock.uptime_ms();
        store.queue.suspend(unacknowledged.into_iter().map(|one| Task::again(one.promise, one.is_expired, now)));
        store.clock.on_move({
            let signals = store.signals.clone();
            move || {
                // An error means that the writer has ended, and needs no wake-up.
                let _ = signals.send(Signal::Wake);
            }
        });
        let writer = Writer {
            queue: store.queue.clone(),
            signals: received,
            backend: writing,
            journal: store.journal.clone(),
            listener,
            clock: store.clock.clone(),
            metrics,
            give_up: config.give_up,
            acknowledgements: Acknowledgements::default(),
            failing: None,
            last_attempts: 0,
        };
        store.start(writer, reading).context("cannot start a thread of the store")?;
        Ok(store)
    }

    fn start(&self, writer: Writer, mut reading: Box<dyn Backend>) -> io::Result<()> {
        let reads = self.reads.clone();
        let read = move || {
            while let Some(read) = reads.pop() {
                read(Ok(&mut *reading));
            }
        };
        let mut threads = lock(&self.threads);
        threads.push(spawn_essential(thread::Builder::new().name("store-write".to_owned()), move || writer.run())?);
        threads.push(spawn_essential(thread::Builder::new().name("store-read".to_owned()), read)?);
        Ok(())
    }

    /// From now on no outcome counts as acknowledged: the clients that would get it are being disconnected, and the next
    /// process sends it again.
    pub fn begin_shutdown(&self) {
        self.signal(Signal::Ending);
    }

    fn signal(&self, signal: Signal) {
        // An error means that the writer has ended, and needs no signal.
        let _ = self.signals.send(signal);
    }

    /// Writes all queued changes, and ends. Documents that the database refuses or cannot take stay in the journal.
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

    /// Promises to store documents. When this returns, the promises survive the process; the documents are stored in
    /// the background, in this order. Waits for the journal's file, so a shard must not call it.
    ///
    /// # Errors
    /// Where too many documents wait, or the journal cannot be written. Nothing is promised then.
    pub fn promise(&self, mut promises: Vec<Promise>) -> Result<(), Failure> {
        self.has_room_for_promises(promises.len(), promises.iter().map(|promise| promise.document.len()).sum())?;
        self.journal.promise(&mut promises).map_err(|error| {
            tracing::error!(%error, journal = %self.journal.dir().display(), "the journal cannot be written: is the disk full?");
            Failure::new(ErrorCode::FeatureUnavailable, "the host cannot promise to store anything: try again later")
        })?;
        self.insert(promises);
        Ok(())
    }

    /// Whether the store takes promises for `n` documents of this many bytes.
    ///
    /// # Errors
    /// Where too many documents wait.
    pub fn has_room_for_promises(&self, n: usize, bytes: usize) -> Result<(), Failure> {
        self.queue.has_room_for(n, bytes)
    }

    /// Stores the documents of promises that survive the process elsewhere: the journal does not note them, their
    /// outcomes or their expiry. [`Store::has_room_for_promises`] was asked before. Never waits.
    pub fn save(&self, mut promises: Vec<Promise>) {
        for promise in &mut promises {
            promise.number = self.next_saved.fetch_add(1, Ordering::Relaxed);
        }
        self.insert(promises);
    }

    fn insert(&self, promises: Vec<Promise>) {
        let since = self.clock.uptime_ms();
        let task = |promise| Task { promise: Arc::new(promise), action: Action::Insert, since };
        self.queue.push(promises.into_iter().map(task));
    }

    /// A receipt for the outcome of a promise: when its last clone is dropped, the outcome is acknowledged. Never waits.
    pub fn receipt(&self, promise: &Promise) -> DeliveryReceipt {
        DeliveryReceipt::new(promise, self.signals.clone())
    }

    /// Suspends a promise whose outcome cannot be sent until its feature is loaded again. Waits for the journal's file,
    /// so a shard must not call it.
    pub fn requeue(&self, promise: &Promise) {
        let is_expired = self.journal.is_expired(promise.number);
        self.queue.suspend([Task::again(promise.clone(), is_expired, self.clock.uptime_ms())]);
    }

    /// Resumes the suspended promises of a plugin: those of earlier processes, and requeued ones. Returns their number.
    pub fn resume(&self, plugin: &str) -> usize {
        self.queue.resume(plugin, self.clock.uptime_ms())
    }

    /// Waits, for a bounded time, until the documents that earlier processes promised are stored, so that a message
    /// that a reconnecting client sends again is recognised as a duplicate.
    pub fn wait_until_resumed(&self) {
        let left = self.queue.wait_until_restored(RESUME_TIMEOUT);
        if left > 0 {
            tracing::warn!(documents = left, "the host serves, though documents of before are not stored yet");
        }
    }

    /// Whether the store accepts changes of scopes. Events that a feature must get may change a scope all the same.
    ///
    /// # Errors
    /// Where too many changes wait.
    pub fn takes_changes(&self) -> Result<(), Failure> {
        self.queue.has_room_for_change()
    }

    /// Writes a scope, and with it the answer to the call that changed it. `acknowledge` is called when both are on
    /// disk; `charge` is dropped then, or when a later version replaces this one. In a shared database the state of a
    /// newer owner stays, and this one counts as written.
    pub fn put_scope(
        &self,
        record: ScopeRecord,
        charge: Charge,
        acknowledge: Option<Acknowledge>,
        answered: Option<AnsweredCall>,
    ) {
        let (plugin, key) = (record.plugin.clone(), record.key.clone());
        self.queue.change(plugin, key, Change::Put { record, _charge: charge, is_anew: false }, acknowledge, answered);
    }

    /// Deletes a scope for the owner of this epoch, as [`Store::put_scope`] writes one.
    pub fn drop_scope(
        &self,
        plugin: &str,
        key: &str,
        epoch: u64,
        acknowledge: Option<Acknowledge>,
        answered: Option<AnsweredCall>,
    ) {
        let change = Change::Drop { epoch, expires_ms: u64::MAX };
        self.queue.change(plugin.to_owned(), key.to_owned(), change, acknowledge, answered);
    }

    /// Deletes a scope that was read, unless its owner has written it with a later expiry since.
    fn drop_expired(&self, ScopeRecord { plugin, key, epoch, expires_ms, .. }: ScopeRecord) {
        self.queue.change(plugin, key, Change::Drop { epoch, expires_ms }, None, None);
    }

    /// The calls that were answered since `since_ms`, the oldest first. Waits for the database.
    ///
    /// # Errors
    /// Where the database cannot be used.
    pub fn answered_calls(&self, since_ms: u64) -> Result<Vec<AnsweredCall>, StoreFailure> {
        self.read(move |backend| Ok(backend.answered_calls(since_ms)?))
    }

    /// Reads a page of documents when the principal's turn comes, if `turn.admit` still allows it then.
    pub fn page(&self, request: PageRequest, turn: Turn, then: Then<Page>) {
        let Turn { principal, admit } = turn;
        let read = move |backend: Result<&mut dyn Backend, StoreFailure>| {
            let page = backend.and_then(|backend| {
                admit.map_or(Ok(()), |admit| admit()).map_err(StoreFailure::retryable)?;
                backend.page(&request)?.ok_or_else(|| StoreFailure::no_such(&request))
            });
            then(page);
        };
        self.reads.push(principal, Box::new(read));
    }

    /// Reads a scope for a principal, or for the host.
    pub fn scope(&self, plugin: &str, key: &str, principal: Option<Arc<str>>, then: Then<Option<ScopeRecord>>) {
        if let Some(pending) = self.queue.pending(plugin, key) {
            return then(Ok(pending));
        }
        let (plugin, key) = (plugin.to_owned(), key.to_owned());
        let read = move |backend: Result<&mut dyn Backend, StoreFailure>| {
            then(backend.and_then(|backend| Ok(backend.scope(&plugin, &key)?)));
        };
        self.reads.push(principal, Box::new(read));
    }

    /// Waits, for a bounded time, until all changes of a plugin's scopes are written. Returns whether they are.
    pub fn wait_until_written(&self, plugin: &str) -> bool {
        self.queue.wait_until_written(plugin, SCOPES_TIMEOUT)
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Backend) -> Result<T, StoreFailure> + Send + 'static,
    ) -> Result<T, StoreFailure> {
        let (reply, answer) = mpsc::sync_channel(1);
        let read = move |backend: Result<&mut dyn Backend, StoreFailure>| {
            // The caller may have stopped waiting.
            let _ = reply.send(backend.and_then(work));
        };
        self.reads.push(None, Box::new(read));
        let silent = |_| Err(StoreFailure::unavailable("the store does not answer"));
        answer.recv_timeout(SCOPES_TIMEOUT).unwrap_or_else(silent)
    }
}

impl StoredScopes for Store {
    /// Deletes the expired scopes, and passes on the others.
    fn scopes(
        &self,
        plugin: &str,
        take: &mut dyn FnMut(Vec<ScopeRecord>) -> ControlFlow<()>,
    ) -> Result<(), StoreFailure> {
        if !self.wait_until_written(plugin) {
            return Err(StoreFailure::unavailable("the store does not keep up"));
        }
        let read = |after: String| {
            let plugin = plugin.to_owned();
            self.read(move |backend| Ok(backend.scopes(&plugin, &after, SCOPES_PAGE)?))
        };
        each_page(read, |page| {
            let now = self.clock.now_ms();
            let (expired, kept): (Vec<_>, Vec<_>) = page.into_iter().partition(|scope| scope.expires_ms < now);
            if !expired.is_empty() {
                tracing::info!(
                    plugin,
                    scopes = expired.len(),
                    "scopes that were left alone for their idle time are deleted"
                );
            }
            expired.into_iter().for_each(|scope| self.drop_expired(scope));
            take(kept)
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
