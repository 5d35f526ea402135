//! Events on their way to a feature, and where the answer goes.

pub(crate) mod senders;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use self::senders::{Reservation, Sender};
use crate::ledger::Charge;
use crate::model::{ConnId, Failure, Identity, Payload};
use crate::store::{Outcome, Page, Promise, StoreFailure};

/// What a client sent.
#[derive(Debug)]
pub struct ClientEvent<'a> {
    /// The connection that it came from.
    pub connection: ConnId,
    /// Who is behind the connection.
    pub identity: Arc<Identity>,
    /// The event's name.
    pub event: &'a str,
    /// What it carries.
    pub payload: Payload,
    /// The id to acknowledge it with.
    pub id: Option<i128>,
    /// When its frame was read.
    pub read_at: Instant,
}

/// By what a service's call is known again that must be done once.
#[derive(Debug, Clone)]
pub struct Once {
    /// Whose call it is: the name of the API key.
    pub caller: String,
    /// The idempotency key.
    pub key: String,
    /// What tells the call from others.
    pub fingerprint: [u8; 32],
}

/// A connection and the person behind it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) connection: ConnId,
    pub(crate) identity: Arc<Identity>,
}

/// Who sent a message.
#[derive(Debug)]
pub(crate) enum Origin {
    Client(Member),
    /// The host, which tells that this connection has opened. Features see the connection as the sender.
    Host(Member),
    /// The name of the API key.
    Service(Arc<str>),
}

/// The event that asked for documents.
#[derive(Debug)]
pub(crate) struct Asker {
    /// Its name.
    pub(crate) event: Box<str>,
    /// With what it waited its turn.
    pub(crate) flow: Flow,
}

/// What waits its turn together, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Flow {
    /// What a principal sends, and what is told of its connections.
    Sender(Arc<str>),
    /// What a service sends, by the name of its key.
    Service(Arc<str>),
    /// The timers of all scopes that a principal made: it has no more turns for having many.
    Timers(Arc<str>),
    /// A scope's own timers, where nobody made it, and outcomes.
    Scope(Arc<str>),
    /// Questions of services.
    Queries,
}

/// What a feature is told.
#[derive(Debug)]
pub(crate) enum Event {
    Message {
        event: Box<str>,
        origin: Origin,
        payload: Payload,
        wants_reply: bool,
        /// Its place among what waits; none where the host tells of it.
        place: Option<Reservation>,
    },
    Joined(Member),
    /// `is_gone`: the connection has ended, and does not only leave the room.
    Left {
        member: Member,
        reason: &'static str,
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
        answer: Result<Payload, &'static str>,
        /// Its place among what waits; none where the host tells of an answer that is missing.
        place: Option<Reservation>,
    },
    Query {
        name: Box<str>,
        data: Box<str>,
        /// Its place among what waits, which all have that ask for one caller.
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
        /// In the account of whoever asked.
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
    /// Whether it must not be refused because the feature is paused: nobody would send it again.
    pub(crate) fn must_be_told(&self) -> bool {
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

    /// Whether somebody sent it, who can send it again.
    pub(crate) fn can_be_sent_again(&self) -> bool {
        matches!(self, Self::Message { origin: Origin::Client(_) | Origin::Service(_), .. })
    }

    /// The connection of which it tells that it has opened.
    pub(crate) fn opened(&self) -> Option<ConnId> {
        match self {
            Self::Message { origin: Origin::Host(member), .. } => Some(member.connection),
            _ => None,
        }
    }

    /// The connection that it shows to have come to the feature by itself, or to be in its room by another's doing: not one
    /// of which the host alone told, nor one that but answers.
    pub(crate) fn comes_from(&self) -> Option<ConnId> {
        match self {
            Self::Message { origin: Origin::Client(member), .. } | Self::Joined(member) | Self::Left { member, .. } => {
                Some(member.connection)
            }
            _ => None,
        }
    }

    /// Whether it asks something, so that nothing but an answer may come of it.
    pub(crate) fn is_question(&self) -> bool {
        matches!(self, Self::Query { .. } | Self::Gathered { .. })
    }

    /// The connection that it came from or is about, and its person.
    pub(crate) fn member(&self) -> Option<&Member> {
        match self {
            Self::Message { origin: Origin::Client(member) | Origin::Host(member), .. }
            | Self::Joined(member)
            | Self::Left { member, .. }
            | Self::Presence { member, .. } => Some(member),
            _ => None,
        }
    }

    /// The connection of which it tells that its client is away, or back.
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

    /// Who sent it, where that is a client.
    pub(crate) fn sender(&self) -> Option<&Arc<Sender>> {
        match self {
            Self::Message { place, .. } | Self::Acknowledged { place, .. } => place.as_ref()?.sender(),
            _ => None,
        }
    }

    /// Whether its client is refused where a feature goes on failing on it: it is what the client sends, answers, or has
    /// read for it. One that only connects is not, though its connection is told of three times.
    pub(crate) fn is_sent(&self) -> bool {
        let is_of_client = matches!(self, Self::Message { origin: Origin::Client(_), .. });
        is_of_client || matches!(self, Self::Acknowledged { .. } | Self::Fetched { .. })
    }

    /// With what it waits its turn, as an event of this scope. What is told of a connection waits behind what that sent.
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

    /// What to call it in a log.
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

/// Who waits for what comes of an event.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    Nobody,
    Client {
        connection: ConnId,
        id: Option<i128>,
        read_at: Instant,
    },
    /// A service. `once`: by what a repetition of its call is known.
    Caller {
        caller: oneshot::Sender<Result<Payload, Failure>>,
        once: Option<Box<Once>>,
    },
}
