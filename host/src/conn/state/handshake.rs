//! The protocol and the credentials of a client's first HTTP request.

use crate::auth::{PresentedSession, PresentedToken};

/// The credentials of a handshake. A Socket.IO client may send a token of its own for each namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    /// Tokens from a header, the query or cookies, in the order of precedence.
    pub(crate) tokens: Box<[PresentedToken]>,
    /// The session of a cookie, where the host asked for one.
    pub(crate) session: Option<PresentedSession>,
    /// The query and the chosen headers, for features that are told of connections: fields of a JSON object, which begin
    /// with a comma.
    pub(crate) handshake: Option<Box<str>>,
    /// Why a cookie was ignored, if one was.
    pub(crate) refused: Option<&'static str>,
}

/// The protocol that a WebSocket handshake asked for.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// The plain protocol.
    Plain { credentials: Credentials },
    /// Engine.IO, and Socket.IO on it. With `echoes` every message is sent back, for conformance suites of Engine.IO
    /// alone.
    Eio { credentials: Credentials, echoes: bool },
    /// Every message is sent back, for conformance suites of WebSocket alone.
    Echo,
}
