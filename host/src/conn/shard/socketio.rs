//! What Socket.IO packets mean: namespaces are entered and left, events and acknowledgements go to features.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::eio::{Credentials, EioSession};
use super::handoff::Inbound;
use super::parts::Shard;
use super::rate::Verdict;
use super::recovery::ResumeOutcome;
use super::user_limit::PROBE_TIMEOUT;
use crate::auth::{Place, Session, Shown};
use crate::conn::state::connection::Connection;
use crate::conn::state::replay::{Progress, SessionKey};
use crate::conn::state::transport::Transport;
use crate::model::{BadPlaceholders, ErrorCode, Failure, without_lone_surrogates};
use crate::protocol::plain::{self, MAX_EVENT_BYTES};
use crate::protocol::socketio::{self, Packet};
use crate::protocol::{Outgoing, Protocol};

/// How long a client is to wait that sent too much: a second brings as many messages as the limit says.
const RATE_PAUSE: Duration = Duration::from_secs(1);

/// What a client is told that speaks with another parser.
const NO_MSGPACK: &str = "this host speaks Socket.IO's default parser: leave the option parser out";

/// What of a client's auth payload the host looks at. All of it is for features that want it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    token: serde_json::Value,
    pid: serde_json::Value,
    offset: serde_json::Value,
}

impl Auth {
    fn token(&self) -> Option<Shown> {
        Shown::new(Place::Payload, self.token.as_str()?)
    }

    fn recovery(&self) -> Option<(SessionKey, Progress)> {
        let key = self.pid.as_str()?.parse().ok()?;
        // What was never an offset is that of no event, and so of none that can be gone on from.
        let last = self.offset.as_str().map(|offset| Outgoing::parse_offset(offset).unwrap_or(0));
        Some((key, Progress::Event(last)))
    }
}

/// What a client is told that is not let into a namespace.
struct Refused {
    message: String,
    data: serde_json::Value,
}

impl Refused {
    /// A client does not come back by itself from a refusal. Its page does, if it is told when.
    fn for_now(code: &str, message: String, wait: Duration) -> Self {
        let data = json!({ "code": code, "message": message, "retryAfterMs": wait.as_millis() as u64 });
        Self { message, data }
    }
}

impl Shard {
    pub(in crate::conn) fn on_socketio_text(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &Rc<EioSession>,
        text: &str,
        read_at: Instant,
    ) {
        match self.meter(transport, text.len()) {
            Verdict::Take => {}
            Verdict::Refuse => return self.refuse_packet(transport, eio, text),
            Verdict::Drop => {
                let skipped = eio.decoder.borrow_mut().skip(text);
                return skipped.unwrap_or_else(|malformed| self.close_for_violation(transport, malformed.reason));
            }
            Verdict::CutOff => return,
        }
        let text = &*without_lone_surrogates(text);
        let packet = eio.decoder.borrow_mut().text(text, self.shared.config.message_bytes);
        match packet {
            Ok(Some(Packet::Connect { namespace, auth })) => {
                self.enter(transport, eio, &namespace, auth.as_deref(), text)
            }
            Ok(Some(packet)) => self.on_socketio_packet(transport, eio, packet, read_at),
            Ok(None) => {}
            Err(malformed) => self.close_for_violation(transport, malformed.reason),
        }
    }

    pub(in crate::conn) fn on_socketio_binary(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &Rc<EioSession>,
        bytes: Cow<'_, [u8]>,
        read_at: Instant,
    ) {
        if transport.connections.borrow().is_empty() && socketio::is_msgpack(&bytes) {
            // It ends the session itself when it has read that; by polling it could not read it of one that is ended.
            if self.meter(transport, bytes.len()) == Verdict::Take {
                self.enqueue(transport, socketio::msgpack_error_frame(NO_MSGPACK));
                self.report_violation(transport, NO_MSGPACK);
            }
            return;
        }
        if eio.decoder.borrow().passes_over() {
            self.meter(transport, bytes.len());
        }
        let packet = eio.decoder.borrow_mut().binary(bytes);
        match packet {
            Ok(Some(packet)) => self.on_socketio_packet(transport, eio, packet, read_at),
            Ok(None) => {}
            Err(malformed) => self.close_for_violation(transport, malformed.reason),
        }
    }

