//! Server processes: pinned to a core, measured through `/proc`, killed at the end of the benchmark.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use roundhouse_tests::bench::resident_bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

/// The core of the servers' threads.
const SERVER_CORE: usize = 0;
/// The core of the generator.
const GENERATOR_CORE: usize = 1;

/// Keeps this thread, and the processes that it starts later, on one core.
fn pin(core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot run on core {core}: two cores are needed"))
}

/// Pins the generator, and raises the limit of open files, also for the processes that it starts.
pub(crate) fn prepare() -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("cannot raise the limit of open files")?;
    pin(GENERATOR_CORE)
}

/// Runs `start` on the servers' core, where the processes that it starts stay.
pub(crate) fn on_server_core<T>(start: impl FnOnce() -> T) -> anyhow::Result<T> {
    pin(SERVER_CORE)?;
    let started = start();
    pin(GENERATOR_CORE)?;
    Ok(started)
}

/// A server in a folder of its own, which is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    dir: TempDir,
    /// The first line of standard output; empty if the server writes none.
    pub(crate) first_line: String,
}

impl Process {
    /// Starts a server on the servers' core. If it writes a first line, waits for that.
    pub(crate) fn start(mut command: Command, dir: TempDir, writes_a_line: bool) -> anyhow::Result<Self> {
        let log = fs::File::create(dir.path().join("log"))?;
        command.current_dir(dir.path()).stdin(Stdio::null()).stderr(log);
        command.stdout(if writes_a_line { Stdio::piped() } else { Stdio::null() });
        let child = on_server_core(|| command.spawn())?.with_context(|| format!("cannot start {command:?}"))?;
        let mut process = Self { child, dir, first_line: String::new() };
        if let Some(stdout) = process.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut process.first_line)?;
            if process.first_line.is_empty() {
                anyhow::bail!("{command:?} did not start: {}", process.log());
            }
        }
        Ok(process)
    }

    /// The standard error of the server.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The resident memory of the server, in bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<f64> {
        resident_bytes(self.pid())
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time of all threads of the server.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(&self.pid().to_string())
    }
}

/// The CPU time of the generator.
pub(crate) fn own_cpu() -> anyhow::Result<Duration> {
    cpu("self")
}

/// The CPU time of all threads of a process, by its id or `self`.
pub(crate) fn cpu(process: &str) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let figures = fs::read_to_string(task?.path().join("schedstat"))?;
        let ran = figures.split(' ').next().context("schedstat is empty")?;
        sum += Duration::from_nanos(ran.parse()?);
    }
    Ok(sum)
}

impl Drop for Process {
    fn drop(&mut self) {
        // The server may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago, for servers that cannot report their own.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The address of a port of this machine.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
