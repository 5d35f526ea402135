//! The document store of the simulated host.

use std::collections::VecDeque;

use roundhouse_contract::raw;
use serde_json::Value;

use super::state::{Key, Save};
use crate::{Document, Failure, Page, Payload, StoreFailure};

/// Stored documents, pending saves and pending fetches.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// The stored documents, in the order of storing.
    documents: Vec<Stored>,
    pub(super) n_fetches: usize,
    /// The documents promised since the test last read them.
    pub(super) promised: Vec<Save>,
    pub(super) n_promised: u64,
    pub(super) n_restarts: u32,
    pub(super) fetching: VecDeque<Fetching>,
    pub(super) is_held: bool,
    pub(super) failure: Option<StoreFailure>,
    /// The outcome of the fetch for which a sender waits.
    pub(super) deferred: Option<Result<Payload, Failure>>,
}

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) promise: u64,
    pub(super) save: Save,
}

/// A pending fetch.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) key: Key,
    pub(super) fetch: raw::Fetch,
    /// Whether a sender waits for the outcome.
    pub(super) is_awaited: bool,
}

impl Store {
    pub(super) fn promise(&mut self, scope: &str, save: raw::Save) {
        self.n_promised += 1;
        self.promised.push(Save {
            scope: scope.to_owned(),
            tag: save.tag,
            collection: save.collection,
            key: save.key,
            document: serde_json::from_str(&save.document).expect("a document was encoded as JSON"),
            number: self.n_promised,
            life: self.n_restarts,
        });
    }

    pub(super) fn fetch(&mut self, key: &Key, fetch: raw::Fetch, is_awaited: bool) {
        self.n_fetches += 1;
        self.fetching.push_back(Fetching { key: key.clone(), fetch, is_awaited });
    }

    /// Takes the outcome of the fetch for which the last sender waits; `None` while fetches are held.
    pub(super) fn take_deferred(&mut self) -> Option<Result<Payload, Failure>> {
        self.deferred.take()
    }

    /// Stores a document once for each promise and key. Returns the id and the content of the stored document.
    pub(super) fn put(&mut self, save: &Save) -> (String, Value) {
        let first = self.documents.iter().find(|stored| {
            let same_key = save.key.is_some() && stored.save.key == save.key;
            let same_place = stored.save.scope == save.scope && stored.save.collection == save.collection;
            stored.promise == save.number || (same_place && same_key)
        });
        if let Some(first) = first {
            return (first.id.clone(), first.save.document.clone());
        }
        let id = format!("d{}", self.documents.len() + 1);
        self.documents.push(Stored { id: id.clone(), promise: save.number, save: save.clone() });
        (id, save.document.clone())
    }

    pub(super) fn of<'a>(&'a self, scope: &'a str, collection: &'a str) -> impl DoubleEndedIterator<Item = &'a Stored> {
        self.documents.iter().filter(move |one| one.save.scope == scope && one.save.collection == collection)
    }

    pub(super) fn page(&self, scope: &str, fetch: &raw::Fetch) -> Result<Page, StoreFailure> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mut newest_first: Vec<&Stored> = self.of(scope, &fetch.collection).rev().collect();
        if let Some(before) = &fetch.before {
            let position = newest_first.iter().position(|stored| stored.id == *before).ok_or_else(|| StoreFailure {
                failure: Failure::new("not_found", format!("there is no document {before:?} here")),
                retryable: false,
            })?;
            newest_first.drain(..=position);
        }
        let limit = usize::try_from(fetch.limit).unwrap_or(usize::MAX);
        let document = |stored: &&Stored| Document { id: stored.id.clone(), text: stored.save.document.to_string() };
        Ok(Page {
            documents: newest_first.iter().take(limit).map(document).collect(),
            has_more: newest_first.len() > limit,
        })
    }
}