    /// Answers a packet over the rate. It is read for what the answer needs alone, and what belongs to it is passed over.
    fn refuse_packet(self: &Rc<Self>, transport: &Rc<Transport>, eio: &EioSession, text: &str) {
        let text = &*without_lone_surrogates(text);
        let packet = eio.decoder.borrow_mut().refuse(text, self.shared.config.message_bytes);
        let packet = match packet {
            Ok(packet) => packet,
            Err(malformed) => return self.close_for_violation(transport, malformed.reason),
        };
        let connection = in_namespace(transport, packet.namespace());
        match (packet, connection) {
            (Packet::Connect { namespace, .. }, None) => {
                let Refused { message, data } =
                    Refused::for_now(ErrorCode::RateLimited.as_str(), rate_limited().message, RATE_PAUSE);
                self.enqueue(transport, socketio::connect_error_frame(&namespace, &message, &data));
            }
            // To leave costs nothing.
            (Packet::Disconnect { .. }, Some(connection)) => self.leave_namespace(transport, &connection, false),
            (Packet::Event { event, id, .. }, Some(connection)) => {
                self.reply(&connection, Some(&event), id.map(i128::from), Err(&rate_limited()));
            }
            (Packet::Overfull { event, id, .. }, Some(connection)) => {
                self.reply(&connection, event.as_deref(), id.map(i128::from), Err(&rate_limited()));
            }
            (_, Some(connection)) => self.reply(&connection, None, None, Err(&rate_limited())),
            // What is wrong with it is told once it is within the rate.
            (_, None) => {}
        }
    }

    fn on_socketio_packet(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &EioSession,
        packet: Packet<'_>,
        read_at: Instant,
    ) {
        let Some(connection) = in_namespace(transport, packet.namespace()) else {
            if eio.left.borrow().iter().any(|left| **left == *packet.namespace()) {
                return;
            }
            return self.close_for_violation(transport, "a packet for a namespace that the client is not in");
        };
        match packet {
            Packet::Connect { .. } => {}
            Packet::Disconnect { .. } => self.leave_namespace(transport, &connection, false),
            Packet::Event { event, payload, id, .. } => {
                let id = id.map(i128::from);
                if event.is_empty() || event.len() > MAX_EVENT_BYTES {
                    let message = format!("an event's name is 1 to {MAX_EVENT_BYTES} bytes long");
                    self.reply(&connection, None, id, Err(&Failure::new(ErrorCode::BadRequest, message)));
                } else {
                    self.event(&connection, &event, payload, id, read_at);
                }
            }
            Packet::Overfull { event, id, .. } => {
                let failure = Failure::new(ErrorCode::TooLarge, BadPlaceholders::TooMany.to_string());
                self.reply(&connection, event.as_deref(), id.map(i128::from), Err(&failure));
            }
            Packet::Ack { id, payload, .. } => self.shared.plugins.acknowledged(connection.id, id, payload),
        }
    }

    /// Puts a client out of a namespace. Its transport goes on. A reason goes before as the event `error`, for the packet
    /// has no place for it.
    pub(in crate::conn) fn disconnect_namespace(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        why: Option<(ErrorCode, &str)>,
        may_return: bool,
    ) {
        if let Some((code, message)) = why {
            let why = plain::error_data(&Failure::new(code, message), None);
            self.enqueue(transport, socketio::event_frames(connection.namespace(), "error", &why, None, None));
        }
        self.enqueue(transport, socketio::disconnect_frame(connection.namespace()));
        self.leave_namespace(transport, connection, may_return);
    }

    /// Takes a connection off a transport that may carry others.
    pub(in crate::conn) fn leave_namespace(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        may_return: bool,
    ) {
        if let Some(eio) = transport.eio() {
            eio.leave(connection.namespace());
        }
        transport.connections.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
        self.on_transport_lost(connection, may_return);
    }

    /// A client wants into a namespace: as a new connection, or to go on with what it had there.
    fn enter(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &EioSession,
        namespace: &str,
        auth: Option<&RawValue>,
        packet: &str,
    ) {
        if in_namespace(transport, namespace).is_some() {
            return self.close_for_violation(transport, "the client is in this namespace already");
        }
        if let Err(Refused { message, data }) = self.try_enter(transport, eio, namespace, auth, packet) {
            self.enqueue(transport, socketio::connect_error_frame(namespace, &message, &data));
        }
    }

