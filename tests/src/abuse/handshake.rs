//! The ways in which an attacker connects.

/// The way in which a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// By the plain protocol, with a token.
    Plain,
    /// By the plain protocol, without a token.
    Anonymous,
    /// By Socket.IO over WebSocket, with a token.
    SocketIo,
    /// By the plain protocol, before authentication.
    Unsigned,
    /// By Engine.IO over WebSocket, without a namespace.
    Engine,
}
