//! The client of an HTTP request.

use std::net::SocketAddr;

/// The client of a request, directly or behind a trusted proxy.
#[derive(Debug, Clone)]
pub(super) struct HttpPeer {
    /// The other end's address, or the client's behind a trusted proxy.
    pub(super) address: SocketAddr,
    /// Whether the other end is a trusted proxy.
    pub(super) is_proxied: bool,
}
