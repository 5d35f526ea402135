//! The commit of a handled event: its state is kept, and its effects are carried out in their order.

use std::sync::Arc;

use roundhouse_contract::raw::StateChange;
use roundhouse_contract::{Counted, MIN_CHAINED_MS};
use serde_json::json;

use super::acks::PendingAck;
use super::deadlines::Due;
use super::effect::{Checked, Effect, Fetch};
use super::job::{Envelope, Job};
use super::scope::Timer;
use super::scopes::Place;
use super::state::{ThreadState, Visit};
use crate::hub::{Audience, Joined, Publication, RecipientCount, ShardCommand};
use crate::ledger::Charge;
use crate::model::{CloseCode, ConnId, Identity, Payload};
use crate::plugin::event::{AckMissing, Event, Flow, LeftReason, Member};
use crate::plugin::load::generation::Generation;
use crate::plugin::load::migrate::{Present, State};
use crate::protocol::Outgoing;

/// The part of its idle time, as a divisor, after which a durable scope that is used without a change is written again,
/// with its new expiry.
const EXPIRY_SLACK: u64 = 8;

/// The answer to a committed event.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) reply: Option<Payload>,
    /// The documents that the feature asks for. Without `reply`, the feature's reply to these documents is the answer.
    pub(crate) fetch: Option<Fetch>,
    /// In a cluster: the recipients to count for the answer.
    pub(crate) reached: Option<Reached>,
}

/// The recipients of an event's emits, on all nodes, which its answer counts.
#[derive(Debug)]
pub(crate) struct Reached {
    /// The field of the answer.
    pub(crate) field: Box<str>,
    pub(crate) of: Counted,
    /// Audiences and exceptions of each emit.
    pub(crate) publications: Vec<(Vec<Audience>, Vec<Audience>)>,
}

impl ThreadState {
    /// Keeps the state and carries out the effects. `present` is the state that the call got.
    pub(super) fn commit(
        &mut self,
        visit: &mut Visit<'_>,
        generation: &Generation,
        checked: Checked,
        present: Present,
    ) -> Done {
        let event = visit.event;
        let mut done = Done::default();
        if event.is_query() {
            for effect in checked.effects {
                if let Effect::Reply(payload) = effect {
                    done.reply = Some(payload);
                }
            }
            // A query does not count as a use of the scope.
            return done;
        }
        generation.grant_use.record(checked.uses, &self.shared.clock);
        let is_clustered = self.partitions.is_some();
        let reached = if is_clustered { RecipientCount::default() } else { self.reached(&checked.effects) };
        let audiences = if is_clustered { audiences(&checked.effects) } else { Vec::new() };
        // Room was made before the call. Without a template in the manifest, no scope is made.
        let place = self.enter(visit).ok();
        let now = self.shared.clock.uptime_ms();
        if let Some(place) = place {
            self.keep_state(visit, place, generation, &checked.effects, (checked.state, present), now);
        }
        if let (Event::Saved { promise, .. }, Some(store)) = (event, &self.shared.store) {
            // The outcome is acknowledged when the frames of this event have been written to their recipients' sockets.
            self.receipt = Some(store.receipt(promise));
        }
        if let Event::Saved { promise, .. } = event {
            self.redeem_clustered(visit, &promise.id);
        }
        for effect in checked.effects {
            match effect {
                Effect::Reply(payload) => done.reply = Some(payload),
                Effect::ReplyReached { field, of } if is_clustered => {
                    done.reached = Some(Reached { field, of, publications: audiences.clone() });
                }
                Effect::ReplyReached { field, of } => {
                    let n = match of {
                        Counted::Connections => reached.connections,
                        Counted::Users => reached.users,
                    };
                    done.reply = Some(Payload::of_json(&json!({ &*field: n })));
                }
                Effect::Fetch(fetch) => done.fetch = Some(fetch),
                effect => self.carry_out(visit, generation, effect, now),
            }
        }
        self.receipt = None;
        if place.is_some() {
            self.mark_state(visit.plugin, &visit.address.key);
        }
        done
    }

