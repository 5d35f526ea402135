//! What clients and services have done so far, which all others must see, and the phases of the run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::group::SIZE;
use super::tally::{Kind, Tally};

/// The result of a comparison with the model.
pub(super) type Check = Result<(), (Kind, String)>;

/// The phases of the run. All clients must have reached one before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Clients enter their scopes.
    Enter,
    /// Clients and services send events.
    Load,
    /// Nobody sends events; acknowledgements and timers are awaited.
    Rest,
    /// All totals are final, and what is missing is awaited.
    Settle,
    /// What must not come is looked for, and histories are read.
    Compare,
}

const PHASES: usize = Phase::Compare as usize + 1;

/// What was done in a group's scopes. By the index of the client in its group, where it is an array.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Chat messages.
    pub(super) said: [AtomicU64; SIZE],
    /// `ticket:typing` by clients that did not type.
    pub(super) ticket_typings: [AtomicU64; SIZE],
    /// `typing:start` by clients that did not type.
    pub(super) contact_typings: [AtomicU64; SIZE],
    /// The ends of the typing to the contact, as far as any client has seen them.
    pub(super) contact_ends: [AtomicU64; SIZE],
    /// The number of times that the visitor has left the ticket and viewed it again.
    pub(super) visits: AtomicU64,
    /// Numbered events of the timeline.
    pub(super) timeline: AtomicU64,
    /// Numbered events of the ticket of ticket-events.
    pub(super) comments: AtomicU64,
    /// Numbered events of the contact and the account.
    pub(super) pushes: AtomicU64,
    /// The events of the campaign, which are known before the service sends what causes them.
    campaign: Mutex<Vec<(String, Value)>>,
}

impl Totals {
    /// The events of the campaign so far.
    pub(super) fn campaign(&self) -> MutexGuard<'_, Vec<(String, Value)>> {
        self.campaign.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shared by all clients and services.
#[derive(Debug)]
pub(super) struct Board {
    tally: Mutex<Tally>,
    /// By group.
    pub(super) totals: Vec<Totals>,
    phase: AtomicU64,
    reached: [AtomicU64; PHASES],
}

impl Board {
    /// A board of this many groups.
    pub(super) fn new(groups: usize) -> Self {
        Self {
            tally: Mutex::default(),
            totals: (0..groups).map(|_| Totals::default()).collect(),
            phase: AtomicU64::new(Phase::Enter as u64),
            reached: [const { AtomicU64::new(0) }; PHASES],
        }
    }

    /// The faults so far.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a phase.
    pub(super) fn begin(&self, phase: Phase) {
        self.phase.store(phase as u64, Ordering::SeqCst);
    }

    /// Whether a phase has begun, or is over.
    pub(super) fn has_begun(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::SeqCst) >= phase as u64
    }

    /// Notes that one more client has done all that a phase asks for.
    pub(super) fn reach(&self, phase: Phase) {
        self.reached[phase as usize].fetch_add(1, Ordering::SeqCst);
    }

    /// The number of clients that have done so.
    pub(super) fn n_reached(&self, phase: Phase) -> usize {
        self.reached[phase as usize].load(Ordering::SeqCst) as usize
    }
}

/// One more. Returns the number before.
pub(super) fn count(total: &AtomicU64) -> u64 {
    total.fetch_add(1, Ordering::SeqCst)
}

/// The total.
pub(super) fn read(total: &AtomicU64) -> u64 {
    total.load(Ordering::SeqCst)
}

/// The fields of a campaign's event that are in the model: figures, or the number that the service gave the event. Rate
/// and estimated time are left out, because they depend on the clock.
pub(super) fn campaign_key(event: &str, data: &Value) -> Value {
    match event {
        "campaign:progress" => figures(data),
        _ => json!([data["n"]]),
    }
}

/// State and figures of a campaign.
pub(super) fn figures(of: &Value) -> Value {
    json!([of["state"], of["processed"], of["sent"], of["delivered"], of["read"], of["failed"]])
}
