//! The call of a feature with an event, and the consequences of a fault.

use std::sync::Arc;
use std::time::Instant;

use super::commit::Done;
use super::effect::{Checked, EffectCounts};
use super::instances::{Role, Slot};
use super::outcome::{CallError, CallFault, check_outcome};
use super::rooms::Questions;
use super::scope::Scope;
use super::shared::Shared;
use super::state::{ThreadState, Visit};
use crate::model::{CloseCode, ErrorCode, Failure};
use crate::plugin::event::Event;
use crate::plugin::event::senders::{Consequence, Sender};
use crate::plugin::guest::sandbox::{Fault, Instance};
use crate::plugin::load::call::Facts;
use crate::plugin::load::catalogue::{Plugin, PluginError};
use crate::plugin::load::generation::Generation;
use crate::plugin::load::health::Verdict;
use crate::plugin::load::migrate::{Present, State, take_over};

/// The result of an event.
pub(crate) enum Handled {
    Done(Done),
    Refused(Failure),
    /// A backend has to be asked, and the event handled again. Nothing has changed.
    Pending(Questions),
    /// The feature failed on the event, or a guaranteed event cannot be charged or promised now. Nothing has changed.
    Failed(Failure),
}

/// The checked outcome of a call, and the state that the component got.
pub(super) type Called = Result<(Checked, Present), CallError>;

impl ThreadState {
    /// Calls the feature, checks the outcome, and commits it.
    pub(super) fn invoke(&mut self, visit: &mut Visit<'_>) -> Handled {
        let Visit { plugin, event, .. } = *visit;
        let (generation, role, called) = self.call_build(visit);
        let is_pending = matches!(called, Err(CallError::Pending(_)));
        let call = if is_pending { None } else { self.remember(visit, &generation) };
        match called {
            Ok((mut checked, present)) => {
                note_success(plugin, role);
                let counts = EffectCounts::of(&checked.effects);
                let charged = self.charge(visit, &mut checked.effects);
                match charged.and_then(|()| self.promise(visit, &mut checked.effects)) {
                    Ok(()) => {
                        counts.add_to(&plugin.metrics);
                        call.iter().for_each(|call| call.note_committed());
                        Handled::Done(self.commit(visit, &generation, checked, present))
                    }
                    // A guaranteed event has no sender that would repeat it, so the host tries it again.
                    Err(failure) if event.is_guaranteed() => Handled::Failed(failure),
                    Err(failure) => Handled::Refused(failure),
                }
            }
            Err(CallError::Refused(failure)) => {
                note_success(plugin, role);
                Handled::Refused(failure)
            }
            Err(CallError::Pending(questions)) => Handled::Pending(questions),
            Err(CallError::Fault(CallFault { message, .. }) | CallError::Stays(message)) => {
                self.note_fault(visit, (&generation, role), &message);
                let message = format!("the feature {} failed on this event", plugin.name);
                Handled::Failed(Failure::new(ErrorCode::Internal, message))
            }
        }
    }

    /// Checks that an event's call may change what it changes.
    ///
    /// # Errors
    /// If there is no room for its scope, or the store takes no changes.
    fn check_bounds(&mut self, visit: &Visit<'_>) -> Result<(), Failure> {
        let Visit { plugin, event, place, .. } = *visit;
        // A query makes no scope, so it needs no room.
        if !event.is_query() && place.is_none() {
            self.check_scopes(visit)?;
            self.make_room(plugin, Some(event))?;
        }
        let is_durable = place.is_some_and(|place| self.scopes[place].is_durable);
        if let Some(store) = self.shared.store.as_ref().filter(|_| is_durable && event.is_refusable()) {
            store.takes_changes()?;
            self.shared.check_states(plugin, event)?;
        }
        Ok(())
    }

