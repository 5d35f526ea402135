//! The room policy: on the events of clients before they are queued, on the effects of an event, and on the rooms of a
//! connection whose identity has changed.

use std::sync::{Arc, Mutex, PoisonError};

use super::clustered::news::News;
use super::clustered::node::Node;
use super::clustered::roster::Roster;
use super::effect::Effect;
use super::job::{Envelope, Job};
use super::shared::{Shared, unavailable};
use crate::hub::{ConnectionTask, ShardCommand, WakeBatch};
use crate::model::{ConnId, Failure, Identity};
use crate::plugin::event::{Event, LeftReason, Member, ReplyTo};
use crate::plugin::load::catalogue::Plugin;
use crate::policy::{Action, RoomPolicy, Verdict};

/// Users and rooms that a backend has to be asked about.
pub(super) type Questions = Vec<(Arc<Identity>, Box<str>)>;

/// Why the effects of an event are not committed now.
pub(super) enum NotAdmitted {
    Refused(Failure),
    /// A backend has to be asked first.
    Pending(Questions),
}

/// Checks that the connections of these effects may use the rooms. `scope` is the scope's own room.
///
/// An event whose outcome is awaited is refused as a whole. Other events cannot be sent again, so only their effects that are
/// not allowed are dropped.
///
/// # Errors
/// `forbidden`, for the sender; or what a backend has to be asked.
pub(super) fn admit_to_rooms(
    shared: &Shared,
    policy: &RoomPolicy,
    event: &Event,
    (scope, roster): (&str, Option<&Roster>),
    effects: &mut Vec<Effect>,
) -> Result<(), NotAdmitted> {
    let name = if event.is_sent() { event.name() } else { "" };
    let mut questions = Questions::new();
    let mut check = |effect: &Effect| {
        let (connection, room, action) = match effect {
            Effect::Join { connection, room } => (Some(*connection), &**room, Action::Join),
            Effect::Watch(connection) => (Some(*connection), scope, Action::Subscribe),
            Effect::Fetch(_) => (event.sender_id(), scope, Action::Subscribe),
            _ => return Ok(()),
        };
        // Services are not subject to the policy, and a connection that has ended joins nothing.
        let Some(identity) = connection.and_then(|connection| identity(shared, event, roster, connection)) else {
            return Ok(());
        };
        match policy.check_begun(&identity, room, action, name, true) {
            Verdict::Allowed | Verdict::Authorized => Ok(()),
            Verdict::Pending => {
                let is_known =
                    |(other, asked): &(Arc<Identity>, Box<str>)| Arc::ptr_eq(other, &identity) && **asked == *room;
                if !questions.iter().any(is_known) {
                    questions.push((identity, room.into()));
                }
                Ok(())
            }
            Verdict::Refused(refusal) | Verdict::Unknown(refusal) => Err(refusal),
        }
    };
    if event.is_refusable() {
        effects.iter().try_for_each(check).map_err(NotAdmitted::Refused)?;
    } else {
        effects.retain(|effect| {
            let checked = check(effect);
            if let Err(refusal) = &checked {
                shared.metrics.plugin_dropped.inc();
                tracing::debug!(scope, event = %event.name(), %refusal, "an effect is dropped by the room policy");
            }
            checked.is_ok()
        });
    }
    if questions.is_empty() { Ok(()) } else { Err(NotAdmitted::Pending(questions)) }
}

fn identity(shared: &Shared, event: &Event, roster: Option<&Roster>, connection: ConnId) -> Option<Arc<Identity>> {
    // The present identity first: since the event was sent, the client may have signed in again with fewer roles.
    shared.hub.identity(connection).or_else(|| {
        let member = event.member().filter(|member| member.connection == connection);
        let of_roster = || roster.and_then(|roster| roster.identity(connection).cloned());
        member.map(|member| member.identity.clone()).or_else(of_roster)
    })
}

impl Shared {
    /// Queues a client's event whose room a backend has allowed, or has to be asked about first. The event waits with its
    /// connection's shard, so that it keeps its place among what the client sends, and is dropped if the client goes.
    ///
    /// # Errors
    /// Where too much waits for the backend.
    pub(crate) fn submit_authorized(
        self: &Arc<Self>,
        policy: &RoomPolicy,
        member: Member,
        envelope: Envelope,
    ) -> Result<(), Failure> {
        let (shared, room) = (self.clone(), envelope.address.key.clone());
        let Member { connection, identity } = member;
        let asked = identity.clone();
        let then = Box::new(move || {
            shared.clone().run_on_shard(connection, move || shared.submit_if_allowed(&asked, envelope));
        });
        if policy.ask(&identity, &room, then) { Ok(()) } else { Err(too_much_waits()) }
    }

