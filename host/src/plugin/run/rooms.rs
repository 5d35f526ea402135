//! The room policy: on the events of clients before they are queued, on the effects of an event, and on the rooms of a
//! connection whose identity has changed.

use std::sync::Arc;

use super::effect::Effect;
use super::job::Envelope;
use super::shared::{Shared, unavailable};
use crate::hub::{ConnectionTask, ShardCommand, WakeBatch};
use crate::model::{ConnId, Failure, Identity};
use crate::plugin::event::{Event, LeftReason, Member};
use crate::plugin::load::catalogue::Plugin;
use crate::policy::{Action, RoomPolicy, Verdict};

/// Why the effects of an event are not committed now.
pub(super) enum NotAdmitted {
    Refused(Failure),
    /// The backend has to be asked about this user and room first.
    Pending(Arc<Identity>, Box<str>),
}

/// Checks that the connections of these effects may use the rooms. `scope` is the scope's own room.
///
/// The event of a client or service is refused as a whole. The host's own events cannot be sent again, so only their
/// effects that are not allowed are dropped.
///
/// # Errors
/// `forbidden`, for the sender; or the user and room that the backend has to be asked about.
pub(super) fn admit_to_rooms(
    shared: &Shared,
    policy: &RoomPolicy,
    event: &Event,
    scope: &str,
    effects: &mut Vec<Effect>,
) -> Result<(), NotAdmitted> {
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
        match policy.check(&identity, room, action, name) {
            Verdict::Allowed | Verdict::Authorized => Ok(()),
            Verdict::Pending => Err(NotAdmitted::Pending(identity, room.into())),
            Verdict::Refused(refusal) | Verdict::Unknown(refusal) => Err(NotAdmitted::Refused(refusal)),
        }
    };
    if event.is_retryable() {
        return effects.iter().try_for_each(check);
    }
    let mut pending = None;
    effects.retain(|effect| match check(effect) {
        Ok(()) => true,
        Err(NotAdmitted::Refused(refusal)) => {
            shared.metrics.plugin_dropped.inc();
            tracing::debug!(scope, event = %event.name(), %refusal, "an effect is dropped by the room policy");
            false
        }
        Err(other) => {
            pending = Some(other);
            false
        }
    });
    pending.map_or(Ok(()), Err)
}

fn identity(shared: &Shared, event: &Event, connection: ConnId) -> Option<Arc<Identity>> {
    // The present identity first: since the event was sent, the client may have signed in again with fewer roles.
    shared.hub.identity(connection).or_else(|| {
        let member = event.member().filter(|member| member.connection == connection);
        member.map(|member| member.identity.clone())
    })
}

impl Shared {
    /// Queues a client's event whose room the backend has allowed, or has to be asked about first. The event waits with its
    /// connection's shard, so that it keeps its place among what the client sends, and is dropped if the client goes.
    pub(crate) fn submit_authorized(
        self: &Arc<Self>,
        policy: &RoomPolicy,
        member: Member,
        envelope: Envelope,
        is_known: bool,
    ) {
        let (shared, room) = (self.clone(), envelope.address.key.clone());
        let Member { connection, identity } = member;
        let asked = identity.clone();
        policy.ask(
            &identity,
            &room,
            Box::new(move || {
                let hub = shared.hub.clone();
                let task = ConnectionTask(Box::new(move || match is_known {
                    true => shared.submit(envelope),
                    false => shared.submit_if_allowed(&asked, envelope),
                }));
                hub.shards()[connection.shard()].push(ShardCommand::Run { connection, task });
            }),
        );
    }

    fn submit_if_allowed(&self, identity: &Identity, envelope: Envelope) {
        let Some(policy) = &self.config.rooms else { return self.submit(envelope) };
        let refusal = match policy.check(identity, &envelope.address.key, Action::Publish, envelope.event.name()) {
            Verdict::Allowed | Verdict::Authorized => return self.submit(envelope),
            Verdict::Refused(refusal) | Verdict::Unknown(refusal) => refusal,
            Verdict::Pending => unavailable("too much waits for the rooms' backend: try again later".to_owned()),
        };
        self.answer(envelope.event.name(), envelope.reply, Err(refusal), &WakeBatch::default());
    }

    /// Handles an event again when the backend has been asked about a user and a room that its effects name.
    pub(super) fn submit_later(
        self: &Arc<Self>,
        policy: &RoomPolicy,
        about: (&Arc<Identity>, &str),
        envelope: Envelope,
    ) {
        let shared = self.clone();
        policy.ask(
            about.0,
            about.1,
            Box::new(move || match envelope.event.sender_id() {
                Some(connection) => {
                    let hub = shared.hub.clone();
                    let task = ConnectionTask(Box::new(move || shared.submit(envelope)));
                    hub.shards()[connection.shard()].push(ShardCommand::Run { connection, task });
                }
                None => shared.submit(envelope),
            }),
        );
    }

    /// Takes a connection out of the rooms that its user may no longer be in, and away from the scopes that it may no longer
    /// subscribe to, after a change of its identity. The scopes are told that it left. Where the backend has to be asked
    /// first, this is done again after its answer; without an answer the connection stays.
    pub(crate) fn recheck_rooms(self: &Arc<Self>, connection: ConnId) {
        let Self { config, hub, catalogue, .. } = &**self;
        let (Some(policy), Some(info)) = (&config.rooms, hub.connection(connection)) else { return };
        let (catalogue, wakes) = (catalogue.load(), WakeBatch::default());
        let left = |plugin: &Arc<Plugin>, address, is_gone| {
            let member = Member { connection, identity: info.identity.clone() };
            let event = Event::Left { member, reason: LeftReason::Left, is_gone };
            self.submit(Envelope::without_reply(plugin.clone(), address, event));
        };
        let may = |room: &str, action| match policy.check(&info.identity, room, action, "") {
            Verdict::Allowed | Verdict::Authorized => true,
            Verdict::Refused(_) => false,
            Verdict::Pending => {
                policy.ask(&info.identity, room, self.recheck_on_shard(connection));
                true
            }
            Verdict::Unknown(_) => {
                policy.ask_later(room, self.recheck_on_shard(connection));
                true
            }
        };
        for room in info.rooms.iter().filter(|room| !may(room, Action::Join)) {
            if hub.leave(connection, room, &wakes)
                && let Some((plugin, address)) = catalogue.owner(room)
            {
                left(plugin, address, false);
            }
        }
        for watcher in hub.watchers(connection).iter().filter(|(_, key)| !may(key, Action::Subscribe)) {
            hub.unwatch(connection, watcher.0, &watcher.1);
            if let Some((plugin, address)) = catalogue.watcher(watcher) {
                // The scope watches it no longer, as if it had gone.
                left(plugin, address, true);
            }
        }
    }

    fn recheck_on_shard(self: &Arc<Self>, connection: ConnId) -> Box<dyn FnOnce() + Send> {
        let shared = self.clone();
        Box::new(move || {
            let hub = shared.hub.clone();
            let task = ConnectionTask(Box::new(move || shared.recheck_rooms(connection)));
            hub.shards()[connection.shard()].push(ShardCommand::Run { connection, task });
        })
    }
}
