//! A partition that this node takes, and one that it loses: the scopes come from Redis, and go.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;

use super::news::News;
use super::node::no_answer;
use super::output::Output;
use super::partitions::{Owned, Phase};
use super::pending::Forwarded;
use super::records::{Subject, is_plugins, parse, plugins_of};
use super::wire::{WireAsk, WireEnvelope, WireMembership, WireOutput, WireState, WireTimer, decode, outcome_to_wire};
use crate::cluster::{Committed, EventId, Partition, Snapshot, View};
use crate::ledger::Charge;
use crate::model::{ConnId, ErrorCode, Failure, Identity, NodeId};
use crate::plugin::event::{Flow, ReplyTo, Stage};
use crate::plugin::load::migrate::State;
use crate::plugin::run::acks::PendingAck;
use crate::plugin::run::deadlines::Due;
use crate::plugin::run::job::Envelope;
use crate::plugin::run::scope::Membership;
use crate::plugin::run::scopes::Place;
use crate::plugin::run::shared::unavailable;
use crate::plugin::run::state::ThreadState;
use crate::store::TimerRecord;

/// The field and the value of a record.
type Stored = (Vec<u8>, Vec<u8>);

impl ThreadState {
    /// Takes in news of the cluster.
    pub(in crate::plugin::run) fn hear(&mut self, news: News) {
        match news {
            News::Taken(snapshot) => self.taken(*snapshot),
            News::Committed { partition, epoch, sequence, answer } => {
                self.committed(partition, epoch, sequence, answer);
            }
            News::Event { partition, id, event } => self.forwarded(partition, id, &event),
            News::View(view) => self.view(view),
            News::Output { partition, output } => self.perform_outputs(partition, &output),
            News::Settle(envelope, failure) => self.settle(*envelope, Some(Err(failure))),
            News::Late { key, id, outcome } => {
                self.late(&key, id, Some(outcome_to_wire(&outcome)));
                self.flush_if_full(Partition::of(&key));
            }
            News::Reachable(is_up) => {
                let Some(partitions) = &mut self.partitions else { return };
                partitions.is_up = is_up;
                let all = if is_up { partitions.all() } else { Vec::new() };
                all.into_iter().for_each(|partition| self.handle_waiting(partition));
            }
            // An error means that nobody waits, here and below.
            News::Find { connection, user, gone, found } => {
                drop(found.send(self.find_member(connection, &user, gone)));
            }
            News::Passed(passed) => drop(passed.send(())),
            News::PluginsChanged => self.take_held(),
            News::Unloaded(plugin) => self.drop_orphans(&plugin),
            News::Reborn => self.lose_all(),
        }
    }

    /// Takes the partitions that are to be this node's, and tells of the nodes that have gone.
    fn view(&mut self, view: Arc<View>) {
        let me = self.shared.hub.node();
        let (index, n_threads) = (self.index, self.shared.inboxes.len());
        let Some(partitions) = &mut self.partitions else { return };
        partitions.is_unchecked |= partitions.view != view;
        partitions.orphaned.take_if(|_| partitions.view != view);
        let before = mem::replace(&mut partitions.view, view);
        partitions.gone.extend(before.nodes.keys().filter(|node| !partitions.view.nodes.contains_key(node)));
        partitions.gone.retain(|node| !partitions.view.nodes.contains_key(node));
        for partition in Partition::all().filter(|partition| usize::from(partition.0) % n_threads == index) {
            let (node, now) = (&partitions.node, self.shared.clock.uptime_ms());
            for Forwarded { event, reply, .. } in node.forwarding.take_abandoned(partition, &partitions.view, now) {
                self.shared.answer(event.name(), reply, Err(no_answer()), &self.wakes);
            }
            let is_mine = partition.owner(&partitions.view) == Some(me);
            let slot = partitions.slot(partition);
            if is_mine && matches!(slot.phase, Phase::Foreign) {
                slot.phase = Phase::Taking;
                partitions.node.cluster.take(me, partition);
            }
        }
        self.tell_of_gone_nodes();
    }

