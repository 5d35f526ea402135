//! The members of scopes on all nodes, and the marks of what has changed.

use std::sync::Arc;

use super::batch::{Changed, ScopeId};
use super::output::Output;
use super::wire::WireScope;
use crate::cluster::Partition;
use crate::model::{ConnId, Identity, NodeId};
use crate::plugin::event::{Event, LeftReason, Member};
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::run::job::Envelope;
use crate::plugin::run::scope::Scope;
use crate::plugin::run::scopes::Place;
use crate::plugin::run::state::{ThreadState, Visit};

impl ThreadState {
    /// Notes that a connection's membership of a scope has changed. `identity` is known where the connection may be new.
    pub(in crate::plugin::run) fn note_membership(
        &mut self,
        visit: &Visit<'_>,
        connection: ConnId,
        identity: Option<&Arc<Identity>>,
    ) {
        let Some(place) = visit.place.filter(|_| self.partitions.is_some()) else { return };
        let node = self.node_of_sender(visit, connection);
        let scope = &mut self.scopes[place];
        if let Some(member) = scope.members.get_mut(&connection)
            && member.next.is_none()
        {
            member.node = node.or(member.node);
        }
        let member = scope.members.get(&connection);
        scope.roster.get_or_insert_default().update(connection, member, identity);
        self.check_nodes_of(place, connection);
        // An event about a member may be tried again, by another owner, and is told then: until it is done with, the records
        // are from before.
        if !is_about(visit.event, connection) {
            self.mark_member(visit.plugin, &visit.address.key, connection);
        }
    }

    /// Removes what the cluster has of a scope whose plugin was unloaded, and its members from its room.
    pub(in crate::plugin::run) fn forget_clustered(&mut self, scope: &Scope) {
        let (plugin, key) = (&scope.plugin, &scope.address.key);
        self.mark_state(plugin, key);
        scope.timers.keys().for_each(|name| self.mark_timer(plugin, key, name));
        let wire = WireScope::of(plugin, key);
        for (connection, member) in &scope.members {
            self.mark_member(plugin, key, *connection);
            if member.watched {
                let output = Output::Unwatch { connection: *connection, scope: wire.clone() };
                self.output(key, member.nodes(*connection), output);
            }
            let output = Output::Leave { connection: *connection, room: key.clone(), scope: wire.clone() };
            self.output(key, member.nodes(*connection), output);
        }
    }

    pub(super) fn mark_member(&mut self, plugin: &Plugin, key: &Arc<str>, connection: ConnId) {
        self.mark(plugin, key, |changed, id| changed.members.insert((id, connection)));
    }

    /// Notes that what an event said of a scope has been told.
    pub(super) fn mark_told(&mut self, envelope: &Envelope) {
        let Envelope { plugin, address, event, .. } = envelope;
        match event {
            Event::Joined(member) | Event::Left { member, .. } | Event::Presence { member, .. } => {
                self.mark_member(plugin, &address.key, member.connection);
            }
            Event::Timer { name, .. } => self.mark_timer(plugin, &address.key, name),
            Event::Acknowledged { ask, .. } => self.mark_ask(plugin, &address.key, *ask),
            _ => {}
        }
    }

    /// Sees to it that a member of a node that has gone does not stay.
    fn check_nodes_of(&mut self, place: Place, connection: ConnId) {
        if let (Some(partitions), Some(member)) = (&mut self.partitions, self.scopes[place].members.get(&connection)) {
            let is_known = member.nodes(connection).any(|node| partitions.view.nodes.contains_key(&node));
            partitions.is_unchecked |= !is_known;
        }
    }

    /// The node that a connection is on which sent an event, if it is not the one that the connection began on.
    fn node_of_sender(&self, visit: &Visit<'_>, connection: ConnId) -> Option<NodeId> {
        let of_event = visit.origin.filter(|_| visit.event.sender_id() == Some(connection));
        let here = || self.shared.hub.identity(connection).map(|_| self.shared.hub.node());
        of_event.or_else(here).filter(|node| *node != connection.node())
    }

    /// The nodes that get what is for a connection, of which the scope may know where it is.
    pub(super) fn nodes_of_connection(&self, visit: &Visit<'_>, connection: ConnId) -> Vec<NodeId> {
        let member = visit.place.and_then(|place| self.scopes[place].members.get(&connection));
        if let Some(member) = member {
            return member.nodes(connection).collect();
        }
        let node = self.node_of_sender(visit, connection).unwrap_or(connection.node());
        match &self.partitions {
            // Wherever it goes on; or the node is newer than the view, if the event comes from there.
            Some(partitions) if !partitions.view.nodes.contains_key(&node) => {
                partitions.view.nodes.keys().copied().chain(visit.origin).collect()
            }
            _ => vec![node],
        }
    }

    /// The nodes that get what is for a connection alone. The one at which it is about to go on puts it in its place.
    pub(super) fn nodes_of_it_alone(&self, visit: &Visit<'_>, connection: ConnId) -> Vec<NodeId> {
        let member = visit.place.and_then(|place| self.scopes[place].members.get(&connection));
        match member.and_then(|member| member.next) {
            Some(next) => vec![next],
            None => self.nodes_of_connection(visit, connection),
        }
    }

    /// Puts the identity into a departure that has none: the scope knows who it was.
    pub(in crate::plugin::run) fn name_departed(&self, envelope: &mut Envelope) {
        let Event::Left { member, .. } = &mut envelope.event else { return };
        if self.partitions.is_none() || !member.identity.user.is_empty() {
            return;
        }
        let place = self.scopes.find(envelope.plugin.number, &envelope.address.key);
        let roster = place.and_then(|place| self.scopes[place].roster.as_ref());
        if let Some(identity) = roster.and_then(|roster| roster.identity(member.connection)) {
            member.identity = identity.clone();
        }
    }

