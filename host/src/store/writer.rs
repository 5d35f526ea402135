//! The writing thread: it writes to the database, in batches, in the order of the queue, and to the journal the numbers
//! of expired and acknowledged promises.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::acknowledgements::Acknowledgements;
use super::backend::{Backend, BackendError, Document, Write, Written};
use super::failure::StoreFailure;
use super::journal::Journal;
use super::promise::{Listener, Outcome, Promise};
use super::receipt::Signal;
use super::write_queue::{Action, Batch, Change, Task, WriteQueue};
use crate::metrics::Metrics;
use crate::model::Clock;

/// The pause after the first failure, in milliseconds; each further pause is twice as long.
const FIRST_PAUSE_MS: u64 = 20;

/// The longest pause, in milliseconds: the longest delay after the database is available again.
const LONGEST_PAUSE_MS: u64 = 1000;

/// Attempts at writing during shutdown, after which queued documents are left to the journal.
const LAST_ATTEMPTS: u32 = 3;

/// The interval of database maintenance while it is written to, and afterwards until none is due.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// How long the writer waits for features to acknowledge many outcomes: a paused feature acknowledges none for minutes.
const ACKNOWLEDGING_TIME: Duration = Duration::from_millis(50);

/// The state of the writing thread.
pub(super) struct Writer {
    pub(super) queue: Arc<WriteQueue>,
    pub(super) signals: mpsc::Receiver<Signal>,
    pub(super) backend: Box<dyn Backend>,
    pub(super) journal: Arc<Journal>,
    pub(super) listener: Listener,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    /// How long a document may wait before its promise expires.
    pub(super) give_up: Duration,
    pub(super) acknowledgements: Acknowledgements,
    /// The reason of the current outage of the database, if any.
    pub(super) failing: Option<String>,
    pub(super) last_attempts: u32,
}

impl Writer {
    /// Writes until the host ends and nothing is left to be written.
    pub(super) fn run(mut self) {
        let (mut is_tidy, mut tidied) = (false, Instant::now());
        while self.last_attempts < LAST_ATTEMPTS
            && let Some(batch) = self.next_batch((!is_tidy).then_some(TIDY_EVERY))
        {
            is_tidy &= batch.is_empty();
            self.write(batch);
            if !is_tidy && tidied.elapsed() >= TIDY_EVERY {
                is_tidy = !self.backend.tidy();
                tidied = Instant::now();
            }
            if let Err(error) = self.journal.shorten() {
                tracing::error!(%error, "the journal cannot be shortened");
            }
        }
        self.journal_acknowledgements();
        if let Err(error) = self.journal.sync() {
            tracing::error!(%error, "the journal cannot be forced to disk");
        }
    }

    /// Waits for the next batch; returns an empty one after `idle_after` without work, and `None` at the end.
    fn next_batch(&mut self, idle_after: Option<Duration>) -> Option<Batch> {
        let idle_at = idle_after.map(|idle_after| Instant::now() + idle_after);
        loop {
            self.journal_acknowledgements();
            // Asked first: nothing is put into a queue that is stopping, so an empty batch is then the last.
            let is_stopping = self.queue.is_stopping();
            let batch = self.queue.take();
            if !batch.is_empty() {
                return Some(batch);
            }
            if is_stopping {
                return None;
            }
            let left = idle_at.map(|idle_at| idle_at.saturating_duration_since(Instant::now()));
            if !self.wait(left) {
                return Some(batch);
            }
        }
    }

    /// Waits for a signal. Returns `false` if `timeout` passes first.
    fn wait(&mut self, timeout: Option<Duration>) -> bool {
        let received = match timeout {
            Some(timeout) => self.signals.recv_timeout(timeout),
            None => self.signals.recv().map_err(RecvTimeoutError::from),
        };
        // The queue keeps a sender, so the channel never closes.
        received.map(|signal| self.note(signal)).is_ok()
    }

    fn note(&mut self, signal: Signal) {
        match signal {
            Signal::Wake => {}
            Signal::Delivered(number) => self.acknowledgements.delivered(number),
            Signal::Ending => self.acknowledgements.begin_to_end(),
        }
    }

