//! Charges for resources that an event makes the host hold: to its sender, or, for an event of the host, to the scope's
//! owner.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use roundhouse_contract::{MAX_SCOPE_TIMERS, ScopeAddress};

use super::deadlines::Due;
use super::effect::{Document, Effect, Fetch};
use super::scope::Scope;
use super::scopes::{Place, Vacancy};
use super::shared::{Shared, unavailable};
use super::state::{ThreadState, Visit};
use crate::ledger::{Account, Charge, Means, Overdraft, Payers};
use crate::model::{ErrorCode, Failure, Payload};
use crate::plugin::event::senders::Sender;
use crate::plugin::event::{Event, Origin};
use crate::plugin::load::catalogue::Plugin;

/// The size of a pending acknowledgement without its tag, in bytes: its entries among those of its thread, of the
/// deadlines, and of its connection.
const PENDING_ACK_BYTES: usize = 300;

impl Shared {
    /// The account of the principal that sent an event or caused it.
    fn sender(&self, event: &Event) -> Option<Arc<Account>> {
        let ledger = self.hub.ledger();
        match event {
            Event::Message { origin: Origin::Service(name), .. } => Some(ledger.service(name)),
            Event::Fetched { charge, .. } => charge.principal().cloned(),
            Event::Saved { promise, .. } => promise.charge.as_ref().and_then(|charge| charge.principal().cloned()),
            Event::Acknowledged { place, .. } => {
                let answerer = place.as_ref().and_then(|place| place.sender());
                answerer.map(|sender| ledger.user(&sender.principal))
            }
            event => event.member().map(|member| ledger.user(&member.identity.principal)),
        }
    }

    /// The client that sent an event or caused it, which is charged for the time of the call.
    pub(crate) fn responsible(&self, event: &Event) -> Option<Arc<Sender>> {
        if let Some(sender) = event.sender() {
            return Some(sender.clone());
        }
        // Most of the host's own events are timers, which have no sender.
        let account = self.sender(event).filter(|account| !account.is_service())?;
        Some(self.senders.sender(account.name(), self.clock.uptime_ms()))
    }

    /// Charges for a scope that an event makes. The bound was checked before.
    fn charge_scope(&self, plugin: &Plugin, event: Option<&Event>) -> Charge {
        let payers = Payers {
            principal: event.and_then(|event| self.sender(event)),
            plugin: Some(plugin.account.clone()),
            ..Payers::default()
        };
        payers.charge_anyway(Means::Scopes, 1, 0)
    }

    /// Checks that the sender of an event and the plugin may have one more state wait to be written.
    ///
    /// # Errors
    /// If as many states of the sender or the plugin wait as may.
    pub(crate) fn check_states(&self, plugin: &Plugin, event: &Event) -> Result<(), Failure> {
        let checked = self.sender(event).map_or(Ok(()), |sender| sender.check(Means::States, (1, 1)));
        let checked = checked.and_then(|()| plugin.account.check(Means::States, (1, 1)));
        checked.map_err(|overdraft| self.hub.ledger().refuse(&overdraft))
    }

    /// Charges for a state that waits to be written.
    pub(crate) fn charge_state(&self, plugin: &Plugin, event: Option<&Event>, bytes: usize) -> Charge {
        let principal = event.and_then(|event| self.sender(event));
        let payers = Payers { principal, plugin: Some(plugin.account.clone()), ..Payers::default() };
        payers.charge_anyway(Means::States, 1, bytes)
    }
}

impl ThreadState {
    /// The accounts that the effects of an event are charged to.
    fn payers(&mut self, visit: &Visit<'_>, place: Place) -> Payers {
        let sender = self.shared.sender(visit.event);
        let scope = &mut self.scopes[place];
        let owner = scope.owner.principal().cloned();
        let account = scope.account.get_or_insert_with(|| self.shared.hub.ledger().scope(&visit.address.key));
        Payers {
            principal: sender.or(owner),
            plugin: Some(visit.plugin.account.clone()),
            scope: Some(account.clone()),
            is_lenient: visit.event.is_guaranteed(),
        }
    }