    /// Calls a build. Returns the checked outcome, and the state that the call got.
    fn call(&mut self, visit: &Visit<'_>, generation: &Arc<Generation>, slot: Slot) -> Called {
        let Visit { plugin, address, event, place, .. } = *visit;
        self.called = None;
        self.check_bounds(visit).map_err(CallError::Refused)?;
        let seed = self.next_seed();
        let responsible = self.shared.responsible(event);
        let Self { scopes, instances, shared, wakes, called, .. } = self;
        let scope = place.map(|place| &scopes[place]);
        let instance = instances.warm(slot, generation, &shared.ticker, wakes)?;
        let stored = scope.and_then(|scope| scope.state.as_ref());
        let wanted = generation.manifest.state_version;
        let present = match stored.filter(|stored| stored.version != wanted) {
            Some(stored) => {
                // Other builds migrate in instances of their own, which wake no shards.
                wakes.wake();
                let kept = scope.and_then(|scope| scope.previous_schema_state.as_ref());
                instance.lend(wakes, |instance| migrate(instance, shared, plugin, generation, (stored, kept)))?
            }
            None => Present::AsStored,
        };
        instance.shorten(generation.haste.divisor());
        let params: Vec<&str> = address.params.iter().map(String::as_str).collect();
        let facts = facts_of(shared, visit, scope, seed);
        let context = facts.context(&address.key, &params, &generation.settings);
        *called = Some(facts);
        let state = present.bytes(stored);
        let started = Instant::now();
        let result = instance.lend(wakes, |instance| instance.handle(&shared.ticker, context, event, state));
        let took = started.elapsed();
        generation.haste.note(matches!(result, Err(Fault::Deadline(_) | Fault::Shortened(_))));
        generation.latency.observe(took.as_secs_f64());
        if let Some(sender) = responsible {
            sender.charge_call(shared.clock.uptime_ms(), took);
        }
        if instances.count_time(took) {
            wakes.wake();
        }
        plugin.metrics.handled.inc();
        plugin.metrics.time.inc_by(took.as_secs_f64());
        shared.metrics.plugin_calls.inc();
        let outcome = result?;
        if event.opened().is_some() {
            generation.grant_use.record_connect(&shared.clock);
        }
        let outcome = outcome.map_err(CallError::Refused)?;
        let checked = check_outcome(shared, visit, scope, (generation, facts), outcome)?;
        Ok((checked, present))
    }

    /// Calls the feature, and once more on a fresh instance if it trapped on one that had handled other events.
    pub(super) fn call_or_retry(&mut self, visit: &Visit<'_>, generation: &Arc<Generation>, slot: Slot) -> Called {
        let first = self.call(visit, generation, slot);
        let Err(CallError::Fault(fault)) = &first else { return first };
        let plugin = visit.plugin;
        if !fault.is_trap || self.instances.is_fresh(slot) {
            return first;
        }
        self.instances.drop_instance(slot);
        let second = self.call(visit, generation, slot);
        if second.is_ok() {
            plugin.metrics.traps.inc();
            let id = &generation.id;
            tracing::warn!(
                plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
                scope = %visit.address.key, event = %visit.event.name(),
                "the plugin failed on an event, and not on a fresh instance, so something stays in its memory between events: {}",
                fault.message
            );
        }
        second
    }

    fn note_fault(&mut self, visit: &Visit<'_>, (generation, role): (&Arc<Generation>, Role), fault: &str) {
        if let Some(call) = self.last_call(visit, generation) {
            self.keep_case(visit, &call, fault);
        }
        let Visit { plugin, address, event, .. } = *visit;
        let now = self.shared.clock.uptime_ms();
        plugin.metrics.traps.inc();
        self.shared.metrics.plugin_faults.inc();
        let responsible = self.shared.responsible(event);
        // A fault on a join or departure does not count against its client.
        if let Some(sender) = responsible.as_ref().filter(|_| event.is_sent()) {
            self.punish(plugin, sender, event, now);
        }
        // After a fault the instance must not be called again.
        self.instances.drop_instance((plugin.number, role));
        let id = &generation.id;
        plugin.note_error(PluginError {
            at_ms: self.shared.clock.now_ms(),
            generation: id.generation,
            scope: Some(address.key.to_string()),
            event: Some(event.name().to_owned()),
            message: fault.to_owned(),
        });
        tracing::error!(
            plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
            scope = %address.key, event = %event.name(), "the plugin failed: {fault}"
        );
        let culprit = responsible.as_ref().map(|sender| &sender.principal);
        match plugin.health.failed(id.generation, now, plugin.before().is_some(), culprit) {
            Verdict::GoOn => {}
            Verdict::RollBack(generation) => (self.roll_back)(&plugin.name, generation),
            Verdict::Quarantined(pause_ms) => tracing::error!(
                plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest, pause_ms,
                "the plugin fails too often and is paused"
            ),
        }
    }

