//! Events for features, and where their answers go.

pub(crate) mod senders;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use self::senders::{Reservation, Sender};
use crate::ledger::Charge;
use crate::model::{ConnId, ErrorCode, Failure, Identity, Payload};
use crate::store::{Outcome, Page, Promise, StoreFailure};

/// An event of a client.
#[derive(Debug)]
pub struct ClientEvent<'a> {
    /// The connection that it came from.
    pub connection: ConnId,
    /// The connection's user.
    pub identity: Arc<Identity>,
    /// The event's name.
    pub event: &'a str,
    /// Its payload.
    pub payload: Payload,
    /// The id to acknowledge it with.
    pub id: Option<i128>,
    /// When its frame was read.
    pub read_at: Instant,
}

/// The identity of a service's call, by which a repetition is recognised.
#[derive(Debug, Clone)]
pub struct Once {
    /// Whose call it is: the name of the API key.
    pub caller: String,
    /// The idempotency key.
    pub key: String,
    /// A digest of the call.
    pub fingerprint: [u8; 32],
}

/// A connection and its identity.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) connection: ConnId,
    pub(crate) identity: Arc<Identity>,
}

/// The sender of a message.
#[derive(Debug)]
pub(crate) enum Origin {
    Client(Member),
    /// The host, of a connection that has opened. Features see the connection as the sender.
    Host(Member),
    /// The name of the API key.
    Service(Arc<str>),
}

/// Why a connection left a scope's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftReason {
    /// A scope took it out of the room.
    Left,
    /// Its connection ended.
    Disconnected,
}

impl LeftReason {
    /// As features read it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Why there is no acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckMissing {
    /// None came in time.
    Timeout,
    /// The connection ended.
    Disconnected,
    /// The client's answer is over the event's bounds.
    TooLarge,
}

impl AckMissing {
    /// As features read it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::TooLarge => ErrorCode::TooLarge.as_str(),
        }
    }
}

/// The event that asked for documents.
#[derive(Debug)]
pub(crate) struct Asker {
    /// Its name.
    pub(crate) event: Box<str>,
    /// The flow that it waited in.
    pub(crate) flow: Flow,
}

/// A queue of events on a plugin thread, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Flow {
    /// Events of a principal and of its connections.
    Sender(Arc<str>),
    /// Events of a service, by the name of its key.
    Service(Arc<str>),
    /// The timers of all scopes that a principal made: it has no more turns for having many.
    Timers(Arc<str>),
    /// Outcomes, and the timers of a scope without an owner.
    Scope(Arc<str>),
    /// Questions of services.
    Queries,
}

/// An event as a feature gets it.
#[derive(Debug)]
pub(crate) enum Event {
    Message {
        event: Box<str>,
        origin: Origin,
        payload: Payload,
        wants_reply: bool,
        /// Its place in the backlogs; none for events of the host.
        place: Option<Reservation>,
    },
    Joined(Member),
    /// `is_gone`: the connection has ended, and does not only leave the room.
    Left {
        member: Member,
        reason: LeftReason,
        is_gone: bool,
    },
    /// A connection's client is away, or back.
    Presence {
        member: Member,
        is_away: bool,
        /// How often that has changed.
        n_changes: u32,
    },
    Timer {
        name: Box<str>,
        payload: Box<str>,
        due_ms: u64,
    },
    Acknowledged {
        tag: Box<str>,
        connection: ConnId,
        answer: Result<Payload, AckMissing>,
        /// Its place in the backlogs; none where there is no answer.
        place: Option<Reservation>,
    },
    Query {
        name: Box<str>,
        data: Box<str>,
        /// Its place in the backlog, shared by all queries of one call.
        #[expect(dead_code, reason = "it is there to be dropped")]
        place: Arc<Reservation>,
    },
    Gathered {
        name: Box<str>,
        data: Box<str>,
        answers: Vec<Box<str>>,
        omitted: u32,
    },
    Saved {
        promise: Arc<Promise>,
        outcome: Outcome,
    },
    Fetched {
        tag: Box<str>,
        outcome: Result<Page, StoreFailure>,
        asked_by: Asker,
        /// To the account of the principal that asked.
        charge: Charge,
    },
    /// Asks nothing but whether the settings can be used.
    Configured,
    /// Asks for the state in an older schema.
    MigrateDown {
        to: u32,
    },
}

