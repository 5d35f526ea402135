//! Transfer: connections go on at the nodes to which their clients have come back.
//!
//! Nothing is lost and nothing comes twice. From before the owners of its scopes learn of the new node until after all of them
//! have, the connection is on both nodes, and so both get what is for it: what one of them has, the other does not miss. Each
//! event has one number in the whole cluster, by which the new node leaves out what the old one had. The question by which the
//! old node is asked to give the connection up comes to it behind all that any owner had for it before, because both come
//! from Redis, in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use roundhouse_contract::ScopeAddress;
use tokio::sync::oneshot;

use super::news::News;
use super::node::Node;
use super::output::Output;
use super::pending::Owed;
use super::questions::{ANSWER_WITHIN, Question, Reply};
use super::transfers::{WireClaimed, WireFound, WireLateAnswer, WireMemberships, WireOwed, WireReleased};
use super::wire::{WireOutput, WireScope, encode, outcome_of_wire, outcome_to_wire};
use crate::cluster::Partition;
use crate::hub::{Claim, ShardCommand, WakeBatch, Watcher};
use crate::model::{ConnId, Failure, NodeId, Payload};
use crate::plugin::event::{Event, ReplyTo};
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::run::job::{Envelope, Job};
use crate::plugin::run::scope::Membership;
use crate::plugin::run::shared::Shared;
use crate::plugin::run::state::ThreadState;

impl Shared {
    /// Keeps a connection for another node, if its client may go on with it.
    pub(super) async fn claimed(&self, claim: Claim, by: NodeId) -> Reply {
        let (Some(node), Ok(connection)) = (&self.node, claim.key.get(..16).unwrap_or_default().parse::<ConnId>())
        else {
            return Reply::default();
        };
        if let Some(to) = node.transfers.node_of(connection) {
            return Reply { is_at: Some(to.0), ..Reply::default() };
        }
        let (answer, allowed) = oneshot::channel();
        let Some(shard) = self.hub.queue_of(connection) else { return Reply::default() };
        shard.push(ShardCommand::Claim { connection, claim: Box::new(claim), answer });
        if allowed.await != Ok(true) {
            return Reply { is_refused: self.hub.identity(connection).is_some(), ..Reply::default() };
        }
        let claimed = self.memberships(connection);
        if claimed.is_some() {
            node.transfers.begin(connection, by, self.scopes_of(connection).into_keys().collect());
        }
        Reply { claimed, ..Reply::default() }
    }

    fn memberships(&self, connection: ConnId) -> Option<WireClaimed> {
        let (info, (_, n_changes)) = self.hub.connection(connection).zip(self.hub.presence(connection))?;
        let memberships = self.wire_memberships(&info.rooms, &self.hub.watchers(connection));
        Some(WireClaimed { since_ms: info.since_ms, n_changes, memberships })
    }

    fn wire_memberships(&self, rooms: &[Arc<str>], watchers: &[Watcher]) -> WireMemberships {
        let catalogue = self.catalogue.load();
        let scope = |watcher: &Watcher| {
            let (plugin, address) = catalogue.watcher(watcher)?;
            Some(WireScope::of(plugin, &address.key))
        };
        let rooms = rooms.iter().map(|room| (**room).to_owned()).collect();
        WireMemberships { rooms, watchers: watchers.iter().filter_map(scope).collect() }
    }

    /// The scopes that may have a connection of this node as a member.
    fn scopes_of(&self, connection: ConnId) -> HashMap<WireScope, (Arc<Plugin>, ScopeAddress)> {
        let catalogue = self.catalogue.load();
        let rooms = self.hub.connection(connection).map(|info| info.rooms).unwrap_or_default();
        let watchers = self.hub.watchers(connection);
        let owners = rooms.iter().filter_map(|room| catalogue.owner(room));
        let watching = watchers.iter().filter_map(|watcher| catalogue.watcher(watcher));
        let scope = |plugin: &Plugin, address: &ScopeAddress| WireScope::of(plugin, &address.key);
        owners.chain(watching).map(|(plugin, address)| (scope(plugin, &address), (plugin.clone(), address))).collect()
    }

    /// Tells the scopes of a connection of this node where it goes on.
    pub(crate) fn place(&self, connection: ConnId, (from, to): (NodeId, NodeId), is_settled: bool) {
        for (plugin, address) in self.scopes_of(connection).into_values() {
            let event = Event::Placed { connection, from, to, is_settled };
            self.submit(Envelope::without_reply(plugin, address, event));
        }
    }

