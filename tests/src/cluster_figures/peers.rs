//! Socket.IO in Node, alone and over its two adapters for Redis.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use roundhouse_tests::TestRedis;

use crate::field::redis_pid;
use crate::generator::TIMEOUT;
use crate::process::{Process, local, on_server_core};
use crate::wire::room_name;

/// How processes of Socket.IO know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adapter {
    /// Not at all: there is one.
    None,
    /// Each event goes to all processes.
    Redis,
    /// Each event goes to the processes that have members of its room.
    Sharded,
}

/// Running processes of Socket.IO.
#[derive(Debug)]
pub(crate) struct Peer {
    adapter: Adapter,
    processes: Vec<Process>,
    addresses: Vec<SocketAddr>,
    redis: Option<TestRedis>,
}

impl Adapter {
    fn name(self) -> &'static str {
        match self {
            Self::None => "socket.io, 1 process",
            Self::Redis => "socket.io, 3 processes, redis-adapter",
            Self::Sharded => "socket.io, 3 processes, sharded adapter",
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/peers/node")
}

/// Installs what the peers need. Returns their versions.
pub(crate) fn prepare() -> anyhow::Result<String> {
    let packages = folder().join("node_modules");
    if !packages.join("@socket.io/redis-adapter").exists() {
        let install = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(folder()).output();
        let install = install.context("npm cannot be run")?;
        ensure!(install.status.success(), "npm ci failed: {}", String::from_utf8_lossy(&install.stderr));
    }
    let mut versions = Vec::new();
    for name in ["socket.io", "@socket.io/redis-adapter", "redis"] {
        let package = std::fs::read(packages.join(name).join("package.json"))?;
        let package: serde_json::Value = serde_json::from_slice(&package)?;
        versions.push(format!("{name} {}", package["version"].as_str().context("a package has a version")?));
    }
    Ok(versions.join(", "))
}

impl Peer {
    pub(crate) fn start(adapter: Adapter) -> anyhow::Result<Self> {
        let redis = match adapter {
            Adapter::None => None,
            _ => Some(on_server_core(TestRedis::start)?.map_err(anyhow::Error::msg)?),
        };
        let mut peer = Self { adapter, processes: Vec::new(), addresses: Vec::new(), redis };
        for _ in 0..if peer.redis.is_some() { 3 } else { 1 } {
            let mut command = Command::new("node");
            match (&peer.redis, adapter) {
                (Some(redis), Adapter::Sharded) => {
                    command.arg(folder().join("socketio-cluster.mjs")).args(["sharded", &redis.url()])
                }
                (Some(redis), _) => command.arg(folder().join("socketio-cluster.mjs")).args(["redis", &redis.url()]),
                (None, _) => command.arg(folder().join("socketio.mjs")),
            };
            let process = Process::start(command, tempfile::tempdir()?, true)?;
            peer.addresses.push(local(process.first_line.trim().parse().context("a server says its port")?));
            peer.processes.push(process);
        }
        Ok(peer)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.adapter.name()
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    pub(crate) fn redis_pid(&self) -> anyhow::Result<Option<u32>> {
        self.redis.as_ref().map(redis_pid).transpose()
    }

    /// Waits until each process, which has members of a room, is subscribed to what concerns them.
    pub(crate) fn wait_until_subscribed(&self, room: usize) -> anyhow::Result<()> {
        let Some(redis) = &self.redis else { return Ok(()) };
        let channel = format!("socket.io#/#{}#", room_name(room));
        let began = Instant::now();
        loop {
            let (subscribed, answer) = match self.adapter {
                Adapter::Sharded => {
                    let answer = redis.cli(&["PUBSUB", "SHARDNUMSUB", &channel]);
                    (answer.lines().last().and_then(|n| n.parse().ok()), answer)
                }
                _ => {
                    let answer = redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]);
                    (Some(answer.matches(" psub=1 ").count()), answer)
                }
            };
            if subscribed == Some(self.processes.len()) {
                return Ok(());
            }
            ensure!(began.elapsed() < TIMEOUT, "not all processes subscribed: {answer}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
