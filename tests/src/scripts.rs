//! The scripts of `tests/clients`, which run third-party clients, and their requirements.

use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::{TestHost, target_dir};

/// The path of the browser for [`Script::in_browser`].
const CHROMIUM: &str = "/usr/bin/chromium";

/// A script that can run on this machine.
#[derive(Debug)]
pub struct Script {
    command: Command,
    name: &'static str,
}

/// A running script.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// A script for Node.
    ///
    /// # Errors
    /// The requirement that is missing on this machine.
    pub fn on_node(name: &'static str) -> Result<Self, &'static str> {
        if !succeeds(Command::new("node").arg("--version")) {
            return Err("there is no node");
        }
        if !folder().join("node_modules/socket.io-client").exists() {
            return Err("run `npm ci` in tests/clients first");
        }
        let mut command = Command::new("node");
        command.arg(folder().join(name));
        Ok(Self { command, name })
    }

    /// A script for Node that drives a browser.
    ///
    /// # Errors
    /// The requirement that is missing on this machine.
    pub fn in_browser(name: &'static str) -> Result<Self, &'static str> {
        if !Path::new(CHROMIUM).exists() {
            return Err("there is no /usr/bin/chromium");
        }
        Self::on_node(name)
    }

    /// A script for Python with python-socketio, from beside the build or from the path.
    ///
    /// # Errors
    /// The requirement that is missing on this machine.
    pub fn on_python(name: &'static str) -> Result<Self, &'static str> {
        let pythons = [target_dir().join("python-socketio/bin/python"), PathBuf::from("python3")];
        let has_client = |python: &&PathBuf| succeeds(Command::new(python).args(["-c", "import aiohttp, socketio"]));
        let python = pythons.iter().find(has_client).ok_or("there is no python with python-socketio and aiohttp")?;
        let mut command = Command::new(python);
        command.arg(folder().join(name));
        Ok(Self { command, name })
    }

    /// Lets a script for Node trust the authorities in this file.
    pub fn trusting(mut self, authorities: &Path) -> Self {
        self.command.env("NODE_EXTRA_CA_CERTS", authorities);
        self
    }

    /// Starts the script with the host's address and additional arguments.
    ///
    /// # Panics
    /// If the script cannot be started.
    pub fn start(mut self, host: &TestHost, args: &[&str]) -> Running {
        self.command.arg(host.ws.replacen("ws", "http", 1));
        self.serve(args)
    }

    /// Starts a script that needs no host.
    ///
    /// # Panics
    /// If the script cannot be started.
    pub fn serve(mut self, args: &[&str]) -> Running {
        // Tokens are left out of the name that a failure shows.
        let told: Vec<&str> = args.iter().copied().filter(|arg| arg.len() < 40).collect();
        let what = format!("{} {}", self.name, told.join(" "));
        let command = self.command.args(args);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the script can be started");
        let stdin = child.stdin.take().expect("standard input is piped");
        let stdout = child.stdout.take().expect("standard output is piped");
        Running { what, child, stdin, lines: BufReader::new(stdout).lines() }
    }

    /// Runs the script to its end, which must be a success.
    ///
    /// # Panics
    /// If a check failed, with the script's output.
    pub fn expect_success(self, host: &TestHost, args: &[&str]) {
        self.start(host, args).expect_success(host);
    }
}

impl Running {
    /// The next line of the script's output; `None` if the script has ended.
    pub fn read_line(&mut self) -> Option<Value> {
        let line = self.lines.next()?.expect("what a script says is text");
        Some(serde_json::from_str(&line).expect("what a script says is JSON"))
    }

    /// Writes a line to the script's input. An error is ignored: [`Running::expect_success`] reports a script that has
    /// ended.
    pub fn write_line(&mut self, line: &Value) {
        let _ = writeln!(self.stdin, "{line}");
    }

    /// Waits for the end of the script, which must be a success.
    ///
    /// # Panics
    /// If a check failed, with the script's output.
    pub fn expect_success(mut self, host: &TestHost) {
        let mut last = None;
        while let Some(line) = self.read_line() {
            last = Some(line);
        }
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().expect("standard error is piped");
        stderr.read_to_string(&mut said).expect("what a script says is text");
        let status = self.child.wait().expect("the script can be waited for");
        assert!(status.success(), "{}: {said}\nthe host's log:\n{}", self.what, host.log());
        let result = last.expect("a script that passes says so");
        assert_eq!(result["ok"], true, "{}: {result}", self.what);
        assert!(result["checks"].as_u64().is_some_and(|checks| checks >= 10), "{}: {result}", self.what);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The script may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