    /// Writes the promises acknowledged since the last call to the journal, in one line.
    fn journal_acknowledgements(&mut self) {
        while let Ok(signal) = self.signals.try_recv() {
            self.note(signal);
        }
        let ended = self.acknowledgements.take_ended();
        if !ended.is_empty() {
            self.journal.acknowledge_or_log(ended);
        }
    }

    fn write(&mut self, mut batch: Batch) {
        let mut pause_ms = FIRST_PAUSE_MS;
        while !batch.is_empty() {
            match self.backend.write(&writes_of(&batch)) {
                Ok(written) => {
                    if self.failing.take().is_some() {
                        tracing::info!("the store can be written again");
                    }
                    return self.on_written(batch, written);
                }
                Err(BackendError::Refused(why)) if batch.tasks.len() + batch.scopes.len() == 1 => {
                    return self.on_refused(batch, &why);
                }
                Err(BackendError::Refused(_)) => {
                    // Written one by one, only the refused ones fail.
                    for task in batch.tasks {
                        self.write(Batch { tasks: vec![task], ..Batch::default() });
                    }
                    for scope in batch.scopes {
                        self.write(Batch { scopes: vec![scope], ..Batch::default() });
                    }
                    return;
                }
                Err(BackendError::Unavailable(why)) => {
                    self.note_failure(&why);
                    self.expire_overdue(&mut batch, &why);
                    if self.pause(pause_ms) {
                        self.last_attempts += 1;
                        if self.last_attempts >= LAST_ATTEMPTS {
                            return self.abandon(&batch);
                        }
                        std::thread::sleep(Duration::from_millis(pause_ms));
                    }
                    pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
                }
            }
        }
    }

    /// Waits for `pause_ms`, or until shutdown. Returns whether shutdown has begun.
    fn pause(&mut self, pause_ms: u64) -> bool {
        let until = self.clock.uptime_ms() + pause_ms;
        loop {
            self.journal_acknowledgements();
            if self.queue.is_stopping() {
                return true;
            }
            if self.clock.uptime_ms() >= until {
                return false;
            }
            self.wait(self.clock.wait_for(until));
        }
    }

    /// Logs the loss when the host ends during an outage of the database.
    fn abandon(&self, batch: &Batch) {
        let (documents, scopes) = self.queue.left();
        tracing::error!(
            documents,
            scopes = batch.scopes.len() + scopes,
            "the host ends while the store cannot be written: the documents are stored when it starts again, \
             the last changes of the scopes are lost"
        );
    }

    fn note_failure(&mut self, why: &str) {
        self.metrics.store_failures.inc();
        if self.failing.as_deref() != Some(why) {
            tracing::error!("the store cannot be written, and it is tried again until it can: {why}");
            self.failing = Some(why.to_owned());
        }
        // Until the database is back the documents are in the journal alone.
        if let Err(error) = self.journal.sync() {
            tracing::error!(%error, "the journal cannot be forced to disk");
        }
    }

    /// Expires promises whose documents have waited for too long, in this batch or the queue, and sends the failures to
    /// their features. The documents are retracted once the database is available, because an attempt that seemed to
    /// fail may have succeeded.
    fn expire_overdue(&mut self, batch: &mut Batch, why: &str) {
        let overdue = self.queue.overdue(&batch.tasks, self.clock.uptime_ms(), self.give_up);
        if overdue.is_empty() {
            return;
        }
        let numbers: Vec<u64> = overdue.iter().map(|promise| promise.number).collect();
        // The next process must not store documents reported as failed, so the failures are sent only after the journal
        // is on disk.
        if let Err(error) = self.journal.expire(numbers.clone()).and_then(|()| self.journal.sync()) {
            return tracing::error!(%error, "the journal cannot be written, and documents cannot be given up");
        }
        tracing::error!(documents = overdue.len(), "documents were not stored in {:?} and are given up", self.give_up);
        self.queue.retract(&mut batch.tasks, &numbers);
        self.acknowledgements.expired(numbers);
        self.metrics.documents_failed.inc_by(overdue.len() as u64);
        for promise in overdue {
            let failure = StoreFailure::unavailable(format!("the store could not be written: {why}"));
            self.tell(promise, Outcome::Failed(failure));
        }
    }

