//! What the messages of the plain protocol mean: authentication, events, and going on after a lost connection.

use std::rc::Rc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use super::eio::Credentials;
use super::handoff::{Inbound, PlainHandoff};
use super::parts::Shard;
use super::rate::Verdict;
use super::recovery::ResumeOutcome;
use super::session::AUTHENTICATE;
use super::socketio::rate_limited;
use crate::auth::{Refusal, Session, Shown};
use crate::conn::state::connection::Connection;
use crate::conn::state::replay::{Progress, SessionKey};
use crate::conn::state::transport::{Phase, Transport};
use crate::model::{CloseCode, ErrorCode, Failure, Payload, without_lone_surrogates};
use crate::protocol::Protocol;
use crate::protocol::plain::{self, Incoming};
use crate::protocol::websocket::{self, Message};

/// The event by which a client asks for a session to come back to, or comes back to one.
const RESUME: &str = "resume";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Resume {
    session: Option<String>,
    offset: Option<u64>,
}

impl Shard {
    /// The first thing that happens on a transport: it is somebody, or it is to say who it is.
    pub(in crate::conn) fn begin_plain(self: &Rc<Self>, transport: &Rc<Transport>, credentials: &Credentials) {
        match !credentials.shown.is_empty() && self.shared.auth.looks_at_tokens() {
            true => self.sign_in(transport, &credentials.shown),
            false => match self.shared.auth.anonymous(self.next_connection_id(), transport.peer.ip()) {
                Some(session) => self.open_plain(transport, session),
                None => {
                    let limit = self.shared.clock.uptime_ms() + self.shared.config.auth_grace.as_millis() as u64;
                    transport.times.limit.set(limit);
                    self.arm(transport, limit);
                }
            },
        }
    }

    fn sign_in(self: &Rc<Self>, transport: &Rc<Transport>, shown: &[Shown]) {
        match self.shared.auth.verify_shown(shown) {
            Ok(session) => self.open_plain(transport, session),
            Err(Refusal { is_expired, message }) => {
                let code = if is_expired { CloseCode::TokenExpired } else { CloseCode::Unauthorized };
                self.close(transport, code, &message);
            }
        }
    }

    fn open_plain(self: &Rc<Self>, transport: &Rc<Transport>, session: Session) {
        let user = session.identity.user.clone();
        // It may be the way back to one of those that there are.
        let may_go_on = self.shared.hub.has_session(&user);
        let is_over = !self.has_user_capacity(&user);
        if is_over
            && !may_go_on
            && let Err(reason) = self.ensure_user_capacity(&user)
        {
            return self.close(transport, CloseCode::TooManyConnections, &reason);
        }
        let Some(connection) = self.new_connection(transport, Protocol::Plain, session) else { return };
        let identity = connection.identity.borrow().clone();
        let connected = json!({
            "connectionId": connection.id.to_string(),
            "userId": &*identity.user,
            "heartbeatMs": self.shared.config.heartbeat_interval.as_millis() as u64,
            "maxMessageBytes": self.shared.config.message_bytes,
        });
        let frame = plain::encode_event("connected", &Payload::of_json(&connected), None);
        self.enqueue(transport, websocket::text_frame(&frame));
        self.admit(transport);
        if !(may_go_on && self.await_first_frame(transport, &connection, is_over)) {
            self.notify_connect(&connection, None);
        }
    }

    /// A text or binary frame.
    pub(in crate::conn) fn on_plain_message(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        message: &Message<'_>,
        read_at: Instant,
    ) {
        let bytes = match message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        match (self.meter(transport, bytes), message) {
            (Verdict::Take, Message::Text(text)) => self.on_plain_text(transport, text, read_at),
            (Verdict::Take, _) => self.on_plain_binary(transport),
            (Verdict::Refuse, message) => self.refuse_unread(transport, message),
            (Verdict::Drop | Verdict::CutOff, _) => {}
        }
    }