impl Event {
    /// Whether the host guarantees it: it has no sender that could repeat it, so it waits while the feature is paused.
    pub(crate) fn is_guaranteed(&self) -> bool {
        matches!(
            self,
            Self::Message { origin: Origin::Host(_), .. }
                | Self::Joined(_)
                | Self::Left { .. }
                | Self::Presence { .. }
                | Self::Timer { .. }
                | Self::Acknowledged { .. }
                | Self::Saved { .. }
        )
    }

    /// Whether a client or service sent it, which can send it again.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Message { origin: Origin::Client(_) | Origin::Service(_), .. })
    }

    /// The connection, where this is a `connect`.
    pub(crate) fn opened(&self) -> Option<ConnId> {
        match self {
            Self::Message { origin: Origin::Host(member), .. } => Some(member.connection),
            _ => None,
        }
    }

    /// The connection, where this event makes it known to the scope: it sent a message, or is in the scope's room. A
    /// `connect`, presence or an acknowledgement does not.
    pub(crate) fn comes_from(&self) -> Option<ConnId> {
        match self {
            Self::Message { origin: Origin::Client(member), .. } | Self::Joined(member) | Self::Left { member, .. } => {
                Some(member.connection)
            }
            _ => None,
        }
    }

    /// Whether it is a query, to which a feature may reply and do nothing else.
    pub(crate) fn is_query(&self) -> bool {
        matches!(self, Self::Query { .. } | Self::Gathered { .. })
    }

    /// The connection that it came from or is about, and its identity.
    pub(crate) fn member(&self) -> Option<&Member> {
        match self {
            Self::Message { origin: Origin::Client(member) | Origin::Host(member), .. }
            | Self::Joined(member)
            | Self::Left { member, .. }
            | Self::Presence { member, .. } => Some(member),
            _ => None,
        }
    }

    /// The connection, where this is a change of presence.
    pub(crate) fn presence_of(&self) -> Option<ConnId> {
        match self {
            Self::Presence { member, .. } => Some(member.connection),
            _ => None,
        }
    }

    /// The connection that it came from or is about.
    pub(crate) fn sender_id(&self) -> Option<ConnId> {
        match self {
            Self::Acknowledged { connection, .. } => Some(*connection),
            event => event.member().map(|member| member.connection),
        }
    }

    /// Its sender, where that is a client.
    pub(crate) fn sender(&self) -> Option<&Arc<Sender>> {
        match self {
            Self::Message { place, .. } | Self::Acknowledged { place, .. } => place.as_ref()?.sender(),
            _ => None,
        }
    }

    /// Whether a fault on it counts against its client: it is a message, an answer, or a page that the client asked
    /// for. A `connect` is not, though it is tried three times.
    pub(crate) fn is_sent(&self) -> bool {
        let is_of_client = matches!(self, Self::Message { origin: Origin::Client(_), .. });
        is_of_client || matches!(self, Self::Acknowledged { .. } | Self::Fetched { .. })
    }

    /// The flow that it waits in, as an event of this scope. Events about a connection wait behind those that it sent.
    pub(crate) fn flow(&self, scope: &Arc<str>) -> Flow {
        match self {
            Self::Message { origin: Origin::Service(name), .. } => Flow::Service(name.clone()),
            Self::Fetched { asked_by: Asker { flow, .. }, .. } => flow.clone(),
            Self::Query { .. } | Self::Gathered { .. } => Flow::Queries,
            event => match event.member() {
                Some(member) => Flow::Sender(member.identity.principal.clone()),
                None => Flow::Scope(scope.clone()),
            },
        }
    }

    /// Its name in logs.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Message { event, .. } => event,
            Self::Joined(_) => "joined",
            Self::Left { .. } => "left",
            Self::Presence { is_away: true, .. } => "away",
            Self::Presence { is_away: false, .. } => "back",
            Self::Timer { .. } => "timer",
            Self::Acknowledged { .. } => "acknowledgement",
            Self::Query { .. } => "query",
            Self::Gathered { .. } => "gathered",
            Self::Saved { .. } => "saved",
            Self::Fetched { asked_by, .. } => &asked_by.event,
            Self::Configured => "configured",
            Self::MigrateDown { .. } => "migrate-down",
        }
    }
}

/// Where the answer to an event goes.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    Nobody,
    Client {
        connection: ConnId,
        id: Option<i128>,
        read_at: Instant,
    },
    /// A service. `once`: the identity of its call.
    Caller {
        caller: oneshot::Sender<Result<Payload, Failure>>,
        once: Option<Box<Once>>,
    },
}
