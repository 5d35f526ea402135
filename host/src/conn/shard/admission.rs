//! Features that decide whether a connection opens: until they have answered, the client is told nothing.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::parts::Shard;
use crate::conn::state::{Admission, Connection, Inbound, Timer, Transport, Welcome};
use crate::model::{CloseCode, ConnId, ErrorCode, Failure, Payload};
use crate::plugin::Opening;
use crate::protocol::{Protocol, plain, socketio, websocket};

/// Time for the features' answers: far more than their calls may take, behind whatever waits for them.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

impl Shard {
    /// Opens a new connection: at once, or when the features that decide about it have allowed it.
    pub(super) fn open_or_ask(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        welcome: Welcome,
    ) {
        if !self.shared().plugins.has_admission() {
            return self.welcome(transport, connection, welcome);
        }
        connection.was_asked.set(true);
        connection.transport.set(None);
        transport.connections.borrow_mut().retain(|id| *id != connection.id);
        transport.waiting.borrow_mut().push(connection.id);
        if !transport.is_eio() {
            // The deadline of the first message: it has come.
            transport.times.limit.set(u64::MAX);
        }
        if matches!(welcome, Welcome::Plain { is_over_limit: true, .. }) {
            // It takes no other's place before it is known whether its client resumes one.
            self.shared().hub.set_counted(connection.id, false);
        }
        let auth = match &welcome {
            Welcome::SocketIo { auth, .. } => auth.clone(),
            Welcome::Plain { .. } | Welcome::Resumed { .. } => None,
        };
        self.admissions().insert(connection.id, Admission::new(transport.id, welcome));
        if !self.hold_frames(connection) {
            let failure = Failure::new(ErrorCode::Internal, "the host has no randomness: try again later");
            return self.refuse_admission(connection, &failure, CloseCode::TryAgainLater);
        }
        let deadline = self.now() + ADMISSION_TIMEOUT.as_millis() as u64;
        self.timers().schedule(deadline, Timer::Admission(connection.id));
        let identity = connection.identity.borrow().clone();
        let handshake = self.handshake_of(transport);
        let n = self.shared().plugins.ask_admission(Opening {
            connection: connection.id,
            identity: &identity,
            namespace: connection.namespace(),
            auth: auth.as_deref(),
            handshake: &handshake,
            was_asked: true,
        });
        match n {
            // The feature was unloaded a moment ago.
            0 => self.open_admitted(connection),
            n => self.admissions().set_waiting(connection.id, n),
        }
    }

    /// A feature's answer.
    pub(super) fn on_admission(self: &Rc<Self>, id: ConnId, outcome: Result<(), Failure>) {
        let Some(connection) = self.connection(id).filter(|_| self.admissions().contains(id)) else { return };
        match outcome {
            Ok(()) if self.admissions().allow(id) => self.open_admitted(&connection),
            Ok(()) => {}
            Err(failure) => {
                let code = match failure.code {
                    ErrorCode::Unauthorized => CloseCode::Unauthorized,
                    ErrorCode::FeatureUnavailable | ErrorCode::RateLimited | ErrorCode::Internal => {
                        CloseCode::TryAgainLater
                    }
                    _ => CloseCode::Forbidden,
                };
                self.refuse_admission(&connection, &failure, code);
            }
        }
    }

    /// The features have not answered in time.
    pub(super) fn on_admission_timeout(self: &Rc<Self>, id: ConnId) {
        if let Some(connection) = self.connection(id).filter(|_| self.admissions().contains(id)) {
            let message = "a feature has not said in time whether the connection may open: try again later";
            let failure = Failure::new(ErrorCode::FeatureUnavailable, message);
            self.refuse_admission(&connection, &failure, CloseCode::TryAgainLater);
        }
    }

    /// Ends the connections of a transport that still wait: their client has gone.
    pub(super) fn drop_admissions(&self, transport: &Transport) {
        for id in transport.waiting.take() {
            self.admissions().remove(id);
            if let Some(connection) = self.connection(id) {
                self.end_connection(&connection);
            }
        }
    }

