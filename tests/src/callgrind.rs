//! The real binary under Valgrind's callgrind, which counts each instruction of the process outside of the kernel,
//! components included. The counts are comparable between machines, however busy or slow.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::{TIMEOUT, TestHost};

/// A host whose instructions are counted.
#[derive(Debug)]
pub struct CountedHost {
    /// The host.
    pub host: TestHost,
    dumps: PathBuf,
    n_dumps: u32,
}

impl CountedHost {
    /// Whether this machine can run a counted host.
    ///
    /// # Errors
    /// The missing requirement.
    pub fn is_possible() -> Result<(), &'static str> {
        // vgdb stops and queries processes that run under Valgrind.
        let is_there = |program: &str| Command::new(program).arg("--help").output().is_ok();
        if is_there("valgrind") && is_there("vgdb") { Ok(()) } else { Err("there is no valgrind") }
    }

    /// Starts a host in a folder with a configuration, without counting. Each component is compiled once for the
    /// processor that Valgrind emulates, which takes ten seconds.
    ///
    /// # Panics
    /// If the host cannot be started.
    pub fn start(dir: TempDir, toml: &str) -> Self {
        fs::write(dir.path().join("roundhouse.toml"), toml).expect("a configuration can be written");
        let dumps = dir.path().join("callgrind");
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=callgrind", "--instr-atstart=no"]);
        command.arg(format!("--callgrind-out-file={}", dumps.display())).arg(TestHost::binary());
        let command = TestHost::in_folder(command, dir.path());
        Self { host: TestHost::start_by(command, dir, &[]), dumps, n_dumps: 0 }
    }

    /// Begins to count, which makes the host fifty times slower.
    ///
    /// # Panics
    /// If callgrind does not obey.
    pub fn begin(&self) {
        self.send_command(&["instrumentation", "on"]);
    }

    /// The number of instructions since the last call, or since counting began.
    ///
    /// # Panics
    /// If callgrind does not obey.
    pub fn take(&mut self) -> u64 {
        self.send_command(&["dump"]);
        self.n_dumps += 1;
        let path = format!("{}.{}", self.dumps.display(), self.n_dumps);
        let dump = fs::read_to_string(&path).expect("callgrind writes what it has counted");
        let total = dump.lines().find_map(|line| line.strip_prefix("totals: "));
        total.and_then(|total| total.parse().ok()).expect("callgrind writes a total")
    }

    /// Sends a command to callgrind by vgdb, with a time-out because vgdb waits for ever if the host has died.
    fn send_command(&self, what: &[&str]) {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", &TIMEOUT.as_secs().to_string(), "vgdb"]);
        let output = command.arg(format!("--pid={}", self.host.pid())).args(what).output().expect("vgdb runs");
        let (status, said) = (output.status, String::from_utf8_lossy(&output.stderr));
        assert!(status.success(), "the host does not do as vgdb tells it ({what:?}): {status} {said}");
    }
}
