//! What is the same on every protocol: who a connection is, its events and their answers, its heartbeat and its end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::task::spawn_local;

use super::parts::Shard;
use super::rate::Verdict;
use crate::auth::{self, Place, Shown};
use crate::conn::state::connection::Connection;
use crate::conn::state::members::MemberList;
use crate::conn::state::replay::Entry;
use crate::conn::state::transport::{Phase, Session, Transport};
use crate::model::{CloseCode, ConnId, ErrorCode, Failure, Payload};
use crate::plugin::ClientEvent;
use crate::protocol::websocket::{self, Message};
use crate::protocol::{Protocol, engineio, plain, socketio};

/// The longest message from somebody who has not said who it is, in bytes: a token, and room around it.
const MAX_UNKNOWN_BYTES: usize = 16 * 1024;

/// The longest message that is given back to a suite that tests the WebSocket protocol, in bytes.
const MAX_ECHO_BYTES: usize = 64 * 1024 * 1024;

/// How long features are told later that a connection has opened: a client that begins to listen when it is connected
/// would miss what came with the news.
const CONNECT_NOTICE_DELAY: Duration = Duration::from_millis(5);

/// The event by which a client says who it is, first or again.
pub(in crate::conn) const AUTHENTICATE: &str = "authenticate";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authenticate {
    token: String,
}

impl Shard {
    /// The id that the next connection will have.
    pub(in crate::conn) fn next_connection_id(&self) -> ConnId {
        ConnId::new(self.index, self.connections.borrow().vacant_key(), self.next_stamp.get())
    }

    /// A new connection over a transport. None where the shard has no room left.
    pub(in crate::conn) fn new_connection(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        protocol: Protocol,
        mut session: auth::Session,
    ) -> Option<Rc<Connection>> {
        let id = self.next_connection_id();
        if session.is_anonymous {
            // Its name is the connection's, whichever that has become.
            session = self.shared.auth.anonymous(id, transport.peer.ip()).unwrap_or(session);
        }
        if id.slot() + 1 >= ConnId::MAX_SLOTS {
            tracing::error!("the shard has no slot left, and drops a connection");
            self.close(transport, CloseCode::TryAgainLater, "the host has as many connections as it may have");
            return None;
        }
        self.stamp();
        let connection = Rc::new(Connection::new(id, protocol, session.identity.clone(), transport.clone()));
        self.connections.borrow_mut().insert(connection.clone());
        transport.connections.borrow_mut().push(connection.clone());
        self.shared.hub.connect(id, session.identity.clone(), self.shared.clock.now_ms());
        self.members.join(&connection, MemberList::All);
        self.adopt_identity(&connection, session);
        Some(connection)
    }

    /// Somebody is signed in on a transport.
    pub(in crate::conn) fn admit(self: &Rc<Self>, transport: &Rc<Transport>) {
        if transport.phase.get() == Phase::Authenticating {
            transport.phase.set(Phase::Open);
            transport.times.limit.set(u64::MAX);
        }
        self.check_transport(transport, self.shared.clock.uptime_ms());
    }

    /// Has features told that a connection has opened, if any wants to know: in a moment, or before the first event of the
    /// connection.
    pub(in crate::conn) fn notify_connect(self: &Rc<Self>, connection: &Rc<Connection>, auth: Option<&RawValue>) {
        if !self.shared.plugins.greets() {
            return;
        }
        *connection.connect_notice.borrow_mut() = Some(auth.map(RawValue::to_owned));
        let (shard, connection) = (self.clone(), connection.clone());
        spawn_local(async move {
            tokio::time::sleep(CONNECT_NOTICE_DELAY).await;
            shard.send_connect_notice(&connection);
        });
    }

    fn send_connect_notice(&self, connection: &Connection) {
        if let Some(auth) = connection.connect_notice.take() {
            let identity = connection.identity.borrow().clone();
            self.shared.plugins.connected(connection.id, identity, connection.namespace(), auth.as_deref());
        }
    }

