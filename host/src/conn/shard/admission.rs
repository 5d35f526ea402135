//! Features that decide whether a connection opens: until they have answered, the client is told nothing.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::parts::Shard;
use crate::conn::state::{Admission, Connection, Timer, Transport, Welcome};
use crate::model::{CloseCode, ConnId, ErrorCode, Failure, Payload};
use crate::plugin::Opening;
use crate::protocol::{Protocol, plain, socketio, websocket};

/// Time for the features' answers: far more than their calls may take, behind whatever waits for them.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

impl Shard {
    /// Asks the features that decide whether a new connection opens. Returns `false` where there are none, and the caller
    /// opens it.
    pub(super) fn begin_admission(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        welcome: Welcome,
    ) -> bool {
        if !self.shared().plugins.has_admission() || !self.hold_frames(connection) {
            return false;
        }
        connection.transport.set(None);
        transport.connections.borrow_mut().retain(|id| *id != connection.id);
        if !transport.is_eio() {
            // The deadline of the first message: it has come.
            transport.times.limit.set(u64::MAX);
        }
        let auth = match &welcome {
            Welcome::SocketIo { auth, .. } => auth.clone(),
            Welcome::Plain { .. } => None,
        };
        self.admissions().insert(connection.id, Admission::new(transport.id, welcome));
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
        });
        match n {
            // The feature was unloaded a moment ago.
            0 => self.open_admitted(connection),
            n => self.admissions().set_waiting(connection.id, n),
        }
        true
    }

    /// A feature's answer.
    pub(super) fn on_admission(self: &Rc<Self>, id: ConnId, outcome: Result<(), Failure>) {
        let Some(connection) = self.connection(id).filter(|_| self.admissions().contains(id)) else { return };
        match outcome {
            Ok(()) if self.admissions().allow(id) => self.open_admitted(&connection),
            Ok(()) => {}
            Err(failure) => self.refuse_admission(&connection, &failure),
        }
    }

    /// The features have not answered in time.
    pub(super) fn on_admission_timeout(self: &Rc<Self>, id: ConnId) {
        if let Some(connection) = self.connection(id).filter(|_| self.admissions().contains(id)) {
            let message = "a feature has not said in time whether the connection may open: try again later";
            self.refuse_admission(&connection, &Failure::new(ErrorCode::FeatureUnavailable, message));
        }
    }

    /// Ends the connections of a transport that still wait: their client has gone.
    pub(super) fn drop_admissions(&self, transport: &Transport) {
        for id in self.admissions().of_transport(transport.id) {
            self.admissions().remove(id);
            if let Some(connection) = self.connection(id) {
                self.end_connection(&connection);
            }
        }
    }

    fn open_admitted(self: &Rc<Self>, connection: &Rc<Connection>) {
        // An operator may have blocked the user meanwhile.
        if let Err(blocked) = self.shared().auth.admit(&self.session_of(connection)) {
            return self.refuse_admission(connection, &Failure::new(ErrorCode::Forbidden, blocked.to_string()));
        }
        let Some(admission) = self.admissions().remove(connection.id) else { return };
        let Some(transport) = self.transport(admission.transport).filter(|transport| transport.is_up()) else {
            return self.end_connection(connection);
        };
        connection.transport.set(Some(transport.id));
        transport.connections.borrow_mut().push(connection.id);
        match admission.welcome {
            Welcome::Plain { id, may_resume, is_over_limit } => {
                self.welcome_plain(&transport, connection);
                self.send_held(&transport, connection);
                if let Some(id) = id {
                    let frame = plain::encode_reply(id, Ok(&Payload::empty()));
                    self.enqueue(&transport, websocket::text_frame(&frame));
                }
                self.begin_plain_events(&transport, connection, may_resume, is_over_limit);
                for text in admission.held {
                    self.on_plain_text(&transport, &text, Instant::now());
                }
            }
            Welcome::SocketIo { pid, auth } => {
                let id = connection.id.to_string();
                self.enqueue(&transport, socketio::connect_frame(connection.namespace(), &id, pid.as_deref()));
                self.send_held(&transport, connection);
                self.open_transport(&transport);
                self.notify_connect(connection, auth.as_deref());
            }
        }
        self.flush_dirty();
    }

    /// Sends the frames that were held, and goes on to record only where the client may resume.
    fn send_held(self: &Rc<Self>, transport: &Rc<Transport>, connection: &Rc<Connection>) {
        self.send_replay(transport, connection, 0);
        let is_recorded = matches!(connection.protocol, Protocol::SocketIo { .. });
        if !is_recorded || self.config().recovery_window.is_zero() {
            self.detached().drop_replay(connection);
        }
    }

    /// Refuses a connection: the client is told why, and no feature keeps it.
    pub(super) fn refuse_admission(self: &Rc<Self>, connection: &Rc<Connection>, failure: &Failure) {
        let Some(admission) = self.admissions().remove(connection.id) else { return };
        self.metrics().connections_refused.inc();
        self.end_connection(connection);
        let Some(transport) = self.transport(admission.transport).filter(|transport| transport.is_up()) else { return };
        match &connection.protocol {
            Protocol::SocketIo { .. } => {
                let data = match &failure.data {
                    Some(data) => serde_json::from_str(data).unwrap_or_default(),
                    None => json!(failure),
                };
                let frame = socketio::connect_error_frame(connection.namespace(), &failure.message, &data);
                self.enqueue(&transport, frame);
            }
            Protocol::Plain => {
                let code = match failure.code {
                    ErrorCode::Unauthorized => CloseCode::Unauthorized,
                    ErrorCode::FeatureUnavailable | ErrorCode::RateLimited | ErrorCode::Internal => {
                        CloseCode::TryAgainLater
                    }
                    _ => CloseCode::Forbidden,
                };
                self.close(&transport, code, &failure.message);
            }
        }
        self.flush_dirty();
    }
}
