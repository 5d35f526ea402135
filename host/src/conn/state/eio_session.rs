//! One Engine.IO session, and the request by which a polling client waits for packets.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::handshake::Credentials;
use super::ids::TransportId;
use crate::protocol::socketio;

/// The id of an Engine.IO session. The id authorises requests of the session, so it is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sid(u128);

impl Sid {
    /// # Errors
    /// Where the system's random generator fails.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map(|()| Self(u128::from_ne_bytes(bytes)))
    }

    #[cfg(test)]
    pub(super) fn from_number(number: u128) -> Self {
        Self(number)
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Sid {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_id = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| u128::from_str_radix(text, 16)).and_then(Result::ok).map(Self).ok_or(())
    }
}

/// An Engine.IO session.
#[derive(Debug)]
pub(crate) struct EioSession {
    pub(crate) id: Sid,
    pub(crate) credentials: Credentials,
    pub(crate) decoder: RefCell<socketio::Decoder>,
    /// Whether every message is sent back, for conformance suites of Engine.IO alone.
    pub(crate) echoes: bool,
    /// Namespaces that the client has left. The client may not know yet that it was disconnected, so packets to these
    /// namespaces are no violation.
    left_namespaces: RefCell<Vec<Box<str>>>,
    /// The WebSocket that probes for an upgrade from polling.
    pub(crate) probe: Cell<Option<TransportId>>,
}

impl EioSession {
    pub(crate) fn new(id: Sid, credentials: Credentials, echoes: bool) -> Self {
        let (decoder, left_namespaces) = (RefCell::default(), RefCell::default());
        Self { id, credentials, decoder, echoes, left_namespaces, probe: Cell::new(None) }
    }

    /// Notes that the client left a namespace.
    pub(crate) fn leave(&self, namespace: &str) {
        if !self.has_left(namespace) {
            self.left_namespaces.borrow_mut().push(namespace.into());
        }
    }

    /// Whether the client was in a namespace and left it.
    pub(crate) fn has_left(&self, namespace: &str) -> bool {
        self.left_namespaces.borrow().iter().any(|left| **left == *namespace)
    }
}

/// Why a request of a polling session failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PollError {
    /// The session does not exist, or has ended.
    Unknown,
    /// The request violates the protocol, and ends the session.
    Bad,
}

/// The answer to a request of a polling session: a payload of packets.
pub(crate) type Polled = Result<Bytes, PollError>;

/// A request that waits for packets.
#[derive(Debug)]
pub(crate) struct Poll {
    pub(crate) answer: oneshot::Sender<Polled>,
    /// The most packets that the client decodes from one answer.
    pub(crate) max_packets: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sid_parses_what_it_displays() {
        let id = Sid(5 << 100);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "+123456789012345678901234567890a", &"0".repeat(31), &"0".repeat(33), "__proto__"] {
            assert_eq!(text.parse::<Sid>(), Err(()), "{text}");
        }
    }

    #[test]
    fn leave_remembers_namespaces_once() {
        let session = EioSession::new(Sid(1), Credentials::default(), false);
        session.leave("/a");
        session.leave("/a");
        assert_eq!((session.has_left("/a"), session.has_left("/")), (true, false));
        assert_eq!(session.left_namespaces.borrow().len(), 1);
    }
}