    /// Takes over what a token says about the person and about its own end.
    pub(in crate::conn) fn adopt_identity(&self, connection: &Rc<Connection>, session: auth::Session) {
        self.members.leave_roles(connection);
        for role in &session.identity.roles {
            self.members.join(connection, MemberList::Role(role.as_str().into()));
        }
        connection.expires.set(session.expires_ms.unwrap_or(u64::MAX));
        if session.expires_ms.is_some() {
            self.watch_wall_clock();
        }
        if !Arc::ptr_eq(&session.identity, &connection.identity.borrow()) {
            self.shared.hub.update_identity(connection.id, session.identity.clone());
            connection.identity.replace(session.identity);
        }
    }

    /// What is known of the person behind a connection, as a token would say it.
    pub(in crate::conn) fn session_of(&self, connection: &Connection) -> auth::Session {
        let identity = connection.identity.borrow().clone();
        let expires_ms = Some(connection.expires.get()).filter(|expires| *expires != u64::MAX);
        let is_anonymous = self.is_anonymous_name(connection.id, &identity.user);
        auth::Session { identity, expires_ms, is_anonymous }
    }

    /// Whether a user is but the name of a connection that needed no token.
    pub(in crate::conn) fn is_anonymous_name(&self, id: ConnId, user: &str) -> bool {
        self.shared.auth.anonymous_name(id).is_some_and(|name| name == user)
    }

    /// The longest frame that is read from a transport. A binary message may come as base64 in a text frame.
    fn max_bytes(&self, transport: &Transport) -> usize {
        let longest = self.longest_message(transport);
        match &*transport.session.borrow() {
            Session::Eio(eio) if !eio.echoes => engineio::longest_body(longest),
            _ => longest,
        }
    }

    /// The longest message that a client may send.
    pub(in crate::conn) fn longest_message(&self, transport: &Transport) -> usize {
        let longest = self.shared.config.message_bytes;
        match &*transport.session.borrow() {
            Session::Echo => MAX_ECHO_BYTES,
            Session::Eio(eio) if eio.echoes => longest,
            _ if transport.connections.borrow().is_empty() => longest.min(MAX_UNKNOWN_BYTES),
            _ => longest,
        }
    }

    /// Reads what arrived on a WebSocket.
    pub(in crate::conn) fn read(self: &Rc<Self>, transport: &Rc<Transport>, bytes: &mut [u8]) {
        let Some(socket) = transport.socket() else { return };
        transport.times.heard.set(self.shared.clock.uptime_ms());
        let read_at = Instant::now();
        let came = bytes.len();
        // Whether what is incomplete behind this was begun by it.
        let mut is_begun = false;
        let mut decoder = socket.decoder.take();
        let read = decoder.feed(
            bytes,
            || self.max_bytes(transport),
            |message| {
                is_begun |= matches!(message, Message::Text(_) | Message::Binary(_));
                self.handle(transport, message, read_at);
                transport.phase.get() != Phase::Ended && !transport.muted.get()
            },
        );
        match read {
            Ok(()) if transport.handoff.borrow().is_some() => self.complete_handoff(transport, decoder),
            Ok(()) => {
                socket.decoder.replace(decoder);
                self.account_incomplete(transport, came, is_begun);
            }
            // After a violation nothing that follows has a meaning: it is read as garbage, and the close goes out once.
            Err(violation) => {
                transport.handoff.take();
                if violation.code == CloseCode::TooLarge {
                    self.log_oversize(transport);
                }
                // Socket.IO's client shows its user the reason, and expects none for a message that is too large.
                let is_eio = matches!(*transport.session.borrow(), Session::Eio(_));
                let is_silent = is_eio && violation.code == CloseCode::TooLarge;
                self.close(transport, violation.code, if is_silent { "" } else { violation.reason });
                self.flush(transport);
                // RFC 6455, section 7.1.7: no answer is waited for. What the client still sends is read all the same, for
                // a socket that is closed over unread bytes takes our close back.
                let _ = socket2::SockRef::from(&socket.tcp).shutdown(std::net::Shutdown::Write);
            }
        }
    }

