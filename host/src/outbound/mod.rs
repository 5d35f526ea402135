//! Calls to HTTP services of the operator: key sets, sessions, authorisation.
//!
//! All calls run on one thread with a runtime of its own, so that a shard or plugin thread that waits for an answer
//! does no I/O for it. Redirects are not followed: an answer of 3xx is an answer like any other.
//!
//! - `endpoint`: one URL with its time-out and bounds
//! - `breaker`: the circuit breaker of an endpoint

mod breaker;
mod endpoint;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use endpoint::{CallError, Endpoint, EndpointConfig};

use crate::model::Clock;

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The thread that makes the calls. It ends, and breaks off the calls in flight, when this is dropped.
#[derive(Debug)]
pub struct Outbound {
    clock: Clock,
    client: HttpClient,
    runtime: Handle,
    // Dropping the sender ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Outbound {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system has no thread or no descriptor left.
    pub fn start(clock: Clock) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("outbound".to_owned()).spawn(move || {
            let _ = runtime.block_on(stopped);
            // A name that is being resolved cannot be interrupted, and is not worth a wait.
            runtime.shutdown_background();
        })?;
        Ok(Self { clock, client: client()?, runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    /// An endpoint with bounds of its own.
    pub fn endpoint(&self, config: EndpointConfig) -> Endpoint {
        Endpoint::new(config, self.client.clone(), self.runtime.clone(), self.clock.clone())
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client that trusts the certificates that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
fn client() -> io::Result<HttpClient> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        tracing::debug!(errors = ?found.errors, "the system has no certificates to trust: calls by https will fail");
    }
    roots.add_parsable_certificates(found.certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
}