    /// Runs a task on the shard of a connection, unless the connection has ended: in order with what its client sends.
    fn run_on_shard(&self, connection: ConnId, task: impl FnOnce() + Send + 'static) {
        let has_gone_on = |node: &Arc<Node>| node.transfers.node_of(connection).is_some();
        if self.node.as_ref().is_some_and(has_gone_on) {
            // Its client is at another node, and what it sent here is handled all the same.
            return task();
        }
        let task = ConnectionTask(Box::new(task));
        self.tell_shard(connection, ShardCommand::Run { connection, task }, &WakeBatch::default());
    }

    fn submit_if_allowed(&self, identity: &Identity, envelope: Envelope) {
        let Some(policy) = &self.config.rooms else { return self.submit(envelope) };
        let (room, event) = (&envelope.address.key, envelope.event.name());
        let refusal = match policy.check(identity, room, Action::Publish, event) {
            Verdict::Allowed | Verdict::Authorized => return self.submit(envelope),
            Verdict::Refused(refusal) | Verdict::Unknown(refusal) => refusal,
            Verdict::Pending => too_much_waits(),
        };
        self.answer(envelope.event.name(), envelope.reply, Err(refusal), &WakeBatch::default());
    }

    /// Handles an event again when the backend has answered all questions about its effects.
    pub(super) fn submit_later(self: &Arc<Self>, policy: &RoomPolicy, questions: &Questions, envelope: Envelope) {
        let parked = Arc::new(Parked { shared: self.clone(), envelope: Mutex::new(Some(envelope)) });
        let asked = questions.iter().all(|(identity, room)| {
            let parked = parked.clone();
            policy.ask(identity, room, Box::new(move || drop(parked)))
        });
        if !asked && let Some(envelope) = parked.take() {
            self.refuse_parked(envelope, too_much_waits());
        }
    }

    fn refuse_parked(&self, envelope: Envelope, refusal: Failure) {
        match envelope.reply {
            // The thread tells the node that forwarded it.
            ReplyTo::Node { .. } => {
                let inbox = self.inboxes.of(&envelope.address.key);
                inbox.push(Job::News(News::Settle(Box::new(envelope), refusal)));
            }
            reply => self.answer(envelope.event.name(), reply, Err(refusal), &WakeBatch::default()),
        }
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
        let (mut pending, mut unknown) = (Vec::new(), None);
        let mut may = |room: &str, action| match policy.check(&info.identity, room, action, "") {
            Verdict::Allowed | Verdict::Authorized => true,
            Verdict::Refused(_) => false,
            Verdict::Pending => {
                pending.push(Box::<str>::from(room));
                true
            }
            Verdict::Unknown(_) => {
                unknown = Some(Box::<str>::from(room));
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
        if pending.is_empty() && unknown.is_none()
            || !self.rechecks.lock().unwrap_or_else(PoisonError::into_inner).insert(connection)
        {
            return;
        }
        // One for all rooms: it runs when the last question has its answer.
        let again = Arc::new(Recheck { shared: self.clone(), connection });
        for room in pending {
            let again = again.clone();
            if !policy.ask(&info.identity, &room, Box::new(move || drop(again))) {
                unknown = Some(room);
            }
        }
        if let Some(room) = unknown {
            policy.ask_later(&room, Box::new(move || drop(again)));
        }
    }
}

fn too_much_waits() -> Failure {
    unavailable("too much waits for the rooms' backend: try again later".to_owned())
}

/// An event that waits for the answers of a backend: it is handled again when the last has come.
struct Parked {
    shared: Arc<Shared>,
    envelope: Mutex<Option<Envelope>>,
}

impl Parked {
    fn take(&self) -> Option<Envelope> {
        self.envelope.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let Some(envelope) = self.take() else { return };
        let shared = self.shared.clone();
        let is_here =
            |connection: &ConnId| connection.node() == shared.hub.node() || shared.hub.identity(*connection).is_some();
        match envelope.event.sender_id().filter(is_here) {
            Some(connection) => self.shared.run_on_shard(connection, move || shared.submit(envelope)),
            // Events of other nodes have their order from those.
            None => shared.submit(envelope),
        }
    }
}

/// Checks the rooms of a connection again when the last answer has come.
struct Recheck {
    shared: Arc<Shared>,
    connection: ConnId,
}

impl Drop for Recheck {
    fn drop(&mut self) {
        let (shared, connection) = (self.shared.clone(), self.connection);
        shared.rechecks.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection);
        self.shared.run_on_shard(connection, move || shared.recheck_rooms(connection));
    }
}
