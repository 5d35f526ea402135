//! The choice of the build that handles a scope while a candidate is tried, and the return of a scope on which it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::instances::{Role, Slot};
use super::invoke::Called;
use super::job::Job;
use super::outcome::{CallError, CallFault};
use super::shared::Shared;
use super::state::{ThreadState, Visit};
use crate::plugin::load::catalogue::{Plugin, PluginError};
use crate::plugin::load::generation::Generation;
use crate::plugin::load::rollout::{Rollout, RolloutKind};

impl ThreadState {
    /// Calls the build that handles the scope, which is returned. A scope on which a canary fails goes back to the running
    /// build at once, with this event; one whose state the running build cannot take over stays on the build before, if the
    /// running one allows that.
    pub(super) fn call_build(&mut self, visit: &Visit<'_>) -> (Arc<Generation>, Role, Called) {
        let plugin = visit.plugin;
        // What the running build cannot take over is no canary's either.
        let rollout = plugin.rollout().filter(|rollout| rollout.handles(&visit.address.key) && !self.stays(visit));
        let Some(rollout) = rollout else { return self.call_running(visit) };
        match self.call_or_stay(visit, &rollout.candidate, (plugin.number, Role::Candidate)) {
            Err(CallError::Fault(CallFault { message, .. })) => self.call_instead(visit, &rollout, &message),
            Err(CallError::Stays(cannot)) => {
                // The candidate migrates partially, and would not handle the scope in the end either.
                rollout.set_aside(&visit.address.key, &cannot);
                self.call_running(visit)
            }
            called => (rollout.candidate.clone(), Role::Candidate, called),
        }
    }

    /// Whether the scope stays on an older build than the running one.
    fn stays(&self, visit: &Visit<'_>) -> bool {
        let stays_from = visit.place.and_then(|place| self.scopes[place].stays_from);
        stays_from.is_some_and(|number| number == visit.plugin.current().id.generation)
    }

    /// Calls the running build, or the older one on which the scope stays.
    fn call_running(&mut self, visit: &Visit<'_>) -> (Arc<Generation>, Role, Called) {
        let plugin = visit.plugin;
        let (generation, slot) = (plugin.current(), (plugin.number, Role::Running));
        if self.stays(visit)
            && let Some(called) = self.call_older(visit)
        {
            return called;
        }
        match self.call_or_stay(visit, &generation, slot) {
            Err(CallError::Stays(cannot)) => {
                if let Some(place) = visit.place {
                    self.stay(place, &generation, &cannot);
                }
                let older = self.call_older(visit);
                older.unwrap_or_else(|| (generation, Role::Running, Err(CallError::Fault(cannot.into()))))
            }
            called => (generation, Role::Running, called),
        }
    }

    /// Calls a build, and once more on a fresh instance if it could not take over the state on one that had handled other events.
    fn call_or_stay(&mut self, visit: &Visit<'_>, generation: &Arc<Generation>, slot: Slot) -> Called {
        let first = self.call_or_retry(visit, generation, slot);
        if !matches!(first, Err(CallError::Stays(_))) {
            return first;
        }
        // It may have failed while it migrated the state, and then it must not be called again.
        let was_fresh = self.instances.is_fresh(slot);
        self.instances.drop_instance(slot);
        if was_fresh {
            return first;
        }
        let second = self.call_or_retry(visit, generation, slot);
        if matches!(second, Err(CallError::Stays(_))) {
            self.instances.drop_instance(slot);
        }
        second
    }

    /// Calls the older build on which the scope stays, if it is still loaded.
    fn call_older(&mut self, visit: &Visit<'_>) -> Option<(Arc<Generation>, Role, Called)> {
        let plugin = visit.plugin;
        let schema = self.scopes[visit.place?].state.as_ref()?.version;
        let current = plugin.current();
        let older = plugin.stays_on(&current, schema).filter(|older| !Arc::ptr_eq(older, &current))?;
        let called = self.call_or_retry(visit, &older, (plugin.number, Role::Older));
        Some((older, Role::Older, called))
    }

    /// Calls the running build for a candidate that has failed. The scope goes back to it, unless it fails on the event, too.
    fn call_instead(
        &mut self,
        visit: &Visit<'_>,
        rollout: &Arc<Rollout>,
        fault: &str,
    ) -> (Arc<Generation>, Role, Called) {
        self.instances.drop_instance((visit.plugin.number, Role::Candidate));
        let failed = self.last_call(visit, &rollout.candidate);
        let (generation, role, called) = self.call_running(visit);
        if !matches!(called, Err(CallError::Fault(_))) {
            if let Some(failed) = failed {
                self.keep_case(visit, &failed, fault);
            }
            self.pin(visit, rollout, fault);
        }
        (generation, role, called)
    }

    /// Gives a scope back to the running build, for a candidate has failed on it.
    fn pin(&mut self, visit: &Visit<'_>, rollout: &Arc<Rollout>, fault: &str) {
        let Visit { plugin, address, event, .. } = *visit;
        plugin.metrics.traps.inc();
        self.shared.metrics.plugin_faults.inc();
        self.shared.metrics.plugin_pinned_scopes.inc();
        let (id, running) = (&rollout.candidate.id, plugin.current().id.generation);
        let message = format!("{} stays on generation {running}, because {fault}", address.key);
        tracing::error!(
            plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
            scope = %address.key, event = %event.name(), "a canary failed: {message}"
        );
        plugin.note_error(PluginError {
            at_ms: self.shared.clock.now_ms(),
            generation: id.generation,
            scope: Some(address.key.to_string()),
            event: Some(event.name().to_owned()),
            message,
        });
        let culprit = self.shared.responsible(event).map(|sender| sender.principal.clone());
        if let Some(why) = rollout.pin(&address.key, fault, self.shared.clock.uptime_ms(), culprit) {
            self.shared.roll_back_canary(plugin, rollout, &why);
        }
    }
}

impl Shared {
    /// Ends a rollout, if it is under way: all scopes go on with the running build. Returns whether it was.
    pub(crate) fn end_rollout(&self, plugin: &Plugin, rollout: &Arc<Rollout>, how: &str) -> bool {
        if !plugin.end_rollout(rollout, how) {
            return false;
        }
        let id = &rollout.candidate.id;
        tracing::info!(
            plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
            "a candidate is not tried any more: {how}"
        );
        if matches!(rollout.kind, RolloutKind::Canary(_)) {
            self.metrics.hide_latency(&rollout.candidate.latency);
        }
        // The threads drop the candidate's instances.
        self.submit_to_all(|| Job::Resume { plugin: plugin.number });
        true
    }

    /// Ends a canary that does worse than the running build.
    pub(crate) fn roll_back_canary(&self, plugin: &Plugin, rollout: &Arc<Rollout>, why: &str) {
        if !self.end_rollout(plugin, rollout, &format!("rolled back: {why}")) {
            return;
        }
        self.metrics.plugin_rollbacks.inc();
        plugin.rollout_ended.store(self.clock.uptime_ms().max(1), Ordering::Relaxed);
        let id = &rollout.candidate.id;
        plugin.note_error(PluginError {
            at_ms: self.clock.now_ms(),
            generation: id.generation,
            scope: None,
            event: None,
            message: format!("the canary was rolled back: {why}"),
        });
        tracing::error!(
            plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
            "a canary was rolled back: {why}"
        );
    }
}
