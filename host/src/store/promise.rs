//! Promises to store a document, and their outcomes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::failure::StoreFailure;
use crate::ledger::Charge;

/// The number of the first promise that this process saves without the journal: more than a journal ever has.
pub(super) const FIRST_SAVED: u64 = 1 << 63;

/// A promise to store a document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Promise {
    /// Its place in the order of all promises, which the store gives it.
    pub number: u64,
    /// The name of the feature that made it.
    pub plugin: String,
    /// The scope that the document belongs to.
    pub scope: String,
    /// An opaque tag, returned with the outcome.
    pub tag: String,
    /// Where the document is stored, within the scope.
    pub collection: String,
    /// The deduplication key: the document is not stored if the collection has one with the same key.
    pub key: Option<String>,
    /// The id that the document is stored under.
    pub id: String,
    /// The document: JSON.
    pub document: String,
    /// Whether it was made by an earlier process.
    #[serde(skip, default = "is_restored")]
    pub restored: bool,
    /// The entry in its principal's account, held until the outcome is delivered. The promise of an earlier process has
    /// none.
    #[serde(skip)]
    pub charge: Option<Arc<Charge>>,
}

/// A promise that is read from the journal was made by an earlier process.
fn is_restored() -> bool {
    true
}

/// The outcome of a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The document is stored under this id, or another document with the same key is.
    Stored(String),
    /// The document is not stored, and will not be.
    Failed(StoreFailure),
}

/// Receives the outcome of a promise, at least once, until it is acknowledged ([`super::Store::receipt`]). Returns
/// whether the promise's feature is loaded: otherwise the store suspends the promise until [`super::Store::resume`].
pub type Listener = Box<dyn Fn(Arc<Promise>, Outcome) -> bool + Send>;

#[cfg(test)]
impl Promise {
    /// A promise to fill in.
    pub(super) fn of_test() -> Self {
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