    pub(in crate::conn) fn on_plain_text(self: &Rc<Self>, transport: &Rc<Transport>, text: &str, read_at: Instant) {
        let text = &*without_lone_surrogates(text);
        let connection = transport.only_connection();
        let decoded = plain::decode(text);
        let is_resume = matches!(&decoded, Ok(Incoming::Event { event, .. }) if event == RESUME);
        if connection.as_ref().is_some_and(|connection| !is_resume && !self.confirm(transport, connection)) {
            return;
        }
        match (decoded, connection) {
            (Ok(Incoming::Event { event, payload, id }), None) if event == AUTHENTICATE => {
                self.authenticate_first(transport, &payload, id);
            }
            (_, None) => self.refuse_stranger(transport),
            (Ok(Incoming::Event { event, payload, id }), Some(connection)) if event == RESUME => {
                self.resume(transport, &connection, &payload, id, text);
            }
            (Ok(Incoming::Event { event, payload, id }), Some(connection)) => {
                self.event(&connection, &event, payload, id, read_at);
            }
            (Ok(Incoming::Acknowledgement { id, payload }), Some(connection)) => {
                if let Ok(id) = u64::try_from(id) {
                    self.shared.plugins.acknowledged(connection.id, id, payload);
                }
            }
            (Err(bad), Some(connection)) => self.reply(&connection, bad.event.as_deref(), bad.id, Err(&bad.failure)),
        }
    }

    pub(in crate::conn) fn on_plain_binary(self: &Rc<Self>, transport: &Rc<Transport>) {
        let Some(connection) = transport.only_connection() else { return self.refuse_stranger(transport) };
        if self.confirm(transport, &connection) {
            let failure = Failure::new(ErrorCode::BadRequest, "frames are JSON text, and this one is binary");
            self.reply(&connection, None, None, Err(&failure));
        }
    }

    fn refuse_stranger(self: &Rc<Self>, transport: &Rc<Transport>) {
        self.close(transport, CloseCode::Unauthorized, "the first message must be authenticate with a token");
    }

    /// Refuses a message over the rate. It is read for its id alone, so that the answer finds its way.
    fn refuse_unread(self: &Rc<Self>, transport: &Rc<Transport>, message: &Message<'_>) {
        let (event, id) = match message {
            Message::Text(text) => match plain::decode(&without_lone_surrogates(text)) {
                Ok(Incoming::Event { event, id, .. }) => (Some(event.into_owned()), id),
                Ok(Incoming::Acknowledgement { .. }) => (None, None),
                Err(bad) => (bad.event, bad.id),
            },
            _ => (None, None),
        };
        match transport.only_connection() {
            Some(connection) if !self.confirm(transport, &connection) => {}
            Some(connection) => self.reply(&connection, event.as_deref(), id, Err(&rate_limited())),
            None => self.refuse_stranger(transport),
        }
    }

    /// A first message that says who it is.
    fn authenticate_first(self: &Rc<Self>, transport: &Rc<Transport>, payload: &Payload, id: Option<i128>) {
        match Self::token_of(payload) {
            Ok(token) => {
                self.sign_in(transport, &[token]);
                // Not by way of the connection, for which frames may be held.
                if let Some(id) = id.filter(|_| transport.only_connection().is_some()) {
                    self.enqueue(transport, websocket::text_frame(&plain::encode_reply(id, Ok(&Payload::empty()))));
                }
            }
            // Nobody is there yet whose log it could be in.
            Err(failure) => {
                let frame = match id {
                    Some(id) => plain::encode_reply(id, Err(&failure)),
                    None => plain::encode_error(&failure, Some(AUTHENTICATE)),
                };
                self.enqueue(transport, websocket::text_frame(&frame));
            }
        }
    }

    fn resume(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        payload: &Payload,
        id: Option<i128>,
        text: &str,
    ) {
        let wanted = match read_resume(payload) {
            Ok(wanted) => wanted,
            Err(_) if !self.confirm(transport, connection) => return,
            Err(failure) => return self.reply(connection, Some(RESUME), id, Err(&failure)),
        };
        if let Some((key, progress)) = wanted {
            if connection.has_sent.get() {
                let message = "a session is gone on with before anything else is sent";
                return self.reply(connection, Some(RESUME), id, Err(&Failure::new(ErrorCode::Conflict, message)));
            }
            let session = self.session_of(connection);
            match self.try_resume(key, progress, &session, connection.namespace()) {
                ResumeOutcome::Here(old, at) => {
                    // What was held for it is in the other's log.
                    self.leave_quietly(transport, connection);
                    return self.resume_with(transport, &old, at, session, id);
                }
                ResumeOutcome::Elsewhere(shard) => {
                    let arrival = PlainHandoff { session, held: self.take_held_frames(connection) };
                    self.leave_quietly(transport, connection);
                    return self.begin_handoff(transport, shard, Some(arrival), Inbound::Text(text.to_owned()));
                }
                ResumeOutcome::Gone => {}
            }
        }
        if self.confirm(transport, connection) {
            self.begin_session(transport, connection, id);
        }
    }

