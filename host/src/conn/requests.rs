//! The requests of an HTTP connection, on either port: how long it may be idle, and how it ends.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

/// Time for the first request on a new connection.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a client to take an answer, beyond the time that it may be idle behind it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How often it is looked whether a connection is over its time, at least.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long an HTTP connection may take for what.
#[derive(Debug, Clone, Copy)]
pub struct HttpTimes {
    /// Between two requests; nothing where one request is all.
    pub keep_alive: Option<Duration>,
    /// To the end of what is answered, when the host ends.
    pub shutdown: Duration,
}

/// The moment at which a connection is over its time, in milliseconds from its begin. There is none while a request is
/// dealt with, for that has bounds of its own.
#[derive(Debug, Clone)]
struct Limit {
    begun: Instant,
    at: Arc<AtomicU64>,
}

impl Limit {
    fn new(time: Duration) -> Self {
        let limit = Self { begun: Instant::now(), at: Arc::default() };
        limit.set(time);
        limit
    }

    fn set(&self, time: Duration) {
        let at = self.begun.elapsed().saturating_add(time);
        self.at.store(at.as_millis() as u64, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.at.store(u64::MAX, Ordering::Relaxed);
    }

    /// How much time is left.
    fn left(&self) -> Duration {
        let at = Duration::from_millis(self.at.load(Ordering::Relaxed));
        at.saturating_sub(self.begun.elapsed())
    }
}

/// Answers the requests of a connection by `service`, one after another. When `stopping` turns true, what is being answered
/// is answered, and announced to be the last.
pub async fn serve_requests<S, F>(
    socket: TcpStream,
    times: HttpTimes,
    mut stopping: watch::Receiver<bool>,
    service: S,
) -> hyper::Result<()>
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let limit = Limit::new(REQUEST_TIMEOUT);
    let idle = times.keep_alive.unwrap_or_default();
    let service = service_fn(|request| {
        let limit = limit.clone();
        limit.clear();
        let answer = service(request);
        async move {
            let answer = answer.await;
            limit.set(idle + ANSWER_TIMEOUT);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut served = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(times.keep_alive.is_some())
            // Its clock runs from when it is ready for a request, and so while the connection is idle.
            .header_read_timeout(idle.max(REQUEST_TIMEOUT))
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades()
    );
    let mut end = None;
    loop {
        // Once the host ends, no answer gives more time.
        let left = || end.map_or(limit.left(), |end: Instant| end.saturating_duration_since(Instant::now()));
        tokio::select! {
            served = &mut served => return served,
            () = tokio::time::sleep(left().min(LOOK_EVERY)) => {
                if left().is_zero() {
                    return Ok(());
                }
            }
            _ = stopping.wait_for(|stopping| *stopping), if end.is_none() => {
                served.as_mut().graceful_shutdown();
                end = Some(Instant::now() + times.shutdown);
            }
        }
    }
}
