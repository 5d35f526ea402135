//! Socket.IO clients that enter namespaces, with a new connection or a resumed one, and leave them.

use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::import::{Returning, Way};
use super::limits::rate_limited;
use super::parts::Shard;
use super::recovery::ResumeOutcome;
use super::user_limit::PROBE_TIMEOUT;
use crate::auth::{self, Place, PresentedToken, RefusalKind};
use crate::conn::state::{Connection, Credentials, EioSession, Inbound, SessionKey, Transport, Welcome};
use crate::hub::Progress;
use crate::model::{ErrorCode, Failure};
use crate::protocol::{Outgoing, Protocol, plain, socketio};

/// Time after which a client over its rate may try again: the limit is per second.
const RATE_PAUSE: Duration = Duration::from_secs(1);

/// Time in which a set of keys is fetched, or an endpoint of sessions answers again.
const CHECK_PAUSE: Duration = Duration::from_secs(2);

/// The fields of a client's auth payload that the host reads. Features that ask for the payload get all of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    token: serde_json::Value,
    pid: serde_json::Value,
    offset: serde_json::Value,
}

impl Auth {
    fn token(&self) -> Option<PresentedToken> {
        PresentedToken::new(Place::Payload, self.token.as_str()?)
    }

    fn recovery(&self) -> Option<(SessionKey, Progress)> {
        let key = self.pid.as_str()?.parse().ok()?;
        // A malformed offset counts as one of an unknown event, from which nothing can be resumed.
        let last = self.offset.as_str().map(|offset| Outgoing::parse_offset(offset).unwrap_or(0));
        Some((key, Progress::Event(last)))
    }
}

/// The refusal of a client that may not enter a namespace.
struct Refused {
    message: String,
    data: serde_json::Value,
}

impl Refused {
    fn for_good(code: ErrorCode, message: String) -> Self {
        let data = json!({ "code": code, "message": message });
        Self { message, data }
    }

    /// A temporary refusal. Socket.IO's client does not reconnect after a refusal; its page can, after `retryAfterMs`.
    fn for_now(code: &str, message: String, wait: Duration) -> Self {
        let data = json!({ "code": code, "message": message, "retryAfterMs": wait.as_millis() as u64 });
        Self { message, data }
    }
}

impl Shard {
    /// Admits a client to a namespace, with a new connection or by resuming the client's detached one.
    pub(super) fn connect_namespace(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &EioSession,
        namespace: &str,
        auth: Option<&RawValue>,
        packet: &str,
    ) {
        if self.connection_in(transport, namespace).is_some() || self.is_waiting_for(transport, namespace) {
            return self.close_for_violation(transport, "the client is in this namespace already");
        }
        if let Err(refused) = self.try_connect_namespace(transport, eio, namespace, auth, packet) {
            self.refuse_namespace(transport, namespace, &refused);
        }
    }

    fn refuse_namespace(&self, transport: &Rc<Transport>, namespace: &str, refused: &Refused) {
        self.enqueue(transport, socketio::connect_error_frame(namespace, &refused.message, &refused.data));
    }

    pub(super) fn refuse_namespace_for_rate(&self, transport: &Rc<Transport>, namespace: &str) {
        let refused = Refused::for_now(ErrorCode::RateLimited.as_str(), rate_limited().message, RATE_PAUSE);
        self.refuse_namespace(transport, namespace, &refused);
    }

    /// # Errors
    /// Where the client is refused.
    fn try_connect_namespace(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &EioSession,
        namespace: &str,
        auth: Option<&RawValue>,
        packet: &str,
    ) -> Result<(), Refused> {
        if !self.has_namespace(namespace) {
            return Err(Refused { message: "Invalid namespace".to_owned(), data: serde_json::Value::Null });
        }
        // A payload that is not an object has none of the fields.
        let fields: Auth = auth.and_then(|auth| serde_json::from_str(auth.get()).ok()).unwrap_or_default();
        let session = self.sign_in_namespace(transport, eio, &fields)?;
        if let Some((key, progress)) = fields.recovery().filter(|_| !self.config().recovery_window.is_zero()) {
            match self.try_resume(key, progress, &session, namespace) {
                ResumeOutcome::Here(connection, at) => {
                    self.resume_namespace(transport, &connection, at, session);
                    return Ok(());
                }
                // A transport that carries other connections stays on their shard.
                ResumeOutcome::Elsewhere(shard) if self.carries_nothing(transport) => {
                    self.begin_handoff(transport, shard, None, Inbound::from_socketio(packet));
                    return Ok(());
                }
                ResumeOutcome::Abroad => {
                    let way = Way::SocketIo { auth: auth.map(RawValue::to_owned) };
                    let protocol = self.socketio_protocol(namespace);
                    let returning = Returning { key, progress, session: session.clone(), protocol, way };
                    if self.begin_import(transport, returning) {
                        return Ok(());
                    }
                }
                ResumeOutcome::Elsewhere(_) | ResumeOutcome::Gone => {}
            }
        }
        self.open_namespace(transport, namespace, auth, session);
        Ok(())
    }

