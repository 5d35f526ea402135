//! The real binary under Valgrind's callgrind, which counts every instruction of the process outside of the kernel,
//! components included. The cost of a path can so be compared between machines, however busy or slow.

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
    /// Whether this machine can run one.
    ///
    /// # Errors
    /// The missing requirement.
    pub fn is_possible() -> Result<(), &'static str> {
        // vgdb stops and queries a process that runs under Valgrind.
        let is_there = |program: &str| Command::new(program).arg("--help").output().is_ok();
        if is_there("valgrind") && is_there("vgdb") { Ok(()) } else { Err("there is no valgrind") }
    }

    /// Starts a host in a folder with a configuration, and does not count yet. Compiling a component for the processor
    /// that Valgrind shows takes ten seconds, once.
    ///
    /// # Panics
    /// Where it cannot be started.
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
    /// Where callgrind does not obey.
    pub fn begin(&self) {
        self.send_command(&["instrumentation", "on"]);
    }

    /// The instructions since the last call, or since counting began.
    ///
    /// # Panics
    /// Where callgrind does not obey.
    pub fn take(&mut self) -> u64 {
        self.send_command(&["dump"]);
        self.n_dumps += 1;
        let path = format!("{}.{}", self.dumps.display(), self.n_dumps);
        let dump = fs::read_to_string(&path).expect("callgrind writes what it has counted");
        let total = dump.lines().find_map(|line| line.strip_prefix("totals: "));
        total.and_then(|total| total.parse().ok()).expect("callgrind writes a total")
    }

    /// Passes a command on by vgdb, which would wait for ever where the host has died.
    fn send_command(&self, what: &[&str]) {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", &TIMEOUT.as_secs().to_string(), "vgdb"]);
        let output = command.arg(format!("--pid={}", self.host.pid())).args(what).output().expect("vgdb runs");
        let (status, said) = (output.status, String::from_utf8_lossy(&output.stderr));
        assert!(status.success(), "the host does not do as vgdb tells it ({what:?}): {status} {said}");
    }
}
