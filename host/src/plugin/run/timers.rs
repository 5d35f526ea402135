//! What time brings on a plugin thread: timers, idle scopes, acknowledgements that did not come, and second attempts.

use std::sync::Arc;
use std::time::Duration;

use super::scope::{Deadline, Due, Timer};
use super::worker::{Job, Worker};
use crate::model::Quota;
use crate::plugin::event::Flow;
use crate::plugin::event::{Event, ReplyTo};

/// The least time between two looks at a scope that is in use, in milliseconds.
pub(crate) const LEAST_LOOK_MS: u64 = 1000;

/// How much of a plugin thread's time the timers of one plugin may take, in microseconds: half of it in the long run. What
/// they would take beyond that comes later, so that timers which set themselves again and again leave the machine time.
const TIMER_TIME: Quota = Quota { per_second: 500_000, burst: 1_000_000 };

impl Worker {
    /// Does what is due, and waits until the shards keep up.
    pub(crate) fn meet_deadlines(&mut self) {
        self.wait_for_shards();
        let now = self.shared.clock.uptime_ms();
        while let Some(due) = self.deadlines.pop_due(now) {
            match due {
                Due::Timer { plugin, scope, name } => self.timer_due(plugin, scope, name, now),
                Due::Idle { plugin, scope } => self.expire(plugin, &scope, now),
                Due::Acknowledgement(id) => self.give_up_on(id),
                Due::Resume { plugin } => self.resume(plugin, now),
                Due::Load { plugin, scope } => self.load_again(plugin, &scope),
            }
            self.wait_for_shards();
        }
    }

    /// Has a timer wait its turn, or for longer where the timers of its plugin have taken more than their time.
    fn timer_due(&mut self, plugin: u32, scope: Arc<str>, name: Box<str>, now: u64) {
        if self.put_off_timer(plugin, &scope, &name, now) {
            return;
        }
        let Some(found) = self.scopes.get(plugin, &scope) else { return };
        let Some(timer) = found.timers.get(&name) else { return };
        let flow = match found.owner.principal() {
            Some(owner) => Flow::Timers(owner.name().clone()),
            None => Flow::Scope(scope.clone()),
        };
        let job = Job::Timer { plugin, scope: scope.clone(), name, deadline: timer.deadline };
        self.turns.push(plugin, flow, scope, job);
    }

    /// Has a timer wait where those of its plugin have taken more than their time. Says whether they have.
    fn put_off_timer(&mut self, plugin: u32, scope: &Arc<str>, name: &str, now: u64) -> bool {
        let Some(wait) = self.timer_time.get(&plugin).and_then(|used| used.wait_ms(TIMER_TIME, now)) else {
            return false;
        };
        if let Some(timer) = self.scopes.get_mut(plugin, scope).and_then(|scope| scope.timers.get_mut(name)) {
            let due = Due::Timer { plugin, scope: scope.clone(), name: name.into() };
            timer.deadline = self.deadlines.push(now + wait, due);
        }
        true
    }

    /// Charges a plugin for what a timer of its took.
    pub(crate) fn charge_timer(&mut self, plugin: u32, took: Duration) {
        let now = self.shared.clock.uptime_ms();
        self.timer_time.entry(plugin).or_default().charge(TIMER_TIME, now, took.as_micros() as u64);
    }

    /// Tells a scope that a timer is due, unless it was cancelled or set anew while it waited its turn.
    pub(crate) fn fire(&mut self, plugin: u32, key: &Arc<str>, name: &str, deadline: Deadline) {
        let Some(scope) = self.scopes.get(plugin, key) else { return };
        if scope.timers.get(name).is_none_or(|timer| timer.deadline != deadline)
            || self.put_off_timer(plugin, key, name, self.shared.clock.uptime_ms())
        {
            return;
        }
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
        let is_used = scope.is_used() || self.shared.hub.room_size(key).0 > 0;
        if now >= idle_until && !is_used {
            if let Some(store) = self.shared.store.as_ref().filter(|_| scope.is_durable) {
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
}
