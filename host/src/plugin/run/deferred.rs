//! Events that must be told and cannot be yet, for the feature fails or is paused: each is told later, in a turn of its own.

use std::sync::Arc;
use std::time::Instant;

use roundhouse_contract::ScopeAddress;

use super::scope::{Due, Parked};
use super::timers::LEAST_LOOK_MS;
use super::turns::TURN;
use super::worker::{Job, Worker};
use crate::plugin::event::Flow;
use crate::plugin::event::ReplyTo;
use crate::plugin::load::catalogue::Plugin;

impl Worker {
    pub(crate) fn park(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, parked: Parked) {
        let now = self.shared.clock.uptime_ms();
        let again = parked.not_before.max(plugin.health.paused_until(now).unwrap_or(0));
        let is_dropped = match self.enter(plugin, address, Some(&parked.event)) {
            Ok(()) => {
                let scope = self.scopes.get_mut(plugin.number, &address.key);
                scope.is_some_and(|scope| scope.park(parked))
            }
            Err(refusal) => {
                self.answer(plugin, &parked.event, ReplyTo::Nobody, refusal);
                true
            }
        };
        if is_dropped {
            self.shared.metrics.plugin_dropped.inc();
            tracing::warn!(
                plugin = %plugin.name, generation = plugin.current().id.generation, scope = %address.key,
                "too much waits to be told to a plugin, and some of it was dropped"
            );
        }
        if self.resuming.insert(plugin.number) {
            self.deadlines.push(again, Due::Resume { plugin: plugin.number });
        }
    }

    /// Tells a scope what has been waiting, unless it has to wait for longer.
    pub(crate) fn handle_parked(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress) {
        // Which is hardly ever so, and a clock is not for nothing.
        if self.scopes.get(plugin.number, &address.key).is_none_or(|scope| !scope.has_parked()) {
            return;
        }
        let (now, started) = (self.shared.clock.uptime_ms(), Instant::now());
        while plugin.health.paused_until(now).is_none() && !plugin.is_unloaded() {
            let scope = self.scopes.get_mut(plugin.number, &address.key);
            let Some(Parked { event, attempts, .. }) = scope.and_then(|scope| scope.unpark(now)) else { return };
            if event.presence_of().is_some() && !plugin.current().manifest.has_presence(&address.key) {
                // A build that asked for it was replaced by one that does not.
                continue;
            }
            self.wait_for_shards();
            self.handle_or_park(plugin, address, event, attempts, ReplyTo::Nobody);
            if started.elapsed() > TURN {
                return self.defer(plugin, address);
            }
        }
    }

    /// Tells a scope some of what has been waiting, and has the rest wait for another turn.
    pub(crate) fn handle_deferred(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress) {
        if let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) {
            scope.is_deferred = false;
        }
        self.handle_parked(plugin, address);
    }

    /// Gives a scope a turn for what waits to be told, unless it has one coming.
    fn defer(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress) {
        let scope = self.scopes.get_mut(plugin.number, &address.key).filter(|scope| scope.has_parked());
        if scope.is_some_and(|scope| !std::mem::replace(&mut scope.is_deferred, true)) {
            let job = Job::Deferred { plugin: plugin.clone(), address: address.clone() };
            self.turns.push(plugin.number, Flow::Scope(address.key.clone()), address.key.clone(), job);
        }
    }

    /// Has the scopes of a plugin told what has been waiting.
    pub(crate) fn resume(&mut self, plugin: u32, now: u64) {
        self.resuming.remove(&plugin);
        let waiting: Vec<_> = self
            .scopes
            .of(plugin)
            .filter(|scope| scope.has_parked())
            .map(|scope| (scope.plugin.clone(), scope.address.clone()))
            .collect();
        // What is not due yet, or fails again, comes later.
        if let Some((first, _)) = waiting.first()
            && self.resuming.insert(plugin)
        {
            let again = first.health.paused_until(now).unwrap_or(now + LEAST_LOOK_MS);
            self.deadlines.push(again, Due::Resume { plugin });
        }
        waiting.iter().for_each(|(plugin, address)| self.defer(plugin, address));
    }
}
