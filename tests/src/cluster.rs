//! Several hosts that behave as one, over a Redis, each in a folder of its own.

use std::fs;

use roundhouse::auth::{Claims, sign};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    CuttableProxy, Persistence, ShiftedClock, SocketIoClient, TestBalancer, TestClient, TestHost, TestPostgres,
    TestRedis, TestRedisCluster, TestSentinel, eventually,
};

/// The secret of the hosts' tokens.
const SECRET: &str = "cluster";
/// The hosts' API key.
const KEY: &str = "cluster-key";
/// The environment of each host: tests keep many files open, and read the log.
const LOG: (&str, &str) = ("RUST_LOG", "info");

/// The Redis that the hosts share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// None: the hosts run apart.
    None,
    /// One server.
    Redis(Persistence),
    /// A primary, a replica and a Sentinel.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The number of hosts.
    pub nodes: usize,
    /// The Redis that the hosts share.
    pub engine: Engine,
    /// Whether each host reaches its Redis through a [`CuttableProxy`] of its own.
    pub is_cuttable: bool,
    /// Whether each host has a wall clock of its own.
    pub has_clocks: bool,
    /// More configuration of each host.
    pub config: String,
}

impl ClusterOptions {
    /// This many hosts over one server.
    pub fn of(nodes: usize) -> Self {
        let engine = Engine::Redis(Persistence::None);
        Self { nodes, engine, is_cuttable: false, has_clocks: false, config: String::new() }
    }
}

/// The servers of Redis.
#[derive(Debug)]
enum Servers {
    None,
    One(TestRedis),
    Sentinel(TestSentinel),
    Cluster(TestRedisCluster),
}

/// A host of the cluster.
#[derive(Debug)]
struct Node {
    host: TestHost,
    proxy: Option<CuttableProxy>,
    clock: Option<ShiftedClock>,
    is_running: bool,
}

/// A running cluster, which is killed when this value is dropped.
#[derive(Debug)]
pub struct TestCluster {
    nodes: Vec<Node>,
    servers: Servers,
    /// The database that the hosts share. It ends after them.
    database: Option<TestPostgres>,
}

impl TestCluster {
    /// Starts this many hosts over one server.
    ///
    /// # Errors
    /// If Redis or PostgreSQL is not installed, with the reason.
    pub fn start(nodes: usize) -> Result<Self, String> {
        Self::start_with(&ClusterOptions::of(nodes))
    }

    /// Starts a cluster.
    ///
    /// # Errors
    /// If Redis or PostgreSQL is not installed, with the reason.
    ///
    /// # Panics
    /// If a host does not start, or is to be cuttable over a Sentinel, which names addresses that lead past the proxies.
    pub fn start_with(options: &ClusterOptions) -> Result<Self, String> {
        let servers = match options.engine {
            Engine::None => Servers::None,
            Engine::Redis(persistence) => Servers::One(TestRedis::start_with(persistence)?),
            Engine::Sentinel => Servers::Sentinel(TestSentinel::start()?),
            Engine::Cluster => Servers::Cluster(TestRedisCluster::start()?),
        };
        assert!(!options.is_cuttable || matches!(servers, Servers::One(_)), "only the way to one server can be cut");
        let database = (!matches!(servers, Servers::None)).then(TestPostgres::start).transpose()?;
        let url = database.as_ref().map(TestPostgres::url);
        let nodes = (0..options.nodes).map(|number| Node::start(number, options, &servers, url.as_deref())).collect();
        Ok(Self { nodes, servers, database })
    }

    /// The number of hosts.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no host.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A host.
    pub fn host(&self, node: usize) -> &TestHost {
        &self.nodes[node].host
    }

    /// The database that the hosts share.
    ///
    /// # Panics
    /// If the hosts are no cluster.
    pub fn database(&self) -> &TestPostgres {
        self.database.as_ref().expect("a cluster has a database")
    }

    /// The server of Redis.
    ///
    /// # Panics
    /// If the cluster has none, or a Sentinel.
    pub fn redis(&mut self) -> &mut TestRedis {
        let Servers::One(redis) = &mut self.servers else { panic!("the cluster has another engine") };
        redis
    }

    /// The Sentinel with its servers.
    ///
    /// # Panics
    /// If the cluster has none.
    pub fn sentinel(&mut self) -> &mut TestSentinel {
        let Servers::Sentinel(sentinel) = &mut self.servers else { panic!("the cluster has another engine") };
        sentinel
    }

    /// The proxy between a host and Redis.
    ///
    /// # Panics
    /// If the cluster is not cuttable.
    pub fn proxy(&self, node: usize) -> &CuttableProxy {
        self.nodes[node].proxy.as_ref().expect("the cluster is cuttable")
    }

    /// The wall clock of a host.
    ///
    /// # Panics
    /// If the hosts have no clocks of their own.
    pub fn clock(&self, node: usize) -> &ShiftedClock {
        self.nodes[node].clock.as_ref().expect("the hosts have clocks of their own")
    }

    /// Whether a host runs; one that is suspended does.
    pub fn is_running(&self, node: usize) -> bool {
        self.nodes[node].is_running
    }