    /// Keeps the new state of a scope, and the copy from before a migration for as long as a rollback may need it.
    fn keep_state(
        &mut self,
        visit: &Visit<'_>,
        place: Place,
        generation: &Generation,
        effects: &[Effect],
        (state, present): (StateChange, Present),
        now: u64,
    ) {
        let scope = &mut self.scopes[place];
        scope.last_event_ms = now;
        scope.sequence += 1;
        match &present {
            Present::AsStored => {}
            Present::Migrated(_) => {
                scope.previous_schema_state = scope.state.take();
                scope.stay_no_longer();
                self.shared.metrics.plugin_migrated_states.inc();
            }
            Present::GivenUp(_) => {
                scope.give_up();
                self.shared.metrics.plugin_lost_states.inc();
            }
        }
        // The copy is of use as long as a rollback can lead to its schema.
        scope.previous_schema_state.take_if(|before| !visit.plugin.can_go_back_to(before.version));
        let version = generation.manifest.state_version;
        let keeps = matches!((&state, &present), (StateChange::Keep, Present::AsStored));
        let has_timers = |effect: &Effect| matches!(effect, Effect::SetTimer { .. } | Effect::CancelTimer(_));
        // The store must not expire a scope that is in use.
        let is_stale = now.saturating_sub(scope.written) > scope.idle_ms / EXPIRY_SLACK;
        scope.is_dirty |= is_stale || !keeps || effects.iter().any(has_timers);
        match (state, present) {
            (StateChange::Put(bytes), _) | (StateChange::Keep, Present::Migrated(bytes)) => {
                scope.state = Some(State { version, bytes: bytes.into() });
            }
            (StateChange::Keep, Present::GivenUp(before)) => {
                scope.state = before.map(|bytes| State { version, bytes });
            }
            (StateChange::Keep, Present::AsStored) => {}
            (StateChange::Clear, _) => {
                scope.state = None;
                scope.previous_schema_state = None;
                scope.stay_no_longer();
            }
        }
    }

    /// The number of recipients of the emits, if the feature asks for it.
    fn reached(&self, effects: &[Effect]) -> RecipientCount {
        if !effects.iter().any(|effect| matches!(effect, Effect::ReplyReached { .. })) {
            return RecipientCount::default();
        }
        let publications = effects.iter().filter_map(|effect| match effect {
            Effect::Publish(Publication { to, except, .. }) => Some((&to[..], &except[..])),
            _ => None,
        });
        let publications: Vec<_> = publications.collect();
        match publications[..] {
            [] => RecipientCount::default(),
            [(to, except)] => self.shared.hub.count_recipients(to, except),
            _ => self.shared.hub.count_recipients_of_all(&publications),
        }
    }

