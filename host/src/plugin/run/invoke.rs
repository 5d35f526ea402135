//! One event through its feature: the call, the check of what it returned, and what a fault leads to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use roundhouse_contract::{Rules, ScopeAddress};

use super::effect::{self, Checked, Connections, Effect, Fetch};
use super::shared::Shared;
use super::worker::Worker;
use crate::hub::Overfull;
use crate::model::{CloseCode, ConnId, ErrorCode, Failure, Payload};
use crate::plugin::event::Event;
use crate::plugin::event::senders::{Consequence, Sender};
use crate::plugin::guest::sandbox::{Context, Fault, Instance};
use crate::plugin::load::catalogue::{Plugin, PluginError};
use crate::plugin::load::generation::Generation;
use crate::plugin::load::health::Verdict;
use crate::plugin::load::migrate::{Present, State, take_over};

/// Calls after which an instance is replaced, so that what it leaks or fragments has an end.
const CALLS_PER_INSTANCE: u32 = 1_000_000;

/// Time that calls may take before shards hear of what came of the first of them.
const BUSY_FOR_LONG: Duration = Duration::from_millis(1);

/// An instance that is ready for the next call.
#[derive(Debug)]
pub(crate) struct Warm {
    generation: u64,
    calls: u32,
    instance: Instance,
}

/// What came of a call that did not go well.
enum CallError {
    /// The feature refused the event: its sender is told, and nothing else happens.
    Refused(Failure),
    /// The component did what it must not.
    Fault(String),
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault.to_string())
    }
}

/// What came of an event.
pub(crate) enum Handled {
    Done(Done),
    Refused(Failure),
    /// The feature failed on it. Nothing has changed.
    Failed(Failure),
}

/// What is left to do of an event that went well.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) reply: Option<Payload>,
    /// Documents that the feature asks for. Without a reply, what it makes of them is the answer.
    pub(crate) fetch: Option<Fetch>,
}

impl Worker {
    /// Calls the feature, checks what it returned, and commits it.
    pub(crate) fn handle_now(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event) -> Handled {
        let generation = plugin.current();
        match self.call_and_check(plugin, &generation, address, event) {
            Ok((mut checked, present)) => {
                plugin.health.succeeded();
                let charged = self.charge(plugin, address, event, &mut checked.effects);
                match charged.and_then(|()| self.promise(plugin, address, &mut checked.effects)) {
                    Ok(()) => Handled::Done(self.commit(plugin, &generation, address, event, checked, present)),
                    // What nobody would send again is tried again.
                    Err(failure) if event.must_be_told() => Handled::Failed(failure),
                    Err(failure) => Handled::Refused(failure),
                }
            }
            Err(CallError::Refused(failure)) => {
                plugin.health.succeeded();
                Handled::Refused(failure)
            }
            Err(CallError::Fault(fault)) => {
                self.note_fault(plugin, &generation, address, event, &fault);
                let message = format!("the feature {} failed on this event", plugin.name);
                Handled::Failed(Failure::new(ErrorCode::Internal, message))
            }
        }
    }

