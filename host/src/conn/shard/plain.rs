//! The plain protocol: authentication, events, and resumption.

use std::rc::Rc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use super::events::{AUTHENTICATE, token_of};
use super::import::{Returning, Way};
use super::lifecycle::SESSION_ENDED;
use super::limits::rate_limited;
use super::parts::Shard;
use super::recovery::ResumeOutcome;
use crate::auth::{self, AuthError, Refusal, RefusalKind};
use crate::conn::state::{
    Connection, Credentials, Inbound, Phase, PlainHandoff, SessionKey, Transport, Verdict, Welcome,
};
use crate::hub::Progress;
use crate::model::{CloseCode, ErrorCode, Failure, Payload, without_lone_surrogates};
use crate::protocol::Protocol;
use crate::protocol::plain::{self, Incoming};
use crate::protocol::websocket::{self, Message};

/// The event with which a client asks for a resumable session, or resumes one.
const RESUME: &str = "resume";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Resume {
    session: Option<String>,
    offset: Option<u64>,
}

impl Shard {
    /// Signs a client in by the tokens of its handshake, or else waits for its first message.
    pub(super) fn begin_plain(self: &Rc<Self>, transport: &Rc<Transport>, credentials: &Credentials) {
        transport.handshake.borrow_mut().clone_from(&credentials.handshake);
        let auth = &self.shared().auth;
        match self.check_credentials(Some(transport), &credentials.tokens, credentials.session.as_ref()) {
            Some(verified) => self.sign_in(transport, verified, None),
            None => match auth.anonymous(self.connections().next_id(self.shared().hub.node()), transport.peer.ip()) {
                Some(session) => self.open_plain(transport, session, None),
                None => self.set_limit(transport, self.config().auth_grace),
            },
        }
    }

    fn sign_in(self: &Rc<Self>, transport: &Rc<Transport>, verified: Result<auth::Session, Refusal>, id: Option<i128>) {
        match verified {
            Ok(session) => self.open_plain(transport, session, id),
            Err(Refusal { kind, message }) => {
                let code = match kind {
                    RefusalKind::Blocked => CloseCode::Forbidden,
                    RefusalKind::Passing => CloseCode::TryAgainLater,
                    RefusalKind::Expired => CloseCode::TokenExpired,
                    RefusalKind::Invalid => CloseCode::Unauthorized,
                };
                self.close(transport, code, &message);
            }
        }
    }

    /// Opens the connection of a client that has signed in. `id` is that of its `authenticate`, for when features have
    /// admitted the connection.
    fn open_plain(self: &Rc<Self>, transport: &Rc<Transport>, session: auth::Session, id: Option<i128>) {
        let user = session.identity.user.clone();
        // The client may be about to resume a connection of its user.
        let is_abroad = || !session.is_anonymous && self.shared().plugins.has_other_nodes();
        let may_resume =
            !self.config().recovery_window.is_zero() && (self.shared().hub.has_session(&user) || is_abroad());
        let is_over_limit = !self.has_user_capacity(&user);
        if is_over_limit
            && !may_resume
            && let Err(reason) = self.ensure_user_capacity(&user)
        {
            return self.close(transport, CloseCode::TooManyConnections, &reason);
        }
        let Some(connection) = self.new_connection(transport, Protocol::Plain, session) else { return };
        self.open_or_ask(transport, &connection, Welcome::Plain { id, may_resume, is_over_limit });
    }

    pub(super) fn send_connected(self: &Rc<Self>, transport: &Rc<Transport>, connection: &Connection) {
        let identity = connection.identity.borrow().clone();
        let connected = json!({
            "connectionId": connection.id.to_string(),
            "userId": &*identity.user,
            "heartbeatMs": self.config().heartbeat_interval.as_millis() as u64,
            "maxMessageBytes": self.config().message_bytes,
        });
        let frame = plain::encode_event("connected", &Payload::of_json(&connected), None);
        self.enqueue(transport, websocket::text_frame(&frame));
    }

