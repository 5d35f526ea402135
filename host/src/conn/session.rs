//! What is the same on every protocol: who a connection is, its events and their answers, its heartbeat and its end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::task::spawn_local;

use super::connection::Connection;
use super::link::{Link, Phase, Role};
use super::log::Entry;
use super::members::MemberList;
use super::rate::Verdict;
use super::shard::Shard;
use crate::auth::{Place, Session, Shown};
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
const GREET_AFTER: Duration = Duration::from_millis(5);

/// The event by which a client says who it is, first or again.
pub(super) const AUTHENTICATE: &str = "authenticate";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authenticate {
    token: String,
}

impl Shard {
    /// The id that the next connection will have.
    pub(super) fn next_connection_id(&self) -> ConnId {
        ConnId::new(self.index, self.connections.borrow().vacant_key(), self.next_stamp.get())
    }

    /// A new connection over a link. None where the shard has no room left.
    pub(super) fn new_connection(
        self: &Rc<Self>,
        link: &Rc<Link>,
        protocol: Protocol,
        mut session: Session,
    ) -> Option<Rc<Connection>> {
        let id = self.next_connection_id();
        if session.is_anonymous {
            // Its name is the connection's, whichever that has become.
            session = self.shared.auth.anonymous(id, link.peer.ip()).unwrap_or(session);
        }
        if id.slot() + 1 >= ConnId::MAX_SLOTS {
            tracing::error!("the shard has no slot left, and drops a connection");
            self.close(link, CloseCode::TryAgainLater, "the host has as many connections as it may have");
            return None;
        }
        self.stamp();
        let connection = Rc::new(Connection::new(id, protocol, session.identity.clone(), link.clone()));
        self.connections.borrow_mut().insert(connection.clone());
        link.connections.borrow_mut().push(connection.clone());
        self.shared.hub.connect(id, session.identity.clone(), self.shared.clock.now_ms());
        self.members.join(&connection, MemberList::All);
        self.take_over(&connection, session);
        Some(connection)
    }

    /// Somebody is signed in on a link.
    pub(super) fn admit(self: &Rc<Self>, link: &Rc<Link>) {
        if link.phase.get() == Phase::Authenticating {
            link.phase.set(Phase::Open);
            link.times.limit.set(u64::MAX);
        }
        self.look_after(link, self.shared.clock.uptime_ms());
    }

    /// Has features told that a connection has opened, if any wants to know: in a moment, or before the first event of the
    /// connection.
    pub(super) fn greet(self: &Rc<Self>, connection: &Rc<Connection>, auth: Option<&RawValue>) {
        if !self.shared.plugins.greets() {
            return;
        }
        *connection.greeting.borrow_mut() = Some(auth.map(RawValue::to_owned));
        let (shard, connection) = (self.clone(), connection.clone());
        spawn_local(async move {
            tokio::time::sleep(GREET_AFTER).await;
            shard.finish_greeting(&connection);
        });
    }

    fn finish_greeting(&self, connection: &Connection) {
        if let Some(auth) = connection.greeting.take() {
            let identity = connection.identity.borrow().clone();
            self.shared.plugins.connected(connection.id, identity, connection.namespace(), auth.as_deref());
        }
    }

    /// Takes over what a token says about the person and about its own end.
    pub(super) fn take_over(&self, connection: &Rc<Connection>, session: Session) {
        self.members.leave_roles(connection);
        for role in &session.identity.roles {
            self.members.join(connection, MemberList::Role(role.as_str().into()));
        }
        connection.expires.set(session.expires_ms.unwrap_or(u64::MAX));
        if session.expires_ms.is_some() {
            self.watch_wall();
        }
        if !Arc::ptr_eq(&session.identity, &connection.identity.borrow()) {
            self.shared.hub.update_identity(connection.id, session.identity.clone());
            connection.identity.replace(session.identity);
        }
    }

