//! HTTP on a client's socket, until it becomes a WebSocket.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::peer::HttpPeer;
use super::proxy_header;
use super::routes::answer;
use crate::conn::shard::Shard;
use crate::hub::ShardCommand;
use crate::metrics::Limit;
use crate::net::{Budget, HandshakeFailure, HttpLimits, Stream, Tls, serve_requests};

/// The answer to a connection over `limits.http_connections_per_ip`.
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
    Connection: close\r\nRetry-After: 1\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 97\r\n\r\n\
    {\"code\":\"feature_unavailable\",\"message\":\"there are too many HTTP connections from this address\"}\n";

impl Shard {
    /// Whether new clients are refused because the host shuts down.
    pub(super) fn is_refusing(&self) -> bool {
        self.shared().admission.is_closed() || self.shutdown().is_stopping()
    }

    /// Serves HTTP on an accepted socket.
    pub(in crate::conn) fn serve_http(self: &Rc<Self>, socket: std::net::TcpStream) {
        let opened = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
        let (socket, peer) = match opened.and_then(|socket| socket.peer_addr().map(|peer| (socket, peer))) {
            Ok(opened) => opened,
            Err(error) => {
                self.queue().count(-1);
                return tracing::debug!(%error, "a connection was gone before it was served");
            }
        };
        // The host batches frames itself: the kernel must not delay small writes.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, %peer, "cannot turn Nagle's algorithm off");
        }
        self.shutdown().open_http();
        let shard = self.clone();
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        spawn_local(async move {
            if let Err(error) = shard.clone().serve(socket, peer).await {
                tracing::debug!(%error, %peer, "an HTTP connection failed");
            }
            // A WebSocket is counted by its transport from its upgrade on.
            shard.queue().count(-1);
            shard.shutdown().close_http();
            if shard.shutdown().is_stopping() {
                // The shard's loop checks whether this was the last HTTP connection.
                shard.queue().push(ShardCommand::Shutdown);
            }
        });
    }

    async fn serve(self: Rc<Self>, mut socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let config = &self.shared().config;
        let stopping = self.shutdown().subscribe();
        let is_proxied = config.trusted_proxies.contains(peer.ip());
        let client = if is_proxied {
            match client_behind(&mut socket, config.handshake, stopping.clone()).await? {
                Some(client) => client,
                None => return Ok(()),
            }
        } else {
            Some(peer)
        };
        let peer = client.unwrap_or(peer);
        // A proxy that names its clients in the heads of requests carries many clients on its own connections.
        let place = client.map_or(Some(None), |client| self.shared().admission.enter_http(client, config).map(Some));
        let Some(_place) = place else {
            self.metrics().limited(Limit::HttpConnectionsPerIp);
            if self.shared().tls.is_none() {
                // Best effort: the client may have left.
                let _ = socket.try_write(TOO_MANY_CONNECTIONS);
            }
            return Ok(());
        };
        let (tls, budget) = (self.shared().tls.as_ref(), &self.shared().unfinished);
        let (is_tls, socket) = match tls {
            None => (false, Stream::Plain(socket)),
            // On the heap, so that idle connections do not reserve the size of this future.
            Some(tls) => match Box::pin(begin_tls(tls, socket, budget, stopping.clone())).await {
                Ok(Some(socket)) => (true, socket),
                Ok(None) => return Ok(()),
                Err(error) => return Err(io::Error::other(error)),
            },
        };
        let limits = HttpLimits {
            handshake: config.handshake,
            header_bytes: config.header_bytes,
            keep_alive: Some(config.keep_alive),
            shutdown: config.shutdown_timeout,
        };
        let served = serve_requests(socket, limits, budget, self.metrics(), stopping, |request| {
            let peer = HttpPeer { address: peer, is_proxied, is_tls };
            // On the heap, so that idle connections do not reserve the size of this future.
            Box::pin(answer(self.clone(), peer, request))
        });
        served.await.map_err(io::Error::other)
    }
}

/// Completes the TLS handshake. `None` where the host shuts down meanwhile.
async fn begin_tls(
    tls: &Tls,
    socket: TcpStream,
    budget: &Budget,
    mut stopping: watch::Receiver<bool>,
) -> Result<Option<Stream>, HandshakeFailure> {
    tokio::select! {
        socket = tls.accept(socket, budget) => socket.map(Some),
        _ = stopping.wait_for(|stopping| *stopping) => Ok(None),
    }
}

/// The client behind a trusted proxy that sends the PROXY protocol. The outer `None` closes the connection.
async fn client_behind(
    socket: &mut TcpStream,
    time: Duration,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<Option<Option<SocketAddr>>> {
    tokio::select! {
        client = timeout(time, proxy_header::read(socket)) => client.ok().transpose(),
        _ = stopping.wait_for(|stopping| *stopping) => Ok(None),
    }
}
