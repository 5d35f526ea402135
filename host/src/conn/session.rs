//! What the messages on a connection mean: authentication, heartbeat, events, and its end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::connection::{Connection, Phase};
use super::members::Group;
use super::shard::Shard;
use crate::auth::{AuthError, Session};
use crate::model::{CloseCode, ErrorCode, Failure, Payload};
use crate::plugin::ClientEvent;
use crate::protocol::plain::{self, Incoming};
use crate::protocol::websocket::{self, Message};

/// The longest message from somebody who has not said who it is, in bytes: a token, and room around it.
const MAX_UNKNOWN_BYTES: usize = 16 * 1024;

/// The event by which a client says who it is, first or again.
const AUTHENTICATE: &str = "authenticate";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authenticate {
    token: String,
}

impl Shard {
    /// The first thing that happens on a connection: it is somebody, or it is to say who it is.
    pub(super) fn begin(self: &Rc<Self>, connection: &Rc<Connection>, token: Option<&str>) {
        let config = &self.shared.config;
        if let Err((code, reason)) = self.shared.admission.enter(connection.peer, config) {
            return self.close(connection, code, reason);
        }
        connection.counted.set(true);
        match token {
            Some(token) => self.sign_in(connection, token),
            None => match self.shared.auth.anonymous(connection.id) {
                Some(session) => self.open(connection, session),
                None => {
                    let limit = self.shared.clock.uptime_ms() + config.auth_grace.as_millis() as u64;
                    connection.times.limit.set(limit);
                    self.arm(connection, limit);
                }
            },
        }
    }

    fn sign_in(self: &Rc<Self>, connection: &Rc<Connection>, token: &str) {
        match self.shared.auth.verify(token) {
            Ok(session) => self.open(connection, session),
            Err(error) => {
                let code = match error {
                    AuthError::Expired => CloseCode::TokenExpired,
                    AuthError::Invalid(_) => CloseCode::Unauthorized,
                };
                self.close(connection, code, &error.to_string());
            }
        }
    }

    fn open(self: &Rc<Self>, connection: &Rc<Connection>, session: Session) {
        let shared = &self.shared;
        let per_user = shared.config.connections_per_user;
        if per_user > 0 && shared.hub.connections_of(&session.identity.user).len() >= per_user {
            return self.close(connection, CloseCode::TooManyConnections, "this user has too many connections");
        }
        connection.phase.set(Phase::Open);
        connection.times.limit.set(u64::MAX);
        shared.hub.connect(connection.id, session.identity.clone(), shared.clock.now_ms());
        self.members.join(connection, Group::All);
        let connected = json!({
            "connectionId": connection.id.to_string(),
            "userId": &*session.identity.user,
            "heartbeatMs": shared.config.heartbeat_interval.as_millis() as u64,
            "maxMessageBytes": shared.config.message_bytes,
        });
        self.adopt_session(connection, session);
        let frame = plain::encode_event("connected", &Payload::of_json(&connected), None);
        self.enqueue(connection, websocket::text_frame(&frame));
        self.look_after(connection, self.shared.clock.uptime_ms());
    }

    /// Takes over what a token says about the person and about its own end.
    fn adopt_session(&self, connection: &Rc<Connection>, session: Session) {
        self.members.leave_roles(connection);
        for role in &session.identity.roles {
            self.members.join(connection, Group::Role(role.as_str().into()));
        }
        let clock = &self.shared.clock;
        let expires = session
            .expires_ms
            .map_or(u64::MAX, |expires| clock.uptime_ms().saturating_add(expires.saturating_sub(clock.now_ms())));
        connection.times.expires.set(expires);
        *connection.identity.borrow_mut() = Some(session.identity);
    }

