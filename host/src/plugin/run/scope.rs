//! One scope: its state, timers, members, and the events that wait for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use roundhouse_contract::{Scope as Kind, ScopeAddress};

use super::deadlines::Deadline;
use super::job::Envelope;
use crate::ledger::{Account, Charge};
use crate::model::ConnId;
use crate::plugin::event::Event;
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::migrate::State;

/// Deferred events of one scope, at most, departures and outcomes of promises apart; the oldest are dropped.
const MAX_DEFERRED: usize = 256;

/// One scope of one plugin.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) address: ScopeAddress,
    /// How long it may be idle, in milliseconds.
    pub(crate) idle_ms: u64,
    /// Whether it outlives the process.
    pub(crate) is_durable: bool,
    /// Whether it has changed since it was last given to the store.
    pub(crate) is_dirty: bool,
    /// Events that came in while it is read from the store; none once it was read.
    pub(crate) loading: Option<VecDeque<Envelope>>,
    pub(crate) state: Option<State>,
    /// The state as it was before it was migrated, in case the generation before comes back and cannot migrate down.
    pub(crate) previous_schema_state: Option<State>,
    /// Events handled so far.
    pub(crate) sequence: u64,
    pub(crate) timers: HashMap<Box<str>, Timer>,
    /// The connections that joined or are watched. The scope gets one departure of each.
    pub(crate) members: HashMap<ConnId, Membership>,
    /// When its last event was handled, in milliseconds of uptime.
    pub(crate) last_event_ms: u64,
    /// The next check of whether it is idle.
    pub(crate) idle_check: Deadline,
    /// When a durable scope was given to the store last, in milliseconds of uptime.
    pub(crate) written: u64,
    /// Charged to the principal whose event made it; to none if it was restored.
    pub(crate) owner: Charge,
    /// Its own account, once the host holds something for it.
    pub(crate) account: Option<Arc<Account>>,
    /// Whether it has a turn coming for its deferred events.
    pub(crate) has_turn: bool,
    /// Guaranteed events that could not be handled yet.
    deferred: VecDeque<Deferred>,
}

/// The membership of a connection in a scope.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Membership {
    pub(crate) joined: bool,
    pub(crate) watched: bool,
    /// Whether it sent this scope an event of its own.
    pub(crate) came: bool,
    /// Whether the scope got `away` of it last.
    pub(crate) is_away: bool,
    /// The number of the last change of its presence that the scope knows.
    pub(crate) n_changes: u32,
}

/// A timer that is set.
#[derive(Debug)]
pub(crate) struct Timer {
    /// Its place among the deadlines.
    pub(crate) deadline: Deadline,
    /// When it is due, in milliseconds since 1970.
    pub(crate) due_ms: u64,
    /// How long after it was set, in milliseconds.
    pub(crate) after_ms: u64,
    pub(crate) payload: Box<str>,
    pub(crate) charge: Charge,
}

/// A guaranteed event that is handled later.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) event: Event,
    /// How often the feature has failed on it.
    pub(crate) attempts: u32,
    /// Not before this, in milliseconds of uptime.
    pub(crate) not_before: u64,
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
            sequence: 0,
            timers: HashMap::new(),
            members: HashMap::new(),
            last_event_ms: now,
            idle_check,
            written: now,
            owner,
            account: None,
            has_turn: false,
            deferred: VecDeque::new(),
        }
    }

    /// Defers an event. Says whether an older one was dropped for it.
    pub(crate) fn defer(&mut self, deferred: Deferred) -> bool {
        if let Some(connection) = deferred.event.presence_of()
            && let Some(at) = self.deferred.iter().position(|other| other.event.presence_of() == Some(connection))
        {
            // `away` and `back` cancel each other.
            self.deferred.remove(at);
            return false;
        }
        if deferred.attempts > 0 {
            // It was the first, and later events may depend on it.
            self.deferred.push_front(deferred);
        } else {
            self.deferred.push_back(deferred);
        }
        if self.deferred.len() <= MAX_DEFERRED {
            return false;
        }
        // Departures and presence stay: there are no more of them than there were members, and nothing would mend a
        // lost one. So do the outcomes of promises, of which the store takes a bounded number.
        let stays = |event: &Event| matches!(event, Event::Left { .. } | Event::Presence { .. } | Event::Saved { .. });
        let droppable = self.deferred.iter().position(|deferred| !stays(&deferred.event));
        droppable.and_then(|at| self.deferred.remove(at)).is_some()
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

    /// Gives its state up for the copy from before it was migrated forward, or for none.
    pub(crate) fn give_up(&mut self) {
        self.state = self.previous_schema_state.take();
        self.is_dirty = true;
    }

    /// Whether timers, members or waiting events keep it.
    pub(crate) fn is_used(&self) -> bool {
        !self.timers.is_empty() || !self.members.is_empty() || self.has_deferred() || self.loading.is_some()
    }

    pub(crate) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Whether the `connect` of this connection is deferred.
    pub(crate) fn has_deferred_connect(&self, connection: ConnId) -> bool {
        self.deferred.iter().any(|deferred| deferred.event.opened() == Some(connection))
    }
}
