//! Rollback to an earlier generation: by an operator, or automatic because the running one fails too often.

use std::sync::Arc;

use super::install::{Change, Lifecycle};
use super::threads::lock;
use crate::model::{ErrorCode, Failure};
use crate::plugin::load::catalogue::{History, Plugin, PluginError};
use crate::plugin::load::generation::Generation;
use crate::plugin::load::loader::LoadError;
use crate::plugin::load::migrate::Losses;

impl Lifecycle {
    /// Rolls a plugin back to an earlier generation. An operator's rollback goes to the generation before. An automatic
    /// rollback, of the generation `failing`, goes to the newest one that loses nothing, or else to the newest one that can
    /// run.
    ///
    /// # Errors
    /// If there is no such plugin or no earlier generation that can run, or changes would be lost that may not be lost.
    pub(super) fn revert(&self, name: &str, lose_writes: bool, failing: Option<u64>) -> Result<Change, Failure> {
        let _changes = lock(&self.changes);
        let is_automatic = failing.is_some();
        let plugin = self.shared.plugin(name).ok_or_else(|| self.shared.no_plugin(name))?;
        let (current, history) = (plugin.current(), plugin.history());
        if failing.is_some_and(|failing| failing != current.id.generation) {
            let message = format!("generation {} of {name} runs meanwhile", current.id.generation);
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        let may_lose = lose_writes || is_automatic;
        let (to, losses) = self.generation_to_go_back_to(&plugin, &history, is_automatic)?;
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
        self.shared.metrics.plugin_rollbacks.inc();
        let id = to.id.clone();
        tracing::warn!(plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
            before = current.id.generation, "a plugin was rolled back");
        if is_automatic {
            plugin.note_error(rolled_back_by_itself(self.shared.clock.now_ms(), current.id.generation, lost));
        }
        Ok(Change { lost_scopes: lost, warning, ..Change::to(id) })
    }

    /// The generation that a rollback goes back to, and its losses.
    ///
    /// # Errors
    /// If there is no earlier generation, or none can run now.
    fn generation_to_go_back_to(
        &self,
        plugin: &Plugin,
        history: &History,
        is_automatic: bool,
    ) -> Result<(Arc<Generation>, Losses), Failure> {
        let conflict = |message: String| Failure::new(ErrorCode::Conflict, message);
        let n_candidates = if is_automatic { history.previous.len() } else { 1 };
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
