//! Events, outputs and records as bytes for other nodes. All nodes of a cluster run the same version of the host, or the one
//! before it: a type here may only grow at its end, under another [`VERSION`].

use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::hub::{Audience, Publication};
use crate::model::{CloseCode, ConnId, ErrorCode, Failure, Identity, NodeId, Payload};
use crate::plugin::event::{AckMissing, Event, LeftReason, Member, Origin};
use crate::plugin::load::catalogue::Plugin;
use crate::protocol::Outgoing;

/// The first byte of all that nodes send each other.
const VERSION: u8 = 1;

/// Bytes, which serde would otherwise write one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Blob(pub(super) Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// The bytes of a value.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    // These types have no maps of unknown length, floats or the like, which are what this format refuses.
    postcard::to_extend(value, vec![VERSION]).unwrap_or_default()
}

/// The value of these bytes.
///
/// # Errors
/// Where another version of the host wrote them.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> anyhow::Result<T> {
    ensure!(bytes.first() == Some(&VERSION), "a node of another version of the host sent this");
    Ok(postcard::from_bytes(&bytes[1..])?)
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireIdentity {
    user: Box<str>,
    name: Option<String>,
    roles: Vec<String>,
    claims: String,
    principal: Box<str>,
}

impl From<&Identity> for WireIdentity {
    fn from(identity: &Identity) -> Self {
        let Identity { user, name, roles, claims, principal } = identity;
        let (name, roles, claims) = (name.clone(), roles.clone(), claims.clone());
        Self { user: (**user).into(), name, roles, claims, principal: (**principal).into() }
    }
}

