//! Events for features, and the recipients of their answers.

mod remembered;
pub(crate) mod senders;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use self::senders::{Reservation, Sender};
use crate::cluster::EventId;
use crate::ledger::Charge;
use crate::model::{ConnId, ErrorCode, Failure, Identity, NodeId, Payload};
use crate::store::{Outcome, Page, Promise, StoreFailure};

/// An event of a client.
#[derive(Debug)]
pub struct ClientEvent<'a> {
    /// The connection that sent the event.
    pub connection: ConnId,
    /// The connection's user.
    pub identity: Arc<Identity>,
    /// The event's name.
    pub event: &'a str,
    /// The event's payload.
    pub payload: Payload,
    /// The id of the acknowledgement that the client asked for; none if it asked for none.
    pub id: Option<i128>,
    /// When the event's frame was read.
    pub read_at: Instant,
}

/// The identity of a service's call, by which a repetition is recognised.
#[derive(Debug, Clone)]
pub struct Once {
    /// The caller: the name of the API key.
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
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Client(Member),
    /// The host, for a connection that has opened. Features see the connection as the sender.
    Host(Member),
    /// The name of the API key.
    Service(Arc<str>),
}

/// Why a connection left a scope's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftReason {
    /// A scope removed the connection from the room.
    Left,
    /// The connection ended.
    Disconnected,
}

impl LeftReason {
    /// The reason as features get it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Why an acknowledgement is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckMissing {
    /// No answer came in time.
    Timeout,
    /// The connection ended.
    Disconnected,
    /// The client's answer is over the event's bounds.
    TooLarge,
}

impl AckMissing {
    /// The reason as features get it.
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
    pub(crate) event: Box<str>,
    /// The flow that the event waited in.
    pub(crate) flow: Flow,
}

/// A queue of events on a plugin thread, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Flow {
    /// Events of a principal and of its connections.
    Sender(Arc<str>),
    /// Events of a service, by the name of its key.
    Service(Arc<str>),
    /// The timers of all scopes of one owner, who gets no more turns for having many scopes.
    Timers(Arc<str>),
    /// Outcomes of promises, deferred events, and the timers of a scope without an owner.
    Scope(Arc<str>),
    /// Queries of services.
    Queries,
    /// The migration of states to another schema.
    Migration,
}

/// An event as a feature gets it.
#[derive(Debug)]
pub(crate) enum Event {
    Message {
        event: Arc<str>,
        origin: Origin,
        payload: Payload,
        wants_reply: bool,
        /// The event's place in the backlogs; none for a `connect` whose user is over its bounds.
        place: Option<Reservation>,
    },
    Joined(Member),
    /// `is_gone`: the connection has ended, and did not only leave the room.
    Left {
        member: Member,
        reason: LeftReason,
        is_gone: bool,
    },
    /// A connection became detached, or was resumed.
    Presence {
        member: Member,
        is_away: bool,
        /// The number of changes of the connection's presence so far.
        n_changes: u32,
    },
    Timer {
        name: Box<str>,
        payload: Box<str>,
        due_ms: u64,
    },
    Acknowledged {
        /// The number of the event that was to be acknowledged.
        ask: u64,
        tag: Box<str>,
        connection: ConnId,
        answer: Result<Payload, AckMissing>,
        /// The answer's place in the backlogs; none if there is no answer.
        place: Option<Reservation>,
    },
    /// A connection that this scope may have as a member goes on at another node, `to`. Until that `is_settled`, both nodes
    /// get what is for the connection. The feature gets nothing of it.
    Placed {
        connection: ConnId,
        from: NodeId,
        to: NodeId,
        is_settled: bool,
    },
    /// On its way to the owner of the scope that asked: a client of another node has answered, or has not.
    Answered {
        ask: u64,
        connection: ConnId,
        answer: Result<Payload, AckMissing>,
    },
    Query {
        name: Box<str>,
        data: Box<str>,
        /// The query's place in the backlog, shared by all queries of one call; none if another node asks.
        #[expect(dead_code, reason = "it is there to be dropped")]
        place: Option<Arc<Reservation>>,
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
        /// The charge to the principal that asked for the documents.
        charge: Charge,
    },
    /// Has the feature check its settings, during a load.
    Configured,
    /// Asks for the scope's state in an older schema.
    MigrateDown {
        to: u32,
    },
}

impl Event {
    /// Whether the event is guaranteed: it has no sender that could repeat it, so it waits while the plugin is in
    /// quarantine and is retried after a fault.
    pub(crate) fn is_guaranteed(&self) -> bool {
        matches!(
            self,
            Self::Message { origin: Origin::Host(_), wants_reply: false, .. }
                | Self::Joined(_)
                | Self::Left { .. }
                | Self::Presence { .. }
                | Self::Timer { .. }
                | Self::Acknowledged { .. }
                | Self::Answered { .. }
                | Self::Placed { .. }
                | Self::Saved { .. }
        )
    }

