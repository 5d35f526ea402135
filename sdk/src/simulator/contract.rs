//! A feature's manifest, events and outcomes, checked by the contract's rules.

use roundhouse_contract::raw::{self, StateChange};
use roundhouse_contract::{Effect, Grants, MAX_SCOPE_TIMERS, Manifest, Rules, World};

use super::event;
use super::simulation::Simulation;
use super::state::{Connection, Key, ScopeState};
use crate::bindings::roundhouse::feature::manifest as wit;
use crate::{Audience, Audiences, Event, Feature, Outcome, Payload};

/// The longest state that a host takes by default, in bytes.
const MAX_STATE_BYTES: usize = 64 * 1024;

/// Effects that break no rule, and the change of the state.
type Checked<C> = (Vec<Effect<C>>, StateChange);

/// Checks a manifest as a host gets it: converted to the contract's types.
///
/// # Errors
/// With the first rule that the manifest breaks.
pub(super) fn check_manifest(manifest: crate::Manifest) -> Result<Manifest, String> {
    let manifest = wit::Manifest::from(manifest);
    let scope = |wit::Scope { template, durability, idle_ms }| raw::Scope { template, durability, idle_ms };
    let route = |wit::Route { event, origins, scope }| raw::Route { event, origins, scope };
    let query = |wit::Query { name, scope }| raw::Query { name, scope };
    let wit::Needs { rooms, audiences, actions } = manifest.needs;
    Manifest::check(raw::Manifest {
        name: manifest.name,
        version: manifest.version,
        description: manifest.description,
        state_version: manifest.state_version,
        scopes: manifest.scopes.into_iter().map(scope).collect(),
        routes: manifest.routes.into_iter().map(route).collect(),
        queries: manifest.queries.into_iter().map(query).collect(),
        emits: manifest.emits,
        needs: Grants { rooms, audiences, actions },
        extensions: manifest.extensions,
    })
}

/// The connections of a simulation while a scope handles an event.
struct Connections<'a, F: Feature> {
    simulation: &'a Simulation<F>,
    slot: Option<&'a ScopeState>,
    event: &'a Event,
}

impl<F: Feature> Connections<'_, F> {
    /// Whether a connection is in a room of the feature's scopes. True if the connection is closed, because a host
    /// cannot tell then.
    fn is_in_any(&self, Connection(position): Connection) -> bool {
        let Simulation { clients, rooms, manifest, .. } = self.simulation;
        let owned = |room: &str| manifest.scope_of_key(room).is_some();
        clients[position].closed.is_some() || rooms.iter().any(|(room, members)| members.has(position) && owned(room))
    }
}

impl<F: Feature> World for Connections<'_, F> {
    type Connection = Connection;

    fn connection(&self, id: &str) -> Option<Connection> {
        let position = id.strip_prefix('c')?.parse::<usize>().ok()?.checked_sub(1)?;
        (position < self.simulation.clients.len()).then_some(Connection(position))
    }

    fn is_known(&self, connection: Connection) -> bool {
        event::connection(self.event) == Some(&*connection.to_string())
            || self.simulation.scopes.values().any(|slot| slot.watched.contains_key(&connection.0))
            || self.is_in_any(connection)
    }

    fn has_come(&self, connection: Connection) -> bool {
        self.event.comes_from() == Some(&*connection.to_string())
            || self.slot.is_some_and(|slot| slot.watched.get(&connection.0) == Some(&true))
            || self.is_in_any(connection)
    }
}

impl<F: Feature> Simulation<F> {
    /// Checks an outcome as a host does that grants all permissions of the manifest.
    ///
    /// # Errors
    /// With the first rule that the outcome breaks.
    pub(super) fn check_outcome(
        &self,
        key: &Key,
        event: &Event,
        outcome: Outcome,
    ) -> Result<Checked<Connection>, String> {
        let slot = self.scopes.get(&key.scope);
        let world = Connections { simulation: self, slot, event };
        let kind = (event.is_query(), event.is_admission());
        let (effects, state) = check_outcome(&self.manifest, &key.scope, kind, world, outcome)?;
        check_timers(slot, &effects)?;
        Ok((effects, state))
    }
}

/// Checks an outcome by the contract's rules alone. `kind`: whether the event is a query, and whether it asks whether a
/// connection may open.
///
/// # Errors
/// With the first rule that the outcome breaks.
pub(super) fn check_outcome<W: World>(
    manifest: &Manifest,
    scope: &str,
    (is_query, is_admission): (bool, bool),
    world: W,
    outcome: Outcome,
) -> Result<Checked<W::Connection>, String> {
    let rules = Rules { manifest, room: scope, max_state_bytes: MAX_STATE_BYTES, is_query, is_admission, world };
    let state = match outcome.state {
        crate::StateChange::Keep => StateChange::Keep,
        crate::StateChange::Put(bytes) => StateChange::Put(bytes),
        crate::StateChange::Clear => StateChange::Clear,
    };
    let (effects, state, _) = rules.check(outcome.effects.into_iter().map(raw_effect), state, |effect| effect)?;
    Ok((effects, state))
}

