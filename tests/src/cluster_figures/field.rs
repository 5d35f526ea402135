//! The hosts that are measured: one that is alone, and clusters of one to three, each with a Redis of its own.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use roundhouse::cluster::{Partition, View};
use roundhouse::model::NodeId;
use roundhouse_tests::bench::LIMITS;
use roundhouse_tests::{ClusterOptions, Engine, TestCluster, TestHost, TestRedis, guests, metric};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::client::Client;
use crate::process::{cpu, on_server_core};
use crate::wire::{Step, Until, Wire};

/// The number of nodes of the largest cluster.
pub(crate) const MOST_NODES: usize = 3;

/// The beginning of each acknowledgement.
pub(crate) const ACKNOWLEDGED: &[u8] = b"{\"id\":7,";

/// How long and how often the parts measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) rounds: usize,
    /// The time of one measurement.
    pub(crate) time: Duration,
    /// The number of events of one measurement of latency.
    pub(crate) n_asks: usize,
    /// The number of kills.
    pub(crate) n_kills: usize,
}

/// A host that is alone, or a cluster.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) name: &'static str,
    cluster: TestCluster,
    /// Without Redis, `None`.
    redis: Option<u32>,
    redis_address: String,
    /// The nodes that live, and each one's place here.
    view: View,
    numbers: Vec<NodeId>,
}

/// All that is measured. Hosts start when they are first asked for.
pub(crate) struct Field {
    pub(crate) runtime: Runtime,
    /// The folder with the relay component of the hosts.
    plugins: TempDir,
    levels: [Option<Hosts>; MOST_NODES + 1],
}

impl Field {
    pub(crate) fn new(runtime: Runtime) -> anyhow::Result<Self> {
        let plugins = tempfile::tempdir()?;
        fs::write(plugins.path().join("relay.wasm"), guests::relay())?;
        Ok(Self { runtime, plugins, levels: Default::default() })
    }

    /// The host that is alone (0), or the cluster of this many nodes.
    pub(crate) fn level(&mut self, nodes: usize) -> anyhow::Result<&Hosts> {
        if self.levels[nodes].is_none() {
            self.levels[nodes] = Some(self.start(nodes)?);
        }
        self.started(nodes)
    }

    /// The same, which must have been started.
    pub(crate) fn started(&self, nodes: usize) -> anyhow::Result<&Hosts> {
        self.levels[nodes].as_ref().context("the hosts were not started")
    }

    /// Starts a host that is alone (0), or a cluster of this many nodes.
    pub(crate) fn start(&self, nodes: usize) -> anyhow::Result<Hosts> {
        let name = ["alone", "1 node", "2 nodes", "3 nodes"][nodes];
        progress(&format!("starting: {name}"));
        // One shard and one plugin thread: all hosts share one core. A client that is not measured for a while answers
        // no heartbeats.
        let config = format!(
            "shards = 1\n{LIMITS}plugins = {{ threads = 1, dir = {:?} }}\n\
             heartbeat = {{ interval = \"10m\", timeout = \"20m\" }}\n",
            self.plugins.path()
        );
        let options = match nodes {
            0 => ClusterOptions { engine: Engine::None, config, ..ClusterOptions::of(1) },
            _ => ClusterOptions { config, ..ClusterOptions::of(nodes) },
        };
        let cluster = on_server_core(|| TestCluster::start_with(&options))?.map_err(anyhow::Error::msg)?;
        let mut hosts = Hosts {
            name,
            cluster,
            redis: None,
            redis_address: String::new(),
            view: View::default(),
            numbers: Vec::new(),
        };
        if nodes > 0 {
            hosts.learn(&self.runtime)?;
        }
        Ok(hosts)
    }
}

impl Hosts {
    /// Waits until the cluster is whole, and learns its nodes' numbers.
    fn learn(&mut self, runtime: &Runtime) -> anyhow::Result<()> {
        runtime.block_on(self.cluster.wait_until_whole());
        self.numbers.clear();
        for node in 0..self.cluster.len() {
            let report = runtime.block_on(self.cluster.report(node));
            let number = report["number"].as_u64().context("a node has a number")?;
            self.numbers.push(NodeId(u16::try_from(number)?));
        }
        self.view.nodes = self.numbers.iter().map(|number| (*number, Default::default())).collect();
        self.redis_address = self.cluster.redis().address();
        self.redis = Some(redis_pid(self.cluster.redis())?);
        Ok(())
    }

    /// The number of hosts.
    pub(crate) fn len(&self) -> usize {
        self.cluster.len()
    }

    /// Whether the hosts are a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        self.redis.is_some()
    }

    fn each(&self) -> impl Iterator<Item = &TestHost> {
        (0..self.len()).map(|node| self.cluster.host(node))
    }

    pub(crate) fn cluster(&self) -> &TestCluster {
        &self.cluster
    }

    /// Kills a host.
    pub(crate) fn kill(&mut self, node: usize) {
        self.cluster.kill(node);
    }

    /// Starts a killed host again.
    pub(crate) fn start_again(&mut self, node: usize, runtime: &Runtime) -> anyhow::Result<()> {
        on_server_core(|| self.cluster.start_again(node))?;
        self.learn(runtime)
    }

    /// The place of the host that handles the events of a scope.
    pub(crate) fn owner(&self, scope: &str) -> usize {
        let owner = Partition::of(scope).owner(&self.view);
        self.numbers.iter().position(|number| Some(*number) == owner).unwrap_or_default()
    }

    /// The address for clients of a host.
    pub(crate) fn address(&self, node: usize) -> anyhow::Result<SocketAddr> {
        Ok(self.cluster.host(node).ws.trim_start_matches("ws://").parse()?)
    }

    /// The process ids of the hosts.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.each().map(TestHost::pid).collect()
    }

    /// The process id of Redis.
    pub(crate) fn redis_pid(&self) -> Option<u32> {
        self.redis
    }

    /// The address of Redis.
    pub(crate) fn redis_address(&self) -> &str {
        &self.redis_address
    }

    /// Connects a client to a host.
    pub(crate) fn connect(&self, node: usize, user: &str) -> anyhow::Result<Client> {
        Client::connect(self.address(node)?, &sign_in(user))
    }

    /// The sum over all hosts of one of a cluster's metrics; 0 on a host that is alone.
    pub(crate) fn metric(&self, runtime: &Runtime, name: &str) -> f64 {
        if !self.is_cluster() {
            return 0.0;
        }
        self.each().map(|host| runtime.block_on(metric(&host.api, name)) as f64).sum()
    }
}

/// The steps by which a user connects to a host.
pub(crate) fn sign_in(user: &str) -> Vec<Step> {
    let mut steps = Wire::connect_at(&format!("/ws?token={}", TestCluster::token(user)));
    steps.push(Step { send: Vec::new(), until: Until::Contains(b"{\"event\":\"connected\"") });
    steps
}

/// The process id of a Redis.
pub(crate) fn redis_pid(redis: &TestRedis) -> anyhow::Result<u32> {
    let info = redis.cli(&["INFO", "server"]);
    let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).context("Redis has a process")?;
    Ok(pid.trim().parse()?)
}

/// The CPU time of processes, together.
pub(crate) fn cpu_of(pids: impl IntoIterator<Item = u32>) -> anyhow::Result<Duration> {
    pids.into_iter().map(|pid| cpu(&pid.to_string())).sum()
}

/// Says on standard error what is done; standard output has the tables.
pub(crate) fn progress(text: &str) {
    // Standard error may be closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
