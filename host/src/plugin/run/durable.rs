//! Persistence on a plugin thread: durable scopes are read before their first event, and written after each event that
//! changed them; documents are promised to the store before their event is committed.

use std::collections::VecDeque;
use std::sync::Arc;

use roundhouse_contract::ScopeAddress;

use super::deadlines::Due;
use super::deferred::RETRY_MS;
use super::durable_change::{DurableChange, answered_call};
use super::effect::{Document, Effect, Fetch};
use super::job::{Envelope, Job};
use super::scope::{Scope, Timer};
use super::scopes::{Place, Vacancy};
use super::shared::{Shared, unavailable};
use super::state::{ThreadState, Visit};
use crate::hub::WakeBatch;
use crate::ledger::{Charge, Means, Payers};
use crate::model::{Failure, Payload};
use crate::plugin::event::{Asker, Event, Flow, ReplyTo};
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::migrate::State;
use crate::store::{Acknowledge, Page, PageRequest, Promise, ScopeRecord, StoreFailure, TimerRecord, Turn};

impl ThreadState {
    /// Begins to read a scope from the store.
    pub(super) fn load(&self, place: Place) {
        let Some(store) = &self.shared.store else { return };
        let scope = &self.scopes[place];
        let (inbox, plugin, key) = (self.inbox.clone(), scope.plugin.number, scope.address.key.clone());
        let asker = scope.owner.principal().map(|owner| owner.name().clone());
        let then = move |result| inbox.push(Job::ScopeRead { plugin, key, result });
        store.scope(&scope.plugin.name, &scope.address.key, asker, Box::new(then));
    }

    /// Takes over a scope that was read, and queues its waiting events. If the read failed, it is tried again for
    /// guaranteed events.
    pub(super) fn scope_read(
        &mut self,
        plugin: u32,
        key: &Arc<str>,
        result: Result<Option<ScopeRecord>, StoreFailure>,
    ) {
        let Some(place) = self.scopes.find(plugin, key) else { return };
        let Some(waiting) = &self.scopes[place].loading else { return };
        match result {
            Ok(record) => {
                let flow = waiting.front().map_or_else(|| Flow::Scope(key.clone()), |next| next.event.flow(key));
                if let Some(record) = record {
                    self.fill(place, record);
                }
                self.queue_awaiting_load(plugin, key, flow);
            }
            Err(failure) => self.retry_load(place, &failure),
        }
    }

    /// Refuses the events that wait for a scope that cannot be read, except guaranteed ones, for which the read is
    /// tried again.
    fn retry_load(&mut self, place: Place, failure: &StoreFailure) {
        let scope = &mut self.scopes[place];
        let (plugin, key) = (scope.plugin.number, scope.address.key.clone());
        tracing::warn!(plugin = %scope.plugin.name, scope = %key, "a scope cannot be read: {}", failure.message);
        let waiting = scope.loading.take().unwrap_or_default();
        let (kept, refused): (VecDeque<_>, VecDeque<_>) =
            waiting.into_iter().partition(|envelope| envelope.event.is_guaranteed());
        scope.loading = Some(kept).filter(|kept| !kept.is_empty());
        let is_done = scope.loading.is_none();
        for envelope in refused {
            self.answer(envelope, failure.clone().into());
        }
        if is_done {
            return self.drop_if_empty(place);
        }
        let at = self.shared.clock.uptime_ms() + RETRY_MS;
        self.deadlines.push(at, Due::Load { plugin, scope: key });
    }

    /// Queues a turn, in this flow, for the events that came in while a scope was read.
    pub(super) fn queue_awaiting_load(&mut self, plugin: u32, key: &Arc<str>, flow: Flow) {
        self.turns.push(plugin, flow, key.clone(), Job::AfterLoad { plugin, key: key.clone() });
    }

    /// Tries again to read a scope.
    pub(super) fn load_again(&self, plugin: u32, key: &str) {
        if let Some(place) = self.scopes.find(plugin, key).filter(|place| self.scopes[*place].loading.is_some()) {
            self.load(place);
        }
    }

