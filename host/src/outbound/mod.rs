//! Calls to HTTP services of the operator: key sets, sessions, authorisation.
//!
//! All calls run on one thread with a runtime of its own, so that a shard or plugin thread that waits for an answer
//! does no I/O for it. Redirects are not followed: an answer of 3xx is an answer like any other.
//!
//! - `endpoint`: one URL with its time-out and bounds
//! - `client`: the HTTP client, and whom it trusts
//! - `breaker`: the circuit breaker of an endpoint
//! - `flights`: calls under way, which callers share

mod breaker;
mod client;
mod endpoint;
mod flights;

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use client::{HttpClient, client};
pub use endpoint::{CallError, Endpoint, EndpointConfig};
pub use flights::Flights;

use crate::model::Clock;

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

    /// Runs a task on the thread, until the task or the host ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
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