    /// Whether the sender is a client or service, which can send the event again.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Message { origin: Origin::Client(_) | Origin::Service(_), .. })
    }

    /// Whether the sender, or a client that connects, waits for the outcome and can be refused.
    pub(crate) fn is_refusable(&self) -> bool {
        self.is_retryable() || self.is_admission()
    }

    /// Whether this asks whether a connection may open.
    pub(crate) fn is_admission(&self) -> bool {
        matches!(self, Self::Message { origin: Origin::Host(_), wants_reply: true, .. })
    }

    /// The connection, if this is a `connect`.
    pub(crate) fn opened(&self) -> Option<ConnId> {
        match self {
            Self::Message { origin: Origin::Host(member), .. } => Some(member.connection),
            _ => None,
        }
    }

    /// The connection that this event makes known to the scope: it sent a message, or is or was in the scope's room. A
    /// `connect`, presence or an acknowledgement makes none known.
    pub(crate) fn comes_from(&self) -> Option<ConnId> {
        match self {
            Self::Message { origin: Origin::Client(member), .. } | Self::Joined(member) | Self::Left { member, .. } => {
                Some(member.connection)
            }
            _ => None,
        }
    }

    /// Whether the event is a query, to which a feature may reply and do nothing else.
    pub(crate) fn is_query(&self) -> bool {
        matches!(self, Self::Query { .. } | Self::Gathered { .. })
    }

    /// The connection that sent the event or that the event is about, with its identity.
    pub(crate) fn member(&self) -> Option<&Member> {
        match self {
            Self::Message { origin: Origin::Client(member) | Origin::Host(member), .. }
            | Self::Joined(member)
            | Self::Left { member, .. }
            | Self::Presence { member, .. } => Some(member),
            _ => None,
        }
    }

    /// The connection, if this is a change of presence.
    pub(crate) fn presence_of(&self) -> Option<ConnId> {
        match self {
            Self::Presence { member, .. } => Some(member.connection),
            _ => None,
        }
    }

    /// The connection that sent the event or that the event is about.
    pub(crate) fn sender_id(&self) -> Option<ConnId> {
        match self {
            Self::Acknowledged { connection, .. } => Some(*connection),
            event => event.member().map(|member| member.connection),
        }
    }

    /// The sender of a message or acknowledgement, if it is a client with a place in the backlogs.
    pub(crate) fn sender(&self) -> Option<&Arc<Sender>> {
        match self {
            Self::Message { place, .. } | Self::Acknowledged { place, .. } => place.as_ref()?.sender(),
            _ => None,
        }
    }

    /// Whether a fault on the event counts against its client: the event is a message, an acknowledgement, or a page
    /// that the client asked for. A `connect`, which is tried three times, does not count.
    pub(crate) fn is_sent(&self) -> bool {
        let is_of_client = matches!(self, Self::Message { origin: Origin::Client(_), .. });
        is_of_client || matches!(self, Self::Acknowledged { .. } | Self::Fetched { .. })
    }

    /// The flow that the event waits in, as an event of this scope. Events about a connection wait behind the events
    /// that the connection sent.
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

    /// The event's name, shared with its route where it is a message.
    pub(crate) fn shared_name(&self) -> Arc<str> {
        match self {
            Self::Message { event, .. } => event.clone(),
            other => other.name().into(),
        }
    }

    /// The event's name in logs.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Message { event, .. } => event,
            Self::Joined(_) => "joined",
            Self::Left { .. } => "left",
            Self::Presence { is_away: true, .. } => "away",
            Self::Presence { is_away: false, .. } => "back",
            Self::Timer { .. } => "timer",
            Self::Acknowledged { .. } | Self::Answered { .. } => "acknowledgement",
            Self::Placed { .. } => "placed",
            Self::Query { .. } => "query",
            Self::Gathered { .. } => "gathered",
            Self::Saved { .. } => "saved",
            Self::Fetched { asked_by, .. } => &asked_by.event,
            Self::Configured => "configured",
            Self::MigrateDown { .. } => "migrate-down",
        }
    }
}

/// How far a forwarded event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits in Redis until it is done with, for the next owner of its scope if need be.
    Waiting,
    /// It is done with, and this is the event with the documents that it asked for, which gives its answer.
    Fetched,
}

/// The recipient of the answer to an event.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    Nobody,
    Client {
        connection: ConnId,
        id: Option<i128>,
        read_at: Instant,
    },
    /// A connection that opens if all features allow it.
    Admission {
        connection: ConnId,
    },
    /// A node of the cluster, which forwarded the event.
    Node {
        id: EventId,
        stage: Stage,
    },
    /// A service. `once`: the identity of the call, if it has an idempotency key.
    Caller {
        caller: oneshot::Sender<Result<Payload, Failure>>,
        once: Option<Box<Once>>,
    },
}
