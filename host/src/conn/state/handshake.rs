//! What a client asked for and showed in its first HTTP request.

use crate::auth::PresentedToken;

/// The credentials of a handshake. A Socket.IO client may show better ones when it enters a namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    /// Tokens from a header, the query or cookies, in the order in which they count.
    pub(crate) tokens: Box<[PresentedToken]>,
    /// Why another token does not count, where there is one.
    pub(crate) refused: Option<&'static str>,
}

/// The protocol that a WebSocket handshake asked for.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// The plain protocol.
    Plain { credentials: Credentials },
    /// Engine.IO, and Socket.IO on it. With `echoes` every message is sent back, for suites that test Engine.IO alone.
    Eio { credentials: Credentials, echoes: bool },
    /// Every message is sent back, for suites that test WebSocket alone.
    Echo,
}
