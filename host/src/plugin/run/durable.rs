//! What outlives the process, on a plugin thread: durable scopes are read before their first event and written after each
//! that changed them; documents are promised before anybody hears of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use roundhouse_contract::ScopeAddress;

use super::effect::{Document, Effect, Fetch};
use super::scope::{Due, Room, Scope, Timer};
use super::turns::TURN;
use super::worker::{Job, RETRY_MS, Worker, unavailable};
use crate::hub::WakeBatch;
use crate::ledger::{Charge, Means, Payers};
use crate::model::{Failure, Payload};
use crate::plugin::event::Flow;
use crate::plugin::event::{Asker, Event, ReplyTo};
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::migrate::State;
use crate::store::{
    Acknowledge, AnsweredCall, Page, PageRequest, Promise, ScopeRecord, StoreFailure, TimerRecord, Turn,
};

/// Events of clients and services that wait while their scope is read, at most: reading takes a fraction of a
/// millisecond, unless the store is down.
const MAX_HELD: usize = 1000;

impl Worker {
    /// Keeps an event for later if its scope has to be read first. Gives back what can be handled now.
    pub(crate) fn hold(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: Event,
        reply: ReplyTo,
    ) -> Option<(Event, ReplyTo)> {
        if self.scopes.get(plugin.number, &address.key).is_none() {
            // Nobody takes part in a scope that is not in memory.
            let is_left = matches!(event, Event::Left { .. } | Event::Presence { .. });
            if is_left || !self.is_durable(plugin, address) {
                return Some((event, reply));
            }
            let checked = self.check_scopes(plugin, &address.key, &event);
            if let Err(refusal) = checked.and_then(|()| self.enter(plugin, address, Some(&event))) {
                self.answer(plugin, &event, reply, refusal);
                return None;
            }
            if let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) {
                scope.loading = Some(VecDeque::new());
            }
            self.load(plugin, address);
        }
        let scope = self.scopes.get_mut(plugin.number, &address.key);
        let Some(held) = scope.and_then(|scope| scope.loading.as_mut()) else { return Some((event, reply)) };
        if held.len() >= MAX_HELD && !event.must_be_told() {
            let message = format!("too many events wait for the scope {} to be read: try again later", address.key);
            self.answer(plugin, &event, reply, unavailable(message));
        } else {
            held.push_back((event, reply));
        }
        None
    }

    fn is_durable(&self, plugin: &Plugin, address: &ScopeAddress) -> bool {
        let generation = plugin.current();
        self.shared.store.is_some()
            && generation.manifest.scope_of_key(&address.key).is_some_and(|(kind, _)| kind.is_durable)
    }

    fn load(&self, plugin: &Arc<Plugin>, address: &ScopeAddress) {
        let Some(store) = &self.shared.store else { return };
        let (inbox, number, key) = (self.inbox.clone(), plugin.number, address.key.clone());
        let then = move |result| inbox.push(Job::Loaded { plugin: number, key, result });
        let scope = self.scopes.get(plugin.number, &address.key);
        let asker = scope.and_then(|scope| Some(scope.owner.principal()?.name().clone()));
        store.scope(&plugin.name, &address.key, asker, Box::new(then));
    }

    /// A scope was read, or cannot be.
    pub(crate) fn loaded(&mut self, plugin: u32, key: &str, result: Result<Option<ScopeRecord>, StoreFailure>) {
        let Some(scope) = self.scopes.get_mut(plugin, key) else { return };
        let Some(held) = scope.loading.take() else { return };
        let (plugin, address) = (scope.plugin.clone(), scope.address.clone());
        match result {
            Ok(record) => {
                if let Some(record) = record {
                    self.fill(&plugin, &address, record);
                }
                let flow = held.front().map(|(event, _)| event.flow(&address.key));
                if let Some(scope) = self.scopes.get_mut(plugin.number, key) {
                    scope.loading = Some(held);
                }
                self.queue_held(&plugin, &address.key, flow);
            }
            Err(failure) => {
                tracing::warn!(plugin = %plugin.name, scope = %key, "a scope cannot be read: {}", failure.message);
                let (kept, refused): (VecDeque<_>, VecDeque<_>) =
                    held.into_iter().partition(|(event, _)| event.must_be_told());
                for (event, reply) in refused {
                    self.answer(&plugin, &event, reply, failure.clone().into());
                }
                if kept.is_empty() {
                    return self.drop_if_empty(&plugin, &address);
                }
                if let Some(scope) = self.scopes.get_mut(plugin.number, key) {
                    scope.loading = Some(kept);
                }
                let at = self.shared.clock.uptime_ms() + RETRY_MS;
                self.deadlines.push(at, Due::Load { plugin: plugin.number, scope: address.key });
            }
        }
    }

    /// Handles what came in while a scope was read, for as long as a turn lasts; what comes in meanwhile waits behind it.
    pub(crate) fn handle_held(&mut self, number: u32, key: &Arc<str>) {
        let started = Instant::now();
        loop {
            let Some(scope) = self.scopes.get_mut(number, key) else { return };
            let Some(held) = scope.loading.as_mut() else { return };
            let (plugin, address) = (scope.plugin.clone(), scope.address.clone());
            if started.elapsed() > TURN
                && let Some((next, _)) = held.front()
            {
                let flow = next.flow(key);
                return self.queue_held(&plugin, key, Some(flow));
            }
            if plugin.is_unloaded() {
                // They are answered when the scope is forgotten.
                return;
            }
            let Some((event, reply)) = held.pop_front() else {
                scope.loading = None;
                return self.drop_if_empty(&plugin, &address);
            };
            self.wait_for_shards();
            self.handle_present(&plugin, &address, event, reply);
        }
    }

    /// Has what came in while a scope was read wait its turn, behind what else is in this flow.
    fn queue_held(&mut self, plugin: &Plugin, key: &Arc<str>, flow: Option<Flow>) {
        let job = Job::Held { plugin: plugin.number, key: key.clone() };
        let flow = flow.unwrap_or_else(|| Flow::Scope(key.clone()));
        self.turns.push(plugin.number, flow, key.clone(), job);
    }

    /// Tries again to read a scope.
    pub(crate) fn load_again(&mut self, plugin: u32, key: &str) {
        let scope = self.scopes.get(plugin, key).filter(|scope| scope.loading.is_some());
        if let Some((plugin, address)) = scope.map(|scope| (scope.plugin.clone(), scope.address.clone())) {
            self.load(&plugin, &address);
        }
    }

    /// Takes scopes over that were durable when the process before ended.
    pub(crate) fn restore(&mut self, plugin: &Arc<Plugin>, records: Vec<ScopeRecord>) {
        for record in records {
            let Some((_, address)) = plugin.current().manifest.scope_of_key(&record.key) else {
                tracing::warn!(plugin = %plugin.name, scope = %record.key, "a stored scope is of no template any more");
                continue;
            };
            // What there is no room for is read when something comes for it.
            let is_there = self.scopes.get(plugin.number, &address.key).is_some();
            let is_room = !is_there && self.scopes.room(plugin.number, None) == Room::Free;
            if is_room && self.enter(plugin, &address, None).is_ok() {
                self.fill(plugin, &address, record);
            }
        }
    }

    fn fill(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, record: ScopeRecord) {
        let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) else { return };
        let (now_ms, uptime) = (self.shared.clock.now_ms(), self.shared.clock.uptime_ms());
        scope.state = record.state.map(|bytes| State { version: record.version, bytes });
        scope.before_migration = record.before.map(|(version, bytes)| State { version, bytes });
        scope.sequence = record.sequence;
        let mut payers = Payers::default();
        if !record.timers.is_empty() {
            let account = scope.account.get_or_insert_with(|| self.shared.hub.ledger().scope(&address.key));
            let (owner, plugin) = (scope.owner.principal().cloned(), Some(plugin.account.clone()));
            payers = Payers { principal: owner, plugin, scope: Some(account.clone()), is_lenient: true };
        }
        for TimerRecord { name, due_ms, after_ms, payload } in record.timers {
            let name: Box<str> = name.into();
            let due = Due::Timer { plugin: plugin.number, scope: address.key.clone(), name: name.clone() };
            // Where the system's clock was put back meanwhile, it is due after its whole time at the latest.
            let left_ms = due_ms.saturating_sub(now_ms).min(after_ms);
            let deadline = self.deadlines.push(uptime + left_ms, due);
            let due_ms = due_ms.min(now_ms + left_ms);
            let charge = payers.charge_anyway(Means::Timers, 1, name.len() + payload.len());
            scope.timers.insert(name, Timer { deadline, due_ms, after_ms, payload: payload.into(), charge });
        }
        // It has been idle for some of its time already.
        let left_ms = record.expires_ms.saturating_sub(now_ms).min(scope.idle_ms);
        scope.touched = (uptime + left_ms).saturating_sub(scope.idle_ms);
        scope.written = scope.touched;
        self.deadlines.cancel(scope.look);
        let look = Due::Idle { plugin: plugin.number, scope: address.key.clone() };
        scope.look = self.deadlines.push(uptime + left_ms, look);
    }

    /// Gives a durable scope that has changed to the store. Gives back whom to answer where nobody has to wait for that.
    pub(crate) fn write(
        &mut self,
        plugin: &Plugin,
        address: &ScopeAddress,
        reply: ReplyTo,
        answer: Payload,
        event: Option<&Event>,
    ) -> Option<(ReplyTo, Payload)> {
        let Some(store) = &self.shared.store else { return Some((reply, answer)) };
        let scope = self.scopes.get_mut(plugin.number, &address.key);
        let Some(scope) = scope.filter(|scope| scope.is_durable && scope.is_dirty) else {
            return Some((reply, answer));
        };
        scope.is_dirty = false;
        scope.written = self.shared.clock.uptime_ms();
        let answered = match &reply {
            ReplyTo::Caller { once: Some(once), .. } => Some(AnsweredCall {
                caller: once.caller.clone(),
                key: once.key.clone(),
                fingerprint: once.fingerprint,
                answer: answer.first().to_owned(),
                answered_ms: self.shared.clock.now_ms(),
            }),
            _ => None,
        };
        let acknowledge: Option<Acknowledge> = match reply {
            // Success is silent for these.
            ReplyTo::Nobody | ReplyTo::Client { id: None, .. } => None,
            reply => {
                let (shared, event) = (self.shared.clone(), Box::<str>::from(event.map_or("", Event::name)));
                Some(Box::new(move |written: Result<(), StoreFailure>| {
                    let outcome = written.map(|()| answer).map_err(Failure::from);
                    shared.answer(&event, reply, outcome, &WakeBatch::default());
                }))
            }
        };
        if scope.state.is_none() && scope.timers.is_empty() {
            store.drop_scope(&plugin.name, &address.key, acknowledge, answered);
            return None;
        }
        // A host that is down for long must find its timers when it comes back.
        let last_due_ms = scope.timers.values().map(|timer| timer.due_ms).max().unwrap_or(0);
        let timers = scope.timers.iter().map(|(name, timer)| TimerRecord {
            name: name.to_string(),
            due_ms: timer.due_ms,
            after_ms: timer.after_ms,
            payload: timer.payload.to_string(),
        });
        let record = ScopeRecord {
            plugin: plugin.name.clone(),
            key: address.key.to_string(),
            version: scope.state.as_ref().map_or(0, |state| state.version),
            state: scope.state.as_ref().map(|state| state.bytes.clone()),
            before: scope.before_migration.as_ref().map(|before| (before.version, before.bytes.clone())),
            sequence: scope.sequence,
            timers: timers.collect(),
            expires_ms: last_due_ms.max(self.shared.clock.now_ms()) + scope.idle_ms,
        };
        let bytes =
            record.state.as_ref().map_or(0, Vec::len) + record.before.as_ref().map_or(0, |(_, state)| state.len());
        let charge = self.charge_state(plugin, event, bytes);
        store.put_scope(record, charge, acknowledge, answered);
        None
    }

    /// Has the store keep a scope that is in use though nothing has changed in it for long.
    pub(crate) fn put_off_expiry(&mut self, plugin: u32, key: &str) {
        let is_stored = |scope: &&mut Scope| scope.is_durable && scope.loading.is_none();
        let Some(scope) = self.scopes.get_mut(plugin, key).filter(is_stored) else { return };
        scope.is_dirty = true;
        let (plugin, address) = (scope.plugin.clone(), scope.address.clone());
        self.write(&plugin, &address, ReplyTo::Nobody, Payload::empty(), None);
    }

    /// Promises to store the documents among the effects, and takes them out.
    ///
    /// # Errors
    /// Where the store takes no promise. Nothing is promised then.
    pub(crate) fn promise(
        &mut self,
        plugin: &Plugin,
        address: &ScopeAddress,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Failure> {
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

    /// Reads documents. What the feature replies to them goes to `reply`.
    pub(crate) fn fetch(
        &self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: &Event,
        fetch: Fetch,
        reply: ReplyTo,
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
                inbox.push(Job::Event { plugin, address, event, reply });
            }
        };
        let request =
            PageRequest { plugin: plugin.name.clone(), scope: address.key.to_string(), collection, before, limit };
        // Without a store nothing is granted that would lead here.
        if let Some(store) = &self.shared.store {
            store.page(request, turn, Box::new(then));
        }
    }
    /// On whose behalf documents are read: they are read in turns, and for nobody who has to pay first for what was read before.
    fn turn_of(&self, charge: &Charge) -> Turn {
        let Some(asker) = charge.principal() else { return Turn::default() };
        let (principal, asker, ledger) = (asker.name().clone(), asker.clone(), self.shared.hub.ledger().clone());
        let admit = move || asker.may_fetch().map_err(|overdraft| ledger.refuse(&overdraft));
        Turn { principal: Some(principal), admit: Some(Box::new(admit)) }
    }
}
