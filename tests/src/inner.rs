//! The host within the test's own process, on a clock that the test moves.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roundhouse::auth::{Claims, sign};
use roundhouse::config::{Config, Overrides};
use roundhouse::model::Clock;
use roundhouse::server::Server;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::{Answer, TestClient, http, target_dir};

/// Longer than a shutdown takes if each client answers the close.
const SHUTDOWN_TIME: Duration = Duration::from_secs(1);

/// The time that a host waits for clients that do not answer its close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A host on a clock that the test moves.
#[derive(Debug)]
pub struct InnerHost {
    server: Option<Server>,
    /// The clock.
    pub clock: Clock,
    /// The address for clients.
    pub ws: String,
    /// The address of the API.
    pub api: String,
    key: String,
    secret: String,
    dir: TempDir,
}

impl InnerHost {
    /// Starts a host with this configuration.
    pub async fn start(toml: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("roundhouse.toml"), toml).expect("a configuration can be written");
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        Self::start_in(dir, since_1970.as_millis() as u64).await
    }

    async fn start_in(dir: TempDir, now_ms: u64) -> Self {
        let file = dir.path().join("roundhouse.toml");
        let any = Some(([127, 0, 0, 1], 0).into());
        let overrides = Overrides { listen: any.clone(), api: any, ..Overrides::default() };
        let mut config = Config::load(Some(&file), overrides, dir.path()).expect("the configuration is right");
        if !std::fs::read_to_string(&file).is_ok_and(|toml| toml.contains("leeway")) {
            // Without leeway, a token expires at a known millisecond.
            config.auth.jwt.leeway = Duration::ZERO;
        }
        // One cache for all tests, so that each component is compiled once.
        config.plugins.cache_dir = Some(target_dir().join("compiled-for-tests"));
        config.prepare().expect("secrets can be made");
        let secret = config.signing_secret().expect("there is a secret");
        let key = std::fs::read_to_string(dir.path().join(".roundhouse/api-key")).expect("there is a key");
        let clock = Clock::manual(now_ms);
        // The start blocks on threads of the host.
        let starting = tokio::task::spawn_blocking({
            let clock = clock.clone();
            move || Server::start(config, clock)
        });
        let server = starting.await.expect("no panic").expect("the host starts");
        let (ws, api) = (format!("ws://{}", server.listening), format!("http://{}", server.api));
        Self { server: Some(server), clock, ws, api, key, secret, dir }
    }

    /// Shuts the host down, and starts another in its folder with a clock that is later by `later`.
    pub async fn restart(mut self, later: Duration) -> Self {
        let now = self.clock.wall_ms();
        self.end().await;
        Self::start_in(self.dir, now + later.as_millis() as u64).await
    }

    /// The folder that the host runs in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// A token for a user, which expires after `valid_for` if that is given.
    pub fn token(&self, user: &str, valid_for: Option<Duration>) -> String {
        let expires = |valid: Duration| (self.clock.wall_ms() as f64 / 1000.0) + valid.as_secs_f64();
        let claims = Claims { sub: user.to_owned(), exp: valid_for.map(expires), ..Claims::default() };
        sign(&claims, &self.secret).expect("a token can be signed")
    }

    /// A token with these claims.
    pub fn token_of(&self, claims: &Value) -> String {
        sign(claims, &self.secret).expect("a token can be signed")
    }

    /// A client connected as `user`.
    pub async fn client(&self, user: &str) -> TestClient {
        TestClient::connect(&self.ws, &self.token(user, None)).await
    }

    /// Calls the API with the host's key.
    pub async fn call(&self, method: &str, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
        http(&self.api, method, path, &[("authorization", &format!("Bearer {}", self.key))], body)
            .await
            .expect("an answer")
    }

    /// Emits an event as a service. Returns the number of connections that the event reached.
    pub async fn emit(&self, to: Value, event: &str, data: Value) -> u64 {
        let emit = json!({ "to": to, "event": event, "data": data });
        let answer = self.call("POST", "/v1/emit", emit.to_string()).await;
        answer.body["delivered"].as_u64().unwrap_or_else(|| panic!("it was not sent: {}", answer.text))
    }

    /// Loads a component, which the host must accept.
    pub async fn load(&self, name: &str, component: Vec<u8>) {
        let answer = self.call("PUT", &format!("/v1/plugins/{name}"), component).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// Shuts the host down.
    pub async fn shut_down(mut self) {
        self.end().await;
    }

    /// Begins a shutdown, during which the test goes on and moves the clock. The receiver resolves at its end.
    pub fn begin_shutdown(&mut self) -> oneshot::Receiver<()> {
        let server = self.server.take().expect("it runs");
        let (end, ended) = oneshot::channel();
        // A thread of its own: the runtime would wait for a blocking task even after the test has failed.
        std::thread::spawn(move || {
            server.shut_down();
            // The receiver is gone if the test has failed.
            let _ = end.send(());
        });
        ended
    }

    async fn end(&mut self) {
        let mut ending = self.begin_shutdown();
        while timeout(SHUTDOWN_TIME, &mut ending).await.map(|ended| ended.expect("no panic")).is_err() {
            // The host gives up clients that do not answer the close by the clock, which the test must move.
            self.clock.advance(CLOSE_TIMEOUT);
        }
    }
}
