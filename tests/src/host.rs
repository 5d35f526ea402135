//! The real binary, in a folder of its own, on free ports.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::send_signal;
use crate::{Answer, NOTHING, TIMEOUT, TestClient, eventually, http, http_within, target_dir};

/// The event that marks the end of received frames: a service may emit it to all clients.
const FENCE: &str = "system:notification";

/// A running host, which is killed when this value is dropped.
#[derive(Debug)]
pub struct TestHost {
    child: Child,
    /// `None` during a restart only.
    dir: Option<TempDir>,
    /// The address for clients, as `ws://127.0.0.1:PORT`.
    pub ws: String,
    /// The address of the API, as `http://127.0.0.1:PORT`.
    pub api: String,
    /// The API key.
    pub key: String,
}

impl TestHost {
    /// Starts a host in development mode, which is without configuration.
    pub fn start() -> Self {
        Self::start_with("", &[])
    }

    /// Starts a host with a configuration, and additional environment variables.
    pub fn start_with(toml: &str, env: &[(&str, &str)]) -> Self {
        Self::start_in(configured(toml), env)
    }

    /// Starts a host with a configuration, by a command that executes its arguments, such as `env`.
    pub fn start_under(prefix: &[&str], toml: &str) -> Self {
        let dir = configured(toml);
        let mut command = Self::in_folder(Command::new(prefix[0]), dir.path());
        command.args(&prefix[1..]).arg(Self::binary());
        Self::start_by(command, dir, &[])
    }

    /// Starts a host in a folder, which may be that of an earlier host.
    pub fn start_in(dir: TempDir, env: &[(&str, &str)]) -> Self {
        let command = Self::command(dir.path());
        Self::start_by(command, dir, env)
    }

    /// Starts a host by a command that is the host's binary or executes it.
    pub fn start_by(command: Command, dir: TempDir, env: &[(&str, &str)]) -> Self {
        Self::start_at(["127.0.0.1:0"; 2], command, dir, env)
    }

    /// Starts a host that listens at these addresses, for clients and for the API.
    fn start_at([listen, api]: [&str; 2], mut command: Command, dir: TempDir, env: &[(&str, &str)]) -> Self {
        // One cache for all tests, so that each component is compiled once.
        command.env("ROUNDHOUSE_PLUGINS__CACHE", target_dir().join("compiled-for-tests"));
        // No leeway is needed, because the host and the tests have the same clock.
        command.env("ROUNDHOUSE_AUTH__JWT__LEEWAY", "0s");
        command.args(["serve", "--listen", listen, "--api", api]).envs(env.iter().copied());
        if dir.path().join("roundhouse.toml").exists() {
            command.args(["--config", "roundhouse.toml"]);
        }
        let log = fs::File::options().create(true).append(true).open(dir.path().join("log"));
        let log = log.expect("a log can be made");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("the host can be started");
        let mut first_line = String::new();
        let stdout = child.stdout.take().expect("standard output is piped");
        BufReader::new(stdout).read_line(&mut first_line).expect("the host writes a line");
        let Ok(line) = serde_json::from_str::<Value>(&first_line) else {
            panic!("the host did not start: {}", fs::read_to_string(dir.path().join("log")).unwrap_or_default());
        };
        assert_eq!(line["pid"], child.id());
        let text = |key: &str| line[key].as_str().expect("the first line says where").to_owned();
        let (ws, api) = (text("listening"), text("api"));
        let key = fs::read_to_string(dir.path().join(".roundhouse/api-key")).unwrap_or_default();
        Self { child, dir: Some(dir), ws, api, key }
    }