    /// Kills a host, by SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].host.kill();
        self.nodes[node].is_running = false;
    }

    /// Waits until a host has ended that was asked to.
    pub fn wait_for_exit(&mut self, node: usize) {
        self.nodes[node].host.wait_for_exit();
        self.nodes[node].is_running = false;
    }

    /// Starts a killed host again, in its folder and at its addresses.
    pub fn start_again(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let [listen, api] = [&node.host.ws, &node.host.api].map(|url| address(url).to_owned());
        let env = env_of(node.clock.as_ref());
        node.host.restart_at([&listen, &api], &env.each());
        KEY.clone_into(&mut node.host.key);
        node.is_running = true;
    }

    /// Suspends a host, by SIGSTOP.
    pub fn suspend(&self, node: usize) {
        self.nodes[node].host.signal("STOP");
    }

    /// Lets a suspended host go on.
    pub fn resume(&self, node: usize) {
        self.nodes[node].host.signal("CONT");
    }

    /// A token for a user, whose name is the id capitalised.
    pub fn token(user: &str) -> String {
        let name = Some(user[..1].to_uppercase() + &user[1..]);
        sign(&Claims { sub: user.to_owned(), name, ..Claims::default() }, SECRET).expect("a token can be signed")
    }

    /// The hosts' API key, which publishes and administers.
    pub fn key() -> &'static str {
        KEY
    }

    /// A client of the plain protocol, connected to a host.
    pub async fn client(&self, node: usize, user: &str) -> TestClient {
        TestClient::connect(&self.nodes[node].host.ws, &Self::token(user)).await
    }

    /// A client of Socket.IO on a WebSocket, in the main namespace of a host.
    pub async fn socketio_client(&self, node: usize, user: &str) -> SocketIoClient {
        let mut client = SocketIoClient::socket(&self.nodes[node].host.ws).await;
        client.connect("/", &json!({ "token": Self::token(user) })).await.expect("the token is accepted");
        client
    }

    /// A load balancer before all hosts.
    ///
    /// # Errors
    /// If HAProxy is not installed, with the reason.
    pub fn balancer(&self) -> Result<TestBalancer, String> {
        let addresses = |node: &Node| (address(&node.host.ws).to_owned(), address(&node.host.api).to_owned());
        TestBalancer::start(&self.nodes.iter().map(addresses).collect::<Vec<_>>())
    }

    /// The report of a host on its cluster.
    pub async fn report(&self, node: usize) -> Value {
        self.nodes[node].host.get("/v1/cluster").await
    }

    /// Waits until each running host reaches Redis and knows all running hosts, and all partitions are owned.
    pub async fn wait_until_whole(&self) {
        let running: Vec<usize> = (0..self.len()).filter(|node| self.is_running(*node)).collect();
        eventually("the cluster is whole", async || {
            let mut owned = 0;
            let mut total = 0;
            for node in &running {
                let report = self.host(*node).call("GET", "/v1/cluster", "").await.body;
                if report["redis"] != "up" || report["nodes"].as_array()?.len() != running.len() {
                    return None;
                }
                owned += report["partitions"]["owned"].as_u64()?;
                total = report["partitions"]["total"].as_u64()?;
            }
            (owned == total).then_some(())
        })
        .await;
    }
}

impl Node {
    fn start(number: usize, options: &ClusterOptions, servers: &Servers, database: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (url, proxy) = match servers {
            Servers::None => (None, None),
            Servers::One(redis) if options.is_cuttable => {
                let proxy = CuttableProxy::start(&redis.address());
                (Some(format!("redis://{}", proxy.address())), Some(proxy))
            }
            Servers::One(redis) => (Some(redis.url()), None),
            Servers::Sentinel(sentinel) => (Some(sentinel.url()), None),
            Servers::Cluster(cluster) => (Some(cluster.url()), None),
        };
        fs::write(dir.path().join("roundhouse.toml"), config(number, options, url.as_deref(), database))
            .expect("a configuration can be written");
        let clock = options.has_clocks.then(|| ShiftedClock::in_folder(dir.path()));
        let mut host = start_host(dir, clock.as_ref());
        KEY.clone_into(&mut host.key);
        Self { host, proxy, clock, is_running: true }
    }
}

fn start_host(dir: TempDir, clock: Option<&ShiftedClock>) -> TestHost {
    TestHost::start_in(dir, &env_of(clock).each())
}

/// The configuration of a host.
fn config(number: usize, options: &ClusterOptions, redis: Option<&str>, database: Option<&str>) -> String {
    let keys = format!("[[api_keys]]\nname = \"tests\"\nkey = \"{KEY}\"\nscopes = [\"publish\", \"admin\"]\n");
    let cluster = redis.map_or_else(String::new, |url| {
        format!("[cluster]\nredis = \"{url}\"\nname = \"test\"\nnode = \"{}\"\n", name_of(number))
    });
    let store = database.map_or_else(String::new, |url| format!("[store]\nurl = \"{url}\"\n"));
    format!("auth.jwt.secret = \"{SECRET}\"\n{}\n{keys}{cluster}{store}", options.config)
}

/// The name of a host in its cluster: `a`, `b` and so on.
fn name_of(node: usize) -> String {
    char::from(b'a' + u8::try_from(node).expect("few hosts")).to_string()
}

/// Environment variables with values of their own.
struct Env(Vec<(&'static str, String)>);

impl Env {
    fn each(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

fn env_of(clock: Option<&ShiftedClock>) -> Env {
    let mut env = vec![(LOG.0, LOG.1.to_owned())];
    env.extend(clock.into_iter().flat_map(ShiftedClock::env));
    Env(env)
}

fn address(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
