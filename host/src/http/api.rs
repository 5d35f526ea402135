//! The management and service API, on a listener and a thread of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::response::{Answer, body, error, failure, json, text};
use crate::hub::Hub;
use crate::metrics::{Metrics, quantile};
use crate::model::{Clock, ErrorCode, Failure, Payload};
use crate::plugin::{LoadError, MAX_COMPONENT_BYTES, Runtime, Source, Step};

/// The longest body of a call that is not a component, in bytes: what a client may send at once by default.
const MAX_BODY_BYTES: usize = 1_000_000;

/// Time to send a request's head, and then its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyScope {
    /// To send events and ask features.
    Publish,
    /// To manage plugins and connections.
    Admin,
}

impl KeyScope {
    fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Admin => "admin",
        }
    }
}

/// An API key. Of the key itself only the hash is kept.
#[derive(Clone)]
pub struct ApiKey {
    /// The name of whoever uses it.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// What it may be used for.
    pub scopes: Vec<KeyScope>,
}

impl ApiKey {
    /// A key whose text is known.
    pub fn new(name: impl Into<String>, key: &str, scopes: Vec<KeyScope>) -> Self {
        Self { name: name.into(), sha256: Sha256::digest(key.as_bytes()).into(), scopes }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// Who may call the API.
#[derive(Debug, Clone, Default)]
pub struct ApiConfig {
    /// All keys.
    pub keys: Vec<ApiKey>,
}

/// The API.
#[derive(Debug)]
pub struct Api {
    config: ApiConfig,
    runtime: Runtime,
    hub: Arc<Hub>,
    metrics: Metrics,
    clock: Clock,
    /// Whether the host takes work.
    ready: AtomicBool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceEvent<'a> {
    event: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl Api {
    /// An API for this host.
    pub fn new(config: ApiConfig, runtime: Runtime, hub: Arc<Hub>, metrics: Metrics, clock: Clock) -> Self {
        Self { config, runtime, hub, metrics, clock, ready: AtomicBool::new(false) }
    }

    /// Says whether the host takes work, as `/readyz` tells.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Serves until the task is dropped.
    ///
    /// # Errors
    /// Where the listener cannot be used.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let socket = match listener.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the API");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let api = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let api = api.clone();
                    async move { Ok::<_, Infallible>(api.answer(request).await) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_TIMEOUT)
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection to the API failed");
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let mut segments: VecDeque<&str> = path.trim_start_matches('/').split('/').collect();
        let first = segments.pop_front().unwrap_or_default();
        let rest: Vec<&str> = segments.into();
        match (first, rest.as_slice()) {
            ("healthz", []) => return text(StatusCode::OK, "ok\n"),
            ("readyz", []) if self.ready.load(Ordering::Acquire) => return text(StatusCode::OK, "ready\n"),
            ("readyz", []) => return text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            ("metrics", []) => {
                return body(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render());
            }
            ("v1", _) => {}
            _ => return error(StatusCode::NOT_FOUND, "not_found", "the API is under /v1"),
        }
        let needed =
            if matches!(rest.first(), Some(&("events" | "query"))) { KeyScope::Publish } else { KeyScope::Admin };
        let key = match self.authorize(&request, needed) {
            Ok(key) => key.to_owned(),
            Err(refusal) => return failure(&refusal),
        };
        let method = request.method().clone();
        match (&method, rest.as_slice()) {
            (&Method::GET, ["stats"]) => self.stats(),
            (&Method::GET, ["plugins"]) => json(StatusCode::OK, &json!({ "plugins": self.runtime.reports() })),
            (&Method::GET, ["plugins", name]) => match self.runtime.report(name).await {
                Ok(report) => json(StatusCode::OK, &report),
                Err(missing) => failure(&missing),
            },
            (&Method::PUT, ["plugins", name]) => self.load(name, &key, request).await,
            (&Method::DELETE, ["plugins", name]) => {
                tracing::info!(plugin = name, key, "asked to unload a plugin");
                match self.runtime.unload(name).await {
                    Ok(()) => json(StatusCode::OK, &json!({ "name": name })),
                    Err(refused) => failure(&refused),
                }
            }
            (&Method::POST, ["plugins", name, "rollback"]) => {
                tracing::info!(plugin = name, key, "asked to roll a plugin back");
                match self.runtime.roll_back(name).await {
                    Ok(loaded) => json(StatusCode::OK, &loaded),
                    Err(refused) => failure(&refused),
                }
            }
            (&Method::POST, ["events"]) => self.service_event(&key, request).await,
            (&Method::POST, ["query", plugin, query]) => self.query(plugin, query, request).await,
            (_, ["stats" | "plugins"]) => method_not_allowed("GET"),
            (_, ["plugins", _]) => method_not_allowed("GET, PUT, DELETE"),
            (_, ["plugins", _, "rollback"] | ["events"] | ["query", _, _]) => method_not_allowed("POST"),
            _ => error(StatusCode::NOT_FOUND, "not_found", &format!("there is no call {method} {path}")),
        }
    }

    /// The name of the key that a request carries.
    fn authorize(&self, request: &Request<Incoming>, needed: KeyScope) -> Result<&str, Failure> {
        let unauthorized = |message: &str| Failure::new(ErrorCode::Unauthorized, message);
        let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given =
            given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, given)) = given else {
            return Err(unauthorized("the call needs Authorization: Bearer and an API key"));
        };
        let hash: [u8; 32] = Sha256::digest(given.trim().as_bytes()).into();
        // All keys are compared, and each in constant time, so that the time tells nothing.
        let key = self.config.keys.iter().fold(None, |found, key| {
            let is_it: bool = key.sha256.ct_eq(&hash).into();
            if is_it { Some(key) } else { found }
        });
        let key = key.ok_or_else(|| unauthorized("the API key is not one that this host knows"))?;
        if key.scopes.contains(&needed) {
            Ok(&key.name)
        } else {
            let message = format!("the API key {} does not have the scope {}", key.name, needed.as_str());
            Err(Failure::new(ErrorCode::Forbidden, message))
        }
    }