    fn taken(&mut self, snapshot: Snapshot) {
        let partition = snapshot.partition;
        let Some(partitions) = &mut self.partitions else { return };
        let made = partitions.node.revisions.made();
        let slot = partitions.slot(partition);
        if !matches!(slot.phase, Phase::Taking) {
            return;
        }
        let plugins = plugins_of(&snapshot.records);
        if plugins > made {
            tracing::info!(partition = partition.0, plugins, made, "a partition waits for a change of plugins");
            slot.held = Some(Box::new(snapshot));
            return;
        }
        let Snapshot { epoch, sequence, forwarded, waiting, records, .. } = snapshot;
        let unhandled = waiting.iter().map(|(id, event)| (*id, event.clone())).collect();
        slot.phase = Phase::Owned(Box::new(Owned {
            epoch,
            sequence,
            taken_at: sequence,
            forwarded,
            unhandled,
            plugins,
            ..Owned::default()
        }));
        partitions.is_unchecked = true;
        partitions.orphaned = None;
        self.restore_records(partition, records.into_iter().filter(|(field, _)| !is_plugins(field)));
        self.migrate_soon();
        // The events that were forwarded came before those that wait here.
        let now = self.shared.clock.uptime_ms();
        let earlier: VecDeque<_> =
            waiting.iter().filter_map(|(id, event)| Some((now, self.envelope(partition, *id, event)?))).collect();
        let Some(partitions) = &mut self.partitions else { return };
        let slot = partitions.slot(partition);
        let later = mem::replace(&mut slot.waiting, earlier);
        slot.waiting.extend(later);
        self.count_owned();
        self.handle_waiting(partition);
    }

    /// Does what an owner's commit has this node do.
    fn perform_outputs(&self, partition: Partition, outputs: &[u8]) {
        let Some(partitions) = &self.partitions else { return };
        let outputs = decode::<Vec<WireOutput>>(outputs)
            .and_then(|outputs| outputs.into_iter().map(Output::of_wire).collect::<anyhow::Result<Vec<_>>>());
        match outputs {
            Ok(outputs) => outputs.into_iter().for_each(|output| {
                self.shared.perform_output(&partitions.node, partition, output, &self.wakes);
            }),
            Err(error) => tracing::error!(partition = partition.0, %error, "an owner's output is dropped"),
        }
    }

    /// Takes the partitions that waited for a change of plugins.
    fn take_held(&mut self) {
        let Some(partitions) = &mut self.partitions else { return };
        let held: Vec<_> = partitions.slots.values_mut().filter_map(|slot| slot.held.take()).collect();
        held.into_iter().for_each(|snapshot| self.taken(*snapshot));
    }

    /// Takes in what became of a partition that waits for a change of plugins. Returns whether it does.
    pub(super) fn held_answered(&mut self, partition: Partition, epoch: u64, answer: Committed) -> bool {
        let Some(partitions) = &mut self.partitions else { return false };
        let me = self.shared.hub.node();
        let node = partitions.node.clone();
        let slot = partitions.slot(partition);
        if slot.held.as_ref().is_none_or(|held| held.epoch != epoch) {
            return false;
        }
        match answer {
            Committed::Done => {}
            Committed::Fenced { .. } => {
                (slot.held, slot.phase) = (None, Phase::Foreign);
                self.handle_waiting(partition);
            }
            Committed::Lost => {
                if let Some(held) = &mut slot.held {
                    node.cluster.heal(me, held.heal());
                }
            }
        }
        true
    }

    /// Takes in an event that another node forwarded.
    fn forwarded(&mut self, partition: Partition, id: EventId, event: &Bytes) {
        let is_leaving = self.shared.node.as_ref().is_some_and(|node| node.is_leaving());
        let slot = self.partitions.as_mut().map(|partitions| partitions.slot(partition));
        if let Some(held) = slot.and_then(|slot| slot.held.as_mut()) {
            held.forwarded.insert(id.origin, id.number);
            held.waiting.insert(id, event.clone());
            return;
        }
        let Some(owned) = self.partitions.as_mut().and_then(|partitions| partitions.owned(partition)) else { return };
        owned.forwarded.insert(id.origin, id.number);
        owned.unhandled.insert(id, event.clone());
        if is_leaving {
            return;
        }
        if let Some(envelope) = self.envelope(partition, id, event) {
            self.handle(envelope);
            self.flush_if_full(partition);
        }
    }