    /// Gives up a connection that a node has claimed, when all of its scopes know that node.
    pub(super) async fn released(&self, connection: ConnId, by: NodeId) -> Option<WireReleased> {
        let node = self.node.as_ref()?;
        let is_told = node.transfers.all_told(connection, by).await;
        node.transfers.end(connection, by);
        if !is_told {
            return None;
        }
        self.pass_threads().await;
        // From now on what comes for it alone is passed on: the other node puts it behind all that it gets from here.
        node.transfers.goes(connection, by);
        let (answer, released) = oneshot::channel();
        self.hub.queue_of(connection)?.push(ShardCommand::Release { connection, answer });
        let Some((released, departure)) = released.await.ok().flatten() else {
            node.transfers.came(connection);
            return None;
        };
        let now = self.clock.uptime_ms();
        let owed = departure.pending_acks.iter().filter_map(|id| {
            let Owed { scope, ask, until_ms, .. } = node.asks.take(*id)?;
            Some((*id, WireOwed { scope, ask, for_ms: until_ms.saturating_sub(now) }))
        });
        let owed = owed.collect();
        let memberships = self.wire_memberships(&departure.rooms, &departure.watchers);
        Some(WireReleased { released, owed, memberships })
    }

    /// Takes over the acknowledgements that the client of a connection owes, which goes on here.
    pub(crate) fn take_over_asks(&self, node: &Node, connection: ConnId, owed: Vec<(u64, WireOwed)>) {
        let now = self.clock.uptime_ms();
        for (id, WireOwed { scope, ask, for_ms }) in owed {
            node.asks.take_over(id, Owed { scope, ask, connection, until_ms: now + for_ms });
            self.hub.expect_ack(connection, id);
        }
    }

    /// The scopes of this node that have a connection as a member whose nodes have all gone: see [`News::Find`].
    pub(crate) fn find(
        &self,
        connection: ConnId,
        user: &str,
        gone: NodeId,
    ) -> impl Future<Output = Option<Vec<WireFound>>> + Send + 'static {
        let asked = self.inboxes.iter().map(|inbox| {
            let (found, finding) = oneshot::channel();
            inbox.push(Job::News(News::Find { connection, user: user.into(), gone, found }));
            finding
        });
        let asked: Vec<_> = asked.collect();
        async move {
            let mut all = Vec::new();
            for finding in asked {
                // An error means that the host is stopping.
                all.extend(finding.await.ok()??);
            }
            Some(all)
        }
    }

    /// Waits until the plugin threads have taken in all news that were there before.
    pub(crate) async fn pass_threads(&self) {
        let passing = self.inboxes.iter().map(|inbox| {
            let (passed, passing) = oneshot::channel();
            inbox.push(Job::News(News::Passed(passed)));
            passing
        });
        for passing in passing.collect::<Vec<_>>() {
            // An error means that the host is stopping.
            let _ = passing.await;
        }
    }

    /// Passes on what a commit has this node do for a connection that goes on at another.
    pub(super) fn pass_on(&self, node: &Node, to: NodeId, partition: Partition, output: &Output) {
        self.tell_node(node, to, Question::Perform(partition.0, output.to_wire()));
    }

    fn tell_node(&self, node: &Node, to: NodeId, question: Question) {
        let (cluster, question) = (node.cluster.clone(), encode(&question));
        node.cluster.spawn(async move { drop(cluster.ask(vec![to], question, ANSWER_WITHIN).await) });
    }

    /// Does what another node has passed on.
    pub(super) fn perform_passed(self: &Arc<Self>, partition: Partition, output: WireOutput) {
        let (Some(node), Ok(output)) = (&self.node, Output::of_wire(output)) else { return };
        let member_of = match &output {
            Output::Join { connection, scope, .. } | Output::Watch { connection, scope, .. } => {
                Some((*connection, scope.clone()))
            }
            _ => None,
        };
        self.perform_output(node, partition, output, &WakeBatch::default());
        // The scope has taken the connection for one of the node that has passed this on.
        let Some((connection, scope)) = member_of else { return };
        if let Some((plugin, address)) = self.scope_of_wire(&scope) {
            let (from, to) = (connection.node(), self.hub.node());
            let event = Event::Placed { connection, from, to, is_settled: true };
            self.submit(Envelope::without_reply(plugin, address, event));
        }
    }

    /// Passes on the answer to an event whose client has gone on elsewhere. Returns it if the client has not.
    pub(crate) fn pass_answer(
        &self,
        event: &str,
        reply: ReplyTo,
        outcome: Result<Payload, Failure>,
    ) -> Option<(ReplyTo, Result<Payload, Failure>)> {
        let (Some(node), ReplyTo::Client { connection, id, .. }) = (&self.node, &reply) else {
            return Some((reply, outcome));
        };
        let Some(to) = node.transfers.node_of(*connection) else { return Some((reply, outcome)) };
        let outcome = outcome_to_wire(&outcome);
        let answer = WireLateAnswer { connection: connection.to_bits(), event: event.into(), id: *id, outcome };
        node.insist(to, encode(&Question::Answer(answer)), ANSWER_WITHIN);
        None
    }

    /// Answers an event that a client sent on another node.
    pub(super) fn answer_passed(&self, answer: WireLateAnswer) {
        let WireLateAnswer { connection, event, id, outcome } = answer;
        let connection = ConnId::from_bits(connection);
        let reply = ReplyTo::Client { connection, id, read_at: Instant::now() };
        self.answer(&event, reply, outcome_of_wire(outcome), &WakeBatch::default());
    }
}