    /// Handles a text or binary message.
    pub(super) fn on_plain_message(
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
            (Verdict::Refuse, message) => self.refuse_plain(transport, message),
            (Verdict::Drop | Verdict::CutOff, _) => {}
        }
    }

    pub(super) fn on_plain_text(self: &Rc<Self>, transport: &Rc<Transport>, text: &str, read_at: Instant) {
        if let Some(id) = transport.waiting.borrow().first().copied() {
            if !self.admissions().hold(id, text) {
                self.close_early(transport);
            }
            return;
        }
        if let Some(fits) = self.imports().hold(transport.id, text) {
            return if !fits {
                self.close_early(transport)
            };
        }
        let text = &*without_lone_surrogates(text);
        let connection = self.first_connection(transport);
        let decoded = plain::decode(text);
        let is_resume = matches!(&decoded, Ok(Incoming::Event { event, .. }) if event == RESUME);
        if connection.as_ref().is_some_and(|connection| !is_resume && !self.confirm(transport, connection)) {
            return;
        }
        match (decoded, connection) {
            (Ok(Incoming::Event { event, payload, id }), None) if event == AUTHENTICATE => {
                self.authenticate_first(transport, &payload, id);
            }
            (_, None) => self.refuse_unauthenticated(transport),
            (Ok(Incoming::Event { event, payload, id }), Some(connection)) if event == RESUME => {
                self.resume(transport, &connection, &payload, id, text);
            }
            (Ok(Incoming::Event { event, payload, id }), Some(connection)) => {
                self.on_event(&connection, &event, payload, id, read_at);
            }
            (Ok(Incoming::Acknowledgement { id, payload }), Some(connection)) => {
                if let Ok(id) = u64::try_from(id) {
                    self.shared().plugins.acknowledged(connection.id, id, payload);
                }
            }
            (Err(bad), Some(connection)) => self.reply(&connection, bad.event.as_deref(), bad.id, Err(&bad.failure)),
        }
    }

    pub(super) fn on_plain_binary(self: &Rc<Self>, transport: &Rc<Transport>) {
        let Some(connection) = self.first_connection(transport) else {
            return self.refuse_unauthenticated(transport);
        };
        if self.confirm(transport, &connection) {
            let failure = Failure::new(ErrorCode::BadRequest, "frames are JSON text, and this one is binary");
            self.reply(&connection, None, None, Err(&failure));
        }
    }

    /// Closes a transport whose client does not wait until its connection is open.
    fn close_early(self: &Rc<Self>, transport: &Rc<Transport>) {
        self.close(transport, CloseCode::PolicyViolation, "too much was sent before connected: wait for it");
    }

    fn refuse_unauthenticated(self: &Rc<Self>, transport: &Rc<Transport>) {
        if !transport.waiting.borrow().is_empty() {
            return self.close_early(transport);
        }
        self.close(transport, CloseCode::Unauthorized, "the first message must be authenticate with a token");
    }

    /// Refuses a message over the rate. The message is parsed only for its event and id, which the answer needs.
    fn refuse_plain(self: &Rc<Self>, transport: &Rc<Transport>, message: &Message<'_>) {
        let (event, id) = match message {
            Message::Text(text) => match plain::decode(&without_lone_surrogates(text)) {
                Ok(Incoming::Event { event, id, .. }) => (Some(event.into_owned()), id),
                Ok(Incoming::Acknowledgement { .. }) => (None, None),
                Err(bad) => (bad.event, bad.id),
            },
            _ => (None, None),
        };
        match self.first_connection(transport) {
            Some(connection) if !self.confirm(transport, &connection) => {}
            Some(connection) => self.reply(&connection, event.as_deref(), id, Err(&rate_limited())),
            None => self.refuse_unauthenticated(transport),
        }
    }

    /// Signs a client in by its first message.
    fn authenticate_first(self: &Rc<Self>, transport: &Rc<Transport>, payload: &Payload, id: Option<i128>) {
        let frame = match (token_of(payload), id) {
            (Ok(token), id) => return self.sign_in(transport, self.check_token(Some(transport), &token), id),
            (Err(failure), Some(id)) => plain::encode_reply(id, Err(&failure)),
            (Err(failure), None) => plain::encode_error(&failure, Some(AUTHENTICATE)),
        };
        // Straight to the transport: it may have no connection yet, or one whose frames are held.
        self.enqueue(transport, websocket::text_frame(&frame));
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
                    // The held frames are in the resumed connection's replay buffer, too.
                    self.discard_new(transport, connection);
                    return self.complete_resume(transport, &old, (at, true), session, id);
                }
                ResumeOutcome::Elsewhere(shard) => {
                    let handshake = transport.handshake.borrow().clone();
                    let plain = PlainHandoff { session, held: self.take_held_frames(connection), handshake };
                    self.discard_new(transport, connection);
                    return self.begin_handoff(transport, shard, Some(plain), Inbound::Text(text.to_owned()));
                }
                ResumeOutcome::Abroad => {
                    let way = Way::Plain { new: connection.clone(), id };
                    let returning = Returning { key, progress, session, protocol: Protocol::Plain, way };
                    if self.begin_import(transport, returning) {
                        return;
                    }
                }
                ResumeOutcome::Gone => {}
            }
        }
        if self.confirm(transport, connection) {
            self.begin_session(transport, connection, id);
        }
    }

    /// Handles the resume for which a client was handed off to this shard.
    pub(super) fn resume_here(self: &Rc<Self>, transport: &Rc<Transport>, text: &str, plain: PlainHandoff) {
        let PlainHandoff { session, held, handshake } = plain;
        transport.handshake.replace(handshake);
        // A block may have come while the client was between the shards, or the end of its session.
        let session = match self.shared().auth.readmit(session) {
            Ok(session) => session,
            Err(AuthError::SessionEnded) => return self.close(transport, CloseCode::TokenExpired, SESSION_ENDED),
            Err(refused) => return self.close(transport, CloseCode::Forbidden, &refused.to_string()),
        };
        let Ok(Incoming::Event { payload, id, .. }) = plain::decode(text) else { return };
        if let Ok(Some((key, progress))) = read_resume(&payload)
            && let ResumeOutcome::Here(old, at) = self.try_resume(key, progress, &session, "/")
        {
            return self.complete_resume(transport, &old, (at, true), session, id);
        }
        if let Err(reason) = self.ensure_user_capacity(&session.identity.user) {
            return self.close(transport, CloseCode::TooManyConnections, &reason);
        }
        if let Some(connection) = self.new_connection(transport, Protocol::Plain, session) {
            self.open_or_ask(transport, &connection, Welcome::Resumed { id, held });
        }
    }

    /// Goes on with a connection, from index `at` in the replay buffer. `is_complete`: whether the client misses nothing.
    pub(super) fn complete_resume(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        (at, is_complete): (usize, bool),
        session: auth::Session,
        id: Option<i128>,
    ) {
        // The old transport is closed and no longer counts. A connection that was opened meanwhile has precedence.
        if let Err(reason) = self.ensure_user_capacity(&session.identity.user) {
            return self.close(transport, CloseCode::TooManyConnections, &reason);
        }
        self.attach(transport, connection, session);
        let key = connection.with_replay(|buffer| buffer.key(connection.id).to_string());
        self.send_resumed(transport, connection, key.as_deref(), is_complete, id);
        self.send_replay(transport, connection, at);
        self.open_transport(transport);
    }

    /// Begins to record frames for replay. The client counts frames from here.
    pub(super) fn begin_session(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        connection: &Rc<Connection>,
        id: Option<i128>,
    ) {
        self.detached().drop_replay(connection);
        let key = self.make_recoverable(connection).map(|key| key.to_string());
        if key.is_some() {
            self.shared().hub.note_session(connection.id);
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
            "windowMs": self.config().recovery_window.as_millis() as u64,
        }));
        let frame = match id {
            Some(id) => plain::encode_reply(id, Ok(&data)),
            None => plain::encode_event("resumed", &data, None),
        };
        // Not recorded: the client counts the frames behind this one.
        self.enqueue(transport, websocket::text_frame(&frame));
    }

    /// Ends a new connection whose client resumes another. The client has sent nothing else on the new one.
    pub(super) fn discard_new(self: &Rc<Self>, transport: &Transport, connection: &Rc<Connection>) {
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
            // A malformed key counts as the key of an ended session.
            Ok(key.parse().ok().map(|key| (key, Progress::Frames(offset))))
        }
        Resume { session: Some(_), offset: None } => Err(bad()),
    }
}
