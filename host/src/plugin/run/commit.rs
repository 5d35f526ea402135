//! What comes of an event that was handled: the state is put away, and the effects are carried out in their order.

use std::sync::Arc;

use roundhouse_contract::raw::StateChange;
use roundhouse_contract::{Counted, MIN_CHAINED_MS, ScopeAddress};
use serde_json::json;

use super::effect::{Checked, Effect};
use super::invoke::Done;
use super::scope::{Due, Timer};
use super::worker::{Job, Owed, Worker, take_part};
use crate::hub::{Joined, Publication, RecipientCount, ShardCommand};
use crate::ledger::Charge;
use crate::model::{CloseCode, ConnId, Identity, Payload};
use crate::plugin::event::Flow;
use crate::plugin::event::{Event, Member, ReplyTo};
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::generation::Generation;
use crate::plugin::load::migrate::{Present, State};
use crate::protocol::Outgoing;

/// A durable scope that is used, and does not change, is written anew after this part of its idle time.
const EXPIRY_SLACK: u64 = 8;

impl Worker {
    /// Carries out what was checked, and gives what is left to do. `present` is how the state was found.
    pub(crate) fn commit(
        &mut self,
        plugin: &Arc<Plugin>,
        generation: &Generation,
        address: &ScopeAddress,
        event: &Event,
        checked: Checked,
        present: Present,
    ) -> Done {
        let mut done = Done::default();
        if event.is_question() {
            for effect in checked.effects {
                if let Effect::Reply(payload) = effect {
                    done.reply = Some(payload);
                }
            }
            // To be asked is no activity.
            return done;
        }
        let reached = self.reached(&checked.effects);
        // There was room for it before the call. Without a template there is none to be made.
        let _ = self.enter(plugin, address, Some(event));
        let now = self.shared.clock.uptime_ms();
        if let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) {
            scope.touched = now;
            scope.sequence += 1;
            match &present {
                Present::AsStored => {}
                Present::Migrated(_) => {
                    scope.before_migration = scope.state.take();
                }
                Present::GivenUp(_) => {
                    scope.give_up();
                    self.shared.metrics.plugin_lost_states.inc();
                }
            }
            // A copy is of use as long as a rollback can lead to its schema.
            scope.before_migration.take_if(|before| !plugin.can_go_back_to(before.version));
            let version = generation.manifest.state_version;
            let keeps = matches!((&checked.state, &present), (StateChange::Keep, Present::AsStored));
            let has_timers = |effect: &Effect| matches!(effect, Effect::SetTimer { .. } | Effect::CancelTimer(_));
            // The store must not think that it was left alone.
            let is_stale = now.saturating_sub(scope.written) > scope.idle_ms / EXPIRY_SLACK;
            scope.is_dirty |= is_stale || !keeps || checked.effects.iter().any(has_timers);
            match (checked.state, present) {
                (StateChange::Put(bytes), _) | (StateChange::Keep, Present::Migrated(bytes)) => {
                    scope.state = Some(State { version, bytes });
                }
                (StateChange::Keep, Present::GivenUp(before)) => {
                    scope.state = before.map(|bytes| State { version, bytes });
                }
                (StateChange::Keep, Present::AsStored) => {}
                (StateChange::Clear, _) => {
                    scope.state = None;
                    scope.before_migration = None;
                }
            }
        }
        if let (Event::Saved { promise, .. }, Some(store)) = (event, &self.shared.store) {
            // The outcome is acknowledged when what it leads to has been written to its recipients' sockets.
            self.receipt = Some(store.receipt(promise));
        }
        for effect in checked.effects {
            match effect {
                Effect::Reply(payload) => done.reply = Some(payload),
                Effect::ReplyReached { field, of } => {
                    let n = match of {
                        Counted::Connections => reached.connections,
                        Counted::Users => reached.users,
                    };
                    done.reply = Some(Payload::of_json(&json!({ &*field: n })));
                }
                Effect::Fetch(fetch) => done.fetch = Some(fetch),
                effect => self.carry_out(plugin, generation, address, event, effect, now),
            }
        }
        self.receipt = None;
        done
    }

    /// How many the emits among the effects go to, if the feature wants to know.
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

    /// A scope of which nothing is left is gone at once: events that come to nothing must not fill the memory.
    pub(crate) fn drop_if_empty(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress) {
        let Some(scope) = self.scopes.get(plugin.number, &address.key) else { return };
        if scope.state.is_none() && !scope.is_used() && self.shared.hub.room_size(&address.key).0 == 0 {
            self.deadlines.cancel(scope.look);
            self.scopes.remove(plugin.number, &address.key);
        }
    }

    fn carry_out(
        &mut self,
        plugin: &Arc<Plugin>,
        generation: &Generation,
        address: &ScopeAddress,
        event: &Event,
        effect: Effect,
        now: u64,
    ) {
        match effect {
            Effect::Publish(mut publication) => {
                publication.receipt = self.receipt.clone();
                let bytes = publication.outgoing.bytes();
                let n_deliveries = self.shared.hub.publish(publication, &self.wakes);
                if let Some(sender) = self.responsible(event) {
                    sender.charge_deliveries(now, n_deliveries, bytes);
                }
            }
            Effect::Ask { connections, outgoing, tag, timeout_ms, charges } => {
                let timeout_ms = timeout_ms.max(MIN_CHAINED_MS);
                for (connection, charge) in connections.into_iter().zip(charges) {
                    self.ask(plugin, address, (connection, charge), &tag, &outgoing, now + timeout_ms);
                }
            }
            Effect::Join { connection, room } => self.join(plugin, address, event, connection, &room),
            Effect::Leave { connection, room } => self.leave(plugin, address, connection, &room),
            Effect::Watch(connection) => {
                if self.shared.hub.watch(connection, (plugin.number, address.key.clone())) {
                    let came = event.comes_from() == Some(connection);
                    take_part(&mut self.scopes, plugin.number, &address.key, connection, |part| {
                        part.watched = true;
                        part.came |= came;
                    });
                    self.look_at_presence(plugin, address, connection);
                } else {
                    self.tell_gone(plugin, address, event, connection);
                }
            }
            Effect::SetTimer { name, after_ms, payload, charge } => {
                // One that sets itself again at once would keep the thread busy for ever.
                let is_chained = !event.can_be_sent_again();
                let after_ms = if is_chained { after_ms.max(MIN_CHAINED_MS) } else { after_ms };
                let due_ms = self.shared.clock.now_ms() + after_ms;
                if let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) {
                    let due = Due::Timer { plugin: plugin.number, scope: address.key.clone(), name: name.clone() };
                    let deadline = self.deadlines.push(now + after_ms, due);
                    let timer = Timer { deadline, due_ms, after_ms, payload, charge };
                    if let Some(before) = scope.timers.insert(name, timer) {
                        self.deadlines.cancel(before.deadline);
                    }
                }
            }
            Effect::CancelTimer(name) => {
                let scope = self.scopes.get_mut(plugin.number, &address.key);
                if let Some(timer) = scope.and_then(|scope| scope.timers.remove(&name)) {
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
            // The caller has taken these out.
            Effect::Reply(_) | Effect::ReplyReached { .. } | Effect::Save(_) | Effect::Fetch(_) => {}
        }
    }

    fn join(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: &Event,
        connection: ConnId,
        room: &Arc<str>,
    ) {
        match self.shared.hub.join(connection, room, &self.wakes) {
            Joined::Yes | Joined::Already if *room == address.key => {
                take_part(&mut self.scopes, plugin.number, &address.key, connection, |part| part.joined = true);
                self.look_at_presence(plugin, address, connection);
            }
            Joined::Yes => self.tell_owner(connection, room, self.shared.hub.identity(connection), None),
            Joined::Already => {}
            Joined::Gone => self.tell_gone(plugin, address, event, connection),
            Joined::TooMany => {
                tracing::warn!(
                    plugin = %plugin.name, %connection, room = %room,
                    "a join came to nothing, for the connection is in as many rooms as it may be"
                );
                let identity = self.shared.hub.identity(connection).filter(|_| *room == address.key);
                if let Some(identity) = identity.filter(|_| !matches!(event, Event::Left { .. })) {
                    take_part(&mut self.scopes, plugin.number, &address.key, connection, |part| part.joined = true);
                    self.tell_self(plugin, address, Member { connection, identity }, "left", false);
                }
            }
        }
    }

    fn leave(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, connection: ConnId, room: &Arc<str>) {
        // Asked before, for it may be gone a moment later.
        let identity = self.shared.hub.identity(connection);
        let was_in = self.shared.hub.leave(connection, room, &self.wakes);
        if *room != address.key {
            if was_in {
                self.tell_owner(connection, room, identity, Some("left"));
            }
            return;
        }
        // Whoever leaves takes part no longer, in whatever way it did.
        let scope = self.scopes.get_mut(plugin.number, &address.key);
        if scope.and_then(|scope| scope.members.remove(&connection)).is_some_and(|part| part.watched) {
            self.shared.hub.unwatch(connection, plugin.number, &address.key);
        }
    }

    /// Tells the owner of a room of a change that another scope made.
    fn tell_owner(&self, connection: ConnId, room: &str, identity: Option<Arc<Identity>>, left: Option<&'static str>) {
        let Some(identity) = identity else { return };
        let member = Member { connection, identity };
        let catalogue = self.shared.catalogue.load();
        let Some((owner, address)) = catalogue.owner(room) else { return };
        let submit = |event| {
            let (plugin, address) = (owner.clone(), address.clone());
            self.shared.submit(Job::Event { plugin, address, event, reply: ReplyTo::Nobody });
        };
        match left {
            Some(reason) => submit(Event::Left { member, reason, is_gone: false }),
            None => {
                submit(Event::Joined(member.clone()));
                // Its shard may have told of its end before this.
                if self.shared.hub.identity(connection).is_none() {
                    submit(Event::Left { member, reason: "disconnected", is_gone: true });
                }
            }
        }
    }

    /// A connection that was to take part in a scope went before it came to that: the scope is told once, after
    /// everything that the connection sent, which is queued already.
    fn tell_gone(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event, connection: ConnId) {
        if matches!(event, Event::Left { is_gone: true, .. }) {
            // It is being told of just that.
            return;
        }
        let Some(member) = event.member().filter(|member| member.connection == connection).cloned() else {
            return tracing::debug!(plugin = %plugin.name, %connection, "a connection was gone before it joined");
        };
        let scope = self.scopes.get(plugin.number, &address.key);
        // One that takes part already is told of by its shard.
        if scope.is_some_and(|scope| !scope.members.contains_key(&connection)) {
            take_part(&mut self.scopes, plugin.number, &address.key, connection, |part| part.joined = true);
            self.tell_self(plugin, address, member, "disconnected", true);
        }
    }

    fn tell_self(
        &self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        member: Member,
        reason: &'static str,
        is_gone: bool,
    ) {
        let event = Event::Left { member, reason, is_gone };
        self.inbox.push(Job::Event { plugin: plugin.clone(), address: address.clone(), event, reply: ReplyTo::Nobody });
    }

    fn ask(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        (connection, charge): (ConnId, Charge),
        tag: &str,
        outgoing: &Arc<Outgoing>,
        deadline: u64,
    ) {
        self.last_owed += 1;
        // Each thread has its own numbers, so that an answer finds its thread.
        let id = self.last_owed * self.shared.inboxes.len() as u64 + self.index;
        let deadline = self.deadlines.push(deadline, Due::Acknowledgement(id));
        let identity = self.shared.hub.identity(connection);
        let flow = match identity {
            Some(identity) => Flow::Sender(identity.principal.clone()),
            None => Flow::Scope(address.key.clone()),
        };
        let (plugin, address) = (plugin.clone(), address.clone());
        self.owed.insert(id, Owed { plugin, address, connection, tag: tag.into(), deadline, flow, _charge: charge });
        if self.shared.hub.expect_ack(connection, id) {
            let shard = &self.shared.hub.shards()[connection.shard()];
            shard.push_quietly(ShardCommand::Ask { connection, id, outgoing: outgoing.clone() }, &self.wakes);
        } else {
            self.inbox.push(Job::Acknowledged { id, connection, answer: Err("disconnected"), place: None });
        }
    }
}