impl From<WireIdentity> for Arc<Identity> {
    fn from(identity: WireIdentity) -> Self {
        let WireIdentity { user, name, roles, claims, principal } = identity;
        Self::new(Identity { user: user.into(), name, roles, claims, principal: principal.into() })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WireMember {
    connection: u64,
    identity: WireIdentity,
}

impl From<&Member> for WireMember {
    fn from(member: &Member) -> Self {
        Self { connection: member.connection.to_bits(), identity: (&*member.identity).into() }
    }
}

impl From<WireMember> for Member {
    fn from(member: WireMember) -> Self {
        Self { connection: ConnId::from_bits(member.connection), identity: member.identity.into() }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WirePayload {
    args: Box<str>,
    attachments: Vec<Blob>,
}

impl From<&Payload> for WirePayload {
    fn from(payload: &Payload) -> Self {
        let attachments = payload.attachments.iter().map(|bytes| Blob(bytes.to_vec())).collect();
        Self { args: payload.args().into(), attachments }
    }
}

impl TryFrom<WirePayload> for Payload {
    type Error = anyhow::Error;

    fn try_from(payload: WirePayload) -> anyhow::Result<Self> {
        let attachments = payload.attachments.into_iter().map(|Blob(bytes)| Bytes::from(bytes)).collect();
        Self::from_args(payload.args, attachments).map_err(|bad| anyhow::anyhow!("{bad:?}"))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireFailure {
    code: Box<str>,
    message: String,
    /// JSON text.
    data: Option<String>,
}

impl From<&Failure> for WireFailure {
    fn from(failure: &Failure) -> Self {
        let (message, data) = (failure.message.clone(), failure.data.as_ref().map(ToString::to_string));
        Self { code: failure.code.as_str().into(), message, data }
    }
}

impl From<WireFailure> for Failure {
    fn from(failure: WireFailure) -> Self {
        let code = ErrorCode::from_name(&failure.code).unwrap_or(ErrorCode::Internal);
        Self { data: failure.data.map(Into::into), ..Self::new(code, failure.message) }
    }
}

pub(crate) type WireOutcome = Result<WirePayload, WireFailure>;

pub(super) fn outcome_to_wire(outcome: &Result<Payload, Failure>) -> WireOutcome {
    outcome.as_ref().map(WirePayload::from).map_err(WireFailure::from)
}

pub(super) fn outcome_of_wire(outcome: WireOutcome) -> Result<Payload, Failure> {
    match outcome {
        Ok(payload) => Payload::try_from(payload).map_err(|error| Failure::new(ErrorCode::Internal, error.to_string())),
        Err(failure) => Err(failure.into()),
    }
}

/// An event on its way to the owner of its scope.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireEnvelope {
    pub(super) plugin: Box<str>,
    pub(super) scope: Box<str>,
    pub(super) event: WireEvent,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum WireEvent {
    Message {
        event: Box<str>,
        origin: WireOrigin,
        payload: WirePayload,
        wants_reply: bool,
    },
    Joined(WireMember),
    Left {
        member: WireMember,
        by_scope: bool,
        is_gone: bool,
    },
    Presence {
        member: WireMember,
        is_away: bool,
        n_changes: u32,
    },
    Query {
        name: Box<str>,
        data: Box<str>,
    },
    /// A client's answer to an event of this number, or why there is none.
    Answered {
        ask: u64,
        connection: u64,
        answer: WireAnswer,
    },
    Placed {
        connection: u64,
        from: u16,
        to: u16,
        is_settled: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum WireOrigin {
    Client(WireMember),
    Host(WireMember),
    Service(Box<str>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum WireAnswer {
    Payload(WirePayload),
    Timeout,
    Disconnected,
    TooLarge,
}

impl From<&Result<Payload, AckMissing>> for WireAnswer {
    fn from(answer: &Result<Payload, AckMissing>) -> Self {
        match answer {
            Ok(payload) => Self::Payload(payload.into()),
            Err(AckMissing::Timeout) => Self::Timeout,
            Err(AckMissing::Disconnected) => Self::Disconnected,
            Err(AckMissing::TooLarge) => Self::TooLarge,
        }
    }
}

impl WireAnswer {
    fn into_answer(self) -> anyhow::Result<Result<Payload, AckMissing>> {
        Ok(match self {
            Self::Payload(payload) => Ok(payload.try_into()?),
            Self::Timeout => Err(AckMissing::Timeout),
            Self::Disconnected => Err(AckMissing::Disconnected),
            Self::TooLarge => Err(AckMissing::TooLarge),
        })
    }
}

impl WireEvent {
    /// An event for another node. `None` for those that only the owner of a scope has.
    pub(super) fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Message { event, origin, payload, wants_reply, .. } => Self::Message {
                event: (**event).into(),
                origin: match origin {
                    Origin::Client(member) => WireOrigin::Client(member.into()),
                    Origin::Host(member) => WireOrigin::Host(member.into()),
                    Origin::Service(name) => WireOrigin::Service((**name).into()),
                },
                payload: payload.into(),
                wants_reply: *wants_reply,
            },
            Event::Joined(member) => Self::Joined(member.into()),
            Event::Left { member, reason, is_gone } => {
                Self::Left { member: member.into(), by_scope: *reason == LeftReason::Left, is_gone: *is_gone }
            }
            Event::Presence { member, is_away, n_changes } => {
                Self::Presence { member: member.into(), is_away: *is_away, n_changes: *n_changes }
            }
            Event::Query { name, data, .. } => Self::Query { name: name.clone(), data: data.clone() },
            // The next owner has its own time-out, and knows whether it has had the answer.
            Event::Acknowledged { answer: Err(AckMissing::Timeout), .. } => return None,
            Event::Acknowledged { ask, connection, answer, .. } => {
                Self::Answered { ask: *ask, connection: connection.to_bits(), answer: answer.into() }
            }
            Event::Answered { ask, connection, answer } => {
                Self::Answered { ask: *ask, connection: connection.to_bits(), answer: answer.into() }
            }
            Event::Placed { connection, from, to, is_settled } => {
                Self::Placed { connection: connection.to_bits(), from: from.0, to: to.0, is_settled: *is_settled }
            }
            _ => return None,
        })
    }

    pub(super) fn into_event(self) -> anyhow::Result<Event> {
        Ok(match self {
            Self::Message { event, origin, payload, wants_reply } => {
                let origin = match origin {
                    WireOrigin::Client(member) => Origin::Client(member.into()),
                    WireOrigin::Host(member) => Origin::Host(member.into()),
                    WireOrigin::Service(name) => Origin::Service(name.into()),
                };
                Event::Message { event: event.into(), origin, payload: payload.try_into()?, wants_reply, place: None }
            }
            Self::Joined(member) => Event::Joined(member.into()),
            Self::Left { member, by_scope, is_gone } => {
                let reason = if by_scope { LeftReason::Left } else { LeftReason::Disconnected };
                Event::Left { member: member.into(), reason, is_gone }
            }
            Self::Presence { member, is_away, n_changes } => {
                Event::Presence { member: member.into(), is_away, n_changes }
            }
            Self::Query { name, data } => Event::Query { name, data, place: None },
            Self::Answered { ask, connection, answer } => {
                Event::Answered { ask, connection: ConnId::from_bits(connection), answer: answer.into_answer()? }
            }
            Self::Placed { connection, from, to, is_settled } => {
                let (connection, from, to) = (ConnId::from_bits(connection), NodeId(from), NodeId(to));
                Event::Placed { connection, from, to, is_settled }
            }
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WireAudience {
    Room(String),
    Users(Vec<String>),
    Roles(Vec<String>),
    Connection(u64),
    All,
}

impl From<&Audience> for WireAudience {
    fn from(audience: &Audience) -> Self {
        match audience {
            Audience::Room(room) => Self::Room(room.clone()),
            Audience::Users(users) => Self::Users(users.clone()),
            Audience::Roles(roles) => Self::Roles(roles.clone()),
            Audience::Connection(connection) => Self::Connection(connection.to_bits()),
            Audience::All => Self::All,
        }
    }
}

impl From<WireAudience> for Audience {
    fn from(audience: WireAudience) -> Self {
        match audience {
            WireAudience::Room(room) => Self::Room(room),
            WireAudience::Users(users) => Self::Users(users),
            WireAudience::Roles(roles) => Self::Roles(roles),
            WireAudience::Connection(connection) => Self::Connection(ConnId::from_bits(connection)),
            WireAudience::All => Self::All,
        }
    }
}

/// An event for connections.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WirePublication {
    to: Vec<WireAudience>,
    except: Vec<WireAudience>,
    event: Box<str>,
    payload: WirePayload,
    volatile: bool,
    number: u64,
}

impl From<&Publication> for WirePublication {
    fn from(publication: &Publication) -> Self {
        let Publication { to, except, outgoing, volatile, .. } = publication;
        let (to, except) = wire_audiences(to, except);
        let (event, payload) = (outgoing.event().into(), outgoing.payload().into());
        Self { to, except, event, payload, volatile: *volatile, number: outgoing.number() }
    }
}

impl TryFrom<WirePublication> for Publication {
    type Error = anyhow::Error;

    fn try_from(publication: WirePublication) -> anyhow::Result<Self> {
        let WirePublication { to, except, event, payload, volatile, number } = publication;
        let (to, except) = audiences_of_wire((to, except));
        let outgoing = Arc::new(Outgoing::numbered(event, Payload::try_from(payload)?, number));
        Ok(Self { to, except, outgoing, volatile, receipt: None })
    }
}

/// Audiences, and their exceptions.
pub(crate) type WireAudiences = (Vec<WireAudience>, Vec<WireAudience>);

pub(super) fn wire_audiences(to: &[Audience], except: &[Audience]) -> WireAudiences {
    (to.iter().map(Into::into).collect(), except.iter().map(Into::into).collect())
}

pub(super) fn audiences_of_wire((to, except): WireAudiences) -> (Vec<Audience>, Vec<Audience>) {
    (to.into_iter().map(Into::into).collect(), except.into_iter().map(Into::into).collect())
}

/// The scope for which something is done, by names, because each node numbers its plugins itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct WireScope {
    pub(crate) plugin: Box<str>,
    pub(crate) key: Box<str>,
}

impl WireScope {
    pub(super) fn of(plugin: &Plugin, key: &str) -> Self {
        Self { plugin: plugin.name.as_str().into(), key: key.into() }
    }
}

/// What a commit has a node do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WireOutput {
    Publish(WirePublication),
    Ask {
        connection: u64,
        ask: u64,
        event: Box<str>,
        payload: WirePayload,
        scope: WireScope,
        timeout_ms: u64,
    },
    /// `is_told`: the owner does not know who it is, and is told.
    Join {
        connection: u64,
        room: Box<str>,
        scope: WireScope,
        is_told: bool,
    },
    Leave {
        connection: u64,
        room: Box<str>,
        scope: WireScope,
    },
    Watch {
        connection: u64,
        scope: WireScope,
        is_told: bool,
    },
    Unwatch {
        connection: u64,
        scope: WireScope,
    },
    Close {
        connection: u64,
        code: u16,
        reason: Box<str>,
    },
    /// A forwarded event of the node is done with. Without an outcome it wants no answer.
    Answer {
        number: u64,
        outcome: Option<WireOutcome>,
    },
    /// See [`Output::Placed`].
    ///
    /// [`Output::Placed`]: super::output::Output::Placed
    Placed {
        connection: u64,
        scope: WireScope,
    },
    /// A forwarded event of the node is committed, and this owner has yet to answer it.
    Underway {
        number: u64,
        owner: u16,
    },
}

/// The close code of this number.
pub(super) fn close_code(number: u16) -> CloseCode {
    let code = CloseCode::ALL.into_iter().find(|code| code.code() == number);
    code.unwrap_or(CloseCode::Disconnected)
}

/// The record of a scope's state.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireState {
    pub(super) state: Option<(u32, Blob)>,
    pub(super) before: Option<(u32, Blob)>,
    pub(super) sequence: u64,
}

/// The record of a member of a scope.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireMembership {
    pub(super) joined: bool,
    pub(super) watched: bool,
    pub(super) came: bool,
    pub(super) is_away: bool,
    pub(super) n_changes: u32,
    pub(super) identity: WireIdentity,
    pub(super) node: Option<u16>,
    pub(super) next: Option<u16>,
}

/// The record of a timer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireTimer {
    pub(super) due_ms: u64,
    pub(super) after_ms: u64,
    pub(super) payload: Box<str>,
}

/// The record of a document that is being stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WirePromise {
    pub(super) tag: String,
    pub(super) collection: String,
    pub(super) key: Option<String>,
    pub(super) document: String,
}

/// The record of an acknowledgement that a client owes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireAsk {
    pub(super) connection: u64,
    pub(super) tag: Box<str>,
    pub(super) due_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_survives_the_way_to_another_node() {
        let identity = Identity { roles: vec!["agent".to_owned()], ..Identity::of_user("ana") };
        let member = Member { connection: ConnId::new(1, 2, 3).on(NodeId(4)), identity: Arc::new(identity) };
        let payload = Payload::from_args(r#"[{"_placeholder":true,"num":0}]"#, vec![Bytes::from_static(b"x")]).unwrap();
        let event = Event::Message {
            event: "ticket:view".into(),
            origin: Origin::Client(member.clone()),
            payload: payload.clone(),
            wants_reply: true,
            place: None,
        };
        let bytes = encode(&WireEvent::of(&event).unwrap());
        let Event::Message { origin: Origin::Client(back), payload: back_payload, .. } =
            decode::<WireEvent>(&bytes).unwrap().into_event().unwrap()
        else {
            panic!("it is another event")
        };
        assert_eq!((back.connection, &*back.identity), (member.connection, &*member.identity));
        assert_eq!(back_payload, payload);
    }

    #[test]
    fn bytes_of_another_version_are_refused() {
        let mut bytes = encode(&7_u32);
        bytes[0] = 9;
        assert!(decode::<u32>(&bytes).unwrap_err().to_string().contains("another version"));
    }
}
