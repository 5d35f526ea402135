//! Roundhouse, its peers and the floors: how each server is built, found and started.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use roundhouse_tests::bench::{LIMITS, SECRET, say};
use roundhouse_tests::{guests, target_dir};
use serde_json::{Value, json};

use crate::generator::TIMEOUT;
use crate::options::{Merging, Options, Workload};
use crate::process::{Process, free_port, local};
use crate::wire::Wire;

/// The kind of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A build of the host, over one of its protocols.
    Roundhouse {
        binary: PathBuf,
    },
    /// A program in Node.
    Node {
        script: PathBuf,
    },
    Socketioxide {
        binary: PathBuf,
    },
    Nats,
    Floor(Merging),
}

/// A server that takes part.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) wire: Wire,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) spec: Spec,
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

/// All servers that take part, ready to be started, and their versions.
pub(crate) struct Field {
    pub(crate) specs: Vec<Spec>,
    pub(crate) versions: Value,
    /// The relay component of the hosts.
    pub(crate) relay: Vec<u8>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Runs a command to its end. Returns its output.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds or finds the servers. A missing peer is left out, with a message.
pub(crate) fn prepare(options: &Options) -> anyhow::Result<Field> {
    let mut specs = Vec::new();
    let mut versions = serde_json::Map::new();
    prepare_hosts(options, &mut specs, &mut versions)?;
    prepare_peers(options, &mut specs, &mut versions)?;
    for (name, merging) in [("floor", Merging::Separate), ("floor-merged", Merging::Merged)] {
        if is_wanted(options, name) {
            specs.push(Spec { name: name.to_owned(), kind: Kind::Floor(merging), wire: Wire::Floor });
        }
    }
    ensure!(!specs.is_empty(), "no server is left: install what is missing, or name others by --servers");
    Ok(Field { specs, versions: Value::Object(versions), relay: guests::relay() })
}

fn is_wanted(options: &Options, name: &str) -> bool {
    options.servers.is_empty() || options.servers.iter().any(|wanted| wanted == name)
}

/// Builds the host, or takes the given builds, over each protocol.
fn prepare_hosts(
    options: &Options,
    specs: &mut Vec<Spec>,
    versions: &mut serde_json::Map<String, Value>,
) -> anyhow::Result<()> {
    let build = |args: &[&str]| {
        say("building the host")?;
        output(
            cargo().args(["build", "--release"]).args(args).current_dir(root()).env("CARGO_TARGET_DIR", target_dir()),
        )
    };
    let hosts = if options.hosts.is_empty() {
        if is_wanted(options, "roundhouse") || is_wanted(options, "roundhouse-socketio") {
            build(&[])?;
        }
        vec![(String::new(), target_dir().join("release/roundhouse"))]
    } else {
        if is_wanted(options, "roundhouse") && options.wants(Workload::Plugin) {
            // The echo is always built from the present sources.
            build(&["-p", "roundhouse-tests", "--bin", "conformance"])?;
        }
        options.hosts.clone()
    };
    for (label, binary) in hosts {
        let name = |name: &str| if label.is_empty() { name.to_owned() } else { format!("{name}:{label}") };
        for (base, wire) in [("roundhouse", Wire::Plain), ("roundhouse-socketio", Wire::SocketIo)] {
            if is_wanted(options, base) {
                specs.push(Spec { name: name(base), kind: Kind::Roundhouse { binary: binary.clone() }, wire });
            }
        }
        versions.insert(name("roundhouse"), json!(output(Command::new(&binary).arg("--version"))?));
    }
    Ok(())
}

/// Builds and finds the peers.
fn prepare_peers(
    options: &Options,
    specs: &mut Vec<Spec>,
    versions: &mut serde_json::Map<String, Value>,
) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/peers");
    if is_wanted(options, "socket.io") || is_wanted(options, "ws") {
        match prepare_node(&folder.join("node")) {
            Ok(found) => {
                versions.extend(found);
                for (name, wire) in [("socket.io", Wire::SocketIo), ("ws", Wire::Bare)] {
                    let script = folder.join("node").join(name.replace('.', "")).with_extension("mjs");
                    specs.extend(is_wanted(options, name).then(|| Spec {
                        name: name.to_owned(),
                        kind: Kind::Node { script },
                        wire,
                    }));
                }
            }
            Err(why) => leave_out("socket.io and ws", "install Node 20 or newer with npm", &why)?,
        }
    }
    if is_wanted(options, "socketioxide") {
        match prepare_socketioxide(&folder.join("socketioxide")) {
            Ok((binary, version)) => {
                versions.insert("socketioxide".to_owned(), json!(version));
                specs.push(Spec {
                    name: "socketioxide".to_owned(),
                    kind: Kind::Socketioxide { binary },
                    wire: Wire::SocketIo,
                });
            }
            Err(why) => leave_out("socketioxide", "it is built from a registry, which must be within reach", &why)?,
        }
    }
    if is_wanted(options, "nats") {
        match output(Command::new("nats-server").arg("--version")) {
            Ok(version) => {
                versions.insert("nats".to_owned(), json!(version));
                specs.push(Spec { name: "nats".to_owned(), kind: Kind::Nats, wire: Wire::Nats });
            }
            Err(why) => leave_out("nats", "install nats-server, on Debian by apt-get", &why)?,
        }
    }
    Ok(())
}

