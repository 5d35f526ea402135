//! Clients' events and the answers to them, for all protocols.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use super::parts::Shard;
use crate::auth::{Place, PresentedToken};
use crate::conn::state::{Connection, Entry, Rate, Verdict};
use crate::model::{ErrorCode, Failure, Payload};
use crate::plugin::ClientEvent;
use crate::protocol::{Protocol, plain, socketio, websocket};

/// The event with which a client signs in, first or again.
pub(super) const AUTHENTICATE: &str = "authenticate";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authenticate {
    token: String,
}

/// The token in the payload of [`AUTHENTICATE`].
///
/// # Errors
/// `bad_request` where the payload has no token.
pub(super) fn token_of(payload: &Payload) -> Result<PresentedToken, Failure> {
    let parsed = payload.arguments().first().map(|data| serde_json::from_str::<Authenticate>(data.get()));
    let token = parsed.and_then(Result::ok).and_then(|said| PresentedToken::new(Place::Message, &said.token));
    token.ok_or_else(|| Failure::new(ErrorCode::BadRequest, "authenticate takes {\"token\": \"…\"}"))
}

impl Shard {
    /// Hands a client's event to its feature.
    pub(super) fn on_event(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        event: &str,
        payload: Payload,
        id: Option<i128>,
        read_at: Instant,
    ) {
        self.metrics().events_received.inc();
        connection.has_sent.set(true);
        self.send_connect_notice(connection);
        if event == AUTHENTICATE {
            return self.renew_token(connection, &payload, id);
        }
        if let Some(limits) = &self.config().event_limits
            && let Some(limit) = limits.get(event)
            && !self.is_within_event_limit(connection, event, *limit, id)
        {
            return;
        }
        let accepted = self.shared().plugins.client_event(ClientEvent {
            connection: connection.id,
            identity: connection.identity.borrow().clone(),
            event,
            payload,
            id,
            read_at,
        });
        match accepted {
            Ok(()) => {}
            Err(failure) if failure.code == ErrorCode::RateLimited => {
                self.refuse_excess(connection, self.judge_refused(connection), event, id, || failure);
            }
            Err(failure) => self.reply(connection, Some(event), id, Err(&failure)),
        }
    }

    /// Whether a connection may send another event of this name. If not, the event is answered, and a client that stays
    /// over the rate is cut off.
    fn is_within_event_limit(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        event: &str,
        (per_second, burst): (NonZeroU32, NonZeroU32),
        id: Option<i128>,
    ) -> bool {
        let new_rate = || Rate::new(per_second, burst, &self.shared().clock);
        let verdict = connection.judge_event(event, self.now(), new_rate);
        if verdict == Verdict::Take {
            return true;
        }
        self.metrics().limited_event(event).inc();
        self.refuse_excess(connection, verdict, event, id, || {
            let message = format!("too many {event} from this connection: {per_second} a second are taken");
            Failure::new(ErrorCode::RateLimited, message)
        });
        false
    }

    /// Judges an event that a limit of its user has refused, by the rate of its connection.
    fn judge_refused(&self, connection: &Connection) -> Verdict {
        let transport = self.transport_of(connection);
        let judged =
            transport.and_then(|transport| Some(transport.rate.borrow_mut().as_mut()?.judge_refused(self.now())));
        judged.unwrap_or(Verdict::Refuse)
    }

    /// Refuses an event over a limit: with an answer at first, then without, and in the end by cutting its client off.
    fn refuse_excess(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        verdict: Verdict,
        event: &str,
        id: Option<i128>,
        failure: impl FnOnce() -> Failure,
    ) {
        match verdict {
            Verdict::Drop => self.metrics().events_refused.inc(),
            Verdict::Take | Verdict::Refuse => self.reply(connection, Some(event), id, Err(&failure())),
            Verdict::CutOff => {
                if let Some(transport) = self.transport_of(connection) {
                    self.cut_off(&transport);
                }
            }
        }
    }

    /// Replaces a connection's token by a newer one of the same user, which keeps the connection open beyond the old
    /// expiry.
    fn renew_token(self: &Rc<Self>, connection: &Rc<Connection>, payload: &Payload, id: Option<i128>) {
        let renewed = token_of(payload).and_then(|token| {
            let verified = self.check_token(self.transport_of(connection).as_deref(), &token);
            let session = verified.map_err(|refusal| Failure::new(refusal.kind.into(), refusal.message))?;
            if connection.identity.borrow().user != session.identity.user {
                let message = "the token is another user's: open another connection for it";
                return Err(Failure::new(ErrorCode::Forbidden, message));
            }
            self.adopt_session(connection, session);
            Ok(())
        });
        if let (Ok(()), Some(transport)) = (&renewed, self.transport_of(connection)) {
            self.check_transport(&transport, self.now());
        }
        match renewed {
            Ok(()) => self.reply(connection, Some(AUTHENTICATE), id, Ok(&Payload::empty())),
            Err(failure) => self.reply(connection, Some(AUTHENTICATE), id, Err(&failure)),
        }
    }

    /// Answers an event: by an acknowledgement where the client requested one, otherwise only if the event failed.
    pub(super) fn reply(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        event: Option<&str>,
        id: Option<i128>,
        outcome: Result<&Payload, &Failure>,
    ) {
        if outcome.is_err() {
            self.metrics().events_refused.inc();
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
            // Answers are not recorded for replay: a client that resumes has forgotten its requests.
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
                if let Some(transport) = self.transport_of(connection) {
                    self.enqueue(&transport, frames);
                }
            }
        }
    }

    /// Sends the host's own event to a connection, over the transport that the connection has now. Socket.IO clients
    /// count only the events of features for recovery, plain clients all frames.
    pub(super) fn notify(self: &Rc<Self>, connection: &Rc<Connection>, event: &str, payload: &Payload) {
        match &connection.protocol {
            Protocol::Plain => {
                let frame = websocket::text_frame(&plain::encode_event(event, payload, None));
                self.send_recorded(connection, Entry::Frames(Box::new(frame)));
            }
            Protocol::SocketIo { .. } => {
                if let Some(transport) = self.transport_of(connection) {
                    let frames = socketio::event_frames(connection.namespace(), event, payload, None, None);
                    self.enqueue(&transport, frames);
                }
            }
        }
    }

    /// Sends an entry to a connection, and records the entry for replay.
    pub(super) fn send_recorded(self: &Rc<Self>, connection: &Rc<Connection>, entry: Entry) {
        if let Some(transport) = self.transport_of(connection) {
            self.enqueue(&transport, entry.frames(&connection.protocol));
        }
        self.record(connection, [entry]);
    }
}
