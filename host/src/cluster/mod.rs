//! Several hosts as one, over Redis: which node owns which scopes, the commits of owners, and the messages between nodes.
//!
//! Scopes belong to 256 partitions. **The owner of a partition is an optimisation; the fence in Redis is the truth**: each
//! commit is a script that is refused when another node has taken the partition, or when Redis does not hold what the owner
//! wrote before. What an event sends leaves a node only when its commit was answered. This module moves bytes and knows
//! nothing of events; `plugin::run::clustered` gives the bytes their meaning.
//!
//! - `partition`: the hash of a scope's key, and the choice of an owner among nodes (rendezvous hashing)
//! - `nodes`: who lives, by what this node has seen of the others' beats on its own clock
//! - `ops`, `scripts`: what is asked of Redis, and the answers
//! - `inbox`: messages from Redis, each once and in order, also over a broken connection
//! - `link`: the thread that keeps the connection, and asks again what was not answered
//! - `peers`: questions from node to node

mod config;
mod inbox;
mod keys;
mod link;
mod nodes;
mod ops;
mod partition;
mod peers;
mod scripts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::mpsc;

pub use self::config::{ClusterConfig, RedisUrl};
pub use self::nodes::{NodeInfo, View};
pub use self::ops::{Commit, Committed, EventId, Heal, Output, Record, Snapshot};
pub use self::partition::Partition;
pub use self::peers::{Answer, Answers};

use self::link::{Command, Lasting, Link, Task};
use self::peers::Peers;
use crate::metrics::ClusterMetrics;
use crate::model::NodeId;

/// The time after which Redis counts as away: no command takes longer, and events that need it are refused.
pub const AWAY_AFTER: Duration = Duration::from_secs(1);

/// What a node does with the news of its cluster. Called on the cluster's thread, which must not wait.
pub trait Listener: Send + Sync {
    /// A partition was taken: this node owns it from now on.
    fn taken(&self, snapshot: Snapshot);
    /// A commit, or the heal that stands for commits up to its number, was answered.
    fn committed(&self, partition: Partition, epoch: u64, sequence: u64, answer: Committed);
    /// Another node forwarded an event to a partition of this node: each once, and in the order of its origin.
    fn event(&self, partition: Partition, id: EventId, event: Bytes);
    /// An owner's commit has this for the node: each once, and in the order of the owner's commits.
    fn output(&self, partition: Partition, output: Bytes);
    /// Redis has lost events that this node forwarded to a partition: those after this number are to be forwarded again.
    fn missing(&self, partition: Partition, after: u64);
    /// These nodes live. Also called where nothing has changed.
    fn nodes(&self, view: &Arc<View>);
    /// Redis is away, or is back.
    fn reachable(&self, is_up: bool);
    /// The others gave this node up, so its connections are gone for them: it goes on as another node, of this number.
    fn reborn(&self, number: NodeId);
    /// Another node asks.
    fn ask(&self, question: &[u8], responder: Responder);
}

/// The way of an answer to the node that has asked.
#[derive(Debug)]
pub struct Responder {
    commands: mpsc::UnboundedSender<Command>,
    node: NodeId,
    id: u64,
}

impl Responder {
    /// Answers.
    pub fn answer(self, answer: Vec<u8>) {
        // The link ends only with the host.
        let _ = self.commands.send(Command::Answer { id: self.id, node: self.node, answer: answer.into() });
    }
}

/// A node of a cluster.
#[derive(Debug)]
pub struct Cluster {
    config: ClusterConfig,
    commands: mpsc::UnboundedSender<Command>,
    status: Arc<Status>,
    peers: Arc<Peers>,
}

/// What other threads read of the link's state.
#[derive(Debug, Default)]
struct Status {
    me: AtomicU16,
    is_up: AtomicBool,
    view: ArcSwap<View>,
}

impl Cluster {
    /// Connects to the Redis of a cluster. The node joins, under a number that no other has, with [`Joining::listen`].
    ///
    /// # Errors
    /// Where Redis cannot be reached or refuses, or the thread cannot be started.
    pub fn join(config: ClusterConfig, metrics: ClusterMetrics) -> anyhow::Result<(Arc<Self>, Joining)> {
        let (commands, queue) = mpsc::unbounded_channel();
        let (status, peers) = (Arc::<Status>::default(), Arc::<Peers>::default());
        let link = Link::connect(config.clone(), (commands.clone(), queue), status.clone(), peers.clone(), metrics)?;
        Ok((Arc::new(Self { config, commands, status, peers }), Joining(link)))
    }

    /// The configuration.
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// The number of this node, from when it has joined. It changes when the others gave the node up.
    pub fn me(&self) -> NodeId {
        NodeId(self.status.me.load(Ordering::Acquire))
    }

    /// Whether Redis answers.
    pub fn is_up(&self) -> bool {
        self.status.is_up.load(Ordering::Acquire)
    }

    /// The nodes that live.
    pub fn view(&self) -> Arc<View> {
        self.status.view.load_full()
    }

    /// Takes a partition for the node of this number, which is always safe: its present owner is fenced.
    pub fn take(&self, me: NodeId, partition: Partition) {
        self.send(Command::Lasting(me, Lasting::Take(partition)));
    }

    /// Commits a batch of events of the node of this number.
    pub fn commit(&self, me: NodeId, commit: Commit) {
        self.send(Command::Lasting(me, Lasting::Commit(Box::new(commit))));
    }

    /// Puts all that the node of this number knows of a partition, of which Redis has lost something.
    pub fn heal(&self, me: NodeId, heal: Heal) {
        self.send(Command::Lasting(me, Lasting::Heal(Box::new(heal))));
    }

    /// Forwards an event to the owner of a partition, whichever node that is. `number` counts the events of this node for
    /// the partition; `before` is the number of the last one before it that is not answered, or 0.
    pub fn forward(&self, me: NodeId, partition: Partition, (number, before): (u64, u64), event: Bytes) {
        self.send(Command::Lasting(me, Lasting::Forward { partition, number, before, event }));
    }

    /// Runs a task on the cluster's thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.send(Command::Run(Task(Box::pin(task))));
    }

    /// Asks nodes, and waits for their answers for at most two seconds: a node that was killed is given up within that.
    pub async fn ask(&self, nodes: Vec<NodeId>, request: Vec<u8>) -> Answers {
        let (id, answers) = self.peers.begin(&nodes);
        self.send(Command::Ask { id, nodes, request: request.into() });
        answers.wait(2 * AWAY_AFTER).await
    }

    /// The other nodes that live.
    pub fn others(&self) -> Vec<NodeId> {
        let me = self.me();
        self.view().nodes.keys().copied().filter(|node| *node != me).collect()
    }

    /// Leaves the cluster after all that was sent before, so that others take the partitions at once.
    pub fn leave(&self) {
        self.send(Command::Leave);
    }

    fn send(&self, command: Command) {
        // The link ends only with the host.
        let _ = self.commands.send(command);
    }
}

/// A node that has joined, and does not listen yet.
#[derive(Debug)]
pub struct Joining(Link);

impl Joining {
    /// Joins, and starts the thread that listens. `joined` is called with the node's number before anything else.
    ///
    /// # Errors
    /// Where Redis refuses, or the thread cannot be started.
    pub fn listen(self, joined: impl FnOnce(NodeId), listener: Arc<dyn Listener>) -> anyhow::Result<JoinHandle<()>> {
        self.0.start(joined, listener)
    }
}