    /// Gives what the feature wants done, and how its state is in the present schema.
    fn call_and_check(
        &mut self,
        plugin: &Arc<Plugin>,
        generation: &Arc<Generation>,
        address: &ScopeAddress,
        event: &Event,
    ) -> Result<(Checked, Present), CallError> {
        // A question makes no scope, so that nothing has to make way for it.
        if !event.is_question() {
            let checked = self.check_scopes(plugin, &address.key, event);
            checked.and_then(|()| self.make_room_for(plugin, &address.key, Some(event))).map_err(CallError::Refused)?;
        }
        let is_durable = self.scopes.get(plugin.number, &address.key).is_some_and(|scope| scope.is_durable);
        if let Some(store) = self.shared.store.as_ref().filter(|_| is_durable && event.can_be_sent_again()) {
            store.takes_changes().and_then(|()| self.check_states(plugin, event)).map_err(CallError::Refused)?;
        }
        let seed = self.next_seed();
        let responsible = self.responsible(event);
        let Self { scopes, instances, shared, wakes, busy, .. } = self;
        let scope = scopes.get(plugin.number, &address.key);
        let instance = warm_instance(instances, shared, plugin, generation)?;

        let stored = scope.and_then(|scope| scope.state.as_ref());
        let wanted = generation.manifest.state_version;
        let present = match stored.filter(|stored| stored.version != wanted) {
            Some(stored) => {
                let kept = scope.and_then(|scope| scope.before_migration.as_ref());
                instance.lend(wakes, |instance| migrate(instance, shared, plugin, generation, stored, kept))?
            }
            None => Present::AsStored,
        };
        let (room_connections, room_users, user_connections) = match event.member() {
            Some(member) => shared.hub.room_size_with(&address.key, &member.identity.user),
            None => {
                let (connections, users) = shared.hub.room_size(&address.key);
                (connections, users, 0)
            }
        };
        // Not as the hub has it, where a connection that has gone since it sent this is out already.
        let connection_in_room = scope
            .zip(event.sender_id())
            .is_some_and(|(scope, id)| scope.members.get(&id).is_some_and(|part| part.joined));
        let params: Vec<&str> = address.params.iter().map(String::as_str).collect();
        let context = Context {
            now: shared.clock.now_ms(),
            seed,
            sequence: scope.map_or(0, |scope| scope.sequence) + 1,
            scope: &address.key,
            params: &params,
            room_connections: room_connections as u32,
            room_users: room_users as u32,
            connection_in_room,
            user_connections: user_connections as u32,
            settings: &generation.settings,
        };
        let state = present.bytes(stored);
        let started = Instant::now();
        let result = instance.lend(wakes, |instance| instance.handle(&shared.ticker, context, event, state));
        let took = started.elapsed();
        generation.latency.observe(took.as_secs_f64());
        *busy += took;
        if let Some(sender) = responsible {
            sender.charge_call(shared.clock.uptime_ms(), took);
        }
        if *busy > BUSY_FOR_LONG {
            // What came of the calls before this one has waited for long enough.
            *busy = Duration::ZERO;
            wakes.wake();
        }
        plugin.calls.fetch_add(1, Ordering::Relaxed);
        shared.metrics.plugin_calls.inc();
        let outcome = result?.map_err(CallError::Refused)?;
        let sender = event.sender_id();
        let owns = |room: &str| generation.manifest.scope_of_key(room).is_some();
        let world = Connections {
            is_known: |connection| {
                sender == Some(connection) || shared.hub.is_known_to(connection, plugin.number, owns).unwrap_or(true)
            },
            has_come: |connection| {
                event.comes_from() == Some(connection)
                    || scope.is_some_and(|scope| scope.members.get(&connection).is_some_and(|part| part.came))
                    || shared.hub.is_in_any(connection, owns).unwrap_or(true)
            },
        };
        let rules = Rules {
            manifest: &generation.manifest,
            grants: &generation.grants,
            room: &address.key,
            max_state_bytes: generation.bounds.state_bytes,
            is_query: event.is_question(),
            world,
        };
        let checked = effect::check(&rules, &address.key, outcome);
        let checked = checked.map_err(|refusal| CallError::Fault(format!("it returned {refusal}")))?;
        // What must be told is not refused for somebody's full rooms.
        if event.can_be_sent_again() {
            let scope = (plugin.number, &*address.key);
            check_memberships(shared, &checked.effects, scope).map_err(CallError::Refused)?;
        }
        Ok((checked, present))
    }