    /// Whether a transport carries no connection, and waits for none.
    fn carries_nothing(&self, transport: &Transport) -> bool {
        let is_empty = transport.connections.borrow().is_empty() && transport.waiting.borrow().is_empty();
        is_empty && !self.imports().is_waiting(transport.id)
    }

    fn socketio_protocol(&self, namespace: &str) -> Protocol {
        let offsets = !self.config().recovery_window.is_zero();
        Protocol::SocketIo { namespace: self.connections().shared_namespace(namespace), offsets }
    }

    /// Resumes the detached connection of a client, from index `at` in the replay buffer.
    pub(super) fn resume_namespace(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        at: usize,
        session: auth::Session,
    ) {
        let namespace = connection.namespace();
        // The connection is detached, so the count does not include it.
        if !self.has_place(transport, namespace, &session) {
            return;
        }
        self.attach(transport, connection, session);
        let pid = connection.with_replay(|buffer| buffer.key(connection.id).to_string());
        self.enqueue(transport, socketio::connect_frame(namespace, &connection.id.to_string(), pid.as_deref()));
        self.send_replay(transport, connection, at);
        self.open_transport(transport);
    }

    /// Opens a new connection in a namespace.
    pub(super) fn open_namespace(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        namespace: &str,
        auth: Option<&RawValue>,
        session: auth::Session,
    ) {
        if !self.has_place(transport, namespace, &session) {
            return;
        }
        let protocol = self.socketio_protocol(namespace);
        let Some(connection) = self.new_connection(transport, protocol, session) else { return };
        let pid = self.make_recoverable(&connection).map(|key| key.to_string());
        let welcome = Welcome::SocketIo { pid, auth: auth.map(RawValue::to_owned) };
        self.open_or_ask(transport, &connection, welcome);
    }

    /// Whether the user may have another connection; else the client is refused.
    fn has_place(self: &Rc<Self>, transport: &Rc<Transport>, namespace: &str, session: &auth::Session) -> bool {
        let capacity = self.ensure_user_capacity(&session.identity.user);
        if let Err(message) = &capacity {
            let refused = Refused::for_now("too_many_connections", message.clone(), PROBE_TIMEOUT);
            self.refuse_namespace(transport, namespace, &refused);
        }
        capacity.is_ok()
    }

    /// Signs a client in by the token in its auth payload, or else by one of the handshake.
    fn sign_in_namespace(
        &self,
        transport: &Transport,
        eio: &EioSession,
        fields: &Auth,
    ) -> Result<auth::Session, Refused> {
        let auth = &self.shared().auth;
        let Credentials { tokens, session, refused, .. } = &eio.credentials;
        let token = fields.token();
        let presented = token.iter().chain(tokens);
        if let Some(verified) = self.check_credentials(Some(transport), presented, session.as_ref()) {
            return verified.map_err(|refusal| {
                let message = match refused {
                    Some(more) => format!("{}; {more}", refusal.message),
                    None => refusal.message,
                };
                match refusal.kind {
                    // A page that takes this for a refusal of its credentials would ask its user to log in again.
                    RefusalKind::Passing => {
                        Refused::for_now(ErrorCode::FeatureUnavailable.as_str(), message, CHECK_PAUSE)
                    }
                    kind => Refused::for_good(kind.into(), message),
                }
            });
        }
        auth.anonymous(self.connections().next_id(self.shared().hub.node()), transport.peer.ip()).ok_or_else(|| {
            let missing = "a token is missing: give it as auth.token, in the Authorization header or in the cookie";
            Refused::for_good(ErrorCode::Unauthorized, refused.unwrap_or(missing).to_owned())
        })
    }

    /// Whether a connection in the namespace waits to open.
    fn is_waiting_for(&self, transport: &Transport, namespace: &str) -> bool {
        if self.imports().is_awaited(transport.id, namespace) {
            return true;
        }
        let waiting = transport.waiting.borrow();
        waiting.iter().filter_map(|id| self.connection(*id)).any(|connection| connection.namespace() == namespace)
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.shared().plugins.has_namespace(namespace)
            || self.config().namespaces.iter().any(|configured| configured == namespace)
    }

    /// Disconnects a client from a namespace. Its transport stays open. A reason is sent before as the event `error`,
    /// because the disconnect packet has no field for a reason.
    pub(super) fn disconnect_namespace(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        why: Option<(ErrorCode, &str)>,
        may_resume: bool,
    ) {
        if let Some((code, message)) = why {
            let why = plain::error_data(&Failure::new(code, message), None);
            self.enqueue(transport, socketio::event_frames(connection.namespace(), "error", &why, None, None));
        }
        self.enqueue(transport, socketio::disconnect_frame(connection.namespace()));
        self.leave_namespace(transport, connection, may_resume);
    }

    /// Takes a connection off a transport that may carry others.
    pub(super) fn leave_namespace(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        may_resume: bool,
    ) {
        if let Some(eio) = transport.eio() {
            eio.leave(connection.namespace());
        }
        transport.connections.borrow_mut().retain(|other| *other != connection.id);
        self.on_transport_lost(connection, may_resume);
    }
}
