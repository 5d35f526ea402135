//! The client of an HTTP request.

use std::net::SocketAddr;

/// The client of a request, direct or behind a trusted proxy.
#[derive(Debug, Clone)]
pub(super) struct HttpPeer {
    /// The address of the socket's peer; behind a trusted proxy the client's.
    pub(super) address: SocketAddr,
    /// Whether the socket's peer is a trusted proxy.
    pub(super) is_proxied: bool,
    /// Whether the socket has TLS.
    pub(super) is_tls: bool,
}
