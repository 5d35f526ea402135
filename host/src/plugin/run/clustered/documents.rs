//! Documents in a cluster: a promise is a record that is committed with its event, and removed with the commit of its outcome.
//! So each has one outcome, whichever owner sends it.

use super::batch::Step;
use super::wire::{WirePromise, decode, encode};
use crate::cluster::Partition;
use crate::plugin::event::Event;
use crate::plugin::run::job::Envelope;
use crate::plugin::run::scope::Scope;
use crate::plugin::run::scopes::Place;
use crate::plugin::run::state::{ThreadState, Visit};
use crate::store::Promise;

impl ThreadState {
    /// Promises to store documents, with the batch of their event.
    pub(in crate::plugin::run) fn promise_clustered(&mut self, place: Option<Place>, promises: Vec<Promise>) {
        let Some(place) = place else { return };
        let (plugin, key) = (self.scopes[place].plugin.clone(), self.scopes[place].address.key.clone());
        for promise in promises {
            self.scopes[place].promised.insert(promise.id.clone(), promise.clone());
            self.mark_document(&plugin, &key, &promise.id);
            if let Some(batch) = self.batch_of(&key) {
                batch.steps.push(Step::Save(Box::new(promise)));
            }
        }
    }

    /// The outcome of a promise was handled.
    pub(in crate::plugin::run) fn redeem_clustered(&mut self, visit: &Visit<'_>, id: &str) {
        let Some(place) = visit.place.filter(|_| self.partitions.is_some()) else { return };
        if self.scopes[place].promised.remove(id).is_some() {
            self.mark_document(visit.plugin, &visit.address.key, id);
        }
    }

    /// Whether another copy of an event was handled, or it is the outcome of a promise that this node has to do with no more:
    /// another owner has, or it was handled.
    pub(in crate::plugin::run) fn is_outdated(&mut self, envelope: &Envelope) -> bool {
        let Some(partitions) = &mut self.partitions else { return false };
        let owned = partitions.owned(Partition::of(&envelope.address.key));
        if owned.is_some_and(|owned| !owned.has_yet_to_handle(&envelope.reply)) {
            return true;
        }
        let Event::Saved { promise, .. } = &envelope.event else { return false };
        let place = self.scopes.find(envelope.plugin.number, &envelope.address.key);
        let is_expected = place.is_some_and(|place| self.scopes[place].promised.contains_key(&promise.id));
        if let Some(store) = self.shared.store.as_ref().filter(|_| !is_expected) {
            // The store need not keep it.
            drop(store.receipt(promise));
        }
        !is_expected
    }

    /// Takes the promise of a record over from another owner.
    pub(super) fn restore_promise(&mut self, place: Place, id: &str, value: &[u8]) -> anyhow::Result<()> {
        let WirePromise { tag, collection, key, document } = decode(value)?;
        let scope = &mut self.scopes[place];
        let promise = Promise {
            number: 0,
            plugin: scope.plugin.name.clone(),
            scope: scope.address.key.to_string(),
            tag,
            collection,
            key,
            id: id.to_owned(),
            document,
            restored: true,
            charge: None,
        };
        scope.promised.insert(id.to_owned(), promise.clone());
        if let Some(store) = &self.shared.store {
            store.save(vec![promise]);
        }
        Ok(())
    }

    /// The epoch of a scope's owner; 0 if the host is alone.
    pub(in crate::plugin::run) fn epoch_of(&mut self, key: &str) -> u64 {
        let owned = self.partitions.as_mut().and_then(|partitions| partitions.owned(Partition::of(key)));
        owned.map_or(0, |owned| owned.epoch)
    }

    /// Has the cluster keep a scope that was read from the store.
    pub(in crate::plugin::run) fn mark_restored(&mut self, place: Place) {
        if self.partitions.is_none() {
            return;
        }
        let scope = &self.scopes[place];
        let (plugin, key) = (scope.plugin.clone(), scope.address.key.clone());
        let timers: Vec<_> = scope.timers.keys().cloned().collect();
        self.mark_state(&plugin, &key);
        timers.iter().for_each(|name| self.mark_timer(&plugin, &key, name));
    }
}

/// The record of a promise.
pub(super) fn document_record(scope: &Scope, id: &str) -> Option<Vec<u8>> {
    let Promise { tag, collection, key, document, .. } = scope.promised.get(id)?;
    let (tag, collection, key, document) = (tag.clone(), collection.clone(), key.clone(), document.clone());
    Some(encode(&WirePromise { tag, collection, key, document }))
}