    fn finish(&mut self, tasks: &[Task]) {
        self.queue.finish(tasks);
        for task in tasks.iter().filter(|task| task.action == (Action::Retract { is_told: true })) {
            self.acknowledgements.retracted(task.promise.number);
        }
        self.journal_acknowledgements();
    }

    /// Sends an outcome to its feature. A promise whose feature is not loaded is suspended.
    fn tell(&mut self, promise: Arc<Promise>, outcome: Outcome) {
        self.wait_for_acknowledgements();
        self.acknowledgements.sent();
        if !(self.listener)(promise.clone(), outcome) {
            let is_expired = self.journal.is_expired(promise.number);
            self.queue.suspend([Task::again(Promise::clone(&promise), is_expired, self.clock.uptime_ms())]);
        }
    }

    /// Waits for features, for a bounded time, if many outcomes are outstanding.
    fn wait_for_acknowledgements(&mut self) {
        if !self.acknowledgements.are_many_outstanding() {
            return;
        }
        let until = Instant::now() + ACKNOWLEDGING_TIME;
        self.journal_acknowledgements();
        while self.acknowledgements.are_many_outstanding() && !self.queue.is_stopping() {
            if !self.wait(Some(until.saturating_duration_since(Instant::now()))) {
                // A paused feature must not delay the documents of other features.
                return self.acknowledgements.reset_outstanding();
            }
            self.journal_acknowledgements();
        }
    }

    fn on_written(&mut self, batch: Batch, written: Vec<Written>) {
        for acknowledge in self.queue.finish_scopes(batch.scopes) {
            acknowledge(Ok(()));
        }
        self.finish(&batch.tasks);
        for (task, written) in batch.tasks.into_iter().zip(written) {
            match (task.action, written) {
                (Action::Insert, Written::AsAsked) => {
                    self.metrics.documents_stored.inc();
                    let id = task.promise.id.clone();
                    self.tell(task.promise, Outcome::Stored(id));
                }
                (Action::Insert, Written::Before(Document { id, body })) => {
                    // The feature gets the stored document instead of its own.
                    let promise = Promise { document: body, ..Promise::clone(&task.promise) };
                    self.tell(Arc::new(promise), Outcome::Stored(id));
                }
                (Action::Retract { is_told: true }, _) => {}
                (Action::Retract { is_told: false }, _) => {
                    let failure = StoreFailure::unavailable("the document was given up before the host restarted");
                    self.tell(task.promise, Outcome::Failed(failure));
                }
            }
        }
    }

    fn on_refused(&mut self, batch: Batch, why: &str) {
        self.finish(&batch.tasks);
        for task in batch.tasks {
            self.metrics.documents_failed.inc();
            tracing::error!(
                plugin = %task.promise.plugin, scope = %task.promise.scope, "the store refuses a document: {why}"
            );
            self.tell(task.promise, Outcome::Failed(StoreFailure::refused(why)));
        }
        for scope in &batch.scopes {
            tracing::error!(plugin = %scope.id.0, scope = %scope.id.1, "the store refuses a state: {why}");
        }
        for acknowledge in self.queue.finish_scopes(batch.scopes) {
            acknowledge(Err(StoreFailure::refused(why)));
        }
    }
}

fn writes_of(batch: &Batch) -> Vec<Write<'_>> {
    let tasks = batch.tasks.iter().map(|task| match task.action {
        Action::Insert => Write::Insert(&task.promise),
        Action::Retract { .. } => Write::Retract(&task.promise),
    });
    let scopes = batch.scopes.iter().flat_map(|scope| {
        let drop = |epoch, expires_ms| Write::DropScope { plugin: &scope.id.0, key: &scope.id.1, epoch, expires_ms };
        let (before, last) = match &*scope.change {
            Change::Put { record, is_anew, .. } => {
                (is_anew.then(|| drop(record.epoch, u64::MAX)), Write::PutScope(record))
            }
            Change::Drop { epoch, expires_ms } => (None, drop(*epoch, *expires_ms)),
        };
        before.into_iter().chain([last])
    });
    // The answer to a call is stored in the same transaction as the change of the call.
    let answers = batch.scopes.iter().flat_map(|scope| &scope.callers.answered).map(Write::Remember);
    tasks.chain(scopes).chain(answers).collect()
}