    fn note_fault(
        &mut self,
        plugin: &Arc<Plugin>,
        generation: &Generation,
        address: &ScopeAddress,
        event: &Event,
        fault: &str,
    ) {
        let now = self.shared.clock.uptime_ms();
        plugin.traps.fetch_add(1, Ordering::Relaxed);
        self.shared.metrics.plugin_faults.inc();
        let responsible = self.responsible(event);
        // That a connection goes or comes into a room is not what its client made of it.
        if let Some(sender) = responsible.as_ref().filter(|_| event.is_sent()) {
            self.punish(plugin, sender, event, now);
        }
        // A component that went wrong is in no state to be called again.
        self.instances.remove(&plugin.number);
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
            Verdict::RollBack(generation) => (self.roll_back.0)(&plugin.name, generation),
            Verdict::Quarantined(pause_ms) => tracing::error!(
                plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest, pause_ms,
                "the plugin fails too often and is paused"
            ),
        }
    }
}

impl Worker {
    /// A sender has made a feature fail: if it goes on with that, it is refused, and then disconnected.
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
            // One that has not signed in has but the name of one connection.
            for connection in self.shared.hub.connections_of(&member.identity.user) {
                self.shared.hub.close(connection, CloseCode::PolicyViolation, &reason);
            }
        }
    }
}

/// The warm instance of a generation; one of another generation makes way for it.
fn warm_instance<'a>(
    instances: &'a mut HashMap<u32, Warm>,
    shared: &Shared,
    plugin: &Plugin,
    generation: &Generation,
) -> Result<&'a mut Instance, Fault> {
    let number = generation.id.generation;
    let fits = |warm: &Warm| warm.generation == number && warm.calls < CALLS_PER_INSTANCE;
    if !instances.get(&plugin.number).is_some_and(fits) {
        let instance = generation.instantiate(&shared.ticker)?;
        instances.insert(plugin.number, Warm { generation: number, calls: 0, instance });
    }
    match instances.get_mut(&plugin.number) {
        Some(warm) => {
            warm.calls += 1;
            Ok(&mut warm.instance)
        }
        None => unreachable!("it was put there, or found there, above"),
    }
}

/// A state in the schema of the generation that handles it. Where no build can migrate it and it may be given up, the copy
/// from before it was migrated forward.
fn migrate(
    instance: &mut Instance,
    shared: &Shared,
    plugin: &Plugin,
    generation: &Generation,
    stored: &State,
    kept: Option<&State>,
) -> Result<Present, CallError> {
    let wanted = generation.manifest.state_version;
    let downward = plugin.downward(stored.version, wanted);
    match take_over(&shared.ticker, &downward, generation, instance, stored) {
        Ok(state) => Ok(Present::Migrated(state)),
        Err(cannot) if plugin.gives_up(stored.version) && !cannot.is_fault => {
            Ok(Present::GivenUp(kept.filter(|kept| kept.version == wanted).map(|kept| kept.bytes.clone())))
        }
        Err(cannot) => Err(CallError::Fault(cannot.to_string())),
    }
}

/// Whether connections may come into the rooms and scopes that these effects would bring them into.
///
/// # Errors
/// Where one of them, or its principal, takes part in as much as it may.
fn check_memberships(shared: &Shared, effects: &[Effect], scope: (u32, &str)) -> Result<(), Failure> {
    let mut wanted: HashMap<ConnId, (HashSet<&str>, bool)> = HashMap::new();
    for effect in effects {
        match effect {
            Effect::Join { connection, room } => drop(wanted.entry(*connection).or_default().0.insert(room)),
            Effect::Watch(connection) => wanted.entry(*connection).or_default().1 = true,
            _ => {}
        }
    }
    wanted.into_iter().try_for_each(|(connection, (rooms, watches))| {
        let room = shared.hub.has_room_for(connection, &rooms, watches.then_some(scope));
        room.map_err(|overfull| match overfull {
            Overfull::Connection => Failure::new(
                ErrorCode::Conflict,
                format!("the connection {connection} takes part in as much as it may: leave something first"),
            ),
            Overfull::Principal(overdraft) => shared.hub.ledger().refuse(&overdraft),
        })
    })
}