fn leave_out(name: &str, how: &str, why: &anyhow::Error) -> anyhow::Result<()> {
    say(&format!("LEFT OUT: {name} ({how}): {why:#}"))
}

fn prepare_node(folder: &Path) -> anyhow::Result<serde_json::Map<String, Value>> {
    let node = output(Command::new("node").arg("--version"))?;
    if !folder.join("node_modules").exists() {
        output(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(folder))?;
    }
    let mut versions = serde_json::Map::new();
    versions.insert("node".to_owned(), json!(node));
    for name in ["socket.io", "ws"] {
        let package = fs::read(folder.join("node_modules").join(name).join("package.json"))?;
        versions.insert(name.to_owned(), serde_json::from_slice::<Value>(&package)?["version"].take());
    }
    Ok(versions)
}

fn prepare_socketioxide(folder: &Path) -> anyhow::Result<(PathBuf, String)> {
    let target = target_dir().join("peers");
    output(cargo().args(["build", "--release", "--locked"]).current_dir(folder).env("CARGO_TARGET_DIR", &target))?;
    let lock = fs::read_to_string(folder.join("Cargo.lock"))?;
    let version = lock.split("name = \"socketioxide\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
    Ok((target.join("release/roundhouse-peer-socketioxide"), version.context("no version is locked")?.to_owned()))
}

impl Field {
    /// Starts a server.
    pub(crate) fn start(&self, spec: &Spec) -> anyhow::Result<Server> {
        let dir = tempfile::tempdir()?;
        let (process, address) = match &spec.kind {
            Kind::Roundhouse { binary } => self.start_host(binary, dir)?,
            Kind::Nats => start_nats(dir)?,
            Kind::Node { script } => {
                let mut command = Command::new("node");
                command.arg(script);
                start_on_own_port(command, dir)?
            }
            Kind::Socketioxide { binary } => start_on_own_port(Command::new(binary), dir)?,
            Kind::Floor(merging) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["--floor", merging.name()]);
                start_on_own_port(command, dir)?
            }
        };
        Ok(Server { spec: spec.clone(), process, address })
    }

    /// A host with one shard, one plugin thread and defaults, except for the rate of clients.
    fn start_host(&self, binary: &Path, dir: tempfile::TempDir) -> anyhow::Result<(Process, SocketAddr)> {
        fs::create_dir(dir.path().join("plugins.d"))?;
        fs::write(dir.path().join("plugins.d/relay.wasm"), &self.relay)?;
        let config = format!("shards = 1\nauth.jwt.secret = \"{SECRET}\"\n{LIMITS}plugins.threads = 1\n");
        fs::write(dir.path().join("roundhouse.toml"), config)?;
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROUNDHOUSE_")) {
            command.env_remove(name);
        }
        command.env("ROUNDHOUSE_PLUGINS__CACHE", target_dir().join("compiled-for-tests"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--config", "roundhouse.toml"]);
        let process = Process::start(command, dir, true)?;
        let line: Value = serde_json::from_str(&process.first_line).context("the host wrote no JSON")?;
        let address = line["listening"].as_str().context("the host says where it listens")?;
        let address = address.trim_start_matches("ws://").parse()?;
        Ok((process, address))
    }
}

fn start_on_own_port(command: Command, dir: tempfile::TempDir) -> anyhow::Result<(Process, SocketAddr)> {
    let process = Process::start(command, dir, true)?;
    let port = process.first_line.trim().parse().context("a server says its port")?;
    Ok((process, local(port)))
}

fn start_nats(dir: tempfile::TempDir) -> anyhow::Result<(Process, SocketAddr)> {
    let address = local(free_port()?);
    let config = format!("listen: \"127.0.0.1:-1\"\nwebsocket {{ listen: \"{address}\", no_tls: true }}\n");
    fs::write(dir.path().join("nats.conf"), config)?;
    let mut command = Command::new("nats-server");
    command.args(["--config", "nats.conf"]);
    let process = Process::start(command, dir, false)?;
    let deadline = Instant::now() + TIMEOUT;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            bail!("nats-server does not listen: {}", process.log());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok((process, address))
}
