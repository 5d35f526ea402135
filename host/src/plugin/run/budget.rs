//! Who pays for what an event makes the host hold: whoever sent it, or, where it was the host's, the owner of its scope.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use roundhouse_contract::{MAX_SCOPE_TIMERS, ScopeAddress};

use super::effect::{Document, Effect, Fetch};
use super::scope::{Due, Room, Scope};
use super::worker::{Worker, unavailable};
use crate::ledger::{Account, Charge, Means, Overdraft, Payers};
use crate::model::{ErrorCode, Failure, Payload};
use crate::plugin::event::senders::Sender;
use crate::plugin::event::{Event, Origin};
use crate::plugin::load::catalogue::Plugin;

/// What an acknowledgement that is owed takes beside its tag, in bytes: where it is noted on its thread, among the
/// deadlines, and with its connection.
const OWED_BYTES: usize = 300;

impl Worker {
    /// Whoever sent an event, or brought it about.
    fn sender(&self, event: &Event) -> Option<Arc<Account>> {
        let ledger = self.shared.hub.ledger();
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

    /// The client that sent an event or brought it about, to be charged for what its call takes.
    pub(crate) fn responsible(&self, event: &Event) -> Option<Arc<Sender>> {
        if let Some(sender) = event.sender() {
            return Some(sender.clone());
        }
        // Most of the host's own are timers, and nobody's.
        let account = self.sender(event).filter(|account| !account.is_service())?;
        Some(self.shared.senders.sender(account.name(), self.shared.clock.uptime_ms()))
    }

    /// Those who answer for what comes of an event.
    fn payers(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event) -> Payers {
        let sender = self.sender(event);
        let ledger = self.shared.hub.ledger();
        let scope = self.scopes.get_mut(plugin.number, &address.key);
        let owner = scope.as_ref().and_then(|scope| scope.owner.principal().cloned());
        let account = |scope: &mut Scope| scope.account.get_or_insert_with(|| ledger.scope(&address.key)).clone();
        Payers {
            principal: sender.or(owner),
            plugin: Some(plugin.account.clone()),
            scope: scope.map(account),
            is_lenient: event.must_be_told(),
        }
    }

    /// What is charged for a scope that an event makes. It was found to be within the bound before.
    fn charge_scope(&self, plugin: &Plugin, event: Option<&Event>) -> Charge {
        let payers = Payers {
            principal: event.and_then(|event| self.sender(event)),
            plugin: Some(plugin.account.clone()),
            ..Payers::default()
        };
        payers.charge_anyway(Means::Scopes, 1, 0)
    }

    /// Charges what the effects of an event make the host hold, before anything comes of them.
    ///
    /// # Errors
    /// Where that is more than whoever pays for it may have. Nothing is charged then.
    pub(crate) fn charge(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: &Event,
        effects: &mut [Effect],
    ) -> Result<(), Failure> {
        let is_charged = |effect: &Effect| {
            matches!(effect, Effect::Ask { .. } | Effect::SetTimer { .. } | Effect::Save(_) | Effect::Fetch(_))
        };
        if !effects.iter().any(is_charged) {
            return Ok(());
        }
        // Its account is the scope's, which the first of these makes.
        self.enter(plugin, address, Some(event))?;
        let payers = self.payers(plugin, address, event);
        let scope = self.scopes.get(plugin.number, &address.key);
        let charged = scope.map_or(Ok(()), |scope| check_timers(scope, effects)).and_then(|()| {
            let charged = effects.iter_mut().try_for_each(|effect| charge_effect(&payers, scope, effect));
            let charged = charged.and_then(|()| pay_for_saves(&payers, effects));
            charged.map_err(|overdraft| self.shared.hub.ledger().refuse(&overdraft))
        });
        if charged.is_err() {
            self.drop_if_empty(plugin, address);
        }
        charged
    }

    /// Charges who asked with what a feature made of documents that were read for it.
    pub(crate) fn charge_answer(event: &Event, answer: &Payload) {
        if let Event::Fetched { charge, .. } = event
            && let Some(asker) = charge.principal()
        {
            asker.pay_fetched(answer.args().len());
        }
    }

    /// Whether whoever sent an event may have one more state wait to be written.
    ///
    /// # Errors
    /// Where as many as may are waiting.
    pub(crate) fn check_states(&self, plugin: &Plugin, event: &Event) -> Result<(), Failure> {
        let checked = self.sender(event).map_or(Ok(()), |sender| sender.check(Means::States, (1, 1)));
        let checked = checked.and_then(|()| plugin.account.check(Means::States, (1, 1)));
        checked.map_err(|overdraft| self.shared.hub.ledger().refuse(&overdraft))
    }

    /// What is charged for a state that waits to be written.
    pub(crate) fn charge_state(&self, plugin: &Plugin, event: Option<&Event>, bytes: usize) -> Charge {
        let principal = event.and_then(|event| self.sender(event));
        let payers = Payers { principal, plugin: Some(plugin.account.clone()), ..Payers::default() };
        payers.charge_anyway(Means::States, 1, bytes)
    }

    /// Whether whoever sent an event may have one more scope, where the event would make one.
    ///
    /// # Errors
    /// Where it has as many as it may have.
    pub(crate) fn check_scopes(&self, plugin: &Plugin, key: &str, event: &Event) -> Result<(), Failure> {
        // What must be told makes its scope all the same.
        if !event.can_be_sent_again() || self.scopes.get(plugin.number, key).is_some() {
            return Ok(());
        }
        let checked = self.sender(event).map_or(Ok(()), |sender| sender.check(Means::Scopes, (1, 0)));
        checked.map_err(|overdraft| self.shared.hub.ledger().refuse(&overdraft))
    }

    /// Makes the scope of an event if it is not there; without an event, one that is restored.
    ///
    /// # Errors
    /// Where there is no room for it, or no template.
    pub(crate) fn enter(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: Option<&Event>,
    ) -> Result<(), Failure> {
        if self.scopes.get(plugin.number, &address.key).is_some() {
            return Ok(());
        }
        let generation = plugin.current();
        let Some((kind, _)) = generation.manifest.scope_of_key(&address.key) else {
            return Err(unavailable(format!("the feature {} has no scope {} any more", plugin.name, address.key)));
        };
        self.make_room_for(plugin, &address.key, event)?;
        let owner = self.charge_scope(plugin, event);
        let (idle_ms, now) = (kind.idle.as_millis() as u64, self.shared.clock.uptime_ms());
        let look = self.deadlines.push(now + idle_ms, Due::Idle { plugin: plugin.number, scope: address.key.clone() });
        self.scopes.insert(plugin, address, kind, now, look, owner);
        Ok(())
    }

    /// Sees to it that a scope is in memory or may come there.
    ///
    /// # Errors
    /// Where there is no room for it, even after one that nobody uses has gone.
    pub(crate) fn make_room_for(
        &mut self,
        plugin: &Arc<Plugin>,
        key: &str,
        event: Option<&Event>,
    ) -> Result<(), Failure> {
        if self.scopes.get(plugin.number, key).is_some() {
            return Ok(());
        }
        if self.scopes.room(plugin.number, None) == Room::Free {
            return Ok(());
        }
        let sender = event.and_then(|event| self.sender(event));
        if self.evict(plugin, sender.as_ref()) {
            return Ok(());
        }
        match self.scopes.room(plugin.number, sender.as_ref()) {
            Room::Free | Room::Reserved => Ok(()),
            Room::None => {
                let message = format!("the feature {} has as many scopes as it may have: try again later", plugin.name);
                Err(unavailable(message))
            }
        }
    }

    /// Lets a scope of a plugin go that nobody uses: a durable one to the disk, a volatile one before its idle time is over.
    /// Says whether there was one.
    fn evict(&mut self, plugin: &Plugin, asker: Option<&Arc<Account>>) -> bool {
        let hub = &self.shared.hub;
        let evicted = self.scopes.evict(plugin.number, asker, |scope| hub.room_size(&scope.address.key).0 > 0);
        let Some(scope) = evicted else { return false };
        self.deadlines.cancel(scope.look);
        if !scope.is_durable {
            self.shared.metrics.plugin_dropped.inc();
            let n_evicted = plugin.evicted.fetch_add(1, Ordering::Relaxed) + 1;
            // They may be many in a second.
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

fn charge_effect(payers: &Payers, scope: Option<&Scope>, effect: &mut Effect) -> Result<(), Overdraft> {
    match effect {
        Effect::Ask { connections, tag, charges, .. } => {
            let charge = |_| payers.charge(Means::Acknowledgements, 1, OWED_BYTES + tag.len());
            *charges = connections.iter().map(charge).collect::<Result<_, _>>()?;
        }
        Effect::SetTimer { name, payload, charge, .. } => {
            let bytes = name.len() + payload.len();
            // One that takes the place of another is none more.
            let is_in_place = scope.and_then(|scope| scope.timers.get(name)).is_some_and(|before| {
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

/// Last, for what is paid is not given back.
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

/// Counts the timers that a scope would have. Those that are set anew or cancelled are none more.
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
