//! The requests of an HTTP connection on either listener: idle time, memory, and end of the connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::Instant;

use super::budget::{Budget, Holding};
use super::deadline::Deadline;
use super::tls::Stream;
use super::watched::{CONNECTION_BYTES, Watch, WatchedSocket};
use crate::metrics::{Limit, Metrics};

/// Time for a client to read an answer, beyond the idle time after it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time between two checks of a connection's deadline.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Refused requests in a row after which a connection is closed. Well-behaved clients stop earlier; others have the
/// cost of a new connection.
const MAX_REFUSED: u64 = 100;

/// The limits of an HTTP connection.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Time for the head of a request, from the start of a new connection or from the head's first byte.
    pub handshake: Duration,
    /// The longest head of a request, in bytes; a longer one is answered 431. It also bounds the read-ahead of a body.
    pub header_bytes: usize,
    /// Idle time between two requests; `None` where the connection gets one request.
    pub keep_alive: Option<Duration>,
    /// Time to complete the current answer at shutdown.
    pub shutdown: Duration,
}

/// Facts about a request, passed in its extensions.
#[derive(Debug, Clone)]
pub struct RequestFacts {
    /// The connection's holding, for the request's body.
    pub holding: Arc<Holding>,
    /// Whether the request has two lengths.
    pub is_ambiguous: bool,
}

/// The requests of a connection so far.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    /// Refused requests in a row.
    refused: AtomicU64,
}

impl Counts {
    /// Counts an answer. Returns whether it is the connection's last.
    fn note(&self, answer: &Response<Full<Bytes>>) -> bool {
        if answer.status().is_client_error() {
            return self.refused.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_REFUSED;
        }
        self.refused.store(0, Ordering::Relaxed);
        false
    }
}

/// Answers the requests of a connection by `service`, one after another, each with its [`RequestFacts`]. Incomplete requests
/// are held within `budget`. When `stopping` turns true, the current request is answered, as the last.
pub async fn serve_requests<S, F>(
    socket: Stream,
    limits: HttpLimits,
    budget: &Budget,
    metrics: &Metrics,
    mut stopping: watch::Receiver<bool>,
    service: S,
) -> hyper::Result<()>
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let deadline = Deadline::new(limits.handshake);
    let idle = limits.keep_alive.unwrap_or_default();
    let watch = Arc::new(Watch::new(budget.holding(), deadline.clone()));
    // The library allocates its buffer before the first byte arrives, so a silent connection is not handed to it.
    tokio::select! {
        biased;
        readable = tokio::time::timeout(limits.handshake, socket.readable()) => {
            if readable.is_err() {
                metrics.limited(Limit::Handshake);
            }
            if !matches!(readable, Ok(Ok(()))) {
                return Ok(());
            }
        }
        () = watch.holding.evicted() => return Ok(()),
        _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
    }
    watch.holding.begin(CONNECTION_BYTES);
    let counts = Arc::<Counts>::default();
    let of_requests = counts.clone();
    let service = service_fn(|mut request: Request<Incoming>| {
        let (watch, counts) = (watch.clone(), of_requests.clone());
        watch.deadline.clear();
        watch.holding.clear();
        let number = counts.requests.fetch_add(1, Ordering::Relaxed);
        let facts = RequestFacts { holding: watch.holding.clone(), is_ambiguous: watch.is_ambiguous(number) };
        request.extensions_mut().insert(facts);
        let answer = service(request);
        async move {
            let mut answer = answer.await;
            // Browsers must not sniff an answer as HTML.
            answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            if counts.note(&answer) || watch.holding.is_evicted() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            watch.holding.begin(CONNECTION_BYTES);
            watch.deadline.set(idle + ANSWER_TIMEOUT);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut served = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(limits.keep_alive.is_some())
            .max_buf_size(limits.header_bytes)
            .max_header_size(limits.header_bytes)
            // The library's clock also runs while the connection is idle.
            .header_read_timeout(idle.max(limits.handshake))
            .serve_connection(TokioIo::new(WatchedSocket::new(socket, watch.clone())), service)
            .with_upgrades()
    );
    let (mut end, mut is_evicted) = (None, false);
    loop {
        // During shutdown an answer does not extend the time.
        let left = || end.map_or(deadline.left(), |end: Instant| end.saturating_duration_since(Instant::now()));
        tokio::select! {
            served = &mut served => {
                if served.as_ref().is_err_and(hyper::Error::is_parse_too_large) {
                    metrics.limited(Limit::HeaderBytes);
                }
                return served;
            }
            () = tokio::time::sleep(left().min(CHECK_INTERVAL)) => {
                if left().is_zero() {
                    if counts.requests.load(Ordering::Relaxed) == 0 || watch.is_in_head() {
                        metrics.limited(Limit::Handshake);
                    }
                    return Ok(());
                }
            }
            () = watch.holding.evicted(), if !is_evicted => {
                if !deadline.is_clear() {
                    return Ok(());
                }
                // The reader of the request's body answers with a refusal, the last answer of the connection.
                is_evicted = true;
            }
            _ = stopping.wait_for(|stopping| *stopping), if end.is_none() => {
                served.as_mut().graceful_shutdown();
                end = Some(Instant::now() + limits.shutdown);
            }
        }
    }
}
