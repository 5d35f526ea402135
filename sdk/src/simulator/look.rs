//! What tests look at: what people received, who is where, what scopes hold.

use serde_json::Value;

use super::rooms::Frame;
use super::{Connection, Delivery, Save, Simulation, one_or_many};
use crate::Feature;
use crate::log::Level;

impl<F: Feature> Simulation<F> {
    /// What a connection has received since it was last asked: names and data. Several arguments are an
    /// array, none is `null`.
    pub fn received(&mut self, connection: Connection) -> Vec<(String, Value)> {
        self.deliveries(connection).into_iter().map(|delivery| (delivery.event, one_or_many(delivery.args))).collect()
    }

    /// The same with all that came with it.
    pub fn deliveries(&mut self, connection: Connection) -> Vec<Delivery> {
        let frames = std::mem::take(&mut self.lines[connection.0].inbox);
        frames.iter().map(Frame::read).collect()
    }

    /// The documents that the feature has wanted stored since this was last asked.
    pub fn saves(&mut self) -> Vec<Save> {
        std::mem::take(&mut self.store.promised)
    }

    /// The present, in epoch milliseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The id that the feature knows a connection by.
    pub fn id(&self, connection: Connection) -> &str {
        &self.lines[connection.0].member.connection
    }

    /// Why a connection was closed, if it was.
    pub fn closed(&self, connection: Connection) -> Option<&str> {
        self.lines[connection.0].closed.as_deref()
    }

    /// Whether a connection is in a room.
    pub fn is_in(&self, connection: Connection, room: &str) -> bool {
        self.rooms.get(room).is_some_and(|crowd| crowd.has(connection.0))
    }

    /// A scope's state, if it has any.
    ///
    /// # Panics
    /// Where it cannot be read, which its feature wrote.
    pub fn state(&self, scope: &str) -> Option<F::State> {
        let bytes = self.scopes.get(scope)?.state.as_ref()?;
        Some(serde_json::from_slice(bytes).expect("a feature reads what it wrote"))
    }

    /// Whether the host still knows a scope: by its state, its members, its timers, or because it was
    /// heard of lately.
    pub fn exists(&mut self, scope: &str) -> bool {
        self.forget_idle();
        self.scopes.contains_key(scope)
    }

    /// The names of the timers that a scope has set.
    pub fn timers(&self, scope: &str) -> Vec<&str> {
        let slot = self.scopes.get(scope);
        slot.map(|slot| slot.timers.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// What the feature has logged since this was last asked.
    pub fn logs(&mut self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.logs)
    }
}
