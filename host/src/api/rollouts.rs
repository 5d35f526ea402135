//! Operators' calls about candidates: trials on the past, shadows, canaries.

use std::time::Duration;

use hyper::StatusCode;

use super::parameters::{Parameter, Parameters};
use super::plugins::refused;
use super::route::OperatorCall;
use super::state::Api;
use crate::model::Failure;
use crate::net::response::{Answer, json};
use crate::plugin::RolloutKind;

/// How long a shadow lasts by default, in seconds, and the share of the scopes that a canary gets by default, in percent.
pub(super) const DEFAULT_SHADOW_SECONDS: u64 = 600;
pub(super) const DEFAULT_CANARY_PERCENT: u32 = 5;

impl Api {
    /// Tries a component on recent events.
    pub(super) async fn try_out(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let lose_writes = Parameters::of(call.query, &[Parameter::LoseWrites])?.lose_writes;
        let load = match self.read_load(call, lose_writes).await? {
            Ok(load) => load,
            Err(too_large) => return Ok(refused(&too_large)),
        };
        Ok(match self.runtime.lifecycle().try_out(load).await {
            Ok(trial) => json(StatusCode::OK, &trial),
            Err(error) => refused(&error),
        })
    }

    /// Begins to try a component in the shadow of the running build.
    pub(super) async fn begin_shadow(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let parameters = Parameters::of(call.query, &[Parameter::Seconds, Parameter::PromoteIfEqual])?;
        let time = Duration::from_secs(parameters.seconds.unwrap_or(DEFAULT_SHADOW_SECONDS));
        self.begin_rollout(call, RolloutKind::Shadow { promotes: parameters.promote_if_equal }, Some(time)).await
    }

    /// Begins to try a component on a share of the scopes.
    pub(super) async fn begin_canary(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let per_mille = Parameters::of(call.query, &[Parameter::Percent])?.per_mille;
        let kind = RolloutKind::Canary(per_mille.unwrap_or(DEFAULT_CANARY_PERCENT * 10));
        self.begin_rollout(call, kind, None).await
    }

    async fn begin_rollout(
        &self,
        call: OperatorCall<'_>,
        kind: RolloutKind,
        time: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let caller = call.caller.name.to_owned();
        let load = match self.read_load(call, false).await? {
            Ok(load) => load,
            Err(too_large) => return Ok(refused(&too_large)),
        };
        tracing::info!(key = caller, bytes = load.bytes.len(), ?kind, "asked to try a plugin");
        Ok(match self.runtime.lifecycle().begin_rollout(load, kind, time).await {
            Ok(report) => json(StatusCode::OK, &report),
            Err(error) => refused(&error),
        })
    }

    /// The candidate of a plugin that is tried, or was last.
    pub(super) async fn rollout(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        self.runtime.lifecycle().rollout(&call.name()?).map(|report| json(StatusCode::OK, &report))
    }

    /// Makes a candidate the running build.
    pub(super) async fn promote(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let name = call.name()?;
        let lose_writes = Parameters::of(call.query, &[Parameter::LoseWrites])?.lose_writes;
        tracing::info!(plugin = &*name, key = call.caller.name, "asked to promote a candidate");
        let change = self.runtime.lifecycle().promote(&name, lose_writes).await?;
        Ok(json(StatusCode::OK, &change))
    }
}
