//! One scope: its state, timers and members, and the events that wait for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use roundhouse_contract::{Scope as Kind, ScopeAddress};

pub(crate) use super::clustered::roster::Membership;
use super::clustered::roster::Roster;
use super::deadlines::Deadline;
use super::envelope::Envelope;
use crate::ledger::{Account, Charge};
use crate::model::ConnId;
use crate::plugin::event::{Event, ReplyTo};
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::migrate::State;
use crate::store::Promise;

/// The number of deferred events of one scope above which the oldest is dropped. Departures, presence and outcomes of
/// promises are not dropped.
const MAX_DEFERRED: usize = 256;

/// One scope of one plugin.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) address: ScopeAddress,
    /// How long the scope may be idle, in milliseconds.
    pub(crate) idle_ms: u64,
    /// Whether the scope outlives the process.
    pub(crate) is_durable: bool,
    /// Whether the scope has changed since it was last given to the store.
    pub(crate) is_dirty: bool,
    /// Events that came in while the scope is read from the store; none once the scope was read.
    pub(crate) loading: Option<VecDeque<Envelope>>,
    pub(crate) state: Option<State>,
    /// The state from before it was migrated, for a rollback to a generation of the older schema that no build can
    /// migrate down to.
    pub(crate) previous_schema_state: Option<State>,
    /// The number of the generation that cannot take over the state, and lets the scope stay on an older one.
    pub(crate) stays_from: Option<u64>,
    /// Events handled so far.
    pub(crate) sequence: u64,
    pub(crate) timers: HashMap<Box<str>, Timer>,
    /// The connections that joined or are watched. The scope gets one departure of each.
    pub(crate) members: HashMap<ConnId, Membership>,
    /// In a cluster: the documents of the scope that are being stored, by id.
    pub(crate) promised: HashMap<String, Promise>,
    /// In a cluster: who the members are.
    pub(crate) roster: Option<Box<Roster>>,
    /// When its last event was handled, in milliseconds of uptime.
    pub(crate) last_event_ms: u64,
    /// The next check of whether the scope is idle.
    pub(crate) idle_check: Deadline,
    /// When a durable scope was given to the store last, in milliseconds of uptime.
    pub(crate) written: u64,
    /// The charge to the principal whose event made the scope; to none if the scope was restored.
    pub(crate) owner: Charge,
    /// The scope's own account, once the host holds something for the scope.
    pub(crate) account: Option<Arc<Account>>,
    /// Whether a turn for the deferred events is queued.
    pub(crate) has_turn: bool,
    /// Guaranteed events that could not be handled yet.
    deferred: VecDeque<Deferred>,
}

/// A timer that is set.
#[derive(Debug)]
pub(crate) struct Timer {
    /// The timer's place among the deadlines.
    pub(crate) deadline: Deadline,
    /// When the timer is due, in milliseconds since 1970.
    pub(crate) due_ms: u64,
    /// The timer's whole time, in milliseconds.
    pub(crate) after_ms: u64,
    pub(crate) payload: Box<str>,
    pub(crate) charge: Charge,
}

/// A guaranteed event that is handled later.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) event: Event,
    /// The node that forwarded the event, if one did. Other deferred events have no reply.
    pub(crate) reply: ReplyTo,
    /// The number of failed attempts so far.
    pub(crate) attempts: u32,
    /// The earliest time of the next attempt, in milliseconds of uptime.
    pub(crate) not_before: u64,
}

impl Deferred {
    /// The event on its way to its scope again.
    pub(super) fn into_envelope(self, plugin: &Arc<Plugin>, address: &ScopeAddress) -> Envelope {
        let Self { event, reply, .. } = self;
        Envelope { plugin: plugin.clone(), address: address.clone(), event, reply }
    }
}

/// The deferred events that need not be handled any more, after another was deferred.
#[derive(Debug)]
pub(crate) enum Overflow {
    None,
    /// Two that cancel each other.
    Cancelled(Vec<Deferred>),
    /// The oldest of too many.
    Dropped(Box<Deferred>),
}

