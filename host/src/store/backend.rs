//! What a database has to do for the host.

use serde::{Deserialize, Serialize};

use super::{PageRequest, Promise};

/// Bytes of documents in one page, at most: half of what a feature may answer with. One document always fits.
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
    /// Whether there are older ones.
    pub has_more: bool,
}

/// A durable scope as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRecord {
    /// The feature that it belongs to, by name.
    pub plugin: String,
    /// Its key.
    pub key: String,
    /// The version of its state's schema.
    pub version: u32,
    /// Its state, if it has any.
    pub state: Option<Vec<u8>>,
    /// Its state from before it was migrated, and the version of that: what a rollback can go back to.
    pub before: Option<(u32, Vec<u8>)>,
    /// Events handled so far.
    pub sequence: u64,
    /// The timers that are set.
    pub timers: Vec<TimerRecord>,
    /// It may be forgotten after this, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// A timer that is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerRecord {
    /// Its name in its scope.
    pub name: String,
    /// When it is due, in milliseconds since 1970.
    pub due_ms: u64,
    /// How long after it was set, in milliseconds. Hosts did not always write it.
    #[serde(default = "any_time")]
    pub after_ms: u64,
    /// What it carries: JSON.
    pub payload: String,
}

fn any_time() -> u64 {
    u64::MAX
}

/// What a service's call was answered that changed a durable scope and must be done once, though it be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnsweredCall {
    /// Whose call it was: the name of the API key.
    pub caller: String,
    /// The idempotency key.
    pub key: String,
    /// What tells the call from others.
    pub fingerprint: [u8; 32],
    /// The answer: JSON.
    pub answer: String,
    /// When it was answered, in milliseconds since 1970.
    pub answered_ms: u64,
}

/// Calls that are remembered, at most: more than one a second for a day. The oldest give way.
pub const MAX_ANSWERED_CALLS: usize = 100_000;

/// Something to be written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write<'a> {
    /// A document, unless it, or one of its key, is there.
    Insert(&'a Promise),
    /// A document that must not be there, though it may have been written.
    Retract(&'a Promise),
    /// A scope as it is now.
    PutScope(&'a ScopeRecord),
    /// A scope that is no more.
    DropScope { plugin: &'a str, key: &'a str },
    /// What a call was answered.
    Remember(&'a AnsweredCall),
}

/// What came of something to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is done. A document is stored under its own id.
    AsAsked,
    /// This document was there, and has the key of the one that was to be stored.
    Before(Document),
}

/// Why a database did not do what it was asked to. Nothing was done then.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackendError {
    /// It will not do this, however often it is asked.
    #[error("{0}")]
    Refused(String),
    /// It may do it later.
    #[error("{0}")]
    Unavailable(String),
}

/// A connection to a database.
pub(super) trait Backend: Send {
    /// Writes all of these, or none; returns when they are safe on disk, with what came of each.
    fn write(&mut self, writes: &[Write<'_>]) -> Result<Vec<Written>, BackendError>;

    /// A page of documents. `None` where the one that it is to end before is not in the collection.
    fn page(&mut self, request: &PageRequest) -> Result<Option<Page>, BackendError>;

    /// A scope.
    fn scope(&mut self, plugin: &str, key: &str) -> Result<Option<ScopeRecord>, BackendError>;

    /// Scopes of a plugin by key, those behind `after`, at most `limit`.
    fn scopes(&mut self, plugin: &str, after: &str, limit: u32) -> Result<Vec<ScopeRecord>, BackendError>;

    /// The calls that were answered since, the oldest first.
    fn answered_calls(&mut self, since_ms: u64) -> Result<Vec<AnsweredCall>, BackendError>;

    /// Does what must be done now and then after something was written. Says whether it has to be done again though nothing
    /// more is written.
    fn tidy(&mut self) -> bool {
        false
    }
}

/// Cuts what was read down to a page. `documents` are one more than the limit if there are older ones.
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
