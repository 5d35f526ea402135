//! A Redis server, in a folder of its own, on a free port.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::process::{find_program, free_port, send_signal, wait_until};

/// What a server has after a start that follows its death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing, or what it had at [`TestRedis::restart_with_data`].
    None,
    /// Everything that it answered: each command is written to a file before its answer.
    AppendOnly,
}

/// A running server, which is killed when this value is dropped.
#[derive(Debug)]
pub struct TestRedis {
    dir: TempDir,
    port: u16,
    persistence: Persistence,
    /// The password of its clients, and of the server that it follows.
    password: Option<&'static str>,
    /// Whether it is part of a Redis Cluster.
    is_clustered: bool,
    child: Option<Child>,
}

impl TestRedis {
    /// Starts a server that keeps everything in memory.
    ///
    /// # Errors
    /// If Redis is not installed, with the reason.
    pub fn start() -> Result<Self, String> {
        Self::start_with(Persistence::None)
    }

    /// Starts a server.
    ///
    /// # Errors
    /// If Redis is not installed, with the reason.
    pub fn start_with(persistence: Persistence) -> Result<Self, String> {
        Self::start_as(persistence, None, false)
    }

    /// Starts a server that asks its clients for a password.
    ///
    /// # Errors
    /// If Redis is not installed, with the reason.
    pub fn start_with_password(password: &'static str) -> Result<Self, String> {
        Self::start_as(Persistence::None, Some(password), false)
    }

    /// Starts a server that is to be part of a Redis Cluster.
    ///
    /// # Errors
    /// If Redis is not installed, with the reason.
    pub(crate) fn start_clustered() -> Result<Self, String> {
        Self::start_as(Persistence::None, None, true)
    }

    fn start_as(persistence: Persistence, password: Option<&'static str>, is_clustered: bool) -> Result<Self, String> {
        for program in ["redis-server", "redis-cli"] {
            find_program(program).ok_or_else(|| format!("Redis is not installed (no {program} in PATH)"))?;
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self { dir, port: free_port(), persistence, password, is_clustered, child: None };
        server.run();
        Ok(server)
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// The address of the server, as `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server, by SIGKILL.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().expect("the server can be killed");
        child.wait().expect("the server can be waited for");
    }

    /// Kills the server if it runs, and starts it without data.
    pub fn restart_empty(&mut self) {
        self.kill();
        for name in ["dump.rdb", "appendonlydir"] {
            let path = self.dir.path().join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            assert!(removed.is_ok() || !path.exists(), "{} can be removed", path.display());
        }
        self.run();
    }

    /// Kills the server, and starts it with its data: that of this moment if it runs, else that of its last such start
    /// or, by its append-only file, that of its death.
    pub fn restart_with_data(&mut self) {
        if self.child.is_some() && self.persistence == Persistence::None {
            assert_eq!(self.cli(&["SAVE"]), "OK");
        }
        self.kill();
        self.run();
    }

    /// Suspends the server: it accepts connections, and answers nothing.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets the suspended server go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        send_signal(self.child.as_ref().expect("the server runs").id(), name);
    }

    /// Runs a command of Redis by `redis-cli`. Returns the answer.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, self.password, arguments).unwrap_or_else(|why| panic!("{arguments:?}: {why}; {}", self.log()))
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Makes this server a replica of `primary`, and waits until it has its data.
    pub fn follow(&self, primary: &Self) {
        self.cli(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
        wait_until("the replica is connected", || {
            let state = self.cli(&["INFO", "replication"]);
            state.contains("master_link_status:up") && state.contains("master_sync_in_progress:0")
        });
    }

    fn run(&mut self) {
        let appends = if self.persistence == Persistence::AppendOnly { "yes" } else { "no" };
        let port = self.port.to_string();
        // The server is killed and not the machine, so what it has written is safe with the kernel. A slow disk must not hold it up.
        let mut arguments =
            vec!["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", appends, "--appendfsync", "no"];
        // A replica is served at once, and not after five seconds in which others might come.
        arguments.extend(["--repl-diskless-sync-delay", "0"]);
        if let Some(password) = self.password {
            arguments.extend(["--requirepass", password, "--masterauth", password]);
        }
        // The port for other servers, which is ten thousand higher by default, and so may not exist.
        let bus = free_port().to_string();
        if self.is_clustered {
            arguments.extend(["--cluster-enabled", "yes", "--cluster-port", &bus]);
        }
        self.child = Some(spawn("redis-server", self.dir.path(), &arguments));
        wait_until("Redis answers", || cli(self.port, self.password, &["PING"]).is_ok_and(|answer| answer == "PONG"));
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The server may have ended before.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a server's program in its folder, with its log there.
pub(crate) fn spawn(program: &str, dir: &Path, arguments: &[&str]) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).expect("a log can be made");
    let errors = log.try_clone().expect("a file can be shared");
    let mut command = Command::new(program);
    command.current_dir(dir).args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
    command.spawn().unwrap_or_else(|error| panic!("{program} cannot be run: {error}"))
}

/// Runs a command of Redis at a port. Returns the answer, or the reason for none.
pub(crate) fn cli(port: u16, password: Option<&str>, arguments: &[&str]) -> Result<String, String> {
    // A suspended server would be waited for without end.
    let mut command = Command::new("timeout");
    command.args(["5", "redis-cli", "-p", &port.to_string()]).args(arguments);
    command.envs(password.map(|password| ("REDISCLI_AUTH", password)));
    let output = command.output();
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(test: &str, persistence: Persistence) -> Option<TestRedis> {
        TestRedis::start_with(persistence).inspect_err(|why| crate::skip(test, why)).ok()
    }

    #[test]
    fn restarts_keep_or_lose_the_data() {
        let Some(mut redis) = server("restarts_keep_or_lose_the_data", Persistence::None) else { return };
        redis.cli(&["SET", "key", "1"]);
        redis.restart_with_data();
        assert_eq!(redis.cli(&["GET", "key"]), "1");
        redis.restart_empty();
        assert_eq!(redis.cli(&["GET", "key"]), "");
    }

    #[test]
    fn append_only_server_keeps_what_it_answered() {
        let Some(mut redis) = server("append_only_server_keeps_what_it_answered", Persistence::AppendOnly) else {
            return;
        };
        redis.cli(&["SET", "key", "1"]);
        redis.kill();
        redis.restart_with_data();
        assert_eq!(redis.cli(&["GET", "key"]), "1");
    }

    #[test]
    fn paused_server_answers_when_it_is_resumed() {
        let Some(redis) = server("paused_server_answers_when_it_is_resumed", Persistence::None) else { return };
        redis.pause();
        let port = redis.port();
        let asked = std::thread::spawn(move || cli(port, None, &["PING"]));
        redis.resume();
        assert_eq!(asked.join().expect("no panic"), Ok("PONG".to_owned()));
    }
}
