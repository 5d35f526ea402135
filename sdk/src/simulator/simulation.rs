//! The structure of a simulation, without its methods.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;

use roundhouse_contract::Manifest;

use super::state::{Agenda, ClientState, ConnectionSet, Key, PendingAck, ScopeState};
use super::store::Store;
use crate::log::Level;
use crate::{Event, Feature};

/// A feature, its clients, and a clock.
pub struct Simulation<F: Feature> {
    pub(super) manifest: Manifest,
    pub(super) settings: String,
    pub(super) now: u64,
    pub(super) n_events: u64,
    pub(super) clients: Vec<ClientState>,
    pub(super) rooms: BTreeMap<String, ConnectionSet>,
    pub(super) scopes: BTreeMap<String, ScopeState>,
    pub(super) agenda: Agenda,
    pub(super) pending_acks: Vec<PendingAck>,
    pub(super) store: Store,
    pub(super) logs: Vec<(Level, String)>,
    /// Events for scopes that earlier effects have caused.
    pub(super) pending: VecDeque<(Key, Event)>,
    pub(super) feature: PhantomData<fn() -> F>,
}

impl<F: Feature> fmt::Debug for Simulation<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("now", &self.now)
            .field("rooms", &self.rooms)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}
