//! Recordings: what a running plugin gets and makes of it, for a replay by another build.

use std::sync::Arc;
use std::time::Duration;

use roundhouse_contract::case::{Case, CaseEnd};

use super::install::Lifecycle;
use super::replay::Replayer;
use crate::model::{ErrorCode, Failure};

impl Lifecycle {
    /// Records so many calls of a plugin, or those of this time. In a cluster those of the scopes that this node owns.
    ///
    /// # Errors
    /// If there is no such plugin, or it is being recorded.
    pub async fn record(self: &Arc<Self>, name: &str, events: usize, within: Duration) -> Result<Vec<Case>, Failure> {
        let plugin = self.shared.plugin(name).ok_or_else(|| self.shared.no_plugin(name))?;
        let Some(full) = plugin.recorder.begin(events) else {
            let message = format!("{name} is being recorded: try again when that has ended");
            return Err(Failure::new(ErrorCode::Conflict, message));
        };
        // An error means that the plugin has gone.
        let _ = tokio::time::timeout(within, full).await;
        let recorded = plugin.recorder.end();
        let replayed = self.request(move |lifecycle| {
            // The same input gives the same output, so the outcome of a call need not be noted while clients wait.
            let (ticker, mut replayer) = (&lifecycle.shared.ticker, Replayer::default());
            let options = lifecycle.shared.config.case_options(&plugin.name);
            let ended = recorded.into_iter().map(|call| {
                let case = call.case(CaseEnd::Handled { effects: Vec::new(), state: None }, &options);
                let end = match plugin.generation(call.id.generation) {
                    Some(build) => replayer.replay(ticker, &build, &case),
                    None => CaseEnd::Failed("the build that handled it is not loaded any more".to_owned()),
                };
                Case { end, ..case }
            });
            ended.collect()
        });
        replayed.await.map_err(|why| Failure::new(ErrorCode::FeatureUnavailable, why))
    }
}
