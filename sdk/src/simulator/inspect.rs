//! Inspection by tests: received events, members of rooms, states and timers of scopes.

use serde_json::Value;

use super::simulation::Simulation;
use super::state::{Connection, Delivery, Frame, Save, one_or_many};
use crate::Feature;
use crate::log::Level;

impl<F: Feature> Simulation<F> {
    /// The events that a connection has received since the last call, as names and data. Several arguments are an array,
    /// none is `null`.
    pub fn received(&mut self, connection: Connection) -> Vec<(String, Value)> {
        self.deliveries(connection).into_iter().map(|delivery| (delivery.event, one_or_many(delivery.args))).collect()
    }

    /// The events that a connection has received since the last call.
    pub fn deliveries(&mut self, connection: Connection) -> Vec<Delivery> {
        let frames = std::mem::take(&mut self.clients[connection.0].inbox);
        frames.iter().map(Frame::read).collect()
    }

    /// The documents that the feature has saved since the last call.
    pub fn saves(&mut self) -> Vec<Save> {
        std::mem::take(&mut self.store.promised)
    }

    /// The time, in epoch milliseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The id of a connection.
    pub fn id(&self, connection: Connection) -> &str {
        &self.clients[connection.0].member.connection
    }

    /// The reason for which a connection was closed, if it was.
    pub fn closed(&self, connection: Connection) -> Option<&str> {
        self.clients[connection.0].closed.as_deref()
    }

    /// Whether a connection is in a room.
    pub fn is_in(&self, connection: Connection, room: &str) -> bool {
        self.rooms.get(room).is_some_and(|members| members.has(connection.0))
    }

    /// A scope's state, if it has one.
    ///
    /// # Panics
    /// If the state does not decode, although the feature wrote it.
    pub fn state(&self, scope: &str) -> Option<F::State> {
        let bytes = self.scopes.get(scope)?.state.as_ref()?;
        Some(serde_json::from_slice(bytes).expect("a feature reads what it wrote"))
    }

    /// Whether the host keeps a scope: for its members, watched connections or timers, or until its idle time is over.
    pub fn exists(&mut self, scope: &str) -> bool {
        self.forget_idle();
        self.scopes.contains_key(scope)
    }

    /// The names of the timers that a scope has set.
    pub fn timers(&self, scope: &str) -> Vec<&str> {
        let slot = self.scopes.get(scope);
        slot.map(|slot| slot.timers.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// The lines that the feature has logged since the last call.
    pub fn logs(&mut self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.logs)
    }
}
