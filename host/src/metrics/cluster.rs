//! The metrics of a node of a cluster, which a host that is alone does not export.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge};

use super::Metrics;

/// The bounds of the buckets of the lag, in seconds: from a Redis beside the host to one that counts as away.
const LAG_BUCKETS: [f64; 9] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 1.0];

/// The metrics of a node of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterMetrics {
    /// Whether Redis answers: 1 or 0.
    pub redis_up: IntGauge,
    /// The time from a command to its answer, in seconds: how far what the cluster knows lags behind what owners have handled.
    pub lag: Histogram,
    /// Nodes that live, with this one.
    pub nodes: IntGauge,
    /// Partitions that this node owns.
    pub partitions: IntGauge,
    /// Batches of events that Redis has taken.
    pub commits: IntCounter,
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
    /// Times that this node joined again because the others had removed it.
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
        let lag =
            HistogramOpts::new("cluster_lag_seconds", "The time until Redis has answered a command, such as a commit");
        let lag = Histogram::with_opts(lag.buckets(LAG_BUCKETS.to_vec()))?;
        metrics.registry.register(Box::new(lag.clone()))?;
        Ok(Self {
            lag,
            redis_up: gauge("redis_up", "Whether Redis answers")?,
            nodes: gauge("nodes", "Nodes that live, with this one")?,
            partitions: gauge("partitions", "Partitions that this node owns")?,
            commits: counter("commits", "Batches of events that Redis has taken")?,
            fenced: counter("fenced", "Partitions that another node took from this one")?,
            forwarded: counter("forwarded", "Events that were handed to other nodes")?,
            takeovers: counter("takeovers", "Partitions that this node took")?,
            healed: counter("healed", "Partitions put again after Redis had lost something of them")?,
            gone: counter("nodes_gone", "Other nodes that this node gave up")?,
            reborn: counter("reborn", "Times that this node began anew, because the others had given it up")?,
        })
    }
}