    /// Reads what arrived on a connection.
    pub(super) fn read(self: &Rc<Self>, connection: &Rc<Connection>, bytes: &mut [u8]) {
        connection.times.heard.set(self.shared.clock.uptime_ms());
        let read_at = Instant::now();
        let mut decoder = connection.decoder.take();
        let longest = self.shared.config.message_bytes;
        let max_bytes = || match *connection.identity.borrow() {
            Some(_) => longest,
            None => longest.min(MAX_UNKNOWN_BYTES),
        };
        let read = decoder.feed(bytes, max_bytes, |message| {
            self.handle(connection, message, read_at);
            connection.phase.get() != Phase::Ended
        });
        match read {
            Ok(()) => drop(connection.decoder.replace(decoder)),
            // After a violation nothing that follows has a meaning: it is read as garbage, and the close goes out once.
            Err(violation) => self.close(connection, violation.code, violation.reason),
        }
    }

    fn handle(self: &Rc<Self>, connection: &Rc<Connection>, message: Message<'_>, read_at: Instant) {
        match message {
            Message::Pong => {}
            Message::Close(code) => {
                // Either the answer to ours, or the client's own, which is answered with the same code.
                if connection.phase.get() != Phase::Closing {
                    self.enqueue(connection, websocket::close_frame(code.unwrap_or(CloseCode::Normal.code()), ""));
                }
                self.end(connection);
            }
            _ if connection.phase.get() == Phase::Closing => {}
            _ if !connection.may_send() => self.refuse_unread(connection, &message),
            Message::Ping(content) => self.enqueue(connection, websocket::pong_frame(content)),
            Message::Text(text) => self.text(connection, text, read_at),
            Message::Binary(_) if connection.phase.get() == Phase::Authenticating => self.refuse_stranger(connection),
            Message::Binary(_) => {
                let failure = Failure::new(ErrorCode::BadRequest, "frames are JSON text, and this one is binary");
                self.answer(connection, None, None, Err(&failure));
            }
        }
    }

    fn text(self: &Rc<Self>, connection: &Rc<Connection>, text: &str, read_at: Instant) {
        match plain::decode(text) {
            Ok(Incoming::Event { event, data, id }) if event == AUTHENTICATE => self.authenticate(connection, data, id),
            _ if connection.phase.get() == Phase::Authenticating => self.refuse_stranger(connection),
            Ok(Incoming::Event { event, data, id }) => self.event(connection, &event, data, id, read_at),
            Ok(Incoming::Acknowledgement { id, data }) => {
                if let Ok(id) = u64::try_from(id) {
                    self.shared.plugins.acknowledged(connection.id, id, Payload::of_data(data));
                }
            }
            Err(bad) => self.answer(connection, bad.event.as_deref(), bad.id, Err(&bad.failure)),
        }
    }

    fn refuse_stranger(self: &Rc<Self>, connection: &Rc<Connection>) {
        self.close(connection, CloseCode::Unauthorized, "the first message must be authenticate with a token");
    }

    /// Refuses a message over the rate. It is read for its id alone, so that the answer finds its way.
    fn refuse_unread(self: &Rc<Self>, connection: &Rc<Connection>, message: &Message<'_>) {
        let (event, id) = match message {
            Message::Text(text) => match plain::decode(text) {
                Ok(Incoming::Event { event, id, .. }) => (Some(event.into_owned()), id),
                Ok(Incoming::Acknowledgement { .. }) => (None, None),
                Err(bad) => (bad.event, bad.id),
            },
            // To answer a ping is a courtesy.
            Message::Ping(_) => return,
            _ => (None, None),
        };
        let said = "too many messages from this connection: send fewer, or send them later";
        self.answer(connection, event.as_deref(), id, Err(&Failure::new(ErrorCode::RateLimited, said)));
    }

    fn event(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        event: &str,
        data: Option<&RawValue>,
        id: Option<i128>,
        read_at: Instant,
    ) {
        let Some(identity) = connection.identity.borrow().clone() else { return };
        self.shared.metrics.events_received.inc();
        let accepted = self.shared.plugins.client_event(ClientEvent {
            connection: connection.id,
            identity,
            event,
            payload: Payload::of_data(data),
            id,
            read_at,
        });
        if let Err(failure) = accepted {
            self.answer(connection, Some(event), id, Err(&failure));
        }
    }