    /// Takes over the stored durable scopes of a plugin.
    pub(crate) fn restore(&mut self, plugin: &Arc<Plugin>, records: Vec<ScopeRecord>) {
        for record in records {
            let Some((_, address)) = plugin.current().manifest.scope_of_key(&record.key) else {
                tracing::warn!(plugin = %plugin.name, scope = %record.key, "a stored scope is of no template any more");
                continue;
            };
            if self.partitions.is_some()
                && (self.batch_of(&address.key).is_none() || self.has_orphans(&plugin.name, &address.key))
            {
                // It is another node's, which restores it, or Redis has it.
                continue;
            }
            // A scope for which there is no room is read at its next event.
            let is_there = self.scopes.find(plugin.number, &address.key).is_some();
            let is_room = !is_there && self.scopes.vacancy(plugin.number, None) == Vacancy::Free;
            if let Some(Ok(place)) = is_room.then(|| self.make_scope(plugin, &address, None)) {
                self.fill(place, record);
                self.mark_restored(place);
            }
        }
    }

    /// Fills a scope with its stored state, timers and expiry.
    fn fill(&mut self, place: Place, record: ScopeRecord) {
        let scope = &mut self.scopes[place];
        let (plugin, key) = (scope.plugin.number, scope.address.key.clone());
        let (now_ms, uptime) = (self.shared.clock.now_ms(), self.shared.clock.uptime_ms());
        scope.state = record.state.map(|bytes| State { version: record.version, bytes: bytes.into() });
        scope.previous_schema_state = record.before.map(|(version, bytes)| State { version, bytes: bytes.into() });
        scope.sequence = record.sequence;
        for timer in record.timers {
            self.restore_timer(place, timer);
        }
        let scope = &mut self.scopes[place];
        // Part of the scope's idle time has passed already.
        let left_ms = record.expires_ms.saturating_sub(now_ms).min(scope.idle_ms);
        scope.last_event_ms = (uptime + left_ms).saturating_sub(scope.idle_ms);
        scope.written = scope.last_event_ms;
        self.deadlines.cancel(scope.idle_check);
        let idle_check = Due::Idle { plugin, scope: key };
        scope.idle_check = self.deadlines.push(uptime + left_ms, idle_check);
    }

    /// Sets a timer of an earlier process, or of another node. Its clock may differ, so the timer is due after its whole time at
    /// the latest.
    pub(super) fn restore_timer(&mut self, place: Place, timer: TimerRecord) {
        let TimerRecord { name, due_ms, after_ms, payload } = timer;
        let (now_ms, uptime) = (self.shared.clock.now_ms(), self.shared.clock.uptime_ms());
        let scope = &mut self.scopes[place];
        let (key, name) = (scope.address.key.clone(), Box::<str>::from(name));
        let account = scope.account.get_or_insert_with(|| self.shared.hub.ledger().scope(&key));
        let (principal, plugin) = (scope.owner.principal().cloned(), Some(scope.plugin.account.clone()));
        let payers = Payers { principal, plugin, scope: Some(account.clone()), is_lenient: true };
        let left_ms = due_ms.saturating_sub(now_ms).min(after_ms);
        let due = Due::Timer { plugin: scope.plugin.number, scope: key, name: name.clone() };
        let deadline = self.deadlines.push(uptime + left_ms, due);
        let due_ms = due_ms.min(now_ms + left_ms);
        let charge = payers.charge_anyway(Means::Timers, 1, name.len() + payload.len());
        scope.timers.insert(name, Timer { deadline, due_ms, after_ms, payload: payload.into(), charge });
    }

    /// Promises to store the documents among the effects, and removes these effects.
    ///
    /// # Errors
    /// If there is no store, or it takes no promise. Then nothing is promised.
    pub(super) fn promise(&mut self, visit: &Visit<'_>, effects: &mut Vec<Effect>) -> Result<(), Failure> {
        let Visit { plugin, address, place, .. } = *visit;
        let mut promises = Vec::new();
        for effect in effects.extract_if(.., |effect| matches!(effect, Effect::Save(_))) {
            let Effect::Save(Document { tag, collection, key, document, charge }) = effect else { continue };
            promises.push(Promise {
                number: 0,
                plugin: plugin.name.clone(),
                scope: address.key.to_string(),
                tag,
                collection,
                key,
                id: self.document_id(),
                document,
                restored: false,
                charge,
            });
        }
        match &self.shared.store {
            _ if promises.is_empty() => Ok(()),
            Some(store) if self.partitions.is_some() => {
                let bytes = promises.iter().map(|promise| promise.document.len()).sum();
                store.has_room_for_promises(promises.len(), bytes)?;
                self.promise_clustered(place, promises);
                Ok(())
            }
            Some(store) => store.promise(promises),
            None => Err(unavailable("this host has no store".to_owned())),
        }
    }

