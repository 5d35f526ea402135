//! The effects of an event in a cluster: the scope changes at once, and all nodes hear of it when the batch is committed.

use std::collections::BTreeSet;
use std::sync::Arc;

use roundhouse_contract::MIN_CHAINED_MS;

use super::output::Output;
use super::wire::WireScope;
use crate::hub::{Audience, Publication};
use crate::model::{CloseCode, ConnId, Identity, NodeId};
use crate::plugin::event::{Event, Flow};
use crate::plugin::load::generation::Generation;
use crate::plugin::run::acks::PendingAck;
use crate::plugin::run::deadlines::Due;
use crate::plugin::run::effect::Effect;
use crate::plugin::run::state::{ThreadState, Visit};

impl ThreadState {
    /// Carries an effect out that concerns connections, of whichever node.
    pub(in crate::plugin::run) fn carry_out_clustered(
        &mut self,
        visit: &Visit<'_>,
        generation: &Generation,
        effect: Effect,
        now: u64,
    ) {
        let key = visit.address.key.clone();
        let scope = WireScope::of(visit.plugin, &key);
        match effect {
            Effect::Publish(publication) => {
                if let Some(sender) = self.shared.responsible(visit.event) {
                    let n_deliveries = self.recipients(visit, &publication);
                    sender.charge_deliveries(now, n_deliveries, publication.outgoing.bytes());
                }
                let nodes = self.nodes_of(visit, &publication);
                self.output(&key, nodes, Output::Publish(publication));
            }
            Effect::Ask { connections, outgoing, tag, timeout_ms, charges } => {
                let after_ms = timeout_ms.max(MIN_CHAINED_MS);
                for (connection, charge) in connections.into_iter().zip(charges) {
                    let (plugin, address) = (visit.plugin.clone(), visit.address.clone());
                    let ask = self.acks.next_of_node(self.shared.hub.node());
                    let deadline = self.deadlines.push(now + after_ms, Due::Acknowledgement(ask));
                    let flow = Flow::Scope(key.clone());
                    let due_ms = self.shared.clock.now_ms() + after_ms;
                    let tag = tag.clone();
                    let owed = PendingAck { plugin, address, connection, tag, deadline, due_ms, flow, _charge: charge };
                    self.acks.expect_ack(ask, owed);
                    self.mark_ask(visit.plugin, &key, ask);
                    let (outgoing, scope) = (outgoing.clone(), scope.clone());
                    let output = Output::Ask { connection, ask, outgoing, scope, timeout_ms: after_ms };
                    let nodes = self.nodes_of_it_alone(visit, connection);
                    self.output(&key, nodes, output);
                }
            }
            Effect::Join { connection, .. } | Effect::Watch(connection) if is_departure_of(visit.event, connection) => {
            }
            Effect::Join { connection, room } => {
                let identity = self.identity_of(visit, connection);
                let is_own = *room == *key;
                let is_told = identity.is_none();
                if let Some(place) = visit.place.filter(|_| is_own) {
                    self.scopes[place].members.entry(connection).or_default().joined = true;
                    self.note_membership(visit, connection, identity.as_ref());
                }
                let nodes = self.nodes_of_connection(visit, connection);
                self.output(&key, nodes, Output::Join { connection, room, scope, is_told });
            }
            Effect::Leave { connection, room } => {
                let is_own = *room == *key;
                let nodes = self.nodes_of_connection(visit, connection);
                if let Some(place) = visit.place.filter(|_| is_own) {
                    let member = self.scopes[place].members.remove(&connection);
                    self.note_membership(visit, connection, None);
                    if member.is_some_and(|member| member.watched) {
                        let output = Output::Unwatch { connection, scope: scope.clone() };
                        self.output(&key, nodes.iter().copied(), output);
                    }
                }
                self.output(&key, nodes, Output::Leave { connection, room, scope });
            }
            Effect::Watch(connection) => {
                let identity = self.identity_of(visit, connection);
                let is_told = identity.is_none();
                if let Some(place) = visit.place {
                    let member = self.scopes[place].members.entry(connection).or_default();
                    member.watched = true;
                    member.came |= visit.event.comes_from() == Some(connection);
                    self.note_membership(visit, connection, identity.as_ref());
                }
                let nodes = self.nodes_of_connection(visit, connection);
                self.output(&key, nodes, Output::Watch { connection, scope, is_told });
            }
            Effect::Disconnect { connection, reason } => {
                let id = &generation.id;
                tracing::info!(
                    plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
                    %connection, "a plugin disconnects a client"
                );
                let code = CloseCode::Disconnected;
                let nodes = self.nodes_of_connection(visit, connection);
                self.output(&key, nodes, Output::Close { connection, code, reason });
            }
            // Handled elsewhere, as on a host that is alone.
            Effect::SetTimer { .. }
            | Effect::CancelTimer(_)
            | Effect::Refuse(_)
            | Effect::Reply(_)
            | Effect::ReplyReached { .. }
            | Effect::Save(_)
            | Effect::Fetch(_) => {}
        }
    }

    /// Who a connection is, as far as this node knows.
    fn identity_of(&self, visit: &Visit<'_>, connection: ConnId) -> Option<Arc<Identity>> {
        let of_event = visit.event.member().filter(|member| member.connection == connection);
        let of_event = of_event.map(|member| member.identity.clone());
        let roster = visit.place.and_then(|place| self.scopes[place].roster.as_ref());
        of_event
            .or_else(|| self.shared.hub.identity(connection))
            .or_else(|| roster.and_then(|roster| roster.identity(connection).cloned()))
    }

    /// The nodes that may have recipients of an event. Those of the scope's own room are known.
    fn nodes_of(&self, visit: &Visit<'_>, publication: &Publication) -> BTreeSet<NodeId> {
        let mut nodes = BTreeSet::new();
        for audience in &publication.to {
            match audience {
                Audience::Connection(connection) => nodes.extend(self.nodes_of_it_alone(visit, *connection)),
                Audience::Room(room) if **room == *visit.address.key => {
                    let Some(scope) = visit.place.map(|place| &self.scopes[place]) else { continue };
                    let in_room = scope.roster.iter().flat_map(|roster| roster.in_room());
                    let members = in_room.filter_map(|connection| Some((connection, scope.members.get(&connection)?)));
                    nodes.extend(members.flat_map(|(connection, member)| member.nodes(connection)));
                }
                _ => {
                    nodes.insert(self.shared.hub.node());
                    nodes.extend(self.partitions.iter().flat_map(|partitions| partitions.view.nodes.keys()));
                }
            }
        }
        nodes
    }

    /// About how many connections get an event, for the account of its sender.
    fn recipients(&self, visit: &Visit<'_>, publication: &Publication) -> usize {
        let of = |audience: &Audience| match audience {
            Audience::Room(room) if **room == *visit.address.key => self.room_size(visit).0,
            other => self.shared.hub.count_recipients(std::slice::from_ref(other), &[]).connections,
        };
        publication.to.iter().map(of).sum()
    }
}

/// Whether the event is the end of this connection, which takes part in nothing any more.
fn is_departure_of(event: &Event, connection: ConnId) -> bool {
    matches!(event, Event::Left { member, is_gone: true, .. } if member.connection == connection)
}