    /// Kills the process, by SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process can be waited for");
    }

    /// Starts another host in the folder of this one, which must have ended. The ports change.
    pub fn restart(&mut self) {
        self.restart_at(["127.0.0.1:0"; 2], &[]);
    }

    /// Starts another host in the folder of this one, which must have ended, at these addresses for clients and the API.
    pub fn restart_at(&mut self, addresses: [&str; 2], env: &[(&str, &str)]) {
        let dir = self.dir.take().expect("there is a folder");
        *self = Self::start_at(addresses, Self::command(dir.path()), dir, env);
    }

    /// The path of the host's binary, beside the folder that this test was built into.
    pub fn binary() -> PathBuf {
        let test = std::env::current_exe().expect("a test has a path");
        let folder = test.ancestors().find(|folder| folder.join("roundhouse").is_file());
        folder.expect("the host is built: run `cargo build --release`").join("roundhouse")
    }

    /// A command that runs the host's binary in `dir`, without the configuration in this process's environment.
    pub fn command(dir: &Path) -> Command {
        Self::in_folder(Command::new(Self::binary()), dir)
    }

    /// Lets a command run in `dir`, without the configuration in this process's environment.
    pub fn in_folder(mut command: Command, dir: &Path) -> Command {
        command.current_dir(dir).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROUNDHOUSE_")) {
            command.env_remove(name);
        }
        command
    }

    /// The folder that the host runs in.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("there is a folder").path()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The host's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// A token for a user of this name, made by the command line.
    pub fn token(&self, user: &str) -> String {
        self.token_with(user, &[])
    }

    /// A token made by the command line, with additional arguments.
    pub fn token_with(&self, user: &str, args: &[&str]) -> String {
        let mut command = Self::command(self.dir());
        command.args(["token", "--user", user]).args(args);
        if self.dir().join("roundhouse.toml").exists() {
            command.args(["--config", "roundhouse.toml"]);
        }
        let output = command.output().expect("the command runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token is text").trim().to_owned()
    }

    /// A client connected as `user`, whose name is the id capitalised.
    pub async fn client(&self, user: &str) -> TestClient {
        self.client_with(user, &[]).await
    }

    /// A client connected as `user`, with additional arguments for its token.
    pub async fn client_with(&self, user: &str, args: &[&str]) -> TestClient {
        let name = user[..1].to_uppercase() + &user[1..];
        TestClient::connect(&self.ws, &self.token_with(user, &[&["--name", &name], args].concat())).await
    }

    /// Runs `roundhouse plugin …` against this host. Returns whether it succeeded, and its output.
    pub fn plugin(&self, args: &[&str]) -> (bool, String) {
        self.plugin_at(&self.api, args)
    }

    /// Runs `roundhouse plugin …` against the API at `api`. Returns whether it succeeded, and its output.
    pub fn plugin_at(&self, api: &str, args: &[&str]) -> (bool, String) {
        let mut command = Self::command(self.dir());
        let output = command.arg("plugin").args(args).args(["--api", api]).output().expect("the command runs");
        let text = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        (output.status.success(), text.into_owned())
    }

    /// Calls the API with the host's key.
    pub async fn call(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        http(&self.api, method, path, &[("authorization", &format!("Bearer {}", self.key))], body)
            .await
            .expect("an answer")
    }

    /// Calls the API with the host's key, where the answer may take longer than others do.
    ///
    /// # Errors
    /// If no answer arrives within `limit`.
    pub async fn call_within(
        &self,
        limit: Duration,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let key = format!("Bearer {}", self.key);
        http_within(limit, &self.api, method, path, &[("authorization", &key)], body).await
    }

    /// Calls the API with JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, body.to_string()).await
    }

    /// Calls the API with JSON that must be refused. Returns the status, and the code and message of the error.
    pub async fn post_refused(&self, path: &str, body: &Value) -> (u16, String, String) {
        let answer = self.post(path, body).await;
        assert!(answer.status >= 400, "{body}: {}", answer.text);
        let text = |field: &str| answer.body[field].as_str().expect("an error has code and message").to_owned();
        (answer.status, text("code"), text("message"))
    }

    /// Posts an event as a service. Returns the feature's answer, or the error.
    pub async fn post_event(&self, event: &str, data: Value) -> Result<Value, Value> {
        self.post("/v1/events", &json!({ "event": event, "data": data })).await.into_result()
    }

    /// Posts an event that must be refused. Returns the error's code.
    pub async fn post_event_refused(&self, event: &str, data: Value) -> String {
        self.post_refused("/v1/events", &json!({ "event": event, "data": data })).await.1
    }

    /// Queries a feature as a service. Returns the feature's answer, or the error.
    pub async fn query(&self, plugin: &str, query: &str, data: Value) -> Result<Value, Value> {
        self.post(&format!("/v1/query/{plugin}/{query}"), &data).await.into_result()
    }

    /// The frames that each client has received since the last call, up to the last that the host has sent.
    pub async fn received<const N: usize>(&self, clients: [&mut TestClient; N]) -> [Vec<Value>; N] {
        static N_FENCES: AtomicU64 = AtomicU64::new(0);
        // The fence reaches all clients after every frame that was sent before it.
        let number = json!(N_FENCES.fetch_add(1, Ordering::Relaxed));
        self.post_event(FENCE, json!({ "fence": number })).await.expect("everybody is told");
        let mut heard = [NOTHING; N];
        for (client, heard) in clients.into_iter().zip(&mut heard) {
            loop {
                let frame = client.next().await;
                match frame["data"].get("fence") {
                    Some(fence) if *fence == number => break,
                    // The fence of an earlier call is skipped.
                    Some(_) => {}
                    None => heard.push(frame),
                }
            }
        }
        heard
    }

    /// Gets JSON from the API.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.body
    }

    /// Loads a component through the API. Returns the response.
    pub async fn try_load(&self, name: &str, component: Vec<u8>) -> Answer {
        self.call("PUT", &format!("/v1/plugins/{name}"), component).await
    }

    /// Loads a component, which the host must accept.
    pub async fn load(&self, name: &str, component: Vec<u8>) -> Value {
        let answer = self.try_load(name, component).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body
    }

    /// The API's report of a plugin.
    pub async fn report(&self, name: &str) -> Value {
        self.get(&format!("/v1/plugins/{name}")).await
    }

    /// A plugin's own stats.
    pub async fn stats(&self, name: &str) -> Value {
        self.report(name).await["stats"].take()
    }

    /// Waits until a plugin's own stats equal `wanted`.
    pub async fn wait_for_stats(&self, name: &str, wanted: Value) {
        self.wait_for_report(name, |report| report["stats"] == wanted).await;
    }

    /// Waits until `wanted` is true of a plugin's report. Returns the report.
    pub async fn wait_for_report(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the report of {name}"), async || {
            let report = self.call("GET", &format!("/v1/plugins/{name}"), "").await.body;
            wanted(&report).then_some(report)
        })
        .await
    }

    /// Locks the host's SQLite file against writes until the returned connection is dropped.
    pub fn lock_store(&self) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(self.dir().join("roundhouse.db")).expect("the store is a file");
        database.execute_batch("PRAGMA busy_timeout = 10000; BEGIN EXCLUSIVE").expect("the store can be locked");
        database
    }

    /// Sends the host SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends the host a signal.
    pub fn signal(&self, name: &str) {
        send_signal(self.pid(), name);
    }

    /// The exit status of the host, if it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits until the host has ended.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.exit_status() {
                return status;
            }
            assert!(Instant::now() < deadline, "the host did not end in time: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A new folder with a configuration, unless that is empty.
fn configured(toml: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    if !toml.is_empty() {
        fs::write(dir.path().join("roundhouse.toml"), toml).expect("a configuration can be written");
    }
    dir
}

impl Drop for TestHost {
    fn drop(&mut self) {
        // The host may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