    /// What is known of the person behind a connection, as a token would say it.
    pub(super) fn session_of(&self, connection: &Connection) -> Session {
        let identity = connection.identity.borrow().clone();
        let expires_ms = Some(connection.expires.get()).filter(|expires| *expires != u64::MAX);
        let is_anonymous = self.is_nobody(connection.id, &identity.user);
        Session { identity, expires_ms, is_anonymous }
    }

    /// Whether a user is but the name of a connection that needed no token.
    pub(super) fn is_nobody(&self, id: ConnId, user: &str) -> bool {
        self.shared.auth.anonymous_name(id).is_some_and(|name| name == user)
    }

    /// The longest frame that is read from a link. A binary message may come as base64 in a text frame.
    fn max_bytes(&self, link: &Link) -> usize {
        let longest = self.longest_message(link);
        match &*link.role.borrow() {
            Role::Engine(engine) if !engine.echoes => engineio::longest_body(longest),
            _ => longest,
        }
    }

    /// The longest message that a client may send.
    pub(super) fn longest_message(&self, link: &Link) -> usize {
        let longest = self.shared.config.message_bytes;
        match &*link.role.borrow() {
            Role::Echo => MAX_ECHO_BYTES,
            Role::Engine(engine) if engine.echoes => longest,
            _ if link.connections.borrow().is_empty() => longest.min(MAX_UNKNOWN_BYTES),
            _ => longest,
        }
    }

    /// Reads what arrived on a WebSocket.
    pub(super) fn read(self: &Rc<Self>, link: &Rc<Link>, bytes: &mut [u8]) {
        let Some(socket) = link.socket() else { return };
        link.times.heard.set(self.shared.clock.uptime_ms());
        let read_at = Instant::now();
        let came = bytes.len();
        // Whether what is incomplete behind this was begun by it.
        let mut is_begun = false;
        let mut decoder = socket.decoder.take();
        let read = decoder.feed(
            bytes,
            || self.max_bytes(link),
            |message| {
                is_begun |= matches!(message, Message::Text(_) | Message::Binary(_));
                self.handle(link, message, read_at);
                link.phase.get() != Phase::Ended && !link.muted.get()
            },
        );
        match read {
            Ok(()) if link.moving.borrow().is_some() => self.finish_move(link, decoder),
            Ok(()) => {
                socket.decoder.replace(decoder);
                self.reckon(link, came, is_begun);
            }
            // After a violation nothing that follows has a meaning: it is read as garbage, and the close goes out once.
            Err(violation) => {
                link.moving.take();
                if violation.code == CloseCode::TooLarge {
                    self.log_oversize(link);
                }
                // Socket.IO's client shows its user the reason, and expects none for a message that is too large.
                let is_engine = matches!(*link.role.borrow(), Role::Engine(_));
                let is_silent = is_engine && violation.code == CloseCode::TooLarge;
                self.close(link, violation.code, if is_silent { "" } else { violation.reason });
                self.flush(link);
                // RFC 6455, section 7.1.7: no answer is waited for. What the client still sends is read all the same, for
                // a socket that is closed over unread bytes takes our close back.
                let _ = socket2::SockRef::from(&socket.tcp).shutdown(std::net::Shutdown::Write);
            }
        }
    }

    fn handle(self: &Rc<Self>, link: &Rc<Link>, message: Message<'_>, read_at: Instant) {
        if let Some(moving) = link.moving.borrow_mut().as_deref_mut() {
            return moving.keep_message(&message);
        }
        let role = link.role.borrow().clone();
        match message {
            // Engine.IO has its own pings, and nobody was asked by this one.
            Message::Close(code) => self.closed_by_client(link, code),
            _ if !link.is_up() => {}
            Message::Pong => {
                self.meter(link, 0);
                if matches!(role, Role::Plain) {
                    self.note_pong(link);
                }
            }
            Message::Ping(content) => {
                // To answer it is a courtesy.
                if self.meter(link, content.len()) == Verdict::Take {
                    self.enqueue(link, websocket::pong_frame(content));
                }
            }
            message => match (role, message) {
                (Role::Plain, message) => self.plain_message(link, &message, read_at),
                (Role::Engine(engine), Message::Text(text)) => self.engine_text(link, &engine, text, read_at),
                (Role::Engine(engine), Message::Binary(bytes))
                    if !engine.echoes && bytes.len() > self.longest_message(link) =>
                {
                    self.refuse_length(link);
                }
                (Role::Engine(engine), Message::Binary(bytes)) => {
                    self.packet(link, &engine, engineio::Packet::Binary(bytes.into()), read_at);
                }
                (Role::Probe { id, is_tried }, Message::Text(text)) => {
                    if self.meter(link, text.len()) == Verdict::Take {
                        self.probe_text(link, id, is_tried, text);
                    }
                }
                (Role::Echo, Message::Text(text)) => self.enqueue(link, websocket::text_frame(text)),
                (Role::Echo, Message::Binary(bytes)) => self.enqueue(link, websocket::binary_frame(bytes)),
                _ => self.close(link, CloseCode::ProtocolError, "first comes a probe, then the upgrade"),
            },
        }
    }

