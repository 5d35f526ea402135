//! A logical connection: one per client and namespace. It may outlive its transport.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::ids::TransportId;
use super::rate::{Rate, Verdict};
use super::replay::ReplayBuffer;
use crate::auth::CredentialIds;
use crate::hub::RoomId;
use crate::model::{ConnId, Identity};
use crate::protocol::Protocol;

/// The key of a list of members.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum MemberList {
    Room(RoomId),
    Role(Arc<str>),
    All,
}

/// A connection's index in one member list, so that leaving takes constant time.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(super) list: MemberList,
    pub(super) at: usize,
}

/// Rates by event name.
type EventRates = HashMap<Box<str>, Rate>;

/// A logical connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    pub(crate) protocol: Protocol,
    pub(crate) identity: RefCell<Arc<Identity>>,
    /// What identifies the credential of the last sign-in.
    pub(crate) credential: RefCell<Option<Arc<CredentialIds>>>,
    /// `None` while the connection is detached, and while its frames are held.
    pub(crate) transport: Cell<Option<TransportId>>,
    pub(super) memberships: RefCell<Vec<Membership>>,
    /// The number of the last delivery that visited the connection.
    pub(super) delivery: Cell<u64>,
    /// Expiry of the token by the system's clock, in milliseconds since 1970; `u64::MAX` is never.
    pub(crate) expires: Cell<u64>,
    /// When the client is told of the coming expiry, by the same clock; `u64::MAX` is never, or already told.
    pub(crate) warns: Cell<u64>,
    /// Whether the features that decide about connections were asked.
    pub(crate) was_asked: Cell<bool>,
    /// Whether the client has sent an event.
    pub(crate) has_sent: Cell<bool>,
    /// The pending connect notice to features, with the client's auth payload.
    pub(crate) connect_notice: RefCell<Option<Option<Box<RawValue>>>>,
    /// The rates of the event names that have a limit of their own and were sent.
    event_rates: RefCell<Option<Box<EventRates>>>,
    /// The replay buffer, where the connection is recoverable.
    pub(super) replay: RefCell<Option<Box<ReplayBuffer>>>,
}

impl Connection {
    pub(crate) fn new(id: ConnId, protocol: Protocol, identity: Arc<Identity>, transport: TransportId) -> Self {
        Self {
            id,
            protocol,
            identity: RefCell::new(identity),
            credential: RefCell::default(),
            transport: Cell::new(Some(transport)),
            memberships: RefCell::default(),
            delivery: Cell::new(0),
            expires: Cell::new(u64::MAX),
            warns: Cell::new(u64::MAX),
            was_asked: Cell::new(false),
            has_sent: Cell::new(false),
            connect_notice: RefCell::default(),
            event_rates: RefCell::default(),
            replay: RefCell::default(),
        }
    }

    /// Judges an event by the rate of its name, which `new_rate` creates at the first.
    pub(crate) fn judge_event(&self, event: &str, now: u64, new_rate: impl FnOnce() -> Rate) -> Verdict {
        let mut rates = self.event_rates.borrow_mut();
        let rates = rates.get_or_insert_default();
        if let Some(rate) = rates.get_mut(event) {
            return rate.judge(0, now);
        }
        rates.entry(event.into()).or_insert(new_rate()).judge(0, now)
    }

    /// The Socket.IO namespace. Connections of the plain protocol are in the main one.
    pub(crate) fn namespace(&self) -> &str {
        self.protocol.namespace()
    }

    /// Whether the connection has a replay buffer, so that its client may resume.
    pub(crate) fn is_recoverable(&self) -> bool {
        self.replay.borrow().is_some()
    }

    /// Reads the replay buffer, if the connection has one.
    pub(crate) fn with_replay<T>(&self, look: impl FnOnce(&ReplayBuffer) -> T) -> Option<T> {
        self.replay.borrow().as_deref().map(look)
    }

    #[cfg(test)]
    pub(super) fn of_slot(slot: usize) -> std::rc::Rc<Self> {
        let identity = Arc::new(Identity::of_user("ana"));
        std::rc::Rc::new(Self::new(ConnId::new(0, slot, 1), Protocol::Plain, identity, TransportId::new(slot, 1)))
    }
}