fn check_timers(slot: Option<&ScopeState>, effects: &[Effect<Connection>]) -> Result<(), String> {
    let before = slot.into_iter().flat_map(|slot| slot.timers.keys());
    let mut timers: std::collections::BTreeSet<&str> = before.map(String::as_str).collect();
    for effect in effects {
        match effect {
            Effect::SetTimer(timer) => drop(timers.insert(&timer.name)),
            Effect::CancelTimer(name) => drop(timers.remove(name.as_str())),
            _ => {}
        }
    }
    match timers.len() {
        0..=MAX_SCOPE_TIMERS => Ok(()),
        n => Err(format!("{n} timers in one scope, and there may be {MAX_SCOPE_TIMERS}")),
    }
}

fn raw_effect(effect: crate::Effect) -> raw::Effect<impl Iterator<Item = raw::Audience>> {
    match effect {
        crate::Effect::Emit(emit) => raw::Effect::Emit(raw::Emit {
            to: raw_audiences(emit.to),
            except: raw_audiences(emit.except),
            event: emit.event,
            payload: raw_payload(emit.payload),
            volatile: emit.volatile,
            acknowledge: emit.acknowledge,
        }),
        crate::Effect::Reply(payload) => raw::Effect::Reply(raw_payload(payload)),
        crate::Effect::ReplyReached(field, of) => raw::Effect::ReplyReached { field, of: of.as_str().to_owned() },
        crate::Effect::Join(connection, room) => raw::Effect::Join(raw::Membership { connection, room }),
        crate::Effect::Leave(connection, room) => raw::Effect::Leave(raw::Membership { connection, room }),
        crate::Effect::Watch(connection) => raw::Effect::Watch(connection),
        crate::Effect::SetTimer(name, after_ms, payload) => {
            raw::Effect::SetTimer(raw::SetTimer { name, after_ms, payload })
        }
        crate::Effect::CancelTimer(name) => raw::Effect::CancelTimer(name),
        crate::Effect::Save(crate::Save { tag, collection, key, document }) => {
            raw::Effect::Save(raw::Save { tag, collection, key, document })
        }
        crate::Effect::Fetch(crate::Fetch { tag, collection, before, limit }) => {
            raw::Effect::Fetch(raw::Fetch { tag, collection, before, limit })
        }
        crate::Effect::Disconnect(connection, reason) => raw::Effect::Disconnect { connection, reason },
    }
}

fn raw_audiences(audiences: Audiences) -> impl Iterator<Item = raw::Audience> {
    audiences.0.into_iter().map(|audience| match audience {
        Audience::Room(room) => raw::Audience::Room(room),
        Audience::User(user) => raw::Audience::User(user),
        Audience::Users(users) => raw::Audience::Users(users),
        Audience::Roles(roles) => raw::Audience::Roles(roles),
        Audience::Connection(connection) => raw::Audience::Connection(connection),
        Audience::All => raw::Audience::All,
    })
}

fn raw_payload(Payload { args, attachments }: Payload) -> raw::Payload {
    raw::Payload { args, attachments }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manifest, Scope};

    fn lobby(scope: Scope) -> Manifest {
        Manifest::new("lobby", "1.0.0", "").scope(scope)
    }

    fn refusal(manifest: Manifest) -> String {
        check_manifest(manifest).err().unwrap_or_default()
    }

    #[test]
    fn invalid_connect_routes_are_refused() {
        assert_eq!(refusal(lobby(Scope::volatile("lobby").on_connect().from_clients(["say"]))), "");
        for (scope, message) in [
            (Scope::volatile("room:{roomId}").on_connect(), "must be one without a placeholder"),
            (Scope::volatile("lobby").on_connect().on_connect(), "routes connect twice"),
            (Scope::volatile("lobby").from_clients(["connect"]), "must name the origin host alone"),
            (Scope::volatile("lobby").from_services(["connect"]), "must name the origin host alone"),
        ] {
            let refusal = refusal(lobby(scope));
            assert!(refusal.ends_with(message), "{refusal}");
        }
    }

    #[test]
    fn invalid_or_excess_namespaces_are_refused() {
        let named = |names: &[&str]| refusal(lobby(Scope::volatile("lobby")).namespaces(names.iter().copied()));
        assert_eq!(named(&["/custom", "/chat/new", "/custom"]), "");
        let long = format!("/{}", "n".repeat(128));
        for bad in ["", "/", "custom", "/a,b", "/a?b", "/a b", "/a\n", &long] {
            assert!(named(&[bad]).contains(&format!("{bad:?}")), "{bad:?}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("/{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(named(&many).ends_with("33 namespaces, and may name 32"));
        assert_eq!(named(&many[1..]), "");
    }
}