    fn carry_out(&mut self, visit: &Visit<'_>, generation: &Generation, effect: Effect, now: u64) {
        let Visit { plugin, address, event, place, .. } = *visit;
        let is_timer = matches!(effect, Effect::SetTimer { .. } | Effect::CancelTimer(_));
        if self.partitions.is_some() && !is_timer {
            return self.carry_out_clustered(visit, generation, effect, now);
        }
        match effect {
            Effect::Publish(mut publication) => {
                publication.receipt = self.receipt.clone();
                let bytes = publication.outgoing.bytes();
                let n_deliveries = self.shared.hub.publish(publication, &self.wakes);
                if let Some(sender) = self.shared.responsible(event) {
                    sender.charge_deliveries(now, n_deliveries, bytes);
                }
            }
            Effect::Ask { connections, outgoing, tag, timeout_ms, charges } => {
                let timeout_ms = timeout_ms.max(MIN_CHAINED_MS);
                for (connection, charge) in connections.into_iter().zip(charges) {
                    self.ask(visit, (connection, charge), &tag, &outgoing, now + timeout_ms);
                }
            }
            Effect::Join { connection, room } => self.join(visit, connection, &room),
            Effect::Leave { connection, room } => self.leave(visit, connection, &room),
            Effect::Watch(connection) => {
                if self.shared.hub.watch(connection, (plugin.number, address.key.clone())) {
                    if let Some(place) = place {
                        let member = self.scopes[place].members.entry(connection).or_default();
                        member.watched = true;
                        member.came |= event.comes_from() == Some(connection);
                        self.catch_up_presence(place, connection);
                    }
                } else {
                    self.tell_gone(visit, connection);
                }
            }
            Effect::SetTimer { name, after_ms, payload, charge } => {
                // A timer that sets itself again at once would keep the thread busy for ever.
                let is_chained = !event.is_retryable();
                let after_ms = if is_chained { after_ms.max(MIN_CHAINED_MS) } else { after_ms };
                let due_ms = self.shared.clock.now_ms() + after_ms;
                self.mark_timer(plugin, &address.key, &name);
                if let Some(place) = place {
                    let due = Due::Timer { plugin: plugin.number, scope: address.key.clone(), name: name.clone() };
                    let deadline = self.deadlines.push(now + after_ms, due);
                    let timer = Timer { deadline, due_ms, after_ms, payload, charge };
                    if let Some(before) = self.scopes[place].timers.insert(name, timer) {
                        self.deadlines.cancel(before.deadline);
                    }
                }
            }
            Effect::CancelTimer(name) => {
                self.mark_timer(plugin, &address.key, &name);
                let timer = place.and_then(|place| self.scopes[place].timers.remove(&name));
                if let Some(timer) = timer {
                    self.deadlines.cancel(timer.deadline);
                }
            }
            Effect::Disconnect { connection, reason } => {
                let id = &generation.id;
                tracing::info!(
                    plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
                    %connection, "a plugin disconnects a client"
                );
                self.shared.hub.close(connection, CloseCode::Disconnected, &reason);
            }
            // Handled before: replies and fetches in `commit`, documents to save in `promise`, refusals in `call`.
            Effect::Refuse(_) | Effect::Reply(_) | Effect::ReplyReached { .. } | Effect::Save(_) | Effect::Fetch(_) => {
            }
        }
    }

    fn join(&mut self, visit: &Visit<'_>, connection: ConnId, room: &Arc<str>) {
        let Visit { plugin, address, event, .. } = *visit;
        match self.shared.hub.join(connection, room, &self.wakes) {
            Joined::Yes | Joined::Already if *room == address.key => {
                self.set_joined(visit, connection);
                if let Some(place) = visit.place {
                    self.catch_up_presence(place, connection);
                }
            }
            Joined::Yes => self.tell_owner(connection, room, self.shared.hub.identity(connection), None),
            Joined::Already => {}
            Joined::Gone => self.tell_gone(visit, connection),
            Joined::TooMany => {
                tracing::warn!(
                    plugin = %plugin.name, %connection, room = %room,
                    "a join came to nothing, for the connection is in as many rooms as it may be"
                );
                let identity = self.shared.hub.identity(connection).filter(|_| *room == address.key);
                if let Some(identity) = identity.filter(|_| !matches!(event, Event::Left { .. })) {
                    self.set_joined(visit, connection);
                    self.tell_self(visit, Member { connection, identity }, LeftReason::Left, false);
                }
            }
        }
    }

    fn leave(&mut self, visit: &Visit<'_>, connection: ConnId, room: &Arc<str>) {
        let Visit { plugin, address, place, .. } = *visit;
        // Looked up before the connection leaves, because the connection may have ended afterwards.
        let identity = self.shared.hub.identity(connection);
        let was_in = self.shared.hub.leave(connection, room, &self.wakes);
        if *room != address.key {
            if was_in {
                self.tell_owner(connection, room, identity, Some(LeftReason::Left));
            }
            return;
        }
        // A connection that leaves is no longer watched either.
        let member = place.and_then(|place| self.scopes[place].members.remove(&connection));
        if member.is_some_and(|member| member.watched) {
            self.shared.hub.unwatch(connection, plugin.number, &address.key);
        }
    }

