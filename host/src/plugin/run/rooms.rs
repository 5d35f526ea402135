//! The room policy on the effects of an event.

use std::sync::Arc;

use super::effect::Effect;
use super::shared::Shared;
use crate::model::{ConnId, Failure, Identity};
use crate::plugin::event::Event;
use crate::policy::{Action, RoomPolicy};

/// Checks that the connections of these effects may use the rooms. `scope` is the scope's own room.
///
/// The event of a client or service is refused as a whole. The host's own events cannot be sent again, so only their
/// effects that are not allowed are dropped.
///
/// # Errors
/// `forbidden`, for the sender.
pub(super) fn admit_to_rooms(
    shared: &Shared,
    policy: &RoomPolicy,
    event: &Event,
    scope: &str,
    effects: &mut Vec<Effect>,
) -> Result<(), Failure> {
    let name = if event.is_sent() { event.name() } else { "" };
    let check = |effect: &Effect| {
        let (connection, room, action) = match effect {
            Effect::Join { connection, room } => (Some(*connection), &**room, Action::Join),
            Effect::Watch(connection) => (Some(*connection), scope, Action::Subscribe),
            Effect::Fetch(_) => (event.sender_id(), scope, Action::Subscribe),
            _ => return Ok(()),
        };
        // Services are not subject to the policy, and a connection that has ended joins nothing.
        let Some(identity) = connection.and_then(|connection| identity(shared, event, connection)) else {
            return Ok(());
        };
        policy.check(&identity, room, action, name)
    };
    if event.is_retryable() {
        return effects.iter().try_for_each(check);
    }
    effects.retain(|effect| match check(effect) {
        Ok(()) => true,
        Err(refusal) => {
            shared.metrics.plugin_dropped.inc();
            tracing::debug!(scope, event = %event.name(), %refusal, "an effect is dropped by the room policy");
            false
        }
    });
    Ok(())
}

fn identity(shared: &Shared, event: &Event, connection: ConnId) -> Option<Arc<Identity>> {
    // The present identity first: since the event was sent, the client may have signed in again with fewer roles.
    shared.hub.identity(connection).or_else(|| {
        let member = event.member().filter(|member| member.connection == connection);
        member.map(|member| member.identity.clone())
    })
}
