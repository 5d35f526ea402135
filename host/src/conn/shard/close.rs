//! How transports and connections are closed.

use std::rc::Rc;
use std::time::Duration;

use super::parts::Shard;
use crate::conn::state::{Connection, Io, Phase, Session, Transport};
use crate::hub::ShardCommand;
use crate::model::{CloseCode, ErrorCode, Failure};
use crate::protocol::{Protocol, engineio, websocket};

/// Time for a client to read and answer the host's close. After that the host closes the socket.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason of closes at shutdown.
const RESTART_REASON: &str = "the host restarts: connect again";

impl Shard {
    /// Sends a close. The connections are detached where `code` says that the client was lost or that its token
    /// expired.
    pub(super) fn close(self: &Rc<Self>, transport: &Rc<Transport>, code: CloseCode, reason: &str) {
        let may_resume = matches!(code, CloseCode::GoingAway | CloseCode::TokenExpired);
        self.close_with(transport, code, reason, may_resume);
    }

    pub(super) fn close_for_restart(self: &Rc<Self>, transport: &Rc<Transport>) {
        // On another node of the cluster, if there is one.
        let may_resume = self.shared().plugins.has_other_nodes();
        self.close_with(transport, CloseCode::Restart, RESTART_REASON, may_resume);
    }

    /// Sends a close. The transport's connections end, or are detached if the client may resume.
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
            // Without a waiting request the close cannot be sent.
            Io::Polling(poll) if poll.borrow().is_none() => return self.shutdown_transport(transport, may_resume),
            Io::Polling(_) => self.enqueue(transport, engineio::close_frame()),
        }
        transport.phase.set(Phase::Closing);
        let timeout = if self.is_stopping() { self.config().shutdown_timeout } else { CLOSE_TIMEOUT };
        self.set_limit(transport, timeout);
        self.detach_all(transport, may_resume);
    }

    /// Takes all connections off a transport, and removes the transport from the counts.
    pub(super) fn detach_all(self: &Rc<Self>, transport: &Transport, may_resume: bool) {
        self.drop_admissions(transport);
        for connection in transport.connections.take().into_iter().filter_map(|id| self.connection(id)) {
            self.on_transport_lost(&connection, may_resume);
        }
        if transport.counted.replace(false) {
            self.shared().admission.leave(transport.peer, self.config());
        }
    }

    /// Ends a transport at once, after a last write of its outbox.
    pub(super) fn shutdown_transport(self: &Rc<Self>, transport: &Rc<Transport>, may_resume: bool) {
        if transport.phase.replace(Phase::Ended) == Phase::Ended {
            return;
        }
        // Best effort: the result of the write does not matter.
        match &transport.io {
            Io::Socket(socket) => drop(self.writes().write(transport, socket)),
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
            socket.close_tls();
            // The client sees the end at once, though a task may hold the transport a moment longer.
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
            // The shard's loop checks whether this was the last transport.
            self.queue().push(ShardCommand::Shutdown);
        }
    }

    /// Handles the client's close of its WebSocket, or its answer to the host's close.
    pub(super) fn closed_by_client(self: &Rc<Self>, transport: &Rc<Transport>, code: Option<u16>) {
        // A close by the client is answered with the same code.
        if transport.is_up() {
            self.enqueue(transport, websocket::close_frame(code.unwrap_or(CloseCode::Normal.code()), ""));
        }
        // A page that unloads closes with 1001, a client that is done with 1000. Socket.IO's client closes without a
        // code where it will reconnect, so its connections are detached. A plain client leaves by any close.
        self.shutdown_transport(transport, transport.is_eio() && !matches!(code, Some(1000 | 1001)));
    }

    /// Closes a connection on behalf of a feature, an operator or another connection.
    pub(super) fn kick(self: &Rc<Self>, connection: &Rc<Connection>, code: CloseCode, reason: &str) {
        if self.admissions().contains(connection.id) {
            let kind = match code {
                CloseCode::TooManyConnections => ErrorCode::Conflict,
                CloseCode::TokenExpired => ErrorCode::Unauthorized,
                _ => ErrorCode::Forbidden,
            };
            return self.refuse_admission(connection, &Failure::new(kind, reason), code);
        }
        self.confirm_by_id(connection);
        let Some(transport) = self.transport_of(connection) else { return self.drop_detached(connection.id, None) };
        if let Protocol::SocketIo { .. } = &connection.protocol {
            let why = match code {
                CloseCode::TooManyConnections => Some((ErrorCode::Conflict, reason)),
                CloseCode::TokenExpired => Some((ErrorCode::Unauthorized, reason)),
                _ => None,
            };
            self.disconnect_namespace(&transport, connection, why, false);
            if !transport.connections.borrow().is_empty() {
                return self.metrics().closed(code);
            }
            if transport.socket().is_none() {
                // A polling client handles a close packet before the packets in front of it in the same answer, and
                // would miss the disconnect packet. So no close is sent: the client ends the session, or the time limit
                // does.
                transport.phase.set(Phase::Authenticating);
                self.metrics().closed(code);
                return self.set_limit(&transport, CLOSE_TIMEOUT);
            }
        }
        self.close_with(&transport, code, reason, false);
    }
}