    /// Counts a fault against the sender of the event. After several faults the sender is refused, and then
    /// disconnected.
    fn punish(&self, plugin: &Plugin, sender: &Sender, event: &Event, now: u64) {
        let (pause_ms, is_disconnected) = match sender.note_fault(plugin.number, now) {
            Consequence::Nothing => return,
            Consequence::Refused(pause_ms) => (pause_ms, false),
            Consequence::Disconnected(pause_ms) => (pause_ms, true),
        };
        tracing::warn!(
            plugin = %plugin.name, sender = %sender.principal, event = %event.name(), pause_ms, is_disconnected,
            "a client makes a plugin fail again and again, and is refused"
        );
        if let Some(member) = event.member().filter(|_| is_disconnected) {
            self.shared.metrics.senders_disconnected.inc();
            let reason = format!("what was sent made the feature {} fail again and again", plugin.name);
            // An anonymous user has one connection.
            for connection in self.shared.hub.connections_of(&member.identity.user) {
                self.shared.hub.close(connection, CloseCode::PolicyViolation, &reason);
            }
        }
    }
}

/// Notes a call without a fault. What an older build does is not to the running one's credit.
fn note_success(plugin: &Plugin, role: Role) {
    if role != Role::Older {
        plugin.health.succeeded();
    }
}

/// The facts beside an event, for a call with this seed.
fn facts_of(shared: &Shared, visit: &Visit<'_>, scope: Option<&Scope>, seed: u64) -> Facts {
    let event = visit.event;
    let (room_connections, room_users, user_connections) = room_of(shared, visit, scope);
    // By the scope's members, not the hub: the hub has removed a connection that ended after it sent this event.
    let connection_in_room =
        scope.zip(event.sender_id()).is_some_and(|(scope, id)| scope.members.get(&id).is_some_and(|part| part.joined));
    Facts {
        now: shared.clock.now_ms(),
        seed,
        sequence: scope.map_or(0, |scope| scope.sequence) + 1,
        room_connections: room_connections as u32,
        room_users: room_users as u32,
        connection_in_room,
        user_connections: user_connections as u32,
    }
}

/// The numbers of connections and distinct users in the scope's room, and of the connections there of the user that the event
/// is about.
fn room_of(shared: &Shared, visit: &Visit<'_>, scope: Option<&Scope>) -> (usize, usize, usize) {
    let (key, user) = (&visit.address.key, visit.event.member().map(|member| &*member.identity.user));
    if shared.node.is_some() {
        let Some(roster) = scope.and_then(|scope| scope.roster.as_ref()) else { return (0, 0, 0) };
        let (connections, users) = roster.size();
        return (connections, users, user.map_or(0, |user| roster.n_connections_of(user)));
    }
    match user {
        Some(user) => shared.hub.room_size_with(key, user),
        None => {
            let (connections, users) = shared.hub.room_size(key);
            (connections, users, 0)
        }
    }
}

/// Migrates a state to the schema of the generation that handles its scope. If no build can and the state may be given
/// up, returns the copy from before it was migrated forward.
fn migrate(
    instance: &mut Instance,
    shared: &Shared,
    plugin: &Plugin,
    generation: &Generation,
    (stored, kept): (&State, Option<&State>),
) -> Result<Present, CallError> {
    let wanted = generation.manifest.state_version;
    let newer = plugin.newer(stored.version, wanted);
    match take_over(&shared.ticker, &newer, generation, instance, (stored, kept)) {
        Ok(state) => Ok(Present::Migrated(state)),
        Err(cannot) if plugin.stays_on(generation, stored.version).is_some() => {
            Err(CallError::Stays(cannot.to_string()))
        }
        Err(cannot) if plugin.gives_up(stored.version) && !cannot.is_fault => {
            Ok(Present::GivenUp(kept.filter(|kept| kept.version == wanted).map(|kept| kept.bytes.clone())))
        }
        Err(cannot) => Err(CallError::Fault(cannot.to_string().into())),
    }
}
