//! The API's listener: from an accepted connection to the handler of each call.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::body::{self, MAX_BODY_BYTES};
use super::calls::ROUTES;
use super::idempotency::{Idempotency, REMEMBERED_FOR, Reply, header_key};
use super::keys::{ApiConfig, KeyScope};
use super::openapi;
use super::route::{Handler, OperatorCall, Parameters, Query, Route, RouteMatch, ServiceCall, find};
use super::state::Api;
use crate::auth::Blocks;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::model::{Clock, ErrorCode, Failure, LogLimit};
use crate::net::response::{Answer, body as answer_with, error, failure};
use crate::net::{Budget, Descriptors, HttpLimits, Stream, Tls, accept_failed, refuse_ambiguous, serve_requests};
use crate::plugin::Runtime;
use crate::store::Store;

/// Time to complete the current calls at shutdown. Short, because plugins and shards, for which calls wait, have ended
/// by then.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

impl Api {
    /// An API for this host; by TLS where `tls` is given.
    pub fn new(
        config: ApiConfig,
        tls: Option<Tls>,
        runtime: Runtime,
        hub: Arc<Hub>,
        blocks: Blocks,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        let cluster = runtime.cluster();
        let idempotency = Idempotency::new(clock.clone(), metrics.idempotency_forgotten.clone());
        let description = openapi::document().to_string().into();
        // A growing buffer may have twice the capacity of its content.
        let bound = config.memory_bytes.max(2 * runtime.lifecycle().largest_component());
        let budget = Budget::new(bound, clock.clone(), metrics.api_bytes.clone(), metrics.api_evicted.clone());
        Self {
            config,
            tls,
            runtime,
            cluster,
            hub,
            blocks,
            metrics,
            clock,
            idempotency,
            budget,
            description,
            ready: AtomicBool::new(false),
        }
    }

    /// Remembers the stored answers of an earlier process. Waits for the database.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn remember_calls(&self, store: &Store) -> Result<(), Failure> {
        let since = self.clock.now_ms().saturating_sub(REMEMBERED_FOR.as_millis() as u64);
        self.idempotency.restore(store.answered_calls(since)?);
        Ok(())
    }

    /// Sets whether `/readyz` answers that the host is ready.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Serves until `stopping` turns true, and then completes the current calls within [`SHUTDOWN_TIMEOUT`].
    ///
    /// # Errors
    /// Where the listener cannot be used.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, mut stopping: watch::Receiver<bool>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let descriptors = Descriptors::of_process();
        let mut failures = LogLimit::default();
        // A clone per connection: the channel closes with the last.
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

    /// Answers the requests of a connection, one after another; only one where the socket took a descriptor of the
    /// reserve.
    fn serve_connection(
        self: Arc<Self>,
        socket: TcpStream,
        descriptors: &Descriptors,
        stopping: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + use<> {
        // Answers are written whole: the kernel must not delay small writes.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "cannot turn Nagle's algorithm off");
        }
        let keep_alive = (!descriptors.is_reserve(&socket)).then_some(self.config.keep_alive);
        let ApiConfig { handshake, header_bytes, .. } = self.config;
        let limits = HttpLimits { handshake, header_bytes, keep_alive, shutdown: SHUTDOWN_TIMEOUT };
        async move {
            let socket = match &self.tls {
                None => Stream::Plain(socket),
                // On the heap, so that idle connections do not reserve the size of this future.
                Some(tls) => match Box::pin(tls.accept(socket, &self.budget)).await {
                    Ok(socket) => socket,
                    Err(error) => return tracing::debug!(%error, "a connection to the API failed"),
                },
            };
            let answer = |request| {
                let api = self.clone();
                async move { api.answer(request).await }
            };
            if let Err(error) = serve_requests(socket, limits, &self.budget, &self.metrics, stopping, answer).await {
                tracing::debug!(%error, "a connection to the API failed");
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if let Some(refusal) = refuse_ambiguous(&request) {
            return refusal;
        }
        let uri = request.uri().clone();
        match find(&ROUTES, request.method(), uri.path()) {
            RouteMatch::Route(route, parameters) => {
                self.call(route, parameters, &uri, request).await.unwrap_or_else(|refused| failure(&refused))
            }
            RouteMatch::OtherMethod(allowed) => method_not_allowed(&allowed),
            RouteMatch::NotFound => {
                let message = "there is no such call: /openapi.json describes those that there are";
                error(StatusCode::NOT_FOUND, "not_found", message)
            }
        }
    }

    /// Hands a request to its call's handler, if its key allows the call.
    async fn call(
        &self,
        route: &Route,
        parameters: Parameters<'_>,
        uri: &Uri,
        request: Request<Incoming>,
    ) -> Result<Answer, Failure> {
        let authorize = |scope| {
            let caller = self.config.authorize(request.headers(), scope)?;
            if route.query == Query::None && uri.query().is_some_and(|query| !query.is_empty()) {
                let message = format!("{} takes no parameters in the query", route.path);
                return Err(Failure::new(ErrorCode::BadRequest, message));
            }
            Ok(caller)
        };
        match route.handler {
            Handler::Open(handle) => Ok(handle(self)),
            Handler::Admin(handle) => {
                let caller = authorize(KeyScope::Admin)?;
                let call = OperatorCall { caller, parameters, query: uri.query(), request };
                call.check_narrowing(route.names)?;
                handle(self, call).await
            }
            Handler::Publish(handle) => {
                let caller = authorize(KeyScope::Publish)?;
                if let Some(refusal) = body::refuse_type(request.headers()) {
                    return Ok(refusal);
                }
                let header_key = header_key(request.headers())?;
                let body = body::read_json(request, MAX_BODY_BYTES).await?;
                let Reply { status, body } = handle(self, ServiceCall { caller, parameters, header_key, body }).await?;
                Ok(answer_with(status, "application/json", body))
            }
        }
    }
}

fn method_not_allowed(allowed: &str) -> Answer {
    let message = format!("this takes {allowed}");
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "bad_request", &message);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}