    /// Notes that the state of a scope has changed, or that it is no longer in memory.
    pub(in crate::plugin::run) fn mark_state(&mut self, plugin: &Plugin, key: &Arc<str>) {
        self.mark(plugin, key, |changed, id| changed.states.insert(id));
    }

    /// Notes that a timer of a scope has changed.
    pub(in crate::plugin::run) fn mark_timer(&mut self, plugin: &Plugin, key: &Arc<str>, name: &str) {
        self.mark(plugin, key, |changed, id| changed.timers.insert((id, name.into())));
    }

    /// Notes that an acknowledgement is owed to a scope, or no longer.
    pub(super) fn mark_ask(&mut self, plugin: &Plugin, key: &Arc<str>, ask: u64) {
        self.mark(plugin, key, |changed, id| changed.asks.insert((id, ask)));
    }

    /// Notes that a document is being stored, or no longer.
    pub(super) fn mark_document(&mut self, plugin: &Plugin, key: &Arc<str>, document: &str) {
        self.mark(plugin, key, |changed, id| changed.documents.insert((id, document.to_owned())));
    }

    /// Notes a change of a scope in the open batch, if this node of a cluster owns the scope.
    fn mark(&mut self, plugin: &Plugin, key: &Arc<str>, note: impl FnOnce(&mut Changed, ScopeId) -> bool) {
        let Some(partitions) = &mut self.partitions else { return };
        // Records carry the name.
        partitions.names.entry(plugin.number).or_insert_with(|| plugin.name.as_str().into());
        if let Some(batch) = partitions.batch(Partition::of(key)) {
            note(&mut batch.changed, (plugin.number, key.clone()));
        }
    }

    /// The numbers of connections and distinct users in a scope's room, on all nodes.
    pub(in crate::plugin::run) fn room_size(&self, visit: &Visit<'_>) -> (usize, usize) {
        match visit.place.and_then(|place| self.scopes[place].roster.as_ref()) {
            Some(roster) => roster.size(),
            None if self.partitions.is_some() => (0, 0),
            None => self.shared.hub.room_size(&visit.address.key),
        }
    }

    /// The size of a scope's room, as far as it keeps the scope in memory.
    pub(in crate::plugin::run) fn keeps_room(&self, place: Place) -> bool {
        let scope = &self.scopes[place];
        // In a cluster all who are in the room are members.
        self.partitions.is_none() && self.shared.hub.room_size(&scope.address.key).0 > 0
    }

    /// Tells the scopes of this thread that the members of nodes that have gone have left: each once.
    pub(super) fn tell_of_gone_nodes(&mut self) {
        let Some(partitions) = &mut self.partitions else { return };
        if !std::mem::take(&mut partitions.is_unchecked) {
            return;
        }
        let (view, me) = (partitions.view.clone(), self.shared.hub.node());
        let is_absent = |node: &NodeId| *node != me && !view.nodes.contains_key(node) && !view.missed.contains(node);
        let members = self.scopes.iter().flat_map(|scope| &scope.members);
        let nodes = members.flat_map(|(connection, member)| member.nodes(*connection).chain(member.next));
        let absent = nodes.filter(is_absent).collect();
        let (gone, others) = partitions.absent.look(absent, &partitions.gone, self.shared.clock.uptime_ms());
        partitions.is_unchecked = others > 0;
        let is_gone = |node: NodeId| gone.contains(&node);
        let (mut departures, mut stranded) = (Vec::new(), Vec::new());
        for scope in self.scopes.iter() {
            for (connection, member) in &scope.members {
                if let Some(next) = member.next.filter(|next| is_gone(*next)) {
                    stranded.push((scope.plugin.clone(), scope.address.key.clone(), *connection, next));
                }
                let identity = scope.roster.as_ref().and_then(|roster| roster.identity(*connection));
                let (Some(identity), true) = (identity, member.nodes(*connection).all(is_gone)) else { continue };
                let member = Member { connection: *connection, identity: identity.clone() };
                let event = Event::Left { member, reason: LeftReason::Disconnected, is_gone: true };
                departures.push(Envelope::without_reply(scope.plugin.clone(), scope.address.clone(), event));
            }
        }
        if !departures.is_empty() {
            tracing::debug!(n = departures.len(), nodes = ?gone, "members of scopes have left with their nodes");
        }
        for departure in departures {
            self.handle(departure);
        }
        for (plugin, key, connection, next) in stranded {
            self.place_stranded(&plugin, &key, connection, next);
        }
    }

    /// Sees to a member that was about to go on at a node which has gone: the node that it was on has it still, or tells that
    /// it has not.
    fn place_stranded(&mut self, plugin: &Plugin, key: &Arc<str>, connection: ConnId, gone: NodeId) {
        let place = self.scopes.find(plugin.number, key);
        let Some(member) = place.and_then(|place| self.scopes[place].members.get_mut(&connection)) else { return };
        if member.next != Some(gone) {
            return;
        }
        member.next = None;
        let nodes: Vec<_> = member.nodes(connection).collect();
        self.mark_member(plugin, key, connection);
        self.output(key, nodes, Output::Placed { connection, scope: WireScope::of(plugin, key) });
    }
}

/// Whether an event says that a connection's membership has changed.
fn is_about(event: &Event, connection: ConnId) -> bool {
    matches!(event, Event::Joined(member) | Event::Left { member, .. } | Event::Presence { member, .. }
        if member.connection == connection)
}
