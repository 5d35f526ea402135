//! `POST /v1/emit`: a service speaks to connections itself, with no feature between.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::body::{Object, given, parse};
use super::idempotency::{Begun, Fingerprint, Idempotency, Reply, conflict, one_key};
use super::keys::Caller;
use super::schema::{ConnectionId, EventName, Id, IdempotencyKey, Room};
use super::{Api, wait_while};
use crate::hub::{Audience, Publication, WakeBatch};
use crate::model::{ConnId, ErrorCode, Failure, Payload, is_valid_id, is_valid_room};
use crate::protocol::{Outgoing, RESERVED_EVENTS};

/// Emits in one call, at most: a page of whatever the service works through.
pub(super) const MAX_EMITS: usize = 1000;

/// The longest event name, in characters.
pub(super) const MAX_EVENT_CHARS: usize = 256;

/// Whom something is for: the union of everything that is named.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1))]
pub(super) struct To {
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Id")]
    user: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Vec<Id>")]
    users: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Vec<Id>")]
    roles: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Room")]
    room: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Vec<Room>")]
    rooms: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "ConnectionId")]
    connection: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "bool", extend("const" = true))]
    all: Option<bool>,
}

/// One emit, as a service writes it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Emit<'a> {
    to: Object<To>,
    #[serde(borrow)]
    #[schemars(with = "EventName")]
    event: Cow<'a, str>,
    /// Any JSON.
    #[serde(borrow, default)]
    #[schemars(with = "Value")]
    data: Option<&'a RawValue>,
    #[serde(default)]
    except: Option<Object<To>>,
    #[serde(default)]
    #[schemars(with = "Option<IdempotencyKey>")]
    idempotency_key: Option<String>,
}

/// How many connections an emit is for.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Delivered {
    delivered: usize,
}

/// An emit that has been checked.
struct Checked {
    to: Vec<Audience>,
    except: Vec<Audience>,
    outgoing: Arc<Outgoing>,
    once: Option<Once>,
}

/// The key of a call, and what tells the call from others.
type Once = (String, Fingerprint);

