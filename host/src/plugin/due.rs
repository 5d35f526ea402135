//! What time brings on a plugin thread: timers, idle scopes, acknowledgements that did not come, and second attempts.

use std::sync::Arc;

use super::event::{Event, ReplyTo};
use super::scope::{Due, Timer};
use super::worker::Worker;

/// The least time between two looks at a scope that is in use, in milliseconds.
const LEAST_LOOK_MS: u64 = 1000;

impl Worker {
    /// Does what is due, and waits until the shards keep up.
    pub(super) fn meet_deadlines(&mut self) {
        self.wait_for_shards();
        let now = self.inner.clock.uptime_ms();
        while let Some(due) = self.deadlines.pop_due(now) {
            match due {
                Due::Timer { plugin, scope, name } => self.fire(plugin, &scope, &name),
                Due::Idle { plugin, scope } => self.expire(plugin, &scope, now),
                Due::Acknowledgement(id) => self.give_up_on(id),
                Due::Resume { plugin } => self.resume(plugin, now),
                Due::Load { plugin, scope } => self.load_again(plugin, &scope),
            }
            self.wait_for_shards();
        }
    }

    fn fire(&mut self, plugin: u32, key: &str, name: &str) {
        let Some(scope) = self.scopes.get_mut(plugin, key) else { return };
        let Some(Timer { due_ms, payload, .. }) = scope.timers.remove(name) else { return };
        scope.is_dirty = true;
        let (plugin, address) = (scope.plugin.clone(), scope.address.clone());
        self.handle(&plugin, &address, Event::Timer { name: name.into(), payload, due_ms }, ReplyTo::Nobody);
    }

    /// Drops a scope that has had no member, timer or event for its idle time.
    fn expire(&mut self, plugin: u32, key: &Arc<str>, now: u64) {
        let Some(scope) = self.scopes.get(plugin, key) else { return };
        let idle_until = scope.touched.saturating_add(scope.idle_ms);
        let is_used = scope.is_used() || self.inner.hub.room_size(key).0 > 0;
        if now >= idle_until && !is_used {
            if let Some(store) = self.inner.store.as_ref().filter(|_| scope.is_durable) {
                store.drop_scope(&scope.plugin.name, key, None, None);
            }
            self.scopes.remove(plugin, key);
            return;
        }
        // A scope in use is looked at again after the shortest time in which it could have become idle.
        let again = if is_used { now.saturating_add(scope.idle_ms) } else { idle_until };
        let look = self.deadlines.push(again.max(now + LEAST_LOOK_MS), Due::Idle { plugin, scope: key.clone() });
        if let Some(scope) = self.scopes.get_mut(plugin, key) {
            scope.look = look;
        }
        self.put_off_expiry(plugin, key);
    }

    /// Tells the scopes of a plugin what has been waiting.
    pub(super) fn resume(&mut self, plugin: u32, now: u64) {
        self.resuming.remove(&plugin);
        let waiting: Vec<_> = self
            .scopes
            .of(plugin)
            .filter(|scope| scope.has_parked())
            .map(|scope| (scope.plugin.clone(), scope.address.clone()))
            .collect();
        for (plugin, address) in &waiting {
            self.handle_parked(plugin, address);
        }
        // What was not due yet, or failed again, comes later.
        let is_left = self.scopes.of(plugin).any(|scope| scope.has_parked());
        if is_left && self.resuming.insert(plugin) {
            let paused = waiting.first().and_then(|(plugin, _)| plugin.health.paused_until(now));
            let at = paused.unwrap_or(now + LEAST_LOOK_MS);
            self.deadlines.push(at, Due::Resume { plugin });
        }
    }
}
