//! Connections for which only reserved file descriptors are left: each gets one answer, and is closed. A liveness probe
//! must succeed on a full host, or the orchestrator would kill the host with all of its clients.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::http::proxy_header;
use crate::metrics::Metrics;
use crate::model::{LogLimit, TrustedProxies};
use crate::net::{Budget, Stream, Tls};

/// The most connections that are answered concurrently: half of the smallest reserve of descriptors. A further one ends
/// the oldest, so that a liveness probe, which sends its request at once, does not wait behind connections that send
/// nothing.
const MAX_ANSWERED: usize = 8;

/// Time for such a connection from its first byte to its end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

const REFUSAL: &str =
    r#"{"code":"feature_unavailable","message":"the host has as many connections as it can have: try again"}"#;

/// What answering a connection over the limit needs of the client listener's settings.
#[derive(Debug)]
pub struct OverloadAnswers {
    /// The proxies whose PROXY headers count.
    pub trusted: TrustedProxies,
    /// The listener's TLS, if configured.
    pub tls: Option<Tls>,
    /// The budget for incomplete input.
    pub unfinished: Budget,
    /// The longest head of a request, in bytes.
    pub header_bytes: usize,
}

/// Connections over the limit.
#[derive(Debug)]
pub(super) struct Overload {
    metrics: Metrics,
    answers: OverloadAnswers,
    answered: VecDeque<JoinHandle<()>>,
    lines: LogLimit,
}

impl Overload {
    pub(super) fn new(metrics: Metrics, answers: OverloadAnswers) -> Self {
        Self { metrics, answers, answered: VecDeque::new(), lines: LogLimit::default() }
    }

    /// Answers one request of a connection, and closes it.
    pub(super) fn answer(&mut self, mut socket: TcpStream) {
        self.metrics.connections_refused.inc();
        if let Some(left_out) = self.lines.ask() {
            tracing::warn!(
                left_out,
                "no file descriptors are left for clients, and new ones are answered 503: raise the limit (ulimit -n, \
                 LimitNOFILE=)"
            );
        }
        if self.answered.len() >= MAX_ANSWERED
            && let Some(oldest) = self.answered.pop_front()
        {
            oldest.abort();
        }
        let is_proxy = socket.peer_addr().is_ok_and(|peer| self.answers.trusted.contains(peer.ip()));
        let (tls, budget) = (self.answers.tls.clone(), self.answers.unfinished.clone());
        let header_bytes = self.answers.header_bytes;
        self.answered.push_back(tokio::spawn(async move {
            let answered = async {
                if is_proxy && proxy_header::read(&mut socket).await.is_err() {
                    return;
                }
                let socket = match &tls {
                    None => Stream::Plain(socket),
                    Some(tls) => match tls.accept(socket, &budget).await {
                        Ok(socket) => socket,
                        Err(error) => return tracing::debug!(%error, "a connection over the limit failed"),
                    },
                };
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .keep_alive(false)
                    .max_buf_size(header_bytes)
                    .serve_connection(
                        TokioIo::new(socket),
                        service_fn(|request| std::future::ready(respond(&request))),
                    );
                // A client that disconnected or sends nothing gets no answer.
                let _ = served.await;
            };
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
        }));
    }
}

fn respond(request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, body) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", "not ready\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "application/json", REFUSAL),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status != StatusCode::OK {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}