    fn handle(self: &Rc<Self>, transport: &Rc<Transport>, message: Message<'_>, read_at: Instant) {
        if let Some(handoff) = transport.handoff.borrow_mut().as_deref_mut() {
            return handoff.keep_message(&message);
        }
        let session = transport.session.borrow().clone();
        match message {
            // EioSession.IO has its own pings, and nobody was asked by this one.
            Message::Close(code) => self.closed_by_client(transport, code),
            _ if !transport.is_up() => {}
            Message::Pong => {
                self.meter(transport, 0);
                if matches!(session, Session::Plain) {
                    self.replay_pong_received(transport);
                }
            }
            Message::Ping(content) => {
                // To answer it is a courtesy.
                if self.meter(transport, content.len()) == Verdict::Take {
                    self.enqueue(transport, websocket::pong_frame(content));
                }
            }
            message => match (session, message) {
                (Session::Plain, message) => self.on_plain_message(transport, &message, read_at),
                (Session::Eio(eio), Message::Text(text)) => self.on_eio_text(transport, &eio, text, read_at),
                (Session::Eio(eio), Message::Binary(bytes))
                    if !eio.echoes && bytes.len() > self.longest_message(transport) =>
                {
                    self.refuse_length(transport);
                }
                (Session::Eio(eio), Message::Binary(bytes)) => {
                    self.packet(transport, &eio, engineio::Packet::Binary(bytes.into()), read_at);
                }
                (Session::Probe { id, is_tried }, Message::Text(text)) => {
                    if self.meter(transport, text.len()) == Verdict::Take {
                        self.on_probe_text(transport, id, is_tried, text);
                    }
                }
                (Session::Echo, Message::Text(text)) => self.enqueue(transport, websocket::text_frame(text)),
                (Session::Echo, Message::Binary(bytes)) => self.enqueue(transport, websocket::binary_frame(bytes)),
                _ => self.close(transport, CloseCode::ProtocolError, "first comes a probe, then the upgrade"),
            },
        }
    }

    /// The client closed its WebSocket, or answered our close.
    pub(in crate::conn) fn closed_by_client(self: &Rc<Self>, transport: &Rc<Transport>, code: Option<u16>) {
        // Its own close is answered with the same code.
        if transport.is_up() {
            self.enqueue(transport, websocket::close_frame(code.unwrap_or(CloseCode::Normal.code()), ""));
        }
        // A page that goes away says so (1001), and so does a client that is done (1000). Socket.IO's own closes its
        // WebSocket without a code where it means to come back. The plain protocol has no other way to say that it is over.
        let is_eio = matches!(*transport.session.borrow(), Session::Eio(_));
        self.shutdown_transport(transport, is_eio && !matches!(code, Some(1000 | 1001)));
    }

    pub(in crate::conn) fn event(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        event: &str,
        payload: Payload,
        id: Option<i128>,
        read_at: Instant,
    ) {
        self.shared.metrics.events_received.inc();
        connection.has_sent.set(true);
        self.send_connect_notice(connection);
        if event == AUTHENTICATE {
            return self.authenticate(connection, &payload, id);
        }
        let accepted = self.shared.plugins.client_event(ClientEvent {
            connection: connection.id,
            identity: connection.identity.borrow().clone(),
            event,
            payload,
            id,
            read_at,
        });
        if let Err(failure) = accepted {
            self.reply(connection, Some(event), id, Err(&failure));
        }
    }

    /// # Errors
    /// Where there is none.
    pub(in crate::conn) fn token_of(payload: &Payload) -> Result<Shown, Failure> {
        let parsed = payload.arguments().first().map(|data| serde_json::from_str::<Authenticate>(data.get()));
        let token = parsed.and_then(Result::ok).and_then(|said| Shown::new(Place::Message, &said.token));
        token.ok_or_else(|| Failure::new(ErrorCode::BadRequest, "authenticate takes {\"token\": \"…\"}"))
    }

