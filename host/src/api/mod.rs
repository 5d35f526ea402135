//! The management and service API, on a listener and a thread of its own.
//!
//! `calls` is the table of what may be called, and `openapi` describes it from there, with the schemas that `schema` makes
//! of what is read and written; `keys` says who may. `body` reads and parses what is sent, `idempotency` remembers what
//! was answered. The calls themselves: `emit`, `events`, `directory`, `plugins`.

mod body;
mod calls;
mod config_file;
mod directory;
mod emit;
mod events;
mod idempotency;
mod keys;
mod openapi;
mod plugins;
mod schema;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Request, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use self::body::MAX_BODY_BYTES;
use self::calls::{Call, Found, Parameters, decode, find};
pub use self::config_file::ConfigFile;
use self::idempotency::{Idempotency, REMEMBERED_FOR, Reply, key_in};
use self::keys::Caller;
pub use self::keys::{ApiConfig, ApiKey, KeyScope};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::model::{Clock, ErrorCode, Failure, LogLimit};
use crate::net::response::{Answer, body as answer_with, error, failure, text};
use crate::net::{Budget, Descriptors, HttpTimes, accept_failed, refuse, serve_requests};
use crate::plugin::Runtime;
use crate::store::Store;

/// Time for calls to be answered that are under way when the host ends. Nothing that they wait for takes longer: plugins
/// and shards have ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The API.
#[derive(Debug)]
pub struct Api {
    config: ApiConfig,
    runtime: Runtime,
    hub: Arc<Hub>,
    metrics: Metrics,
    clock: Clock,
    idempotency: Idempotency,
    /// For requests that are not whole, and those that are being answered.
    budget: Budget,
    /// The description of the API, as it is sent.
    description: Bytes,
    /// Whether the host takes work.
    ready: AtomicBool,
}

impl Api {
    /// An API for this host.
    pub fn new(config: ApiConfig, runtime: Runtime, hub: Arc<Hub>, metrics: Metrics, clock: Clock) -> Self {
        let idempotency = Idempotency::new(clock.clone(), metrics.idempotency_forgotten.clone());
        let description = openapi::document().to_string().into();
        // A buffer that grows has up to twice of what is in it.
        let bound = config.memory_bytes.max(2 * runtime.largest_component());
        let budget = Budget::new(bound, clock.clone(), metrics.api_bytes.clone(), metrics.api_evicted.clone());
        Self { config, runtime, hub, metrics, clock, idempotency, budget, description, ready: AtomicBool::new(false) }
    }