    fn stats(&self) -> Answer {
        let (connections, users, rooms) = self.hub.counts();
        let metrics = &self.metrics;
        json(
            StatusCode::OK,
            &json!({
                "uptimeMs": self.clock.uptime_ms(),
                "sockets": metrics.connections.get(),
                "connections": connections,
                "users": users,
                "rooms": rooms,
                "eventsReceived": metrics.events_received.get(),
                "eventsRefused": metrics.events_refused.get(),
                "framesQueued": metrics.frames_queued.get(),
                "slowConnections": metrics.slow_connections.get(),
                "eventP50Us": quantile(&metrics.event_seconds, 0.5) * 1e6,
                "eventP99Us": quantile(&metrics.event_seconds, 0.99) * 1e6,
                "pluginCalls": metrics.plugin_calls.get(),
                "pluginFaults": metrics.plugin_faults.get(),
            }),
        )
    }

    async fn load(&self, name: &str, key: &str, request: Request<Incoming>) -> Answer {
        let digest =
            request.headers().get("x-content-sha256").and_then(|digest| digest.to_str().ok()).map(str::to_owned);
        let bytes = match read_body(request, MAX_COMPONENT_BYTES).await {
            Ok(bytes) => bytes,
            Err(too_large) if too_large.code == ErrorCode::TooLarge => {
                let message = format!("the component is larger than {MAX_COMPONENT_BYTES} bytes");
                return refused(&LoadError { step: Step::Size, message });
            }
            Err(broken) => return failure(&broken),
        };
        tracing::info!(plugin = name, key, bytes = bytes.len(), "asked to load a plugin");
        match self.runtime.load(bytes, Some(name.to_owned()), digest, Source::Api).await {
            Ok(loaded) => json(StatusCode::OK, &loaded),
            Err(error) => refused(&error),
        }
    }

    async fn service_event(&self, key: &str, request: Request<Incoming>) -> Answer {
        let bytes = match read_body(request, MAX_BODY_BYTES).await {
            Ok(bytes) => bytes,
            Err(broken) => return failure(&broken),
        };
        let ServiceEvent { event, data } = match serde_json::from_slice(&bytes) {
            Ok(event) => event,
            Err(error) => {
                let message = format!("the body must be {{\"event\", \"data\"?}}: {error}");
                return failure(&Failure::new(ErrorCode::BadRequest, message));
            }
        };
        answer_of(self.runtime.service_event(key, &event, Payload::of_data(data)).await)
    }

    async fn query(&self, plugin: &str, query: &str, request: Request<Incoming>) -> Answer {
        let bytes = match read_body(request, MAX_BODY_BYTES).await {
            Ok(bytes) => bytes,
            Err(broken) => return failure(&broken),
        };
        let data =
            if bytes.is_empty() { Ok("{}") } else { std::str::from_utf8(&bytes).map_err(|error| error.to_string()) };
        let checked = data.and_then(|data| match serde_json::from_str::<serde::de::IgnoredAny>(data) {
            Ok(_) => Ok(data),
            Err(error) => Err(error.to_string()),
        });
        match checked {
            Ok(data) => answer_of(self.runtime.query(plugin, query, data).await),
            Err(error) => failure(&Failure::new(ErrorCode::BadRequest, format!("the body is not JSON: {error}"))),
        }
    }
}

fn refused(error: &LoadError) -> Answer {
    let body = json!({ "code": "bad_request", "message": error.message, "step": error.step });
    json(StatusCode::UNPROCESSABLE_ENTITY, &body)
}

fn method_not_allowed(allowed: &'static str) -> Answer {
    let message = format!("this takes {allowed}");
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "bad_request", &message);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// A feature's reply is the body of the answer.
fn answer_of(reply: Result<Payload, Failure>) -> Answer {
    match reply {
        Ok(reply) => {
            let data = reply.arguments().first().map_or("null", |data| data.get()).to_owned();
            body(StatusCode::OK, "application/json", data)
        }
        Err(refused) => failure(&refused),
    }
}

async fn read_body(request: Request<Incoming>, max_bytes: usize) -> Result<Vec<u8>, Failure> {
    let whole = tokio::time::timeout(REQUEST_TIMEOUT, Limited::new(request.into_body(), max_bytes).collect()).await;
    match whole {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Failure::new(ErrorCode::TooLarge, format!("the body may be {max_bytes} bytes long")))
        }
        Ok(Err(error)) => Err(Failure::new(ErrorCode::BadRequest, format!("the body cannot be read: {error}"))),
        Err(_) => Err(Failure::new(ErrorCode::BadRequest, "the body did not come in time")),
    }
}
