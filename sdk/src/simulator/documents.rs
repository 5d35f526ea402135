//! Saves, which the test stores or fails, fetches of the stored documents, and a restart of the host.

use serde_json::Value;

use super::simulation::Simulation;
use super::state::Save;
use super::store::Fetching;
use crate::{Event, Feature, Fetched, Saved, StoreFailure};

impl<F: Feature> Simulation<F> {
    /// Stores a document, and reports its id to the feature: with a key, that of the first document with the key. A
    /// second call for the same save reports the outcome again, as after a crash.
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

    /// Makes fetches fail from now on; with `None` they succeed again.
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
        for client in self.clients.iter_mut().filter(|client| client.closed.is_none()) {
            client.closed = Some("the host was started anew".to_owned());
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

    /// Answers the oldest pending fetch. Returns `false` if there is none, or if fetches are held.
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