    /// The client closed its WebSocket, or answered our close.
    pub(super) fn closed_by_client(self: &Rc<Self>, link: &Rc<Link>, code: Option<u16>) {
        // Its own close is answered with the same code.
        if link.is_up() {
            self.enqueue(link, websocket::close_frame(code.unwrap_or(CloseCode::Normal.code()), ""));
        }
        // A page that goes away says so (1001), and so does a client that is done (1000). Socket.IO's own closes its
        // WebSocket without a code where it means to come back. The plain protocol has no other way to say that it is over.
        let is_engine = matches!(*link.role.borrow(), Role::Engine(_));
        self.end_link(link, is_engine && !matches!(code, Some(1000 | 1001)));
    }

    pub(super) fn event(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        event: &str,
        payload: Payload,
        id: Option<i128>,
        read_at: Instant,
    ) {
        self.shared.metrics.events_received.inc();
        connection.spoke.set(true);
        self.finish_greeting(connection);
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
            self.answer(connection, Some(event), id, Err(&failure));
        }
    }

    /// # Errors
    /// Where there is none.
    pub(super) fn token_of(payload: &Payload) -> Result<Shown, Failure> {
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
            self.take_over(connection, session);
            Ok(())
        });
        let link = connection.link.borrow().clone();
        if let (Ok(()), Some(link)) = (&renewed, link) {
            self.look_after(&link, self.shared.clock.uptime_ms());
        }
        match renewed {
            Ok(()) => self.answer(connection, Some(AUTHENTICATE), id, Ok(&Payload::empty())),
            Err(failure) => self.answer(connection, Some(AUTHENTICATE), id, Err(&failure)),
        }
    }

    /// Answers an event: by an acknowledgement where one was asked for, else only if it failed.
    pub(super) fn answer(
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
                self.tell(connection, Entry::Frames(Box::new(websocket::text_frame(&frame))));
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
                if let Some(link) = &*connection.link.borrow() {
                    self.enqueue(link, frames);
                }
            }
        }
    }

    /// Sends something to a connection, now or when its client is back.
    pub(super) fn tell(self: &Rc<Self>, connection: &Rc<Connection>, entry: Entry) {
        if let Some(link) = &*connection.link.borrow() {
            self.enqueue(link, entry.frames(&connection.protocol));
        }
        self.note(connection, [entry]);
    }

    /// Takes a connection out of everything, and has the features told.
    pub(super) fn depart(&self, connection: &Rc<Connection>) {
        if self.find(connection.id).is_none() {
            // Its place may be another's by now.
            return;
        }
        self.forget(connection);
        self.newcomers.forget(connection.id);
        // Nobody need hear any more that it came.
        connection.greeting.take();
        self.members.leave_all(connection);
        self.connections.borrow_mut().try_remove(connection.id.slot());
        let departure = self.shared.hub.disconnect(connection.id);
        // When the host goes, everybody goes: nobody is there to be told of it.
        if let Some(departure) = departure.filter(|_| !self.is_stopping()) {
            self.shared.plugins.departed(connection.id, departure);
        }
    }
}