    /// Goes on with what calls with an idempotency key were answered that changed what is stored. Waits for the database.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn remember_calls(&self, store: &Store) -> Result<(), Failure> {
        let since = self.clock.now_ms().saturating_sub(REMEMBERED_FOR.as_millis() as u64);
        self.idempotency.restore(store.answered_calls(since)?);
        Ok(())
    }

    /// Says whether the host takes work, as `/readyz` tells.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Serves until `stopping` turns true, and then what is being answered, for a moment.
    ///
    /// # Errors
    /// Where the listener cannot be used.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, mut stopping: watch::Receiver<bool>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let descriptors = Descriptors::of_process();
        let mut failures = LogLimit::default();
        // Dropped with the last connection.
        let (open, mut closed) = mpsc::channel::<Infallible>(1);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            match accepted {
                Ok((socket, _)) => {
                    let served = self.clone().serve_connection(socket, &descriptors, stopping.clone());
                    let open = open.clone();
                    tokio::spawn(async move {
                        served.await;
                        drop(open);
                    });
                }
                Err(error) => accept_failed(&error, "the API", &mut failures).await,
            }
        }
        drop((listener, open));
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, closed.recv()).await;
        Ok(())
    }

    /// Answers the requests of a connection, one after another; one alone where the connection has a descriptor of the
    /// reserve, which others need as well.
    fn serve_connection(
        self: Arc<Self>,
        socket: TcpStream,
        descriptors: &Descriptors,
        stopping: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + use<> {
        // Answers are written whole, so that there is nothing for the kernel to wait for.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "cannot turn Nagle's algorithm off");
        }
        let keep_alive = (!descriptors.is_reserve(&socket)).then_some(self.config.keep_alive);
        let times = HttpTimes { keep_alive, shutdown: SHUTDOWN_TIMEOUT };
        async move {
            let answer = |request| {
                let api = self.clone();
                async move { api.answer(request).await }
            };
            if let Err(error) = serve_requests(socket, times, &self.budget, stopping, answer).await {
                tracing::debug!(%error, "a connection to the API failed");
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if let Some(refusal) = refuse(&request) {
            return refusal;
        }
        let uri = request.uri().clone();
        let (route, parameters) = match find(request.method(), uri.path()) {
            Found::Route(route, parameters) => (route, parameters),
            Found::OtherMethod(allowed) => return method_not_allowed(&allowed),
            Found::Nothing => {
                let message = "there is no such call: /openapi.json describes those that there are";
                return error(StatusCode::NOT_FOUND, "not_found", message);
            }
        };
        let Some(scope) = route.scope else { return self.answer_anybody(route.call) };
        let caller = match self.config.authorize(request.headers(), scope) {
            Ok(caller) => caller,
            Err(refusal) => return failure(&refusal),
        };
        let answered = match route.call {
            call if !call.takes_query() && uri.query().is_some_and(|query| !query.is_empty()) => {
                let message = format!("{} takes no parameters in the query", route.path);
                Err(Failure::new(ErrorCode::BadRequest, message))
            }
            Call::Emit | Call::Event | Call::Query => self.publish(route.call, caller, parameters, request).await,
            call => self.manage(call, caller, parameters, uri.query(), request).await,
        };
        answered.unwrap_or_else(|refused| failure(&refused))
    }

    fn answer_anybody(&self, call: Call) -> Answer {
        match call {
            Call::Alive => text(StatusCode::OK, "ok\n"),
            Call::Ready if self.ready.load(Ordering::Acquire) => text(StatusCode::OK, "ready\n"),
            Call::Ready => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            Call::Metrics => {
                answer_with(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
            }
            _ => answer_with(StatusCode::OK, "application/json", self.description.clone()),
        }
    }

    /// The calls of services, which send JSON.
    async fn publish(
        &self,
        call: Call,
        caller: Caller<'_>,
        [plugin, query]: Parameters<'_>,
        request: Request<Incoming>,
    ) -> Result<Answer, Failure> {
        if !body::is_json(request.headers()) {
            let message = "the body must be JSON, with the content type application/json";
            return Ok(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request", message));
        }
        if body::is_encoded(request.headers()) {
            let message = "the body must be plain JSON, without a Content-Encoding";
            return Ok(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request", message));
        }
        let key = key_in(request.headers())?;
        let body = body::read_json(request, MAX_BODY_BYTES).await?;
        let Reply { status, body } = match call {
            Call::Emit => self.emit(caller, key, &body).await?,
            Call::Event => self.event(caller, key, &body).await?,
            _ => self.query(&decode(plugin)?, &decode(query)?, &body).await?,
        };
        Ok(answer_with(status, "application/json", body))
    }

    /// The calls of operators.
    async fn manage(
        &self,
        call: Call,
        caller: Caller<'_>,
        [name, _]: Parameters<'_>,
        query: Option<&str>,
        request: Request<Incoming>,
    ) -> Result<Answer, Failure> {
        let name = decode(name)?;
        match call {
            Call::Plugins => Ok(self.plugins()),
            Call::Plugin => self.plugin(&name).await,
            Call::InstallPlugin => self.load(caller, None, query, request).await,
            Call::LoadPlugin => self.load(caller, Some(&name), query, request).await,
            Call::UnloadPlugin => self.unload(caller, &name).await,
            Call::RollBackPlugin => self.roll_back(caller, &name, query).await,
            Call::ResetPlugin => self.reset(caller, &name, query).await,
            Call::Connections => self.connections(query),
            Call::Connection => self.connection(&name),
            Call::CloseConnection => self.close_connection(caller, &name).await,
            Call::User => self.user(&name, query),
            Call::CloseUser => self.close_user(caller, &name).await,
            Call::Room => self.room(&name, query),
            _ => Ok(self.stats()),
        }
    }
}

/// How long a call waits for a shard, which does what it is asked to as soon as it has a moment, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// Waits for as long as a shard has not come to something. Says whether it has in time.
async fn wait_while(is_so: impl Fn() -> bool) -> bool {
    let mut waited = Duration::ZERO;
    while is_so() {
        if waited >= PATIENCE {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
        waited += PAUSE;
    }
    true
}

fn method_not_allowed(allowed: &str) -> Answer {
    let message = format!("this takes {allowed}");
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "bad_request", &message);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}