impl Api {
    pub(super) async fn emit(
        &self,
        caller: Caller<'_>,
        header_key: Option<String>,
        body: &[u8],
    ) -> Result<Reply, Failure> {
        self.wait_for_space().await?;
        // From here on nothing waits, so that calls with one key do not meet half way.
        if body.trim_ascii_start().first() != Some(&b'[') {
            let mut emit = parse::<Object<Emit<'_>>>(body)?.0;
            emit.idempotency_key = one_key(header_key, emit.idempotency_key)?;
            let emit = Self::check(emit)?;
            self.check_key(caller, emit.once.as_ref())?;
            return self.do_once(caller, emit.once.clone(), || Ok(self.send(emit)));
        }
        let emits: Vec<Object<Emit<'_>>> = parse(body)?;
        if emits.len() > MAX_EMITS {
            let message = format!("{} emits, and there may be {MAX_EMITS} in one call", emits.len());
            return Err(Failure::new(ErrorCode::BadRequest, message));
        }
        // The key of the header is the whole call's; each emit may have one of its own.
        let once = header_key.map(|key| (key, Idempotency::fingerprint(("emits", &emits))));
        let emits = self.check_all(caller, emits)?;
        self.check_key(caller, once.as_ref())?;
        if let Some((key, _)) = &once
            && let Some(index) = emits.iter().position(|emit| emit.once.as_ref().is_some_and(|(own, _)| own == key))
        {
            let message =
                format!("[{index}]: idempotencyKey {key:?} is that of the whole call, by its header: choose another");
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        self.do_once(caller, once, || {
            let mut answers = String::from("[");
            for (index, emit) in emits.into_iter().enumerate() {
                let reply = self.do_once(caller, emit.once.clone(), || Ok(self.send(emit)))?;
                answers.push_str(if index == 0 { "" } else { "," });
                answers.push_str(&String::from_utf8_lossy(&reply.body));
            }
            answers.push(']');
            Ok(Reply { status: StatusCode::OK, body: answers.into() })
        })
    }

    /// Checks all emits of a call before anything of any of them is sent.
    fn check_all(&self, caller: Caller<'_>, emits: Vec<Object<Emit<'_>>>) -> Result<Vec<Checked>, Failure> {
        let mut checked: Vec<Checked> = Vec::with_capacity(emits.len());
        for (index, Object(emit)) in emits.into_iter().enumerate() {
            let at = |failure: Failure| Failure { message: format!("[{index}]: {}", failure.message), ..failure };
            let emit = Self::check(emit).map_err(at)?;
            self.check_key(caller, emit.once.as_ref()).map_err(at)?;
            if let Some((key, fingerprint)) = &emit.once
                && checked.iter().filter_map(|other| other.once.as_ref()).any(|(k, f)| k == key && f != fingerprint)
            {
                return Err(at(conflict(key)));
            }
            checked.push(emit);
        }
        Ok(checked)
    }

    /// Waits until no shard is over its bound.
    async fn wait_for_space(&self) -> Result<(), Failure> {
        let is_full = || self.hub.shards().iter().any(crate::hub::ShardQueue::is_full);
        if wait_while(is_full).await {
            return Ok(());
        }
        Err(Failure::new(ErrorCode::FeatureUnavailable, "the host has more to send than it can: try again later"))
    }

    fn check(emit: Emit<'_>) -> Result<Checked, Failure> {
        let Emit { to: Object(to), event, data, except, idempotency_key } = emit;
        check_event(&event)?;
        let except = except.map(|Object(except)| except);
        let once = idempotency_key.map(|key| {
            let call = ("emit", &event, data, &to, &except);
            (key, Idempotency::fingerprint(call))
        });
        let to = to.into_audiences("to")?;
        let except = except.map_or(Ok(Vec::new()), |except| except.into_audiences("except"))?;
        let outgoing = Arc::new(Outgoing::new(event, Payload::of_data(data)));
        Ok(Checked { to, except, outgoing, once })
    }

    fn check_key(&self, caller: Caller<'_>, once: Option<&Once>) -> Result<(), Failure> {
        let Some((key, fingerprint)) = once else { return Ok(()) };
        Idempotency::check_key(key)?;
        self.idempotency.check(caller.name, key, *fingerprint)
    }

    /// Does what has been checked, unless it was done before with this key.
    fn do_once(
        &self,
        caller: Caller<'_>,
        once: Option<Once>,
        work: impl FnOnce() -> Result<Reply, Failure>,
    ) -> Result<Reply, Failure> {
        let Some((key, fingerprint)) = once else { return work() };
        match self.idempotency.begin(caller.name, &key, fingerprint)? {
            Begun::First(ticket) => {
                let reply = work()?;
                ticket.finish(&reply);
                Ok(reply)
            }
            Begun::Answered(reply) => Ok(reply),
            Begun::Running(_) => Err(conflict(&key)),
        }
    }

    fn send(&self, emit: Checked) -> Reply {
        let Checked { to, except, outgoing, .. } = emit;
        let recipients = self.hub.count_recipients(&to, &except);
        if recipients.connections > 0 {
            let publication = Publication { to, except, outgoing, volatile: false, guard: None };
            self.hub.publish(publication, &WakeBatch::default());
        }
        Reply::of(&Delivered { delivered: recipients.connections })
    }
}

/// # Errors
/// `bad_request` where an event's name is too long, or not one that a service may send.
pub(super) fn check_event(event: &str) -> Result<(), Failure> {
    let n_chars = event.chars().count();
    if !(1..=MAX_EVENT_CHARS).contains(&n_chars) || event.chars().any(char::is_control) {
        let message = format!("event must be 1 to {MAX_EVENT_CHARS} characters without control characters");
        return Err(Failure::new(ErrorCode::BadRequest, message));
    }
    if RESERVED_EVENTS.contains(&event) {
        let message = format!("the event {event} is the protocol's own: choose another name");
        return Err(Failure::new(ErrorCode::BadRequest, message));
    }
    Ok(())
}

/// A connection's id, as it is written everywhere.
pub(super) fn connection_id(text: &str) -> Option<ConnId> {
    let is_id = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    text.parse().ok().filter(|_| is_id)
}

impl To {
    /// What is named, checked. `field` says where it stood.
    fn into_audiences(self, field: &str) -> Result<Vec<Audience>, Failure> {
        let bad = |what: &str| Err(Failure::new(ErrorCode::BadRequest, format!("{field}.{what}")));
        if self == Self::default() {
            return Err(Failure::new(ErrorCode::BadRequest, format!("{field} names nobody: {KINDS}")));
        }
        const KINDS: &str = "name user, users, roles, room, rooms, connection or all";
        const AN_ID: &str = "must be 1 to 128 printable characters without whitespace";
        const A_ROOM: &str = "must be 1 to 512 printable characters without whitespace";
        let Self { user, users, roles, room, rooms, connection, all } = self;
        let mut audiences = Vec::with_capacity(1);
        if let Some(user) = user {
            if !is_valid_id(&user) {
                return bad(&format!("user {AN_ID}"));
            }
            audiences.push(Audience::Users(vec![user]));
        }
        let (users, roles, rooms) = (users.unwrap_or_default(), roles.unwrap_or_default(), rooms.unwrap_or_default());
        if let Some(at) = users.iter().position(|user| !is_valid_id(user)) {
            return bad(&format!("users[{at}] {AN_ID}"));
        }
        if let Some(at) = roles.iter().position(|role| !is_valid_id(role)) {
            return bad(&format!("roles[{at}] {AN_ID}"));
        }
        if !users.is_empty() {
            audiences.push(Audience::Users(users));
        }
        if !roles.is_empty() {
            audiences.push(Audience::Roles(roles));
        }
        if room.as_deref().is_some_and(|room| !is_valid_room(room)) {
            return bad(&format!("room {A_ROOM}"));
        }
        if let Some(at) = rooms.iter().position(|room| !is_valid_room(room)) {
            return bad(&format!("rooms[{at}] {A_ROOM}"));
        }
        audiences.extend(room.into_iter().chain(rooms).map(Audience::Room));
        if let Some(connection) = connection {
            match connection_id(&connection) {
                Some(id) => audiences.push(Audience::Connection(id)),
                None => return bad("connection must be 16 lower-case hexadecimal digits, as connected says"),
            }
        }
        match all {
            Some(true) => audiences.push(Audience::All),
            Some(false) => return bad("all must be true, or left out"),
            None => {}
        }
        Ok(audiences)
    }
}