    /// Queues a join or departure for the scope that owns a room, when another scope made the change.
    fn tell_owner(&self, connection: ConnId, room: &str, identity: Option<Arc<Identity>>, left: Option<LeftReason>) {
        let Some(identity) = identity else { return };
        let member = Member { connection, identity };
        let catalogue = self.shared.catalogue.load();
        let Some((owner, address)) = catalogue.owner(room) else { return };
        let submit = |event| {
            let (plugin, address) = (owner.clone(), address.clone());
            self.shared.submit(Envelope::without_reply(plugin, address, event));
        };
        match left {
            Some(reason) => submit(Event::Left { member, reason, is_gone: false }),
            None => {
                submit(Event::Joined(member.clone()));
                // The connection's shard may have reported the end before this join.
                if self.shared.hub.identity(connection).is_none() {
                    submit(Event::Left { member, reason: LeftReason::Disconnected, is_gone: true });
                }
            }
        }
    }

    /// Queues the departure of a connection that ended before its join or watch was committed: once, and after all
    /// events that the connection sent, which are queued already.
    fn tell_gone(&mut self, visit: &Visit<'_>, connection: ConnId) {
        let Visit { plugin, event, place, .. } = *visit;
        if matches!(event, Event::Left { is_gone: true, .. }) {
            // The scope is handling that departure.
            return;
        }
        let Some(member) = event.member().filter(|member| member.connection == connection).cloned() else {
            return tracing::debug!(plugin = %plugin.name, %connection, "a connection was gone before it joined");
        };
        // The departure of a connection that is a member already comes from its shard.
        if place.is_some_and(|place| !self.scopes[place].members.contains_key(&connection)) {
            self.set_joined(visit, connection);
            self.tell_self(visit, member, LeftReason::Disconnected, true);
        }
    }

    fn set_joined(&mut self, visit: &Visit<'_>, connection: ConnId) {
        if let Some(place) = visit.place {
            self.scopes[place].members.entry(connection).or_default().joined = true;
        }
    }

    fn tell_self(&self, visit: &Visit<'_>, member: Member, reason: LeftReason, is_gone: bool) {
        let event = Event::Left { member, reason, is_gone };
        self.inbox.push(Job::Event(Envelope::without_reply(visit.plugin.clone(), visit.address.clone(), event)));
    }

    /// Sends an event that the client is to acknowledge.
    fn ask(
        &mut self,
        visit: &Visit<'_>,
        (connection, charge): (ConnId, Charge),
        tag: &str,
        outgoing: &Arc<Outgoing>,
        deadline: u64,
    ) {
        let (plugin, address) = (visit.plugin.clone(), visit.address.clone());
        let id = self.acks.next_id();
        let due_ms = self.shared.clock.now_ms() + deadline.saturating_sub(self.shared.clock.uptime_ms());
        let deadline = self.deadlines.push(deadline, Due::Acknowledgement(id));
        let flow = match self.shared.hub.identity(connection) {
            Some(identity) => Flow::Sender(identity.principal.clone()),
            None => Flow::Scope(address.key.clone()),
        };
        let ack = PendingAck { plugin, address, connection, tag: tag.into(), deadline, due_ms, flow, _charge: charge };
        self.acks.expect_ack(id, ack);
        if self.shared.hub.expect_ack(connection, id) {
            let command = ShardCommand::Ask { connection, id, outgoing: outgoing.clone() };
            self.shared.tell_shard(connection, command, &self.wakes);
        } else {
            self.inbox.push(Job::Acknowledged { id, connection, answer: Err(AckMissing::Disconnected), place: None });
        }
    }
}

/// Audiences and exceptions of the emits, if the feature asks for the number of their recipients.
fn audiences(effects: &[Effect]) -> Vec<(Vec<Audience>, Vec<Audience>)> {
    if !effects.iter().any(|effect| matches!(effect, Effect::ReplyReached { .. })) {
        return Vec::new();
    }
    let of = |effect: &Effect| match effect {
        Effect::Publish(Publication { to, except, .. }) => Some((to.clone(), except.clone())),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}