    fn authenticate(self: &Rc<Self>, connection: &Rc<Connection>, data: Option<&RawValue>, id: Option<i128>) {
        let parsed = data.map(|data| serde_json::from_str::<Authenticate>(data.get()));
        let Some(Ok(Authenticate { token })) = parsed else {
            let failure = Failure::new(ErrorCode::BadRequest, "authenticate takes {\"token\": \"…\"}");
            return self.answer(connection, Some(AUTHENTICATE), id, Err(&failure));
        };
        if connection.phase.get() == Phase::Authenticating {
            self.sign_in(connection, &token);
        } else {
            match self.renew(connection, &token) {
                Ok(()) => self.look_after(connection, self.shared.clock.uptime_ms()),
                Err(failure) => return self.answer(connection, Some(AUTHENTICATE), id, Err(&failure)),
            }
        }
        if connection.phase.get() == Phase::Open {
            self.answer(connection, Some(AUTHENTICATE), id, Ok(&Payload::empty()));
        }
    }

    /// A newer token for the same user keeps a connection open beyond the end of the old one.
    fn renew(&self, connection: &Rc<Connection>, token: &str) -> Result<(), Failure> {
        let session =
            self.shared.auth.verify(token).map_err(|error| Failure::new(ErrorCode::Unauthorized, error.to_string()))?;
        let same_user = connection.identity.borrow().as_ref().is_some_and(|old| old.user == session.identity.user);
        if !same_user {
            let message = "the token is another user's: open another connection for it";
            return Err(Failure::new(ErrorCode::Forbidden, message));
        }
        self.shared.hub.update_identity(connection.id, Arc::clone(&session.identity));
        self.adopt_session(connection, session);
        Ok(())
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
        let frame = match (id, outcome) {
            (Some(id), outcome) => plain::encode_reply(id, outcome),
            (None, Err(failure)) => plain::encode_error(failure, event),
            (None, Ok(_)) => return,
        };
        self.enqueue(connection, websocket::text_frame(&frame));
    }

    /// Does what is due on a connection, and notes when to look again.
    pub(super) fn look_after(self: &Rc<Self>, connection: &Rc<Connection>, now: u64) {
        let times = &connection.times;
        let config = &self.shared.config;
        match connection.phase.get() {
            Phase::Ended => {}
            Phase::Closing if now >= times.limit.get() => self.end(connection),
            Phase::Authenticating if now >= times.limit.get() => {
                self.close(connection, CloseCode::Unauthorized, "no token came in time");
            }
            Phase::Closing | Phase::Authenticating => self.arm(connection, times.limit.get()),
            Phase::Open => {
                let gone = times.heard.get() + config.heartbeat_timeout.as_millis() as u64;
                let interval = config.heartbeat_interval.as_millis() as u64;
                if now >= times.expires.get() {
                    return self.close(
                        connection,
                        CloseCode::TokenExpired,
                        "the token has expired: connect with a new one",
                    );
                }
                if now >= gone {
                    return self.close(connection, CloseCode::GoingAway, "the client did not answer heartbeats");
                }
                if now >= times.pinged.get() + interval {
                    times.pinged.set(now);
                    self.enqueue(connection, websocket::ping_frame());
                }
                self.arm(connection, gone.min(times.pinged.get() + interval).min(times.expires.get()));
            }
        }
    }

    /// Takes a connection out of rooms and directory, and has the features told.
    pub(super) fn depart(&self, connection: &Rc<Connection>) {
        if connection.counted.replace(false) {
            self.shared.admission.leave(connection.peer, &self.shared.config);
        }
        self.members.leave_all(connection);
        let departure = self.shared.hub.disconnect(connection.id);
        // When the host goes, everybody goes: nobody is there to be told of it.
        if let Some(departure) = departure.filter(|_| !self.is_stopping()) {
            self.shared.plugins.departed(connection.id, departure);
        }
    }
}
