//! How transports and connections are closed.

use std::rc::Rc;
use std::time::Duration;

use super::parts::Shard;
use crate::conn::state::{Connection, Io, Phase, Session, Transport};
use crate::hub::ShardCommand;
use crate::model::{CloseCode, ErrorCode};
use crate::protocol::{Protocol, engineio, websocket};

/// Time for a client to take our close and answer it. After that its socket is closed under it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason of closes when the host ends.
const RESTART_REASON: &str = "the host restarts: connect again";

impl Shard {
    /// Sends a close. The client may resume if it was lost or needs a new token.
    pub(super) fn close(self: &Rc<Self>, transport: &Rc<Transport>, code: CloseCode, reason: &str) {
        let may_resume = matches!(code, CloseCode::GoingAway | CloseCode::TokenExpired);
        self.close_with(transport, code, reason, may_resume);
    }

    pub(super) fn close_for_restart(self: &Rc<Self>, transport: &Rc<Transport>) {
        self.close(transport, CloseCode::Restart, RESTART_REASON);
    }

    /// Sends a close. Its connections end, or are detached if the client may resume.
    pub(super) fn close_with(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        code: CloseCode,
        reason: &str,
        may_resume: bool,
    ) {
        if !transport.is_up() {
            return;
        }
        self.metrics().closed(code);
        match &transport.io {
            Io::Socket(_) => self.enqueue(transport, websocket::close_frame(code.code(), reason)),
            // There is no request to answer with a close.
            Io::Polling(poll) if poll.borrow().is_none() => return self.shutdown_transport(transport, may_resume),
            Io::Polling(_) => self.enqueue(transport, engineio::close_frame()),
        }
        transport.phase.set(Phase::Closing);
        let timeout = if self.is_stopping() { self.config().shutdown_timeout } else { CLOSE_TIMEOUT };
        self.set_limit(transport, timeout);
        self.detach_all(transport, may_resume);
    }

    /// Takes all connections off a transport, and stops to count it.
    pub(super) fn detach_all(self: &Rc<Self>, transport: &Transport, may_resume: bool) {
        for connection in transport.connections.take().into_iter().filter_map(|id| self.connection(id)) {
            self.on_transport_lost(&connection, may_resume);
        }
        if transport.counted.replace(false) {
            self.shared().admission.leave(transport.peer, self.config());
        }
    }

    /// Ends a transport at once. Its outbox is written once more.
    pub(super) fn shutdown_transport(self: &Rc<Self>, transport: &Rc<Transport>, may_resume: bool) {
        if transport.phase.replace(Phase::Ended) == Phase::Ended {
            return;
        }
        // Whether this reaches the client is not known, nor needed.
        match &transport.io {
            Io::Socket(socket) => drop(self.writes().write(transport, &socket.tcp)),
            Io::Polling(poll) => self.flush_polling(transport, poll),
        }
        self.detach_all(transport, may_resume);
        match &*transport.session.borrow() {
            Session::Eio(eio) => {
                self.transports().remove_polling(eio.id);
                self.shared().eio_sessions.remove(eio.id);
            }
            Session::Probe { id, .. } => {
                let eio = self.transports().polling(*id).and_then(|polling| polling.eio());
                if let Some(eio) = eio.filter(|eio| eio.probe.get() == Some(transport.id)) {
                    eio.probe.set(None);
                }
            }
            _ => {}
        }
        self.remove_transport(transport);
        if let Some(socket) = transport.socket() {
            // The client sees the end at once, though a task may still hold the transport for a moment.
            let _ = socket2::SockRef::from(&socket.tcp).shutdown(std::net::Shutdown::Both);
        }
    }

    /// Removes a transport whose connections have been taken off it.
    pub(super) fn remove_transport(&self, transport: &Transport) {
        transport.holding.take();
        self.transports().remove(transport.id);
        self.queue().count(-1);
        self.metrics().connections.dec();
        if self.is_stopping() {
            // The shard's loop sees whether this was the last one.
            self.queue().push(ShardCommand::Shutdown);
        }
    }

    /// The client closed its WebSocket, or answered our close.
    pub(super) fn closed_by_client(self: &Rc<Self>, transport: &Rc<Transport>, code: Option<u16>) {
        // Its own close is answered with the same code.
        if transport.is_up() {
            self.enqueue(transport, websocket::close_frame(code.unwrap_or(CloseCode::Normal.code()), ""));
        }
        // A page that goes away says so (1001), and so does a client that is done (1000). Socket.IO's own closes its
        // WebSocket without a code where it means to reconnect. The plain protocol has no other way to leave.
        self.shutdown_transport(transport, transport.is_eio() && !matches!(code, Some(1000 | 1001)));
    }

    /// Closes a connection on behalf of a feature, an operator or another connection.
    pub(super) fn kick(self: &Rc<Self>, connection: &Rc<Connection>, code: CloseCode, reason: &str) {
        self.confirm_by_id(connection);
        let Some(transport) = self.transport_of(connection) else { return self.drop_detached(connection.id, None) };
        if let Protocol::SocketIo { .. } = &connection.protocol {
            let why = (code == CloseCode::TooManyConnections).then_some((ErrorCode::Conflict, reason));
            self.disconnect_namespace(&transport, connection, why, false);
            if !transport.connections.borrow().is_empty() {
                return self.metrics().closed(code);
            }
            if transport.socket().is_none() {
                // A client handles the close in an answer before the packets in front of it, and would not learn that it
                // was disconnected. It ends the session itself, or the limit does.
                transport.phase.set(Phase::Authenticating);
                self.metrics().closed(code);
                return self.set_limit(&transport, CLOSE_TIMEOUT);
            }
        }
        self.close(&transport, code, reason);
    }
}
