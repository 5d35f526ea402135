//! One URL that the host calls, with its bounds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{Request, Response, StatusCode, Uri};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::breaker::Breaker;
use super::client::HttpClient;
use crate::model::Clock;

/// An endpoint's URL and bounds.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The URL, `http` or `https`.
    pub url: Uri,
    /// Time for a call, from the first attempt to connect to the last byte of the answer.
    pub timeout: Duration,
    /// Calls at a time. Further ones fail at once.
    pub max_concurrent: usize,
    /// The most bytes of an answer's body.
    pub max_bytes: usize,
}

/// The reason for which a call has no answer. None contains a header, a body or a query of the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There was no complete answer in time.
    #[error("there was no answer within {0:?}")]
    Timeout(Duration),
    /// As many calls as may be are in flight.
    #[error("{0} calls are in flight, which is the limit")]
    Busy(usize),
    /// The endpoint has failed several times, and is left alone for this time.
    #[error("it has failed several times in a row, and is tried again in {0:?}")]
    Open(Duration),
    /// The answer's body is longer than the bound, in bytes.
    #[error("its answer is longer than {0} bytes")]
    TooLarge(usize),
    /// There was no connection, or it broke off.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The host ends.
    #[error("the host is ending")]
    Ended,
}

/// An endpoint that can be called from any runtime. Clones share the bounds and the circuit breaker.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    config: EndpointConfig,
    client: HttpClient,
    runtime: Handle,
    clock: Clock,
    permits: Arc<Semaphore>,
    breaker: Breaker,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(super) fn new(config: EndpointConfig, client: HttpClient, runtime: Handle, clock: Clock) -> Self {
        let permits = Arc::new(Semaphore::new(config.max_concurrent));
        Self(Arc::new(Inner { config, client, runtime, clock, permits, breaker: Breaker::default() }))
    }

    /// The URL.
    pub fn url(&self) -> &Uri {
        &self.0.config.url
    }

    /// Makes a call. A caller that no longer waits does not end the call, whose outcome counts for the circuit breaker.
    ///
    /// # Errors
    /// Where there is no answer. An answer of any status is an answer; 5xx and 429 count as failures for the circuit
    /// breaker.
    pub async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        let permit = self.0.permits.clone().try_acquire_owned();
        self.call_with(permit.map_err(|_| CallError::Busy(self.0.config.max_concurrent))?, request).await
    }

    /// As [`Endpoint::call`], but a call over the bound waits its turn, for as long as an answer may take.
    ///
    /// # Errors
    /// As [`Endpoint::call`].
    pub async fn call_in_turn(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        let permit = timeout(self.0.config.timeout, self.0.permits.clone().acquire_owned()).await;
        let busy = CallError::Busy(self.0.config.max_concurrent);
        self.call_with(permit.ok().and_then(Result::ok).ok_or(busy)?, request).await
    }

    /// Runs a task on the thread of calls.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(task);
    }

    async fn call_with(
        &self,
        permit: OwnedSemaphorePermit,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, CallError> {
        let inner = self.0.clone();
        inner.breaker.admit(inner.clock.uptime_ms()).map_err(CallError::Open)?;
        let call = self.0.runtime.spawn(async move {
            let outcome = inner.answer(request).await;
            inner.note(&outcome);
            drop(permit);
            outcome
        });
        call.await.unwrap_or(Err(CallError::Ended))
    }
}

impl Inner {
    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        let whole = async {
            let answer = self.client.request(request.map(Full::new)).await;
            let (head, body) = answer.map_err(|error| CallError::Unreachable(causes(&error)))?.into_parts();
            let body = Limited::new(body, self.config.max_bytes).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    return CallError::TooLarge(self.config.max_bytes);
                }
                CallError::Unreachable(causes(&*error))
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        timeout(self.config.timeout, whole).await.unwrap_or(Err(CallError::Timeout(self.config.timeout)))
    }

    fn note(&self, outcome: &Result<Response<Bytes>, CallError>) {
        let is_healthy = match outcome {
            Ok(answer) => !answer.status().is_server_error() && answer.status() != StatusCode::TOO_MANY_REQUESTS,
            Err(_) => false,
        };
        if is_healthy {
            self.breaker.succeeded();
        } else if self.breaker.failed(self.clock.uptime_ms()) {
            let url = &self.config.url;
            tracing::warn!(
                host = url.authority().map(AsRef::as_ref),
                path = url.path(),
                "an endpoint fails again and again, and is left alone for a while"
            );
        }
    }
}

