//! The check of a call's outcome, before any of it is committed: the contract's rules, the room policy, and what connections
//! may take part in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use roundhouse_contract::Rules;

use super::effect::{self, Checked, Connections, Effect};
use super::rooms::{NotAdmitted, Questions, admit_to_rooms};
use super::scope::Scope;
use super::shared::Shared;
use super::state::Visit;
use crate::hub::{Overfull, Publication};
use crate::metrics::Limit;
use crate::model::{Cause, ConnId, ErrorCode, Failure};
use crate::plugin::event::{Event, Origin};
use crate::plugin::guest::convert::connect_refusal;
use crate::plugin::guest::sandbox::{Fault, Outcome};
use crate::plugin::load::call::Facts;
use crate::plugin::load::generation::Generation;

/// Why a call has no outcome to commit.
pub(super) enum CallError {
    /// The feature refused the event: its sender gets this, and nothing is committed.
    Refused(Failure),
    /// A backend has to be asked first.
    Pending(Questions),
    /// The build cannot take over the state, for this reason, and the scope stays on an older build.
    Stays(String),
    /// The component trapped, took too long or broke a rule.
    Fault(CallFault),
}

/// The fault of a call.
pub(super) struct CallFault {
    pub(super) message: String,
    /// Whether another instance of the component may do better.
    pub(super) is_trap: bool,
}

impl From<String> for CallFault {
    fn from(message: String) -> Self {
        Self { message, is_trap: false }
    }
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        let is_trap = matches!(fault, Fault::Trap(_));
        Self::Fault(CallFault { message: fault.to_string(), is_trap })
    }
}

/// Checks an outcome.
///
/// # Errors
/// If it breaks a rule, refuses a connection, or names a room that may not be used.
pub(super) fn check_outcome(
    shared: &Shared,
    visit: &Visit<'_>,
    scope: Option<&Scope>,
    (generation, facts): (&Generation, Facts),
    outcome: Outcome,
) -> Result<Checked, CallError> {
    let Visit { plugin, address, event, .. } = *visit;
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
        room: &address.key,
        max_state_bytes: generation.bounds.state_bytes,
        is_query: event.is_query(),
        is_admission: event.is_admission(),
        world,
    };
    let checked = effect::check(&rules, &address.key, outcome);
    let mut checked = checked.map_err(|refusal| CallError::Fault(format!("it returned {refusal}").into()))?;
    note_cause(visit, generation, facts, &mut checked.effects);
    if let Some(Effect::Refuse(_)) = checked.effects.first()
        && let Some(Effect::Refuse(refusal)) = checked.effects.pop()
    {
        return Err(CallError::Refused(connect_refusal(refusal)));
    }
    if let Some(policy) = &shared.config.rooms {
        let roster = scope.and_then(|scope| scope.roster.as_deref());
        let admitted = admit_to_rooms(shared, policy, event, (&address.key, roster), &mut checked.effects);
        admitted.map_err(|why| match why {
            NotAdmitted::Refused(failure) => CallError::Refused(failure),
            NotAdmitted::Pending(questions) => CallError::Pending(questions),
        })?;
    }
    // Guaranteed events are not refused for full rooms.
    if event.is_refusable() {
        let scope = (plugin.number, &*address.key);
        check_memberships(shared, &checked.effects, scope).map_err(CallError::Refused)?;
    }
    Ok(checked)
}

/// Notes on what is sent what it comes from.
fn note_cause(visit: &Visit<'_>, generation: &Generation, facts: Facts, effects: &mut [Effect]) {
    let Visit { address, event, .. } = *visit;
    let mut cause = None;
    let cause_of = || {
        let sender = match event {
            Event::Message { origin: Origin::Service(name), .. } => Some(name.clone()),
            event => event.member().map(|member| member.identity.user.clone()),
        };
        Arc::new(Cause {
            build: Some(generation.id.clone()),
            event: event.shared_name(),
            sender,
            scope: address.key.clone(),
            sequence: facts.sequence,
            at_ms: facts.now,
        })
    };
    for effect in effects {
        if let Effect::Publish(Publication { outgoing, .. }) | Effect::Ask { outgoing, .. } = effect
            && let Some(outgoing) = Arc::get_mut(outgoing)
        {
            outgoing.set_cause(cause.get_or_insert_with(cause_of).clone());
        }
    }
}

/// Checks that connections may join the rooms and scopes of these effects.
///
/// # Errors
/// If a connection, or its principal, has as many rooms as it may have.
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
            Overfull::Connection => {
                shared.metrics.limited(Limit::RoomsPerConnection);
                Failure::new(
                    ErrorCode::Conflict,
                    format!("the connection {connection} takes part in as much as it may: leave something first"),
                )
            }
            Overfull::Principal(overdraft) => shared.hub.ledger().refuse(&overdraft),
        })
    })
}
