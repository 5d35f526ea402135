//! The thread that writes to the database: in the order in which it was asked to, in batches, until it is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Backend, BackendError, Document, Write, Written};
use super::journal::Journal;
use super::queue::{Action, Batch, Change, Queue, Task};
use super::{Listener, Outcome, Promise, StoreFailure};
use crate::metrics::Metrics;

/// The pause after the first failure, in milliseconds. Each that follows is twice as long.
const FIRST_PAUSE_MS: u64 = 20;

/// The longest pause, in milliseconds: what a database that is back is waited for in vain.
const LONGEST_PAUSE_MS: u64 = 1000;

/// Attempts at writing when the host ends, before all that waits is left to the journal.
const LAST_ATTEMPTS: u32 = 3;

/// How often the database is tidied while it is written to, and thereafter until it is tidy.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// The writing thread's own.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) backend: Box<dyn Backend>,
    pub(super) journal: Arc<Journal>,
    pub(super) listener: Listener,
    pub(super) metrics: Metrics,
    pub(super) give_up: Duration,
    /// Why it cannot be written, while that is so.
    pub(super) failing: Option<String>,
    pub(super) last_attempts: u32,
}

impl Writer {
    /// Writes until the host ends and nothing is left to be written.
    pub(super) fn run(mut self) {
        let (mut is_tidy, mut tidied) = (false, Instant::now());
        while self.last_attempts < LAST_ATTEMPTS
            && let Some(batch) = self.queue.take((!is_tidy).then_some(TIDY_EVERY))
        {
            is_tidy &= batch.tasks.is_empty() && batch.scopes.is_empty();
            self.write(batch);
            if !is_tidy && tidied.elapsed() >= TIDY_EVERY {
                is_tidy = !self.backend.tidy();
                tidied = Instant::now();
            }
            if let Err(error) = self.journal.shorten() {
                tracing::error!(%error, "the journal cannot be shortened");
            }
        }
        if let Err(error) = self.journal.sync() {
            tracing::error!(%error, "the journal cannot be forced to disk");
        }
    }

    fn write(&mut self, mut batch: Batch) {
        let mut pause_ms = FIRST_PAUSE_MS;
        while !(batch.tasks.is_empty() && batch.scopes.is_empty()) {
            match self.backend.write(&writes_of(&batch)) {
                Ok(written) => {
                    if self.failing.take().is_some() {
                        tracing::info!("the store can be written again");
                    }
                    return self.is_written(batch, written);
                }
                Err(BackendError::Refused(why)) if batch.tasks.len() + batch.scopes.len() == 1 => {
                    return self.is_refused(batch, &why);
                }
                Err(BackendError::Refused(_)) => {
                    // Which of them it was shows when each is written by itself.
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
                    self.give_up_old(&mut batch, &why);
                    if self.queue.pause(pause_ms) {
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

    /// The host ends, and the store cannot be written. Documents are in the journal; states are not.
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
        // Until then the journal is all there is.
        if let Err(error) = self.journal.sync() {
            tracing::error!(%error, "the journal cannot be forced to disk");
        }
    }

    /// Tells the features of what has waited for too long, in this batch or behind it. It is withdrawn when the store is
    /// back, for an attempt that seemed to fail may have gone well.
    fn give_up_old(&mut self, batch: &mut Batch, why: &str) {
        let old = self.queue.overdue(&batch.tasks, self.give_up);
        if old.is_empty() {
            return;
        }
        let numbers: Vec<u64> = old.iter().map(|promise| promise.number).collect();
        // The next process must not store what features were told has failed. Until that is certain, nobody is told.
        if let Err(error) = self.journal.give_up(numbers.clone()).and_then(|()| self.journal.sync()) {
            return tracing::error!(%error, "the journal cannot be written, and documents cannot be given up");
        }
        tracing::error!(documents = old.len(), "documents were not stored in {:?} and are given up", self.give_up);
        self.queue.withdraw(&mut batch.tasks, numbers);
        self.metrics.documents_failed.inc_by(old.len() as u64);
        for promise in old {
            let failure = StoreFailure::unavailable(format!("the store could not be written: {why}"));
            self.tell(promise, Outcome::Failed(failure));
        }
    }

    fn settle(&self, done: &[Task]) {
        let settled = self.queue.is_done_with(done);
        if !settled.is_empty() {
            self.journal.settle_or_log(settled);
        }
    }

    fn tell(&self, promise: Arc<Promise>, outcome: Outcome) {
        self.queue.wait_to_tell();
        (self.listener)(promise, outcome);
    }

    fn is_written(&self, batch: Batch, written: Vec<Written>) {
        for acknowledge in self.queue.are_written(batch.scopes) {
            acknowledge(Ok(()));
        }
        self.settle(&batch.tasks);
        for (task, written) in batch.tasks.into_iter().zip(written) {
            match (task.action, written) {
                (Action::Insert, Written::AsAsked) => {
                    self.metrics.documents_stored.inc();
                    let id = task.promise.id.clone();
                    self.tell(task.promise, Outcome::Stored(id));
                }
                (Action::Insert, Written::Before(Document { id, body })) => {
                    // The feature is told what is stored, and not what is not.
                    let promise = Promise { document: body, ..Promise::clone(&task.promise) };
                    self.tell(Arc::new(promise), Outcome::Stored(id));
                }
                (Action::Withdraw { is_told: true }, _) => {}
                _ => {
                    let failure = StoreFailure::unavailable("the document was given up before the host restarted");
                    self.tell(task.promise, Outcome::Failed(failure));
                }
            }
        }
    }

    fn is_refused(&self, batch: Batch, why: &str) {
        self.settle(&batch.tasks);
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
        for acknowledge in self.queue.are_written(batch.scopes) {
            acknowledge(Err(StoreFailure::refused(why)));
        }
    }
}

fn writes_of(batch: &Batch) -> Vec<Write<'_>> {
    let tasks = batch.tasks.iter().map(|task| match task.action {
        Action::Insert => Write::Insert(&task.promise),
        Action::Withdraw { .. } => Write::Withdraw(&task.promise),
    });
    let scopes = batch.scopes.iter().map(|scope| match &*scope.change {
        Change::Put { record, .. } => Write::PutScope(record),
        Change::Drop => Write::DropScope { plugin: &scope.id.0, key: &scope.id.1 },
    });
    // What a call was answered is there if, and only if, what it changed is.
    let answers = batch.scopes.iter().flat_map(|scope| &scope.callers.answered).map(Write::Remember);
    tasks.chain(scopes).chain(answers).collect()
}