impl ThreadState {
    /// See [`News::Find`].
    pub(super) fn find_member(&mut self, connection: ConnId, user: &str, gone: NodeId) -> Option<Vec<WireFound>> {
        let partitions = self.partitions.as_ref()?;
        let view = partitions.view.clone();
        if !view.nodes.contains_key(&gone) && !view.missed.contains(&gone) {
            // There is no such node, or its connections were told to have gone.
            return Some(Vec::new());
        }
        if !partitions.has_taken_those_of(gone) {
            return None;
        }
        let is_there = |node: NodeId| view.nodes.contains_key(&node);
        if partitions.orphaned.is_none() {
            let mut orphaned = HashMap::<_, Vec<_>>::new();
            for scope in self.scopes.iter() {
                let members = scope.members.iter().filter(|(id, member)| !member.nodes(**id).any(is_there));
                members.for_each(|(id, _)| {
                    orphaned.entry(*id).or_default().push((scope.plugin.number, scope.address.key.clone()));
                });
            }
            self.partitions.as_mut()?.orphaned = Some(orphaned);
        }
        let scopes = self.partitions.as_ref()?.orphaned.as_ref()?.get(&connection);
        let found = scopes.into_iter().flatten().filter_map(|(plugin, key)| {
            let scope = &self.scopes[self.scopes.find(*plugin, key)?];
            let member = scope.members.get(&connection)?;
            let is_its_own = *scope.roster.as_ref()?.identity(connection)?.user == *user;
            let is_orphaned = !member.nodes(connection).any(is_there);
            let Membership { joined, watched, n_changes, .. } = *member;
            let scope = WireScope::of(&scope.plugin, key);
            (is_its_own && is_orphaned).then_some(WireFound { scope, joined, watched, n_changes })
        });
        Some(found.collect())
    }

    /// Notes where a member goes on, and tells the node that has to know: the former one that this one knows the other, or
    /// the new one, which may have lost the connection meanwhile.
    pub(in crate::plugin::run) fn place_member(
        &mut self,
        envelope: Envelope,
        connection: ConnId,
        (from, to): (NodeId, NodeId),
        is_settled: bool,
    ) {
        let (plugin, key) = (&envelope.plugin, &envelope.address.key);
        let scope = WireScope::of(plugin, key);
        let place = self.scopes.find(plugin.number, key);
        if let Some(member) = place.and_then(|place| self.scopes[place].members.get_mut(&connection)) {
            match is_settled {
                true => (member.node, member.next) = (Some(to), None),
                false => member.next = Some(to),
            }
            self.mark_member(plugin, key, connection);
        } else {
            // It has left since the other node told what it takes part in.
            self.output(key, [to], Output::Leave { connection, room: key.clone(), scope: scope.clone() });
            self.output(key, [to], Output::Unwatch { connection, scope: scope.clone() });
        }
        let told = if is_settled { to } else { from };
        self.output(key, [told], Output::Placed { connection, scope });
        self.settle(envelope, None);
    }
}
