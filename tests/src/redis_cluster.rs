//! A Redis Cluster of three servers, which share the slots out among them.

use std::process::Command;

use crate::process::wait_until;
use crate::redis::TestRedis;

/// A running Redis Cluster, whose servers are killed when this value is dropped.
#[derive(Debug)]
pub struct TestRedisCluster {
    servers: Vec<TestRedis>,
}

impl TestRedisCluster {
    /// Starts three servers, and waits until they serve all slots.
    ///
    /// # Errors
    /// If Redis is not installed, with the reason.
    ///
    /// # Panics
    /// If they cannot be made a cluster.
    pub fn start() -> Result<Self, String> {
        let servers = (0..3).map(|_| TestRedis::start_clustered()).collect::<Result<Vec<_>, _>>()?;
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "create"]).args(servers.iter().map(TestRedis::address)).arg("--cluster-yes");
        let output = command.output().expect("redis-cli runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        wait_until("all servers know the slots", || {
            servers.iter().all(|server| server.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        });
        Ok(Self { servers })
    }

    /// The URL of the cluster, with its first server alone: the others are found.
    pub fn url(&self) -> String {
        format!("redis+cluster://{}", self.servers[0].address())
    }

    /// The servers.
    pub fn servers(&self) -> &[TestRedis] {
        &self.servers
    }
}