    /// The forwarded event of these bytes. One that cannot be handled here is answered.
    fn envelope(&mut self, partition: Partition, id: EventId, event: &[u8]) -> Option<Envelope> {
        let failure = match decode::<WireEnvelope>(event) {
            Ok(WireEnvelope { plugin: name, scope, event }) => match (self.shared.plugin(&name), event.into_event()) {
                (Some(plugin), Ok(event)) => match plugin.current().manifest.scope_of_key(&scope) {
                    Some((_, address)) => {
                        let reply = ReplyTo::Node { id, stage: Stage::Waiting };
                        return Some(Envelope { plugin, address, event, reply });
                    }
                    None => unavailable(format!("the feature {name} has no scope {scope} on the node that owns it")),
                },
                (None, _) => unavailable(format!("the feature {name} does not run on the node that owns {scope}")),
                (_, Err(error)) => Failure::new(ErrorCode::Internal, error.to_string()),
            },
            Err(error) => Failure::new(ErrorCode::Internal, error.to_string()),
        };
        tracing::warn!(partition = partition.0, origin = id.origin.0, %failure, "a forwarded event is refused");
        self.refuse_forwarded(partition, id, &failure);
        None
    }

    /// Fills the scopes of a partition with its records.
    pub(super) fn restore_records(&mut self, partition: Partition, records: impl IntoIterator<Item = Stored>) {
        let mut orphans = Vec::new();
        for (field, value) in records {
            match self.place_of(&field) {
                Some(place) => {
                    if let Err(error) = self.restore_record(place, &field, &value) {
                        tracing::error!(partition = partition.0, %error, "a record of the cluster is dropped");
                    }
                }
                None => orphans.push((field, value)),
            }
        }
        if let Some(owned) = self.partitions.as_mut().and_then(|partitions| partitions.owned(partition)) {
            owned.orphans.extend(orphans);
        }
    }

    /// Fills scopes with the records of a plugin that is loaded now.
    pub(in crate::plugin::run) fn adopt_orphans(&mut self) {
        let Some(partitions) = &mut self.partitions else { return };
        for partition in partitions.all_owned() {
            let Some(owned) = self.partitions.as_mut().and_then(|partitions| partitions.owned(partition)) else {
                continue;
            };
            let mut orphans = mem::take(&mut owned.orphans);
            // A scope that was used meanwhile has a newer state.
            orphans.retain(|(field, _)| !self.is_in_memory(field));
            self.restore_records(partition, orphans);
        }
    }

    /// Keeps the records of a plugin that does not run here for a while, and drops its scopes.
    pub(in crate::plugin::run) fn set_aside(&mut self, plugin: u32) {
        let records = self.records_where(|of, _| of.number == plugin);
        let Some(partitions) = &mut self.partitions else { return };
        for (field, value) in records {
            let partition = parse(&field).map(|(_, scope, _)| Partition::of(scope));
            let owned = partition.and_then(|partition| partitions.owned(partition));
            if let (Some(owned), Some(value)) = (owned, value) {
                owned.orphans.push((field, value));
            }
        }
        for mut scope in self.scopes.take_where(|scope| scope.plugin.number == plugin) {
            for Envelope { address, event, reply, .. } in self.end_scope(&mut scope) {
                let failure = unavailable("the feature does not run on the node that owns the scope".to_owned());
                // Its scope is as it was, so nothing of it is committed but that it is done with.
                match reply {
                    ReplyTo::Node { id, stage: Stage::Waiting } => {
                        self.refuse_forwarded(Partition::of(&address.key), id, &failure);
                    }
                    ReplyTo::Node { id, .. } => self.late(&address.key, id, Some(Err((&failure).into()))),
                    reply => self.shared.answer(event.name(), reply, Err(failure), &self.wakes),
                }
            }
        }
    }

    /// Whether the cluster has records of a scope that are not taken up yet.
    pub(in crate::plugin::run) fn has_orphans(&mut self, plugin: &str, scope: &str) -> bool {
        let owned = self.partitions.as_mut().and_then(|partitions| partitions.owned(Partition::of(scope)));
        let is_its = |(field, _): &Stored| parse(field).is_some_and(|(of, key, _)| (of, key) == (plugin, scope));
        owned.is_some_and(|owned| owned.orphans.iter().any(is_its))
    }