/// An error with its causes: the client's own says no more than that connecting failed.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::super::Outbound;
    use super::*;

    /// A server that gives these answers, one for each connection, and then stops listening.
    fn server(answers: Vec<String>) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        thread::spawn(move || {
            for answer in answers {
                let (mut socket, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if socket.read(&mut byte).unwrap() == 0 {
                        break;
                    }
                    head.push(byte[0]);
                }
                socket.write_all(answer.as_bytes()).unwrap();
                if answer.is_empty() {
                    // Waits for the client's time-out.
                    let _ = socket.read(&mut [0]);
                }
            }
        });
        url.parse().unwrap()
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    fn config(url: Uri) -> EndpointConfig {
        EndpointConfig { url, timeout: Duration::from_secs(20), max_concurrent: 2, max_bytes: 10 }
    }

    fn request(url: &Uri) -> Request<Bytes> {
        Request::get(url).body(Bytes::new()).unwrap()
    }

    #[tokio::test]
    async fn answers_come_whole_and_bounded() {
        let redirect =
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let url = server(vec![answer("200 OK", "0123456789"), answer("200 OK", "0123456789a"), redirect.to_owned()]);
        let outbound = Outbound::start(Clock::system()).unwrap();
        let endpoint = outbound.endpoint(config(url.clone()));
        assert_eq!(endpoint.call(request(&url)).await.unwrap().body(), "0123456789");
        assert_eq!(endpoint.call(request(&url)).await.unwrap_err(), CallError::TooLarge(10));
        assert_eq!(endpoint.call(request(&url)).await.unwrap().status(), 302, "it is not followed");
    }

    #[tokio::test]
    async fn silent_server_is_a_timeout() {
        let url = server(vec![String::new()]);
        let outbound = Outbound::start(Clock::system()).unwrap();
        let time = Duration::from_millis(50);
        let endpoint = outbound.endpoint(EndpointConfig { timeout: time, ..config(url.clone()) });
        assert_eq!(endpoint.call(request(&url)).await.unwrap_err(), CallError::Timeout(time));
    }

    #[tokio::test]
    async fn calls_over_the_bound_fail_at_once() {
        let url = server(vec![String::new(), String::new()]);
        let outbound = Outbound::start(Clock::system()).unwrap();
        let endpoint = outbound.endpoint(config(url.clone()));
        let mut pending = [endpoint.call(request(&url)), endpoint.call(request(&url))].map(Box::pin);
        for call in &mut pending {
            assert!(poll_once(call).await.is_none());
        }
        assert_eq!(endpoint.call(request(&url)).await.unwrap_err(), CallError::Busy(2));
        drop(outbound);
        for call in pending {
            assert_eq!(call.await.unwrap_err(), CallError::Ended);
        }
    }

    /// Polls a future once.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn failing_endpoint_is_left_alone_for_a_while() {
        let mut answers = vec![answer("500 Oh", ""); 5];
        answers.push(answer("200 OK", "well"));
        let (url, clock) = (server(answers), Clock::manual(0));
        let outbound = Outbound::start(clock.clone()).unwrap();
        let endpoint = outbound.endpoint(config(url.clone()));
        for _ in 0..5 {
            assert_eq!(endpoint.call(request(&url)).await.unwrap().status(), 500);
        }
        assert_eq!(endpoint.call(request(&url)).await.unwrap_err(), CallError::Open(Duration::from_secs(1)));
        clock.advance(Duration::from_secs(1));
        assert_eq!(endpoint.call(request(&url)).await.unwrap().body(), "well");
    }
}
