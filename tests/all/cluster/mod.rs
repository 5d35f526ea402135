//! Several hosts over a Redis, which behave as one.

mod agents;
mod answers;
mod fault_bench;
mod presence;
mod recovery;
mod redis_cluster;
mod swaps;

use roundhouse_tests::{TestCluster, skip};

/// A cluster of this many hosts that know each other; `None` if Redis is not installed.
async fn cluster(test: &str, nodes: usize) -> Option<TestCluster> {
    let cluster = TestCluster::start(nodes).inspect_err(|why| skip(test, why)).ok()?;
    cluster.wait_until_whole().await;
    Some(cluster)
}