    /// Charges the effects of an event, before any of them is carried out.
    ///
    /// # Errors
    /// If an account would be over its bound. Then nothing is charged.
    pub(super) fn charge(&mut self, visit: &mut Visit<'_>, effects: &mut [Effect]) -> Result<(), Failure> {
        let is_charged = |effect: &Effect| {
            matches!(effect, Effect::Ask { .. } | Effect::SetTimer { .. } | Effect::Save(_) | Effect::Fetch(_))
        };
        if !effects.iter().any(is_charged) {
            return Ok(());
        }
        // The first charged effect makes the scope, because the scope's account is charged.
        let place = self.enter(visit)?;
        let payers = self.payers(visit, place);
        let scope = &self.scopes[place];
        let charged = check_timers(scope, effects).and_then(|()| {
            let charged = effects.iter_mut().try_for_each(|effect| charge_effect(&payers, scope, effect));
            let charged = charged.and_then(|()| pay_for_saves(&payers, effects));
            charged.map_err(|overdraft| self.shared.hub.ledger().refuse(&overdraft))
        });
        if charged.is_err() {
            self.drop_if_empty(place);
            visit.place = self.scopes.find(visit.plugin.number, &visit.address.key);
        }
        charged
    }

    /// Charges the principal that asked for documents for the answer made of them.
    pub(crate) fn charge_answer(event: &Event, answer: &Payload) {
        if let Event::Fetched { charge, .. } = event
            && let Some(asker) = charge.principal()
        {
            asker.pay_fetched(answer.args().len());
        }
    }

    /// Checks that the sender of an event may have one more scope, if the event would make one.
    ///
    /// # Errors
    /// If the sender has as many scopes as it may have.
    pub(super) fn check_scopes(&self, visit: &Visit<'_>) -> Result<(), Failure> {
        // Events other than those of clients and services make their scope over the bound, too.
        if !visit.event.is_retryable() || visit.place.is_some() {
            return Ok(());
        }
        let checked = self.shared.sender(visit.event).map_or(Ok(()), |sender| sender.check(Means::Scopes, (1, 0)));
        checked.map_err(|overdraft| self.shared.hub.ledger().refuse(&overdraft))
    }

    /// Makes the scope of an event if it is not in memory.
    ///
    /// # Errors
    /// If there is no room for the scope, or the manifest has no template for it.
    pub(super) fn enter(&mut self, visit: &mut Visit<'_>) -> Result<Place, Failure> {
        match visit.place {
            Some(place) => Ok(place),
            None => {
                let place = self.make_scope(visit.plugin, visit.address, Some(visit.event))?;
                visit.place = Some(place);
                Ok(place)
            }
        }
    }

    /// Makes a scope that is not in memory. `event` is none for a restored scope.
    ///
    /// # Errors
    /// If there is no room for the scope, or the manifest has no template for it.
    pub(super) fn make_scope(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: Option<&Event>,
    ) -> Result<Place, Failure> {
        let generation = plugin.current();
        let Some((kind, _)) = generation.manifest.scope_of_key(&address.key) else {
            return Err(unavailable(format!("the feature {} has no scope {} any more", plugin.name, address.key)));
        };
        self.make_room(plugin, event)?;
        let owner = self.shared.charge_scope(plugin, event);
        let (idle_ms, now) = (kind.idle.as_millis() as u64, self.shared.clock.uptime_ms());
        let due = Due::Idle { plugin: plugin.number, scope: address.key.clone() };
        let idle_check = self.deadlines.push(now + idle_ms, due);
        Ok(self.scopes.insert(plugin, address, kind, now, idle_check, owner))
    }

    /// Makes room for one more scope of a plugin, by an eviction if necessary.
    ///
    /// # Errors
    /// If no scope can be evicted, and none of the reserve is left for the sender of the event.
    pub(super) fn make_room(&mut self, plugin: &Arc<Plugin>, event: Option<&Event>) -> Result<(), Failure> {
        if self.scopes.vacancy(plugin.number, None) == Vacancy::Free {
            return Ok(());
        }
        let sender = event.and_then(|event| self.shared.sender(event));
        if self.evict(plugin, sender.as_ref()) {
            return Ok(());
        }
        match self.scopes.vacancy(plugin.number, sender.as_ref()) {
            Vacancy::Free | Vacancy::Reserved => Ok(()),
            Vacancy::None => {
                let message = format!("the feature {} has as many scopes as it may have: try again later", plugin.name);
                Err(unavailable(message))
            }
        }
    }

    /// Drops a scope that has no state, members, timers or waiting events: events without an effect must not fill the
    /// memory.
    pub(super) fn drop_if_empty(&mut self, place: Place) {
        let scope = &self.scopes[place];
        if scope.state.is_none() && !scope.is_used() && !self.keeps_room(place) {
            let (plugin, key) = (scope.plugin.clone(), scope.address.key.clone());
            self.deadlines.cancel(scope.idle_check);
            self.scopes.remove(place);
            self.mark_state(&plugin, &key);
        }
    }

