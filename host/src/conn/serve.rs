//! HTTP on a client's socket, until it becomes a WebSocket.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::shard::Shard;
use crate::hub::ShardCommand;

/// Time for a client to send the head of an HTTP request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for an HTTP connection on which no WebSocket and no polling session comes about, however many requests it makes.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

/// An HTTP connection of a client.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The other end.
    pub peer: SocketAddr,
    /// When the connection is closed whatever happens on it.
    until: Rc<Cell<Instant>>,
}

impl Caller {
    /// Keeps the connection for so much longer than others, for it serves a session.
    pub fn keep(&self, patience: Duration) {
        self.until.set(Instant::now() + patience + HTTP_TIMEOUT);
    }
}

impl Shard {
    /// Serves HTTP on a socket that was accepted.
    pub(super) fn serve_http(self: &Rc<Self>, socket: std::net::TcpStream) {
        let opened = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
        let (socket, peer) = match opened.and_then(|socket| socket.peer_addr().map(|peer| (socket, peer))) {
            Ok(opened) => opened,
            Err(error) => {
                self.port.count(-1);
                return tracing::debug!(%error, "a connection was gone before it was served");
            }
        };
        // Frames are written when they are due, so that there is nothing for the kernel to wait for.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, %peer, "cannot turn Nagle's algorithm off");
        }
        self.http_connections.set(self.http_connections.get() + 1);
        let shard = self.clone();
        spawn_local(async move {
            shard.clone().serve(socket, peer).await;
            // A WebSocket that came of it counts for itself.
            shard.port.count(-1);
            shard.http_connections.set(shard.http_connections.get() - 1);
            if shard.is_stopping() {
                // The shard's loop sees whether this was the last one.
                shard.port.push(ShardCommand::Shutdown);
            }
        });
    }

    async fn serve(self: Rc<Self>, socket: TcpStream, peer: SocketAddr) {
        let caller = Caller { peer, until: Rc::new(Cell::new(Instant::now() + HTTP_TIMEOUT)) };
        let until = caller.until.clone();
        let mut stopping = self.stopping.subscribe();
        let shutdown_timeout = self.shared.config.shutdown_timeout;
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let answer = self.http.clone().call(self.clone(), caller.clone(), request);
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        let mut served = pin!(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades()
        );
        let mut is_stopping = false;
        loop {
            tokio::select! {
                served = &mut served => {
                    if let Err(error) = served {
                        tracing::debug!(%error, %peer, "an HTTP connection failed");
                    }
                    return;
                }
                () = tokio::time::sleep_until(until.get()) => {
                    if Instant::now() >= until.get() {
                        return;
                    }
                }
                _ = stopping.wait_for(|stopping| *stopping), if !is_stopping => {
                    is_stopping = true;
                    // What is being answered is answered, and there are no further requests.
                    served.as_mut().graceful_shutdown();
                    until.set(Instant::now() + shutdown_timeout);
                }
            }
        }
    }
}