    /// A new id, which sorts by time (UUID version 7, RFC 9562).
    fn document_id(&mut self) -> String {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.next_seed().to_le_bytes());
        random[8..].copy_from_slice(&self.next_seed().to_le_bytes()[..2]);
        uuid::Builder::from_unix_timestamp_millis(self.shared.clock.now_ms(), &random).into_uuid().to_string()
    }

    /// Reads documents for a `Fetched` event. The feature's reply to it goes to `reply`; `held` is dropped when the event is queued.
    pub(crate) fn fetch(
        &self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: &Event,
        fetch: Fetch,
        reply: ReplyTo,
        held: Option<Arc<()>>,
    ) {
        let Fetch { tag, collection, before, limit, charge } = fetch;
        let turn = self.turn_of(&charge);
        let asked_by = Asker { event: event.name().into(), flow: event.flow(&address.key) };
        let then = {
            let (inbox, plugin, address) = (self.inbox.clone(), plugin.clone(), address.clone());
            move |outcome: Result<Page, StoreFailure>| {
                if let (Some(asker), Ok(page)) = (charge.principal(), &outcome) {
                    asker.pay_fetched(page.documents.iter().map(|document| document.body.len()).sum());
                }
                let event = Event::Fetched { tag, outcome, asked_by, charge };
                inbox.push(Job::Event(Envelope { plugin, address, event, reply }));
                drop(held);
            }
        };
        let request =
            PageRequest { plugin: plugin.name.clone(), scope: address.key.to_string(), collection, before, limit };
        // Without a store, features have no grant for a fetch.
        if let Some(store) = &self.shared.store {
            store.page(request, turn, Box::new(then));
        }
    }

    /// The turn of a fetch: principals take turns, and a principal over its budget is refused.
    fn turn_of(&self, charge: &Charge) -> Turn {
        let Some(asker) = charge.principal() else { return Turn::default() };
        let (principal, asker, ledger) = (asker.name().clone(), asker.clone(), self.shared.hub.ledger().clone());
        let admit = move || asker.may_fetch().map_err(|overdraft| ledger.refuse(&overdraft));
        Turn { principal: Some(principal), admit: Some(Box::new(admit)) }
    }
}

/// Gives a changed durable scope to the store, which sends the answer when the scope is written. Returns reply and
/// answer if nothing has to be written.
pub(super) fn write(
    shared: &Arc<Shared>,
    scope: &mut Scope,
    reply: ReplyTo,
    answer: Payload,
    event: Option<&Event>,
) -> Option<(ReplyTo, Payload)> {
    let Some(change) = DurableChange::of(shared, scope, event, 0) else { return Some((reply, answer)) };
    let answered = answered_call(shared, &reply, &answer);
    let acknowledge: Option<Acknowledge> = match reply {
        // For these, success has no answer.
        ReplyTo::Nobody | ReplyTo::Client { id: None, .. } => None,
        reply => {
            let (shared, event) = (shared.clone(), Box::<str>::from(event.map_or("", Event::name)));
            Some(Box::new(move |written: Result<(), StoreFailure>| {
                let outcome = written.map(|()| answer).map_err(Failure::from);
                shared.answer(&event, reply, outcome, &WakeBatch::default());
            }))
        }
    };
    change.hand_over(shared, acknowledge, answered);
    None
}

/// Writes a durable scope for no event, as it is now.
pub(super) fn rewrite(shared: &Arc<Shared>, scope: &mut Scope, epoch: u64) {
    if scope.is_durable && scope.loading.is_none() {
        scope.is_dirty = true;
        if let Some(change) = DurableChange::of(shared, scope, None, epoch) {
            change.hand_over(shared, None, None);
        }
    }
}
