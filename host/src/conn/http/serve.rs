//! HTTP on a client's socket, until it becomes a WebSocket.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::peer::HttpPeer;
use super::proxy_header;
use super::routes::answer;
use crate::conn::shard::Shard;
use crate::hub::ShardCommand;
use crate::net::{HttpTimes, REQUEST_TIMEOUT, serve_requests};

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
        let peer = if is_proxied {
            let Some(client) = client_behind(&mut socket, stopping.clone()).await? else { return Ok(()) };
            client.unwrap_or(peer)
        } else {
            peer
        };
        let times = HttpTimes { keep_alive: Some(config.keep_alive), shutdown: config.shutdown_timeout };
        let served = serve_requests(socket, times, &self.shared().unfinished, stopping, |request| {
            let peer = HttpPeer { address: peer, is_proxied };
            // On the heap, so that idle connections do not reserve the size of this future.
            Box::pin(answer(self.clone(), peer, request))
        });
        served.await.map_err(io::Error::other)
    }
}

/// The client behind a trusted proxy that sends the PROXY protocol. The outer `None` closes the connection.
async fn client_behind(
    socket: &mut TcpStream,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<Option<Option<SocketAddr>>> {
    tokio::select! {
        client = timeout(REQUEST_TIMEOUT, proxy_header::read(socket)) => client.ok().transpose(),
        _ = stopping.wait_for(|stopping| *stopping) => Ok(None),
    }
}
