//! The keys and channels of a cluster in Redis.

use super::partition::Partition;
use crate::model::NodeId;

/// The names of all that a cluster keeps in Redis. All keys of a partition carry its tag, `{p}`, and all
/// others one tag, so that the keys of each script are on one server of a Redis Cluster.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(cluster: &str) -> Self {
        Self { prefix: format!("roundhouse:{cluster}:") }
    }

    /// The hash of the nodes' names, by number.
    pub(super) fn nodes(&self) -> String {
        format!("{}{{nodes}}:nodes", self.prefix)
    }

    /// The hash of the nodes' counters, by number.
    pub(super) fn beats(&self) -> String {
        format!("{}{{nodes}}:beats", self.prefix)
    }

    /// A random text that is lost when Redis loses everything.
    pub(super) fn run(&self) -> String {
        format!("{}{{nodes}}:run", self.prefix)
    }

    /// The secret from which all nodes derive the secrets of connections' sessions.
    pub(super) fn secret(&self) -> String {
        format!("{}{{nodes}}:secret", self.prefix)
    }

    /// The number that was given to a node last.
    pub(super) fn number(&self) -> String {
        format!("{}{{nodes}}:number", self.prefix)
    }

    /// The hash of what the cluster runs of each plugin, by name.
    pub(super) fn plugins(&self) -> String {
        format!("{}{{nodes}}:plugins", self.prefix)
    }

    /// The number of changes of the plugins so far.
    pub(super) fn plugins_revision(&self) -> String {
        format!("{}{{nodes}}:revision", self.prefix)
    }

    /// A plugin's component.
    pub(super) fn component(&self, digest: &str) -> String {
        format!("{}{{nodes}}:component:{digest}", self.prefix)
    }

    /// The hash of a partition: epoch, owner, sequence and records.
    pub(super) fn partition(&self, partition: Partition) -> String {
        format!("{}{{{}}}:scopes", self.prefix, partition.0)
    }

    /// The hash of the events that nodes forwarded to a partition, until they are handled.
    pub(super) fn waiting(&self, partition: Partition) -> String {
        format!("{}{{{}}}:events", self.prefix, partition.0)
    }

    /// The stream of what a partition has for a node.
    pub(super) fn outputs(&self, partition: Partition, node: NodeId) -> String {
        format!("{}{{{}}}:to:{}", self.prefix, partition.0, node.0)
    }

    /// The channel of a node.
    pub(super) fn channel(&self, node: NodeId) -> String {
        format!("{}{}", self.channel_prefix(), node.0)
    }

    /// The channels of nodes without their numbers.
    pub(super) fn channel_prefix(&self) -> String {
        format!("{}node:", self.prefix)
    }

    /// The channel that a node subscribes to as long as it lives.
    pub(super) fn presence(&self, node: NodeId) -> String {
        format!("{}presence:{}", self.prefix, node.0)
    }

    /// The channel that tells all nodes that one came or went.
    pub(super) fn news(&self) -> String {
        format!("{}news", self.prefix)
    }
}
