//! The interface of a database.

use serde::{Deserialize, Serialize};

pub(super) use super::failure::BackendError;
use super::{PageRequest, Promise};

/// The most bytes of documents in one page: half of the limit of a feature's answer. One document always fits.
pub(super) const PAGE_BYTES: usize = 512 * 1024;

/// A stored document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its id.
    pub id: String,
    /// The document: JSON.
    pub body: String,
}

/// Some documents of a collection, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Document>,
    /// Whether older documents exist.
    pub has_more: bool,
}

/// A stored durable scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRecord {
    /// The name of its feature.
    pub plugin: String,
    /// Its key.
    pub key: String,
    /// The version of its state's schema.
    pub version: u32,
    /// Its state, if any.
    pub state: Option<Vec<u8>>,
    /// The version and the state before the last migration, for a rollback.
    pub before: Option<(u32, Vec<u8>)>,
    /// Events handled so far.
    pub sequence: u64,
    /// Its timers.
    pub timers: Vec<TimerRecord>,
    /// When it may be deleted, in milliseconds since 1970.
    pub expires_ms: u64,
    /// The epoch of the node that owned it, in a database that a cluster shares; otherwise 0. SQLite does not store it.
    pub epoch: u64,
}

/// A timer of a durable scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerRecord {
    /// Its name in its scope.
    pub name: String,
    /// When it is due, in milliseconds since 1970.
    pub due_ms: u64,
    /// The delay with which it was set, in milliseconds. Older hosts did not store it.
    #[serde(default = "any_time")]
    pub after_ms: u64,
    /// Its payload: JSON.
    pub payload: String,
}

fn any_time() -> u64 {
    u64::MAX
}

/// The answer to a service's call that changed a durable scope, for repetitions with the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnsweredCall {
    /// The caller: the name of the API key.
    pub caller: String,
    /// The idempotency key.
    pub key: String,
    /// A digest of the call.
    pub fingerprint: [u8; 32],
    /// The answer: JSON.
    pub answer: String,
    /// When it was answered, in milliseconds since 1970.
    pub answered_ms: u64,
}

/// The most answered calls that are kept: more than one per second for a day. Beyond that the oldest are deleted.
pub const MAX_ANSWERED_CALLS: usize = 100_000;

/// A write.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write<'a> {
    /// Insert a document, unless it, or one with the same key, is stored already.
    Insert(&'a Promise),
    /// Delete a document that an earlier attempt may have inserted.
    Retract(&'a Promise),
    /// Write a scope, unless a shared database has it of a newer owner.
    PutScope(&'a ScopeRecord),
    /// Delete a scope, unless a shared database has it of a newer owner, or has it with a later expiry.
    DropScope { plugin: &'a str, key: &'a str, epoch: u64, expires_ms: u64 },
    /// Remember the answer to a call.
    Remember(&'a AnsweredCall),
}

/// The result of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Done. A document is stored under its own id.
    AsAsked,
    /// Not stored: this other document has the same key.
    Before(Document),
}

/// A connection to a database.
pub(super) trait Backend: Send {
    /// Writes all in one transaction. Returns the result of each when they are on disk.
    fn write(&mut self, writes: &[Write<'_>]) -> Result<Vec<Written>, BackendError>;

    /// A page of documents. `None` if the collection lacks the document before which the page ends.
    fn page(&mut self, request: &PageRequest) -> Result<Option<Page>, BackendError>;

    /// Reads a scope.
    fn scope(&mut self, plugin: &str, key: &str) -> Result<Option<ScopeRecord>, BackendError>;

    /// At most `limit` scopes of a plugin after the key `after`, by key.
    fn scopes(&mut self, plugin: &str, after: &str, limit: u32) -> Result<Vec<ScopeRecord>, BackendError>;

    /// The calls that were answered since `since_ms`, the oldest first.
    fn answered_calls(&mut self, since_ms: u64) -> Result<Vec<AnsweredCall>, BackendError>;

    /// Does maintenance, which is due from time to time after writes. Returns whether more is due without further
    /// writes.
    fn tidy(&mut self) -> bool {
        false
    }
}

/// Cuts documents down to a page. The caller reads one document more than the limit, which shows whether older ones
/// exist.
pub(super) fn page_of(mut documents: Vec<Document>, limit: u32) -> Page {
    let mut bytes = 0;
    let n_fitting = documents
        .iter()
        .take(limit as usize)
        .take_while(|document| {
            bytes += document.body.len();
            bytes <= PAGE_BYTES
        })
        .count()
        .max(1);
    let has_more = documents.len() > n_fitting;
    documents.truncate(n_fitting);
    Page { documents, has_more }
}