    /// Removes what the cluster kept of the scopes of a plugin that was unloaded.
    fn drop_orphans(&mut self, plugin: &str) {
        let Some(partitions) = &mut self.partitions else { return };
        for partition in partitions.all_owned() {
            let Some(owned) = partitions.owned(partition) else { continue };
            let is_its = |(field, _): &mut Stored| parse(field).is_some_and(|(of, _, _)| of == plugin);
            let dropped: Vec<_> = owned.orphans.extract_if(.., is_its).map(|(field, _)| field).collect();
            if let Some(batch) = partitions.batch(partition).filter(|_| !dropped.is_empty()) {
                batch.changed.removed.extend(dropped);
            }
        }
    }

    fn is_in_memory(&self, field: &[u8]) -> bool {
        let Some((plugin, scope, _)) = parse(field) else { return false };
        self.shared.plugin(plugin).is_some_and(|plugin| self.scopes.find(plugin.number, scope).is_some())
    }

    /// The scope of a record, which is made if it is not in memory.
    fn place_of(&mut self, field: &[u8]) -> Option<Place> {
        let (plugin, scope, _) = parse(field)?;
        let plugin = self.shared.plugin(plugin)?;
        if let Some(place) = self.scopes.find(plugin.number, scope) {
            return Some(place);
        }
        let (_, address) = plugin.current().manifest.scope_of_key(scope)?;
        self.make_scope(&plugin, &address, None).ok()
    }

    fn restore_record(&mut self, place: Place, field: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let (now_ms, uptime) = (self.shared.clock.now_ms(), self.shared.clock.uptime_ms());
        let scope = &mut self.scopes[place];
        match parse(field) {
            Some((_, _, Subject::State)) => {
                let WireState { state, before, sequence } = decode(value)?;
                let of = |(version, bytes): (u32, super::wire::Blob)| State { version, bytes: bytes.0.into() };
                (scope.state, scope.previous_schema_state) = (state.map(of), before.map(of));
                scope.sequence = sequence;
            }
            Some((_, _, Subject::Member(connection))) => {
                let WireMembership { joined, watched, came, is_away, n_changes, identity, node, next } = decode(value)?;
                let (node, next) = (node.map(NodeId), next.map(NodeId));
                let member = Membership { joined, watched, came, is_away, n_changes, node, next };
                let identity: Arc<Identity> = identity.into();
                scope.members.insert(connection, member);
                scope.roster.get_or_insert_default().update(connection, Some(&member), Some(&identity));
            }
            Some((_, _, Subject::Timer(name))) => {
                let WireTimer { due_ms, after_ms, payload } = decode(value)?;
                let timer = TimerRecord { name: name.to_owned(), due_ms, after_ms, payload: payload.into() };
                self.restore_timer(place, timer);
            }
            Some((_, _, Subject::Document(id))) => self.restore_promise(place, id, value)?,
            Some((_, _, Subject::Ask(ask))) => {
                let WireAsk { connection, tag, due_ms } = decode(value)?;
                let deadline = self.deadlines.push(uptime + due_ms.saturating_sub(now_ms), Due::Acknowledgement(ask));
                let (plugin, address) = (scope.plugin.clone(), scope.address.clone());
                let (connection, flow) = (ConnId::from_bits(connection), Flow::Scope(address.key.clone()));
                let owed =
                    PendingAck { plugin, address, connection, tag, deadline, due_ms, flow, _charge: Charge::default() };
                self.acks.expect_ack(ask, owed);
            }
            None => anyhow::bail!("another version of the host wrote a record"),
        }
        Ok(())
    }

    /// Drops the scopes of a partition. Returns the events that wait in them.
    pub(super) fn drop_partition(&mut self, partition: Partition) -> Vec<Envelope> {
        let is_of = |key: &str| Partition::of(key) == partition;
        for (_, owed) in self.acks.take_where(|owed| is_of(&owed.address.key)) {
            self.deadlines.cancel(owed.deadline);
        }
        let mut left = Vec::new();
        for mut scope in self.scopes.take_where(|scope| is_of(&scope.address.key)) {
            left.extend(self.end_scope(&mut scope));
        }
        left
    }

    pub(super) fn count_owned(&self) {
        if let Some(partitions) = &self.partitions {
            partitions.node.count_owned(self.index, partitions.all_owned().len());
        }
    }
}
