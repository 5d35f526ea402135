//! The results of components, as the contract's unchecked types.

use roundhouse_contract::{Grants, raw};

use super::bindings::Outcome;
use super::bindings::roundhouse::feature::{effects, manifest as wit, types};

/// The result of `describe`.
pub(crate) fn manifest(manifest: wit::Manifest) -> raw::Manifest {
    let wit::Manifest { name, version, description, state_version, emits, needs, extensions, .. } = manifest;
    let scope = |wit::Scope { template, durability, idle_ms }| raw::Scope { template, durability, idle_ms };
    let route = |wit::Route { event, origins, scope }| raw::Route { event, origins, scope };
    let query = |wit::Query { name, scope }| raw::Query { name, scope };
    let wit::Needs { rooms, audiences, actions } = needs;
    raw::Manifest {
        name,
        version,
        description,
        state_version,
        scopes: manifest.scopes.into_iter().map(scope).collect(),
        routes: manifest.routes.into_iter().map(route).collect(),
        queries: manifest.queries.into_iter().map(query).collect(),
        emits,
        needs: Grants { rooms, audiences, actions },
        extensions,
    }
}

/// The result of `handle`: its effects one by one, and the change of the state.
pub(crate) fn outcome(
    outcome: Outcome,
) -> (impl ExactSizeIterator<Item = raw::Effect<impl Iterator<Item = raw::Audience>>>, raw::StateChange) {
    (outcome.effects.into_iter().map(effect), state(outcome.state))
}

fn effect(effect: effects::Effect) -> raw::Effect<impl Iterator<Item = raw::Audience>> {
    match effect {
        effects::Effect::Emit(effects::Emit { to, except, event, payload, volatile, acknowledge }) => {
            raw::Effect::Emit(raw::Emit {
                to: to.into_iter().map(audience as fn(_) -> _),
                except: except.into_iter().map(audience as fn(_) -> _),
                event,
                payload: self::payload(payload),
                volatile,
                acknowledge: acknowledge.map(|effects::Acknowledge { tag, timeout_ms }| (tag, timeout_ms)),
            })
        }
        effects::Effect::Reply(reply) => raw::Effect::Reply(payload(reply)),
        effects::Effect::ReplyReached(effects::Reached { field, of }) => raw::Effect::ReplyReached { field, of },
        effects::Effect::Join(effects::Membership { connection, room }) => {
            raw::Effect::Join(raw::Membership { connection, room })
        }
        effects::Effect::Leave(effects::Membership { connection, room }) => {
            raw::Effect::Leave(raw::Membership { connection, room })
        }
        effects::Effect::Watch(connection) => raw::Effect::Watch(connection),
        effects::Effect::SetTimer(effects::SetTimer { name, after_ms, payload }) => {
            raw::Effect::SetTimer(raw::SetTimer { name, after_ms, payload })
        }
        effects::Effect::CancelTimer(name) => raw::Effect::CancelTimer(name),
        effects::Effect::Save(effects::Save { tag, collection, key, document }) => {
            raw::Effect::Save(raw::Save { tag, collection, key, document })
        }
        effects::Effect::Fetch(effects::Fetch { tag, collection, before, limit }) => {
            raw::Effect::Fetch(raw::Fetch { tag, collection, before, limit })
        }
        effects::Effect::Disconnect(effects::Disconnect { connection, reason }) => {
            raw::Effect::Disconnect { connection, reason }
        }
        effects::Effect::Other((kind, value)) => raw::Effect::Other(kind, value),
    }
}

fn state(state: effects::StateChange) -> raw::StateChange {
    match state {
        effects::StateChange::Keep => raw::StateChange::Keep,
        effects::StateChange::Put(bytes) => raw::StateChange::Put(bytes),
        effects::StateChange::Clear => raw::StateChange::Clear,
    }
}

fn audience(audience: effects::Audience) -> raw::Audience {
    match audience {
        effects::Audience::Room(room) => raw::Audience::Room(room),
        effects::Audience::User(user) => raw::Audience::User(user),
        effects::Audience::Users(users) => raw::Audience::Users(users),
        effects::Audience::Roles(roles) => raw::Audience::Roles(roles),
        effects::Audience::Connection(connection) => raw::Audience::Connection(connection),
        effects::Audience::All => raw::Audience::All,
        effects::Audience::Other((kind, _)) => raw::Audience::Other(kind),
    }
}

fn payload(types::PayloadResult { args, attachments }: types::PayloadResult) -> raw::Payload {
    raw::Payload { args, attachments }
}
