//! Deferred events: guaranteed events whose feature failed on them or is in quarantine. Each is handled later, in a
//! turn of its own.

use std::sync::Arc;

use roundhouse_contract::ScopeAddress;

use super::deadlines::{Due, MIN_CHECK_MS};
use super::job::{Envelope, Job};
use super::scope::{Deferred, Overflow};
use super::state::{ThreadState, Visit};
use crate::plugin::event::Flow;
use crate::plugin::load::catalogue::Plugin;

/// The attempts at a guaranteed event before it is given up.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// The pause before another attempt, in milliseconds: long enough for an automatic rollback to come first.
pub(super) const RETRY_MS: u64 = 1000;

impl ThreadState {
    /// Keeps an event for later: not before `not_before`, in milliseconds of uptime.
    pub(super) fn defer(&mut self, envelope: Envelope, attempts: u32, not_before: u64) {
        let now = self.shared.clock.uptime_ms();
        let plugin = envelope.plugin.clone();
        let again = not_before.max(plugin.health.paused_until(now).unwrap_or(0));
        let place = self.scopes.find(plugin.number, &envelope.address.key);
        let key = envelope.address.key.clone();
        let entered = self.enter(&mut Visit::new(&envelope, place));
        let is_dropped = match entered {
            Ok(place) => {
                let Envelope { plugin, address, event, reply } = envelope;
                let overflow = self.scopes[place].defer(Deferred { event, reply, attempts, not_before });
                let is_dropped = matches!(overflow, Overflow::Dropped(_));
                for deferred in overflow.into_events() {
                    self.settle(deferred.into_envelope(&plugin, &address), None);
                }
                is_dropped
            }
            Err(refusal) => {
                self.answer(envelope, refusal);
                true
            }
        };
        if is_dropped {
            self.shared.metrics.plugin_dropped.inc();
            tracing::warn!(
                plugin = %plugin.name, generation = plugin.current().id.generation, scope = %key,
                "too much waits to be told to a plugin, and some of it was dropped"
            );
        }
        if self.resuming.insert(plugin.number) {
            self.deadlines.push(again, Due::Resume { plugin: plugin.number });
        }
    }

    /// Queues a turn for a scope's deferred events, unless one is queued already.
    pub(super) fn give_turn(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress) {
        let scope = self.scopes.get_mut(plugin.number, &address.key).filter(|scope| scope.has_deferred());
        if scope.is_some_and(|scope| !std::mem::replace(&mut scope.has_turn, true)) {
            let job = Job::Deferred { plugin: plugin.clone(), address: address.clone() };
            self.turns.push(plugin.number, Flow::Scope(address.key.clone()), address.key.clone(), job);
        }
    }

    /// Queues turns for the deferred events of a plugin's scopes.
    pub(super) fn resume(&mut self, plugin: u32, now: u64) {
        self.resuming.remove(&plugin);
        let waiting: Vec<_> = self
            .scopes
            .of(plugin)
            .filter(|scope| scope.has_deferred())
            .map(|scope| (scope.plugin.clone(), scope.address.clone()))
            .collect();
        // Events that are not due yet, or fail again, are handled at the next deadline.
        if let Some((first, _)) = waiting.first()
            && self.resuming.insert(plugin)
        {
            let again = first.health.paused_until(now).unwrap_or(now + MIN_CHECK_MS);
            self.deadlines.push(again, Due::Resume { plugin });
        }
        waiting.iter().for_each(|(plugin, address)| self.give_turn(plugin, address));
    }
}
