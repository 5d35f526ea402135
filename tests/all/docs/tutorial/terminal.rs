//! The reader's terminals: the first, where commands end, and others, each with a program that keeps running.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use roundhouse_tests::TIMEOUT;
use serde_json::Value;

use super::page::line_matches;

/// The addresses of clients and of the API on the page.
const PORTS_ON_THE_PAGE: [&str; 2] = ["127.0.0.1:8080", "127.0.0.1:8081"];

/// All terminals of the page.
#[derive(Debug)]
pub(super) struct Terminals {
    /// The working folder of the first terminal, where others open too.
    pub(super) folder: PathBuf,
    programs: HashMap<String, Program>,
    /// The real addresses of clients and of the API, once the host runs.
    ports: Option<[String; 2]>,
}

/// A running program, and the reader of its output.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    /// A line that was read before it was expected.
    looked_at: Option<String>,
    /// The file of the program's standard error.
    log: PathBuf,
}

impl Terminals {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, programs: HashMap::new(), ports: None }
    }

    /// Replaces the page's ports in a text by those of the host.
    pub(super) fn with_real_ports(&self, text: &str) -> String {
        let pairs = PORTS_ON_THE_PAGE.iter().zip(self.ports.iter().flatten());
        pairs.fold(text.to_owned(), |text, (shown, real)| text.replace(shown, real))
    }

    /// Runs a command in the first terminal. Returns whether it succeeded, and its whole output.
    pub(super) fn run(&mut self, command: &str) -> Result<(bool, String), String> {
        if let Some(folder) = command.strip_prefix("cd ") {
            self.folder.push(folder);
            return Ok((self.folder.is_dir(), String::new()));
        }
        let mut command = self.with_real_ports(command);
        if let Some([_, api]) = &self.ports
            && ["load", "list", "rollback"]
                .iter()
                .any(|verb| command.starts_with(&format!("./roundhouse plugin {verb}")))
        {
            // The page's command uses the default address of the API.
            command += &format!(" --api {api}");
        }
        let output = shell(&format!("{{ {command}; }} 2>&1"), &self.folder).stdin(Stdio::null()).output();
        let output = output.map_err(|error| error.to_string())?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Starts a program in a terminal of its own.
    pub(super) fn start(&mut self, name: &str, command: &str) -> Result<(), String> {
        let is_host = command == "./roundhouse";
        // The page's ports may be taken on this machine.
        let ports = if is_host { " --listen 127.0.0.1:0 --api 127.0.0.1:0" } else { "" };
        let log = self.folder.join(name).with_extension("log");
        let mut program = Program::start(&format!("{command}{ports}"), &self.folder, log)?;
        if is_host {
            self.ports = Some(program.ports()?);
        }
        self.programs.insert(name.to_owned(), program);
        Ok(())
    }

    pub(super) fn program(&mut self, name: &str) -> Result<&mut Program, String> {
        self.programs.get_mut(name).ok_or_else(|| format!("nothing was started in the terminal {name}"))
    }
}

impl Program {
    fn start(command: &str, folder: &Path, log: PathBuf) -> Result<Self, String> {
        let errors = File::create(&log).map_err(|error| error.to_string())?;
        let spawned =
            shell(command, folder).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn();
        let mut child = spawned.map_err(|error| error.to_string())?;
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            // The thread ends with the program, or with the test.
            BufReader::new(stdout).lines().map_while(Result::ok).all(|line| send.send(line).is_ok())
        });
        Ok(Self { child, stdin, lines, looked_at: None, log })
    }

    pub(super) fn type_in(&mut self, text: &str) -> Result<(), String> {
        writeln!(self.stdin, "{text}").map_err(|error| format!("it does not read any more: {error}"))
    }

    /// Waits for a line. With `may_skip`, other lines may come before it.
    pub(super) fn expect(&mut self, shown: &str, may_skip: bool) -> Result<(), String> {
        loop {
            let line = self.next().map_err(|why| format!("{why} instead of {shown:?}"))?;
            if line_matches(shown, &line) {
                return Ok(());
            }
            if !may_skip {
                return Err(format!("{line:?} came instead of {shown:?}"));
            }
        }
    }

    fn next(&mut self) -> Result<String, String> {
        if let Some(line) = self.looked_at.take() {
            return Ok(line);
        }
        self.lines.recv_timeout(TIMEOUT).map_err(|error| {
            let what = match error {
                RecvTimeoutError::Timeout => "nothing came",
                RecvTimeoutError::Disconnected => "it ended",
            };
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            format!("{what} (it logged: {log})")
        })
    }

    /// Interrupts the program, as Ctrl-C does.
    pub(super) fn interrupt(&mut self) -> Result<(), String> {
        self.signal("-INT");
        let deadline = Instant::now() + TIMEOUT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                return Err("it did not end in time".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The addresses of a host that has just started, from its first line.
    fn ports(&mut self) -> Result<[String; 2], String> {
        let first_line = self.next()?;
        let line: Value = serde_json::from_str(&first_line).map_err(|error| format!("{first_line}: {error}"))?;
        self.looked_at = Some(first_line);
        let address = |key: &str, scheme: &str| line[key].as_str()?.strip_prefix(scheme).map(str::to_owned);
        address("listening", "ws://")
            .zip(address("api", "http://"))
            .map(<[String; 2]>::from)
            .ok_or_else(|| format!("the host's first line is {line}"))
    }

    /// Sends a signal to the program's process group, which includes its shell.
    fn signal(&self, signal: &str) {
        // The program may have ended before.
        let _ =
            Command::new("kill").args([signal, "--", &format!("-{}", self.child.id())]).stderr(Stdio::null()).status();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("-KILL");
            let _ = self.child.wait();
        }
    }
}

/// A shell line in a reader's environment, without the variables of this test's own cargo and hosts.
fn shell(line: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder);
    for (name, _) in std::env::vars_os() {
        let is_ours = name.to_str().is_some_and(|name| {
            name.starts_with("ROUNDHOUSE_")
                || name.starts_with("CARGO_") && name != "CARGO_HOME"
                || matches!(name, "RUSTFLAGS" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER" | "RUST_LOG")
        });
        if is_ours {
            command.env_remove(name);
        }
    }
    // The build of this test has fetched all dependencies.
    command.env("CARGO_NET_OFFLINE", "true");
    command
}
