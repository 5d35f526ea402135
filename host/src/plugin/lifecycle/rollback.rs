//! Rollback to an earlier generation: by an operator, or automatic because the running one fails too often.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::install::{Change, Lifecycle};
use super::threads::lock;
use crate::model::{ErrorCode, Failure};
use crate::plugin::load::catalogue::{Plugin, PluginError};
use crate::plugin::load::generation::Generation;
use crate::plugin::load::history::History;
use crate::plugin::load::loader::LoadError;
use crate::plugin::load::migrate::Losses;

/// How long after the end of a canary by itself a rollback may be meant for it, in milliseconds.
const JUST_NOW_MS: u64 = 60_000;

/// Where a rollback goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Away from the generation of this number, which fails: to the newest one that loses nothing, or else to the newest one
    /// that can run.
    AwayFrom(u64),
    /// To the generation before; where a candidate is tried, that goes instead.
    Before,
    /// To the generation of this number.
    To(u64),
}

impl Lifecycle {
    /// Rolls a plugin back to an earlier generation.
    ///
    /// # Errors
    /// If there is no such plugin or no earlier generation that can run, or changes would be lost that may not be lost.
    pub(super) fn revert(&self, name: &str, lose_writes: bool, goal: Goal) -> Result<Change, Failure> {
        let _changes = lock(&self.changes);
        let plugin = self.shared.plugin(name).ok_or_else(|| self.shared.no_plugin(name))?;
        let (current, history) = (plugin.current(), plugin.history());
        if let (Goal::Before, Some(rollout)) = (goal, plugin.rollout()) {
            self.shared.end_rollout(&plugin, &rollout, "rolled back by an operator");
            return Ok(Change::to(&current.id));
        }
        let ended = plugin.rollout_ended.swap(0, Ordering::Relaxed);
        if goal == Goal::Before && ended > 0 && ended + JUST_NOW_MS > self.shared.clock.uptime_ms() {
            // The operator may not know it, and mean the canary.
            let message = format!(
                "the canary of {name} has just been rolled back by itself, and generation {} runs: ask again to roll that back, too",
                current.id.generation
            );
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        let is_automatic = matches!(goal, Goal::AwayFrom(_));
        if is_automatic && goal != Goal::AwayFrom(current.id.generation) {
            let message = format!("generation {} of {name} runs meanwhile", current.id.generation);
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        let may_lose = lose_writes || is_automatic;
        let (to, losses) = self.generation_to_go_back_to(&plugin, &history, goal)?;
        let cannot = |error: LoadError| {
            let message = format!("generation {} of {name} cannot go on from here: {error}", to.id.generation);
            Failure::new(ErrorCode::Conflict, message)
        };
        losses.permit(may_lose).map_err(cannot)?;
        self.have_others_try_again(&to, may_lose).map_err(cannot)?;
        let after =
            history.clone().after_rolling_back(&current, to.id.generation).giving_up(losses.schemas.iter().copied());
        let written = self.write(&plugin, &to, &after, None);
        if let (Err(error), Some(_)) = (&written, &self.shared.node) {
            let message = format!("{name} is not rolled back: {error}");
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        let warning = written.err().map(|error| {
            tracing::error!(plugin = %name, %error, "a rollback could not be written down: the next start undoes it");
            format!("it could not be written down, so that the next start undoes it: {error}")
        });
        plugin.set_undecided(true);
        let mut lost = self.switch(&plugin, &to, after, &losses);
        // States of events between the check and the switch may have been migrated forward.
        if let Some(since) = self.losses(&plugin, &to).ok().filter(|since| !since.is_empty()) {
            if let Err(error) = since.permit(may_lose) {
                self.undo(&plugin, &current, history);
                return Err(cannot(error));
            }
            let after = plugin.history().giving_up(since.schemas.iter().copied());
            if let Err(error) = self.write(&plugin, &to, &after, None) {
                tracing::error!(plugin = %name, %error, "what a rollback lost could not be written down");
            }
            plugin.switch(to.clone(), after);
            lost = Some(lost.unwrap_or(0) + self.give_up(&plugin, &since));
        }
        // Only now, for a state that was migrated down may have lost what the newer build had written.
        plugin.set_undecided(false);
        self.resume(&plugin);
        self.shared.metrics.plugin_rollbacks.inc();
        let id = to.id.clone();
        tracing::warn!(plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
            before = current.id.generation, "a plugin was rolled back");
        if is_automatic {
            plugin.note_error(rolled_back_by_itself(self.shared.clock.now_ms(), current.id.generation, lost));
        }
        Ok(Change { lost_scopes: lost, warning, ..Change::to(&id) })
    }

    /// The generation that a rollback goes back to, and its losses.
    ///
    /// # Errors
    /// If there is no earlier generation, or none can run now.
    fn generation_to_go_back_to(
        &self,
        plugin: &Plugin,
        history: &History,
        goal: Goal,
    ) -> Result<(Arc<Generation>, Losses), Failure> {
        let conflict = |message: String| Failure::new(ErrorCode::Conflict, message);
        if let Goal::To(number) = goal {
            let found = history.previous.iter().find(|generation| generation.id.generation == number);
            let to = found.ok_or_else(|| {
                let kept: Vec<_> = history.previous.iter().map(|kept| kept.id.generation.to_string()).collect();
                let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
                conflict(format!(
                    "{} cannot go back to generation {number}: of those before, it has {kept}",
                    plugin.name
                ))
            })?;
            let losses = self.try_routes(to).and_then(|()| self.losses(plugin, to));
            let losses = losses.map_err(|error| conflict(format!("generation {number} cannot run now: {error}")))?;
            return Ok((to.clone(), losses));
        }
        let n_candidates = if matches!(goal, Goal::AwayFrom(_)) { history.previous.len() } else { 1 };
        let mut chosen = Err(conflict(format!("there is no generation of {} before this one", plugin.name)));
        for (n, candidate) in history.previous.iter().rev().take(n_candidates).enumerate() {
            // A plugin that was loaded since may handle the candidate's events.
            let found = self.try_routes(candidate).and_then(|()| self.losses(plugin, candidate));
            match found {
                Ok(losses) if losses.is_empty() => return Ok((candidate.clone(), losses)),
                Ok(losses) if chosen.is_err() => chosen = Ok((candidate.clone(), losses)),
                Err(error) if n == 0 => {
                    chosen = Err(conflict(format!("the generation before cannot run now: {error}")));
                }
                _ => {}
            }
        }
        chosen
    }

    fn undo(&self, plugin: &Arc<Plugin>, to: &Arc<Generation>, history: History) {
        if let Err(error) = self.write(plugin, to, &history, None) {
            tracing::error!(plugin = %plugin.name, %error, "what runs could not be written down");
        }
        self.switch(plugin, to, history, &Losses::default());
        plugin.set_undecided(false);
        self.resume(plugin);
    }
}

/// The error that an automatic rollback adds to a plugin's report.
fn rolled_back_by_itself(at_ms: u64, generation: u64, lost: Option<usize>) -> PluginError {
    let message = match lost {
        Some(n) => format!("it failed too often and was rolled back; {n} scopes lost what it had written"),
        None => "it failed too often and was rolled back".to_owned(),
    };
    PluginError { at_ms, generation, scope: None, event: None, message }
}
