//! Connections of other nodes of the cluster that go on here, because their clients have come back to this one.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::run::clustered::node::Node;
use super::run::clustered::questions::{ANSWER_WITHIN, Question, Reply};
use super::run::clustered::transfers::{WireClaimed, WireMemberships};
use super::runtime::Runtime;
use crate::hub::{Claim, Joined, Released, WakeBatch};
use crate::model::{ConnId, NodeId};

/// The time in which a silent node is given up and others take its partitions.
const TAKEN_WITHIN: Duration = Duration::from_secs(3);

/// The time between two questions whether they have been taken.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What became of a claim.
#[derive(Debug)]
pub enum Whereabouts {
    /// The connection is kept for this node.
    Claimed(Claimed),
    /// The connection has ended, or its client may not go on with it.
    Gone,
    /// The node that had it does not answer.
    Silent(NodeId),
}

/// A connection that another node keeps for this one, or had until it went.
#[derive(Debug)]
pub struct Claimed {
    /// The node.
    pub from: NodeId,
    /// When it was authenticated, in milliseconds since the epoch.
    pub since_ms: u64,
    /// The number of changes of its presence so far.
    pub n_changes: u32,
    memberships: WireMemberships,
}

impl Claimed {
    fn of(from: NodeId, claimed: WireClaimed) -> Self {
        let WireClaimed { since_ms, n_changes, memberships } = claimed;
        Self { from, since_ms, n_changes, memberships }
    }
}

impl Runtime {
    /// Sets the number of this host in its cluster.
    pub fn set_node(&self, number: NodeId) {
        self.0.shared.hub.set_node(number);
        if let Some(node) = self.node() {
            node.count_as(number);
        }
    }

    /// A secret for a connection's session, which any node can tell from others without having met the connection: its first two
    /// bytes are random, and the others depend on them. `None` without a cluster.
    pub fn session_secret(&self, id: ConnId, place: &str, salt: u16) -> Option<u128> {
        let node = self.node()?;
        let mut message = [id.to_bits().to_be_bytes().as_slice(), &salt.to_be_bytes()].concat();
        message.extend_from_slice(place.as_bytes());
        let code = node.cluster.authenticate(&message);
        let mut secret = [0; 16];
        secret[..2].copy_from_slice(&salt.to_be_bytes());
        secret[2..].copy_from_slice(&code[..14]);
        Some(u128::from_be_bytes(secret))
    }

    /// Whether a connection that is not here may be on another node.
    pub fn may_be_abroad(&self, id: ConnId) -> bool {
        let Some(node) = self.node() else { return false };
        id.node() != self.0.shared.hub.node() || node.transfers.node_of(id).is_some()
    }

    /// Claims a connection of another node for its client: from the node that it was on last, as far as is known, from those at
    /// which it went on since, and in the end from all others.
    pub async fn claim(&self, id: ConnId, claim: Claim) -> Whereabouts {
        let Some(node) = self.node() else { return Whereabouts::Gone };
        let mut unasked = node.cluster.others();
        let (mut to, mut silent) = (self.last_node(node, id), None);
        while !unasked.is_empty() {
            let asked: Vec<_> = match unasked.iter().position(|node| *node == to) {
                Some(at) => vec![unasked.swap_remove(at)],
                None => {
                    silent.get_or_insert(to);
                    std::mem::take(&mut unasked)
                }
            };
            for (from, reply) in self.ask_for(node, asked, &claim).await {
                match reply {
                    None => drop(silent.get_or_insert(from)),
                    Some(Reply { claimed: Some(claimed), .. }) => {
                        return Whereabouts::Claimed(Claimed::of(from, claimed));
                    }
                    Some(Reply { is_refused: true, .. }) => return Whereabouts::Gone,
                    Some(Reply { is_at: Some(at), .. }) => to = NodeId(at),
                    Some(_) => {}
                }
            }
        }
        if node.cluster.others().is_empty() {
            silent = Some(to);
        }
        silent.map_or(Whereabouts::Gone, Whereabouts::Silent)
    }

    fn last_node(&self, node: &Node, id: ConnId) -> NodeId {
        node.transfers.node_of(id).unwrap_or(id.node())
    }

    async fn ask_for(&self, node: &Node, nodes: Vec<NodeId>, claim: &Claim) -> Vec<(NodeId, Option<Reply>)> {
        self.0.shared.ask_nodes(node, nodes, &Question::Claim(claim.clone()), ANSWER_WITHIN).await
    }