    /// Evicts an unused scope of a plugin: a durable one stays in the store, a volatile one is lost before its idle
    /// time is over. Returns whether a scope was evicted.
    fn evict(&mut self, plugin: &Plugin, asker: Option<&Arc<Account>>) -> bool {
        let hub = &self.shared.hub;
        let is_clustered = self.partitions.is_some();
        let evicted =
            self.scopes.evict(plugin.number, asker, |scope| !is_clustered && hub.room_size(&scope.address.key).0 > 0);
        let Some(scope) = evicted else { return false };
        self.deadlines.cancel(scope.idle_check);
        self.mark_state(plugin, &scope.address.key);
        if !scope.is_durable {
            self.shared.metrics.plugin_dropped.inc();
            let n_evicted = plugin.evicted.fetch_add(1, Ordering::Relaxed) + 1;
            // Not every eviction is logged: there may be many in a second.
            if n_evicted.is_power_of_two() {
                tracing::warn!(
                    plugin = %plugin.name, scopes = n_evicted,
                    owner = %scope.owner.principal().map_or("nobody", |owner| owner.name()),
                    "states were dropped before they had been idle for long enough, for there are too many scopes"
                );
            }
        }
        true
    }
}

fn charge_effect(payers: &Payers, scope: &Scope, effect: &mut Effect) -> Result<(), Overdraft> {
    match effect {
        Effect::Ask { connections, tag, charges, .. } => {
            let charge = |_| payers.charge(Means::Acknowledgements, 1, PENDING_ACK_BYTES + tag.len());
            *charges = connections.iter().map(charge).collect::<Result<_, _>>()?;
        }
        Effect::SetTimer { name, payload, charge, .. } => {
            let bytes = name.len() + payload.len();
            // A timer in the place of another of the same principal, and no larger, is not checked again.
            let is_in_place = scope.timers.get(name).is_some_and(|before| {
                let is_same = before.charge.principal().map(Arc::as_ptr) == payers.principal.as_ref().map(Arc::as_ptr);
                is_same && before.charge.bytes() >= bytes
            });
            *charge = match is_in_place {
                true => payers.charge_anyway(Means::Timers, 1, bytes),
                false => payers.charge(Means::Timers, 1, bytes)?,
            };
        }
        Effect::Save(Document { tag, document, charge, .. }) => {
            *charge = Some(Arc::new(payers.charge(Means::Documents, 1, document.len() + tag.len())?));
        }
        Effect::Fetch(Fetch { charge, .. }) => {
            if let Some(principal) = payers.principal.as_ref().filter(|_| !payers.is_lenient) {
                principal.may_fetch()?;
            }
            *charge = payers.charge(Means::Fetches, 1, 0)?;
        }
        _ => {}
    }
    Ok(())
}

/// Pays for the documents to save. Called last, because a payment is not refunded.
fn pay_for_saves(payers: &Payers, effects: &[Effect]) -> Result<(), Overdraft> {
    let saved = effects.iter().map(|effect| match effect {
        Effect::Save(Document { document, .. }) => document.len(),
        _ => 0,
    });
    let saved: usize = saved.sum();
    if let Some(principal) = payers.principal.as_ref().filter(|_| saved > 0) {
        if !payers.is_lenient {
            principal.may_save()?;
        }
        principal.pay_saved(saved);
    }
    Ok(())
}

/// Checks how many timers a scope would have. Timers that replace one of the same name, and cancelled ones, add none.
fn check_timers(scope: &Scope, effects: &[Effect]) -> Result<(), Failure> {
    let n_set = effects.iter().filter(|effect| matches!(effect, Effect::SetTimer { .. })).count();
    if n_set == 0 || scope.timers.len() + n_set <= MAX_SCOPE_TIMERS {
        return Ok(());
    }
    let mut timers: HashSet<&str> = scope.timers.keys().map(|name| &**name).collect();
    for effect in effects {
        match effect {
            Effect::SetTimer { name, .. } => drop(timers.insert(name)),
            Effect::CancelTimer(name) => drop(timers.remove(&**name)),
            _ => {}
        }
    }
    if timers.len() <= MAX_SCOPE_TIMERS {
        return Ok(());
    }
    let message = format!("{} timers in one scope, and there may be {MAX_SCOPE_TIMERS}: try again later", timers.len());
    Err(Failure::new(ErrorCode::Conflict, message))
}
