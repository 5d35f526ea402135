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
//! - `connection`: how a connection is opened, and the time that an answer may take
//! - `registry`: what plugins the cluster runs
//! - `peers`: questions from node to node

mod command;
mod config;
mod connection;
mod inbox;
mod keys;
mod link;
mod listener;
mod nodes;
mod ops;
mod partition;
mod peers;
mod registry;
mod scripts;
mod status;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tokio::sync::mpsc;

pub use self::config::{ClusterConfig, RedisUrl};
pub use self::listener::{AWAY_AFTER, Listener, Responder};
pub use self::nodes::{ABSENT_MS, NodeInfo, View};
pub use self::ops::{Commit, Committed, EventId, Heal, Output, Record, Snapshot};
pub use self::partition::Partition;
pub use self::peers::{Answer, Answers};
pub use self::registry::{Contents, Proposal, Registered, Registry};

use self::command::{Command, Lasting, Task};
use self::link::Link;
use self::peers::Peers;
use self::status::Status;
use crate::metrics::ClusterMetrics;
use crate::model::NodeId;

/// A node of a cluster.
#[derive(Debug)]
pub struct Cluster {
    config: ClusterConfig,
    commands: mpsc::UnboundedSender<Command>,
    status: Arc<Status>,
    peers: Arc<Peers>,
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

    /// The code of a message that only nodes of this cluster can make (HMAC, RFC 2104, with SHA-256).
    pub fn authenticate(&self, message: &[u8]) -> [u8; 32] {
        let secret = self.status.secret.load();
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("HMAC takes any key");
        mac.update(message);
        mac.finalize().into_bytes().into()
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

    /// Asks nodes, now. What is returned waits within this time for the answers of those that live.
    pub fn ask(
        &self,
        nodes: Vec<NodeId>,
        request: Vec<u8>,
        within: Duration,
    ) -> impl Future<Output = Answers> + Send + use<'_> {
        let (id, answers) = self.peers.begin(&nodes);
        self.send(Command::Ask { id, nodes, request: request.into() });
        answers.wait(within, |node| self.view().nodes.contains_key(&node))
    }

    /// What plugins the cluster runs.
    pub fn registry(&self) -> Registry {
        Registry::new(self.config.clone())
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