    /// A newer token for the same user keeps a connection open beyond the end of the old one.
    fn authenticate(self: &Rc<Self>, connection: &Rc<Connection>, payload: &Payload, id: Option<i128>) {
        let renewed = Self::token_of(payload).and_then(|token| {
            let verified = self.shared.auth.verify_shown([&token]);
            let session = verified.map_err(|refusal| Failure::new(ErrorCode::Unauthorized, refusal.message))?;
            if connection.identity.borrow().user != session.identity.user {
                let message = "the token is another user's: open another connection for it";
                return Err(Failure::new(ErrorCode::Forbidden, message));
            }
            self.adopt_identity(connection, session);
            Ok(())
        });
        let transport = connection.transport.borrow().clone();
        if let (Ok(()), Some(transport)) = (&renewed, transport) {
            self.check_transport(&transport, self.shared.clock.uptime_ms());
        }
        match renewed {
            Ok(()) => self.reply(connection, Some(AUTHENTICATE), id, Ok(&Payload::empty())),
            Err(failure) => self.reply(connection, Some(AUTHENTICATE), id, Err(&failure)),
        }
    }

    /// Answers an event: by an acknowledgement where one was asked for, else only if it failed.
    pub(in crate::conn) fn reply(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        event: Option<&str>,
        id: Option<i128>,
        outcome: Result<&Payload, &Failure>,
    ) {
        if outcome.is_err() {
            self.shared.metrics.events_refused.inc();
        }
        match &connection.protocol {
            Protocol::Plain => {
                let frame = match (id, outcome) {
                    (Some(id), outcome) => plain::encode_reply(id, outcome),
                    (None, Err(failure)) => plain::encode_error(failure, event),
                    (None, Ok(_)) => return,
                };
                self.send_recorded(connection, Entry::Frames(Box::new(websocket::text_frame(&frame))));
            }
            // A client that comes back has forgotten what it asked.
            Protocol::SocketIo { .. } => {
                let namespace = connection.namespace();
                let frames = match (id.and_then(|id| u64::try_from(id).ok()), outcome) {
                    (Some(id), Ok(payload)) => socketio::ack_frames(namespace, id, payload),
                    (Some(id), Err(failure)) => {
                        socketio::ack_frames(namespace, id, &Payload::of_json(&json!({ "error": failure })))
                    }
                    (None, Err(failure)) => {
                        socketio::event_frames(namespace, "error", &plain::error_data(failure, event), None, None)
                    }
                    (None, Ok(_)) => return,
                };
                if let Some(transport) = &*connection.transport.borrow() {
                    self.enqueue(transport, frames);
                }
            }
        }
    }

    /// Sends something to a connection, now or when its client is back.
    pub(in crate::conn) fn send_recorded(self: &Rc<Self>, connection: &Rc<Connection>, entry: Entry) {
        if let Some(transport) = &*connection.transport.borrow() {
            self.enqueue(transport, entry.frames(&connection.protocol));
        }
        self.record(connection, [entry]);
    }

    /// Takes a connection out of everything, and has the features told.
    pub(in crate::conn) fn depart(&self, connection: &Rc<Connection>) {
        if self.find(connection.id).is_none() {
            // Its place may be another's by now.
            return;
        }
        self.drop_replay(connection);
        self.pending_resumes.forget(connection.id);
        // Nobody need hear any more that it came.
        connection.connect_notice.take();
        self.members.leave_all(connection);
        self.connections.borrow_mut().try_remove(connection.id.slot());
        let departure = self.shared.hub.disconnect(connection.id);
        // When the host goes, everybody goes: nobody is there to be told of it.
        if let Some(departure) = departure.filter(|_| !self.is_stopping()) {
            self.shared.plugins.departed(connection.id, departure);
        }
    }
}
