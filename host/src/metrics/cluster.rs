//! The metrics of a node of a cluster, which a host that is alone does not export.

use prometheus::{IntCounter, IntGauge};

use super::Metrics;

/// The metrics of a node of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterMetrics {
    /// Whether Redis answers: 1 or 0.
    pub redis_up: IntGauge,
    /// Nodes that live, with this one.
    pub nodes: IntGauge,
    /// Partitions that this node owns.
    pub partitions: IntGauge,
    /// Batches of events that Redis has taken.
    pub commits: IntCounter,
    /// Batches that wait for Redis.
    pub in_flight: IntGauge,
    /// Partitions that another node took from this one.
    pub fenced: IntCounter,
    /// Events that were handed to other nodes.
    pub forwarded: IntCounter,
    /// Partitions that this node took.
    pub takeovers: IntCounter,
    /// Partitions that this node put again after Redis had lost something of them.
    pub healed: IntCounter,
    /// Other nodes that this node gave up.
    pub gone: IntCounter,
    /// Times that this node began anew because the others had given it up.
    pub reborn: IntCounter,
}

impl ClusterMetrics {
    /// Adds them to the host's metrics.
    ///
    /// # Errors
    /// Where they were added before.
    pub fn register(metrics: &Metrics) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("cluster_{name}_total"), help)?;
            metrics.registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("cluster_{name}"), help)?;
            metrics.registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        Ok(Self {
            redis_up: gauge("redis_up", "Whether Redis answers")?,
            nodes: gauge("nodes", "Nodes that live, with this one")?,
            partitions: gauge("partitions", "Partitions that this node owns")?,
            commits: counter("commits", "Batches of events that Redis has taken")?,
            in_flight: gauge("commits_in_flight", "Batches of events that wait for Redis")?,
            fenced: counter("fenced", "Partitions that another node took from this one")?,
            forwarded: counter("forwarded", "Events that were handed to other nodes")?,
            takeovers: counter("takeovers", "Partitions that this node took")?,
            healed: counter("healed", "Partitions put again after Redis had lost something of them")?,
            gone: counter("nodes_gone", "Other nodes that this node gave up")?,
            reborn: counter("reborn", "Times that this node began anew, because the others had given it up")?,
        })
    }
}