    fn open_admitted(self: &Rc<Self>, connection: &Rc<Connection>) {
        // A block may have come meanwhile, and a session of a cookie may have ended.
        if let Err(refused) = self.shared().auth.readmit(self.session_of(connection)) {
            let failure = Failure::new(refused.kind().into(), refused.to_string());
            return self.refuse_admission(connection, &failure, CloseCode::Forbidden);
        }
        let Some(admission) = self.admissions().remove(connection.id) else { return };
        let Some(transport) = self.transport(admission.transport).filter(|transport| transport.is_up()) else {
            return self.end_connection(connection);
        };
        transport.waiting.borrow_mut().retain(|id| *id != connection.id);
        connection.transport.set(Some(transport.id));
        transport.connections.borrow_mut().push(connection.id);
        if matches!(admission.welcome, Welcome::Plain { is_over_limit: true, .. }) {
            self.shared().hub.set_counted(connection.id, true);
        }
        self.welcome(&transport, connection, admission.welcome);
        for text in admission.held.into_texts() {
            if let Some(handoff) = transport.handoff.borrow_mut().as_deref_mut() {
                handoff.keep(Some(Inbound::Text(text.into())));
            } else if transport.is_up() {
                self.on_plain_text(&transport, &text, Instant::now());
            }
        }
        if transport.handoff.borrow().is_some() {
            let decoder = transport.socket().map(|socket| socket.decoder.take());
            self.complete_handoff(&transport, decoder.unwrap_or_default());
        }
        self.flush_dirty();
    }

    /// Tells a client that its connection is open, and then what was held for it.
    fn welcome(self: &Rc<Self>, transport: &Rc<Transport>, connection: &Rc<Connection>, welcome: Welcome) {
        match welcome {
            Welcome::Plain { id, may_resume, is_over_limit } => {
                self.send_connected(transport, connection);
                self.send_held(transport, connection);
                self.open_transport(transport);
                if let Some(id) = id {
                    let frame = plain::encode_reply(id, Ok(&Payload::empty()));
                    self.enqueue(transport, websocket::text_frame(&frame));
                }
                if !(may_resume && self.await_first_frame(transport, connection, is_over_limit)) {
                    self.notify_connect(connection, None);
                } else if !self.shared().hub.has_session(&connection.identity.borrow().user) {
                    self.ask_abroad(connection);
                }
            }
            Welcome::Resumed { id, held } => {
                self.open_transport(transport);
                self.notify_connect(connection, None);
                held.into_iter().for_each(|frames| self.enqueue(transport, frames));
                self.send_held(transport, connection);
                self.begin_session(transport, connection, id);
            }
            Welcome::SocketIo { pid, auth } => {
                let id = connection.id.to_string();
                self.enqueue(transport, socketio::connect_frame(connection.namespace(), &id, pid.as_deref()));
                self.send_held(transport, connection);
                self.open_transport(transport);
                self.notify_connect(connection, auth.as_deref());
            }
        }
    }

    /// Sends the frames that were held, if any were, and goes on to record only where the client may resume.
    fn send_held(self: &Rc<Self>, transport: &Rc<Transport>, connection: &Rc<Connection>) {
        if !connection.is_recoverable() {
            return;
        }
        self.send_replay(transport, connection, 0);
        let is_recorded = matches!(connection.protocol, Protocol::SocketIo { .. });
        if !is_recorded || self.config().recovery_window.is_zero() {
            self.detached().drop_replay(connection);
        }
    }

    /// Refuses a connection: the client is told why, and no feature keeps it. `code` closes a plain client.
    pub(super) fn refuse_admission(self: &Rc<Self>, connection: &Rc<Connection>, failure: &Failure, code: CloseCode) {
        let Some(admission) = self.admissions().remove(connection.id) else { return };
        self.metrics().connections_refused.inc();
        self.end_connection(connection);
        let Some(transport) = self.transport(admission.transport).filter(|transport| transport.is_up()) else { return };
        transport.waiting.borrow_mut().retain(|id| *id != connection.id);
        match &connection.protocol {
            Protocol::SocketIo { .. } => {
                let data = match &failure.data {
                    Some(data) => serde_json::from_str(data).unwrap_or_default(),
                    None => json!(failure),
                };
                let frame = socketio::connect_error_frame(connection.namespace(), &failure.message, &data);
                self.enqueue(&transport, frame);
            }
            Protocol::Plain => self.close(&transport, code, &failure.message),
        }
        self.flush_dirty();
    }
}