    /// A connection whose node `gone` is silent, as the owners of its scopes know it, if its user is the client's. `None` where
    /// they know none, or have told that it has gone, or the node lives all the same.
    pub async fn inherit(&self, id: ConnId, user: &str, gone: NodeId) -> Option<Claimed> {
        let (shared, node) = (&self.0.shared, self.node()?);
        let question = Question::Find { connection: id.to_bits(), user: user.to_owned(), gone: gone.0 };
        let ask = async || {
            let (here, others) = tokio::join!(
                shared.find(id, user, gone),
                shared.ask_nodes(node, node.cluster.others(), &question, ANSWER_WITHIN)
            );
            let others = others.into_iter().map(|(_, reply)| reply?.found);
            others.chain([here]).collect::<Option<Vec<_>>>()
        };
        let found = timeout(TAKEN_WITHIN, async {
            loop {
                match ask().await {
                    Some(found) => return found,
                    None => sleep(ASK_AGAIN).await,
                }
            }
        });
        let found = found.await.ok()?.into_iter().flatten().collect();
        Some(Claimed::of(gone, WireClaimed::of_scopes(found, shared.clock.now_ms())?))
    }

    /// Gives a connection that was claimed the rooms and watching scopes that it has. Returns whether it may have as many.
    pub fn adopt_memberships(&self, id: ConnId, claimed: &Claimed) -> bool {
        if let Some(node) = self.node() {
            node.transfers.came(id);
        }
        self.join(id, &claimed.memberships)
    }

    fn join(&self, id: ConnId, memberships: &WireMemberships) -> bool {
        let (shared, wakes) = (&self.0.shared, WakeBatch::default());
        for scope in &memberships.watchers {
            if let Some(plugin) = shared.plugin(&scope.plugin) {
                shared.hub.watch(id, (plugin.number, (*scope.key).into()));
            }
        }
        let mut rooms = memberships.rooms.iter();
        rooms.all(|room| shared.hub.join(id, &room.as_str().into(), &wakes) != Joined::TooMany)
    }

    /// Has a connection that was claimed take part in what it takes part in now, where that has changed since.
    fn catch_up(&self, id: ConnId, then: &WireMemberships, now: &WireMemberships) {
        let (hub, wakes) = (&self.0.shared.hub, WakeBatch::default());
        for room in then.rooms.iter().filter(|room| !now.rooms.contains(room)) {
            hub.leave(id, room, &wakes);
        }
        for scope in then.watchers.iter().filter(|scope| !now.watchers.contains(scope)) {
            if let Some(plugin) = self.0.shared.plugin(&scope.plugin) {
                hub.unwatch(id, plugin.number, &scope.key);
            }
        }
        self.join(id, now);
    }

    /// Tells the scopes of a connection that it goes on here: until that is settled, the other node gets what is for it, too.
    pub fn place(&self, id: ConnId, from: NodeId, is_settled: bool) {
        let shared = &self.0.shared;
        shared.place(id, (from, shared.hub.node()), is_settled);
    }

    /// Tells the scopes of a connection that it stays where it was.
    pub fn place_back(&self, id: ConnId, from: NodeId) {
        let shared = &self.0.shared;
        shared.place(id, (shared.hub.node(), from), true);
    }

    /// Has a node give up a connection that was claimed. `None` where it has not done so in time.
    pub async fn release(&self, id: ConnId, claimed: &Claimed) -> Option<Released> {
        let (shared, node) = (&self.0.shared, self.node()?);
        let question = Question::Release(id.to_bits());
        let answers = shared.ask_nodes(node, vec![claimed.from], &question, ANSWER_WITHIN).await;
        let released = answers.into_iter().find_map(|(_, reply)| reply?.released)?;
        shared.take_over_asks(node, id, released.owed);
        self.catch_up(id, &claimed.memberships, &released.memberships);
        Some(released.released)
    }

    /// Waits until the plugin threads have done what the cluster had for this node before.
    pub async fn pass_threads(&self) {
        self.0.shared.pass_threads().await;
    }

    /// Whether a client of the plain protocol may resume a connection of this user on another node. `None` where a node does
    /// not answer.
    pub async fn has_session_abroad(&self, user: &str) -> Option<bool> {
        let Some(node) = self.node() else { return Some(false) };
        let question = Question::HasSession(user.to_owned());
        let answers = self.0.shared.ask_nodes(node, node.cluster.others(), &question, ANSWER_WITHIN).await;
        answers.into_iter().map(|(_, reply)| Some(reply?.connections > 0)).try_fold(false, |any, has| Some(any || has?))
    }

    /// Whether there are other nodes, on which clients may go on.
    pub fn has_other_nodes(&self) -> bool {
        self.node().is_some_and(|node| !node.cluster.others().is_empty())
    }
}