impl Overflow {
    pub(crate) fn into_events(self) -> Vec<Deferred> {
        match self {
            Self::None => Vec::new(),
            Self::Cancelled(events) => events,
            Self::Dropped(event) => vec![*event],
        }
    }
}

impl Scope {
    pub(super) fn new(
        plugin: Arc<Plugin>,
        address: ScopeAddress,
        kind: &Kind,
        now: u64,
        idle_check: Deadline,
        owner: Charge,
    ) -> Self {
        Self {
            plugin,
            address,
            idle_ms: kind.idle.as_millis() as u64,
            is_durable: kind.is_durable,
            is_dirty: false,
            loading: None,
            state: None,
            previous_schema_state: None,
            stays_from: None,
            sequence: 0,
            timers: HashMap::new(),
            members: HashMap::new(),
            promised: HashMap::new(),
            roster: None,
            last_event_ms: now,
            idle_check,
            written: now,
            owner,
            account: None,
            has_turn: false,
            deferred: VecDeque::new(),
        }
    }

    /// Defers an event, and returns those that need not be handled any more.
    pub(crate) fn defer(&mut self, deferred: Deferred) -> Overflow {
        if let Some(connection) = deferred.event.presence_of()
            && let Some(at) = self.deferred.iter().position(|other| other.event.presence_of() == Some(connection))
        {
            // `away` and `back` cancel each other.
            return Overflow::Cancelled(self.deferred.remove(at).into_iter().chain([deferred]).collect());
        }
        if deferred.attempts > 0 {
            // An event that is tried again was the first, and later events may depend on it.
            self.deferred.push_front(deferred);
        } else {
            self.deferred.push_back(deferred);
        }
        if self.deferred.len() <= MAX_DEFERRED {
            return Overflow::None;
        }
        // Departures and presence stay: there are no more of them than there were members, and nothing would mend a
        // lost one. Outcomes of promises stay, too: the store takes a bounded number of promises.
        let stays = |event: &Event| matches!(event, Event::Left { .. } | Event::Presence { .. } | Event::Saved { .. });
        let droppable = self.deferred.iter().position(|deferred| !stays(&deferred.event));
        match droppable.and_then(|at| self.deferred.remove(at)) {
            Some(dropped) => Overflow::Dropped(Box::new(dropped)),
            None => Overflow::None,
        }
    }

    /// The first deferred event, if it is due.
    pub(crate) fn next_deferred(&mut self, now: u64) -> Option<Deferred> {
        if self.deferred.front()?.not_before > now {
            return None;
        }
        self.deferred.pop_front()
    }

    /// Takes all deferred events.
    pub(crate) fn take_deferred(&mut self) -> VecDeque<Deferred> {
        std::mem::take(&mut self.deferred)
    }

    /// Replaces the state by the copy from before it was migrated forward, or by none.
    pub(crate) fn give_up(&mut self) {
        self.state = self.previous_schema_state.take();
        self.is_dirty = true;
    }

    /// The scope goes on with the running generation.
    pub(crate) fn stay_no_longer(&mut self) {
        if self.stays_from.take().is_some() {
            self.plugin.staying().remove(&self.address.key);
        }
    }

    /// Whether timers, members or waiting events keep the scope in memory.
    pub(crate) fn is_used(&self) -> bool {
        !self.timers.is_empty()
            || !self.members.is_empty()
            || self.has_deferred()
            || self.loading.is_some()
            || !self.promised.is_empty()
    }

    pub(crate) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// The number of deferred events.
    pub(crate) fn n_deferred(&self) -> usize {
        self.deferred.len()
    }

    /// Whether the `connect` of this connection is deferred.
    pub(crate) fn has_deferred_connect(&self, connection: ConnId) -> bool {
        self.deferred.iter().any(|deferred| deferred.event.opened() == Some(connection))
    }
}