    /// # Errors
    /// Where the client may not come in, with what it is told.
    fn try_enter(
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
        // It is an object, or nothing.
        let said: Auth = auth.and_then(|auth| serde_json::from_str(auth.get()).ok()).unwrap_or_default();
        let session = self.sign_in_namespace(transport, eio, &said).map_err(|message| {
            let data = json!({ "code": ErrorCode::Unauthorized, "message": message });
            Refused { message, data }
        })?;
        let no_place = |message| Refused::for_now("too_many_connections", message, PROBE_TIMEOUT);
        if let Some((key, progress)) = said.recovery().filter(|_| !self.shared.config.recovery_window.is_zero()) {
            match self.try_resume(key, progress, &session, namespace) {
                ResumeOutcome::Here(connection, at) => {
                    // It is away, and does not count itself.
                    self.ensure_user_capacity(&session.identity.user).map_err(no_place)?;
                    self.attach(transport, &connection, session);
                    let id = connection.id.to_string();
                    self.enqueue(transport, socketio::connect_frame(namespace, &id, Some(&key.to_string())));
                    self.send_replay(transport, &connection, at);
                    self.admit(transport);
                    return Ok(());
                }
                // A transport that carries others already stays where they are.
                ResumeOutcome::Elsewhere(shard) if transport.connections.borrow().is_empty() => {
                    self.begin_handoff(transport, shard, None, Inbound::of_message(packet));
                    return Ok(());
                }
                ResumeOutcome::Elsewhere(_) | ResumeOutcome::Gone => {}
            }
        }
        self.ensure_user_capacity(&session.identity.user).map_err(no_place)?;
        let offsets = !self.shared.config.recovery_window.is_zero();
        let protocol = Protocol::SocketIo { namespace: self.shared_namespace(namespace), offsets };
        let Some(connection) = self.new_connection(transport, protocol, session) else { return Ok(()) };
        let pid = self.make_recoverable(&connection).map(|key| key.to_string());
        self.enqueue(transport, socketio::connect_frame(namespace, &connection.id.to_string(), pid.as_deref()));
        self.admit(transport);
        self.notify_connect(&connection, auth);
        Ok(())
    }

    /// Who it is, by the token in the packet or else one of the handshake.
    fn sign_in_namespace(&self, transport: &Transport, eio: &EioSession, said: &Auth) -> Result<Session, String> {
        let Credentials { shown, refused } = &eio.credentials;
        let token = said.token();
        let mut shown = token.iter().chain(shown).peekable();
        if shown.peek().is_some() && self.shared.auth.looks_at_tokens() {
            return self.shared.auth.verify_shown(shown).map_err(|refusal| match refused {
                Some(more) => format!("{}; {more}", refusal.message),
                None => refusal.message,
            });
        }
        // Whoever stays nobody is named by the connection, which there is not yet.
        self.shared.auth.anonymous(self.next_connection_id(), transport.peer.ip()).ok_or_else(|| {
            let missing = "a token is missing: give it as auth.token, in the Authorization header or in the cookie";
            refused.unwrap_or(missing).to_owned()
        })
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.shared.plugins.has_namespace(namespace)
            || self.shared.config.namespaces.iter().any(|configured| configured == namespace)
    }

    /// The name of a namespace that is not the main one, shared by all connections in it.
    fn shared_namespace(&self, name: &str) -> Option<Arc<str>> {
        if name == socketio::MAIN_NAMESPACE {
            return None;
        }
        let mut namespaces = self.namespaces.borrow_mut();
        if let Some(known) = namespaces.iter().find(|known| ***known == *name) {
            return Some(known.clone());
        }
        let name: Arc<str> = name.into();
        namespaces.push(name.clone());
        Some(name)
    }
}

fn in_namespace(transport: &Transport, namespace: &str) -> Option<Rc<Connection>> {
    transport.connections.borrow().iter().find(|connection| connection.namespace() == namespace).cloned()
}

/// What a client that sends too much is told.
pub(in crate::conn) fn rate_limited() -> Failure {
    let said = "too many messages from this connection: send fewer, or send them later";
    Failure::new(ErrorCode::RateLimited, said)
}
