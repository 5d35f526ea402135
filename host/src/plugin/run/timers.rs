//! The timers of scopes, and the expiry of idle scopes.

use std::sync::Arc;
use std::time::Duration;

use super::deadlines::{BUSY_MS, Deadline, Due, MIN_CHECK_MS};
use super::durable::rewrite;
use super::job::{Envelope, Job};
use super::scope::Timer;
use super::scopes::Place;
use super::state::ThreadState;
use crate::model::Quota;
use crate::plugin::event::{Event, Flow};

/// The time of a plugin thread that the timers of one plugin may take, in microseconds: half of it in the long run.
/// Timers over it are put off, so that timers that set themselves again and again leave time for other work.
const TIMER_TIME: Quota = Quota { per_second: 500_000, burst: 1_000_000 };

impl ThreadState {
    /// Queues a turn for a timer that is due, unless the timers of its plugin are over their time.
    pub(super) fn queue_timer(&mut self, plugin: u32, scope: Arc<str>, name: Box<str>, now: u64) {
        let Some(place) = self.scopes.find(plugin, &scope) else { return };
        if self.put_off_timer(place, &name, now) {
            return;
        }
        let found = &self.scopes[place];
        let Some(timer) = found.timers.get(&name) else { return };
        let flow = match found.owner.principal() {
            Some(owner) => Flow::Timers(owner.name().clone()),
            None => Flow::Scope(scope.clone()),
        };
        let job = Job::Timer { plugin, scope: scope.clone(), name, deadline: timer.deadline };
        self.turns.push(plugin, flow, scope, job);
    }

    /// Puts a timer off if the timers of its plugin are over their time. Returns whether they are.
    fn put_off_timer(&mut self, place: Place, name: &str, now: u64) -> bool {
        let plugin = self.scopes[place].plugin.number;
        let Some(wait) = self.timer_time.get(&plugin).and_then(|used| used.wait_ms(TIMER_TIME, now)) else {
            return false;
        };
        self.delay_timer(place, name, wait);
        true
    }

    /// Puts a timer off by this time from now, in milliseconds.
    fn delay_timer(&mut self, place: Place, name: &str, by: u64) {
        let at = self.shared.clock.uptime_ms() + by;
        let scope = &mut self.scopes[place];
        if let Some(timer) = scope.timers.get_mut(name) {
            let due = Due::Timer { plugin: scope.plugin.number, scope: scope.address.key.clone(), name: name.into() };
            timer.deadline = self.deadlines.push(at, due);
        }
    }

    /// Charges a plugin for the time of one of its timers.
    pub(super) fn charge_timer(&mut self, plugin: u32, took: Duration) {
        let now = self.shared.clock.uptime_ms();
        self.timer_time.entry(plugin).or_default().charge(TIMER_TIME, now, took.as_micros() as u64);
    }

    /// Removes a timer that has its turn, and returns it as an event for its scope; none if the timer was cancelled,
    /// replaced or postponed.
    pub(super) fn take_timer(
        &mut self,
        plugin: u32,
        key: &Arc<str>,
        name: &str,
        deadline: Deadline,
    ) -> Option<Envelope> {
        let place = self.scopes.find(plugin, key)?;
        if self.scopes[place].timers.get(name)?.deadline != deadline
            || self.put_off_timer(place, name, self.shared.clock.uptime_ms())
        {
            return None;
        }
        if !self.is_ready(key) {
            // It stays in the cluster until its event can be handled.
            self.delay_timer(place, name, BUSY_MS);
            return None;
        }
        let scope = &mut self.scopes[place];
        let Timer { due_ms, payload, .. } = scope.timers.remove(name)?;
        scope.is_dirty = true;
        let event = Event::Timer { name: name.into(), payload, due_ms };
        Some(Envelope::without_reply(scope.plugin.clone(), scope.address.clone(), event))
    }

    /// Drops a scope that has had no member, timer or event for its idle time. Another scope is checked again later.
    pub(super) fn expire(&mut self, plugin: u32, key: &Arc<str>, now: u64) {
        let Some(place) = self.scopes.find(plugin, key) else { return };
        let epoch = self.epoch_of(key);
        let is_in_use = self.keeps_room(place);
        let scope = &mut self.scopes[place];
        let idle_until = scope.last_event_ms.saturating_add(scope.idle_ms);
        let is_used = scope.is_used() || is_in_use;
        if now >= idle_until && !is_used {
            if let Some(store) = self.shared.store.as_ref().filter(|_| scope.is_durable) {
                store.drop_scope(&scope.plugin.name, key, epoch, None, None);
            }
            let plugin = scope.plugin.clone();
            self.scopes.remove(place);
            return self.mark_state(&plugin, key);
        }
        // A scope in use is checked again after the shortest time in which it could have become idle.
        let again = if is_used { now.saturating_add(scope.idle_ms) } else { idle_until };
        scope.idle_check = self.deadlines.push(again.max(now + MIN_CHECK_MS), Due::Idle { plugin, scope: key.clone() });
        // The store must not expire a scope that is in use and has not changed for long.
        rewrite(&self.shared, scope, epoch);
    }
}
