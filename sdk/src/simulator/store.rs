//! The document store of the simulated host, and its restart. Saves are stored when the test says so; fetches read the stored
//! documents.

use std::collections::VecDeque;

use roundhouse_contract::raw;
use serde_json::Value;

use super::scopes::Key;
use super::{Save, Simulation};
use crate::{Document, Event, Failure, Feature, Fetched, Page, Payload, Saved, StoreFailure};

/// Stored documents, pending saves and pending fetches.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// In the order of storing.
    documents: Vec<Stored>,
    n_fetches: usize,
    /// Promised since the test last read them.
    pub(super) promised: Vec<Save>,
    n_promised: u64,
    n_restarts: u32,
    fetching: VecDeque<Fetching>,
    is_held: bool,
    failure: Option<StoreFailure>,
    /// The outcome of the fetch that a sender waits for.
    deferred: Option<Result<Payload, Failure>>,
}

#[derive(Debug)]
struct Stored {
    id: String,
    promise: u64,
    save: Save,
}

/// A pending fetch.
#[derive(Debug)]
pub(super) struct Fetching {
    key: Key,
    fetch: raw::Fetch,
    /// Whether a sender waits for the outcome.
    is_awaited: bool,
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

    /// Takes the outcome of the fetch that the last sender waits for; `None` while fetches are held.
    pub(super) fn take_deferred(&mut self) -> Option<Result<Payload, Failure>> {
        self.deferred.take()
    }

    /// Stores a document once for each promise and key, and returns the id and the document that is stored.
    fn put(&mut self, save: &Save) -> (String, Value) {
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

    fn of<'a>(&'a self, scope: &'a str, collection: &'a str) -> impl DoubleEndedIterator<Item = &'a Stored> {
        self.documents.iter().filter(move |one| one.save.scope == scope && one.save.collection == collection)
    }

    fn page(&self, scope: &str, fetch: &raw::Fetch) -> Result<Page, StoreFailure> {
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

impl<F: Feature> Simulation<F> {
    /// Stores a document, and reports its id to the feature: with a key, that of the first document with the key. A second
    /// call reports it again, as after a crash.
    pub fn stored(&mut self, save: &Save) -> String {
        let (id, document) = self.store.put(save);
        self.report_saved(save, &document, Ok(id.clone()));
        id
    }

    /// Reports to the feature that a document was not stored.
    pub fn not_stored(&mut self, save: &Save, why: StoreFailure) {
        self.report_saved(save, &save.document, Err(why));
    }

    fn report_saved(&mut self, save: &Save, document: &Value, outcome: Result<String, StoreFailure>) {
        let saved = Saved {
            tag: save.tag.clone(),
            collection: save.collection.clone(),
            text: document.to_string(),
            restored: save.life < self.store.n_restarts,
            outcome,
        };
        let key = self.key_of(&save.scope);
        self.notify(&key, Event::Saved(saved));
        self.handle_pending();
    }

    /// The stored documents of a scope's collection, in the order of storing.
    pub fn documents(&self, scope: &str, collection: &str) -> Vec<Value> {
        self.store.of(scope, collection).map(|stored| stored.save.document.clone()).collect()
    }

    /// Lets fetches fail from now on; with `None` they succeed again.
    pub fn fail_fetches(&mut self, why: Option<StoreFailure>) {
        self.store.failure = why;
    }

    /// The number of fetches so far.
    pub fn n_fetches(&self) -> usize {
        self.store.n_fetches
    }

    /// Holds fetches until [`release_fetches`](Self::release_fetches).
    pub fn hold_fetches(&mut self) {
        self.store.is_held = true;
    }

    /// Answers the held fetches. Replies to them are dropped.
    pub fn release_fetches(&mut self) {
        self.store.is_held = false;
        self.handle_pending();
        drop(self.store.take_deferred());
    }

    /// Restarts the host, as after a crash: connections and volatile scopes are gone, without events. Durable states, their
    /// timers, stored documents and promises stay. The outcome of an earlier promise is marked as restored.
    pub fn restart(&mut self) {
        for line in self.clients.iter_mut().filter(|line| line.closed.is_none()) {
            line.closed = Some("the host was started anew".to_owned());
        }
        self.rooms.clear();
        for asked in std::mem::take(&mut self.pending_acks) {
            self.agenda.remove(asked.at);
        }
        let scopes = std::mem::take(&mut self.scopes);
        for (scope, mut slot) in scopes {
            if self.manifest.scopes[slot.template].is_durable {
                slot.watched.clear();
                self.scopes.insert(scope, slot);
            } else {
                slot.timers.values().for_each(|at| self.agenda.remove(*at));
            }
        }
        self.store.fetching.clear();
        self.store.n_restarts += 1;
    }

    /// Answers the oldest pending fetch; whether there was one.
    pub(super) fn answer_fetch(&mut self) -> bool {
        if self.store.is_held {
            return false;
        }
        let Some(Fetching { key, fetch, is_awaited }) = self.store.fetching.pop_front() else { return false };
        let outcome = self.store.page(&key.scope, &fetch);
        let event = Event::Fetched(Fetched { tag: fetch.tag, outcome });
        if !is_awaited {
            self.notify(&key, event);
            return true;
        }
        match self.run(&key, event) {
            Ok(ran) => {
                let waits_on = ran.fetch.is_some() && ran.reply.is_none();
                if let Some(next) = ran.fetch {
                    self.store.fetch(&key, next, waits_on);
                }
                if !waits_on {
                    self.store.deferred = Some(Ok(ran.reply.unwrap_or_default()));
                }
            }
            Err(failure) => self.store.deferred = Some(Err(failure)),
        }
        true
    }
}