    /// A client came from another shard to go on with a connection of this one.
    pub(in crate::conn) fn resume_here(self: &Rc<Self>, transport: &Rc<Transport>, text: &str, arrival: PlainHandoff) {
        let PlainHandoff { session, held } = arrival;
        let Ok(Incoming::Event { payload, id, .. }) = plain::decode(text) else { return };
        if let Ok(Some((key, progress))) = read_resume(&payload)
            && let ResumeOutcome::Here(old, at) = self.try_resume(key, progress, &session, "/")
        {
            return self.resume_with(transport, &old, at, session, id);
        }
        if let Err(reason) = self.ensure_user_capacity(&session.identity.user) {
            return self.close(transport, CloseCode::TooManyConnections, &reason);
        }
        if let Some(connection) = self.new_connection(transport, Protocol::Plain, session) {
            self.admit(transport);
            self.notify_connect(&connection, None);
            held.into_iter().for_each(|frames| self.enqueue(transport, frames));
            self.begin_session(transport, &connection, id);
        }
    }

    fn resume_with(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        at: usize,
        session: Session,
        id: Option<i128>,
    ) {
        // Its old transport is off, so that it counts no more. Whoever took its place meanwhile was there before.
        if let Err(reason) = self.ensure_user_capacity(&session.identity.user) {
            return self.close(transport, CloseCode::TooManyConnections, &reason);
        }
        self.attach(transport, connection, session);
        let key = connection.replay.borrow().as_deref().map(|recovery| recovery.key(connection.id).to_string());
        self.send_resumed(transport, connection, key.as_deref(), true, id);
        self.send_replay(transport, connection, at);
        self.admit(transport);
    }

    /// Begins to keep what a client may miss. The client counts from here.
    fn begin_session(self: &Rc<Self>, transport: &Rc<Transport>, connection: &Rc<Connection>, id: Option<i128>) {
        self.drop_replay(connection);
        let key = self.make_recoverable(connection).map(|key| key.to_string());
        if key.is_some() {
            self.shared.hub.note_session(connection.id);
        }
        self.send_resumed(transport, connection, key.as_deref(), false, id);
    }

    fn send_resumed(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Connection,
        session: Option<&str>,
        recovered: bool,
        id: Option<i128>,
    ) {
        connection.has_sent.set(true);
        let data = Payload::of_json(&json!({
            "connectionId": connection.id.to_string(),
            "session": session,
            "recovered": recovered,
            "windowMs": self.shared.config.recovery_window.as_millis() as u64,
        }));
        let frame = match id {
            Some(id) => plain::encode_reply(id, Ok(&data)),
            None => plain::encode_event("resumed", &data, None),
        };
        // Not in the log, for what the client counts begins behind it.
        self.enqueue(transport, websocket::text_frame(&frame));
    }

    /// Takes a connection back that nothing has come of but that it was opened.
    fn leave_quietly(self: &Rc<Self>, transport: &Transport, connection: &Rc<Connection>) {
        transport.connections.borrow_mut().clear();
        self.on_transport_lost(connection, false);
        transport.phase.set(Phase::Authenticating);
    }
}

fn read_resume(payload: &Payload) -> Result<Option<(SessionKey, Progress)>, Failure> {
    let bad = || {
        let message = "resume takes {\"session\": \"…\", \"offset\": n}, or nothing to begin a session";
        Failure::new(ErrorCode::BadRequest, message)
    };
    let wanted: Resume = match payload.arguments().first() {
        None => Resume::default(),
        Some(data) if data.get() == "null" => Resume::default(),
        Some(data) => serde_json::from_str(data.get()).map_err(|_| bad())?,
    };
    match wanted {
        Resume { session: None, .. } => Ok(None),
        Resume { session: Some(key), offset: Some(offset) } => {
            // A key that was never given is one of a session that is gone.
            Ok(key.parse().ok().map(|key| (key, Progress::Frames(offset))))
        }
        Resume { session: Some(_), offset: None } => Err(bad()),
    }
}
