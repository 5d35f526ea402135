//! The trial of a candidate on the past: it and the running build get the recent calls of all scopes, and nothing is applied.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use super::compare::Comparer;
use super::install::{Lifecycle, Load};
use crate::model::GenerationId;
use crate::plugin::load::call::Call;
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::comparison::{Comparison, ComparisonReport};
use crate::plugin::load::generation::Generation;
use crate::plugin::load::loader::{LoadError, Step};
use crate::plugin::run::job::Job;

/// The longest trial: other loads of the plugin may wait for it.
const MOST_TIME: Duration = Duration::from_secs(60);

/// So many failures of a candidate are enough to refuse it.
const ENOUGH_FAILURES: u64 = 100;

/// What a candidate makes of the past.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Trial")]
pub struct TrialReport {
    /// The candidate. Its generation is the one that it would get now.
    #[serde(flatten)]
    pub id: GenerationId,
    /// Why it is refused, if it is: it fails on events that the running build handles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What it makes of the recent events, compared with the running build.
    pub comparison: ComparisonReport,
}

impl Lifecycle {
    /// Tries a component on the recent events of the plugin, with all steps of a load, and loads nothing.
    ///
    /// # Errors
    /// With the step that refuses the component.
    pub async fn try_out(self: &Arc<Self>, load: Load) -> Result<TrialReport, LoadError> {
        let tried = self.request(move |lifecycle| {
            let described = lifecycle.described(&load)?;
            let candidate = lifecycle.prepare(&load, &described)?;
            let plugin = lifecycle.shared.plugin(&described.name);
            let comparison = match &plugin {
                Some(plugin) => lifecycle.try_on_the_past(plugin, &candidate, load.lose_writes)?,
                None => lifecycle.try_routes(&candidate).map(|()| Comparison::default())?,
            };
            Ok(TrialReport {
                id: GenerationId::clone(&candidate.id),
                refused: comparison.refusal(),
                comparison: comparison.report(0),
            })
        });
        tried.await.unwrap_or_else(|why| Err(LoadError::passing(Step::Compile, why)))
    }

    /// Compares a candidate with the running build on the recent calls of all scopes.
    ///
    /// # Errors
    /// If another plugin has its events, or states would be lost that may not be lost.
    pub(super) fn try_on_the_past(
        &self,
        plugin: &Plugin,
        candidate: &Arc<Generation>,
        lose_writes: bool,
    ) -> Result<Comparison, LoadError> {
        self.try_routes(candidate)?;
        self.losses(plugin, candidate)?.permit(lose_writes)?;
        let (running, mut comparison) = (plugin.current(), Comparison::default());
        let mut comparer = Comparer::new(candidate.clone());
        let until = Instant::now() + MOST_TIME;
        for call in self.recent_calls(plugin, None) {
            comparison.add(&call, comparer.call_both(self.loader.ticker(), &running, &call));
            let is_clear = comparison.failed >= ENOUGH_FAILURES;
            if is_clear || Instant::now() > until || self.shared.stopping.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(comparison)
    }

    /// The recent calls of a plugin, the oldest first: of one scope, or of all.
    pub(super) fn recent_calls(&self, plugin: &Plugin, scope: Option<&Arc<str>>) -> Vec<Arc<Call>> {
        let mut recent = Vec::new();
        for inbox in self.shared.inboxes.iter() {
            let (reply, answer) = tokio::sync::oneshot::channel();
            inbox.push(Job::Recent { plugin: plugin.number, scope: scope.cloned(), reply });
            // A thread that has ended drops the job.
            recent.extend(answer.blocking_recv().unwrap_or_default());
        }
        // Each thread has told its own, and the first difference is to be the first in time.
        recent.sort_by_key(|call| call.facts.now);
        recent
    }
}
