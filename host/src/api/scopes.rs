//! Operators' calls about single scopes and their past.

use hyper::StatusCode;

use super::parameters::{Parameter, Parameters};
use super::plugins::refused;
use super::route::OperatorCall;
use super::state::Api;
use crate::model::Failure;
use crate::net::response::{Answer, json};
use crate::plugin::Load;

impl Api {
    /// A scope, and the events of it that are remembered.
    pub(super) async fn scope(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let at = self.time(call.query)?;
        let report = self.runtime.lifecycle().scope(&call.name()?, at).await?;
        Ok(json(StatusCode::OK, &report))
    }

    /// What another build would have made of a scope's events.
    pub(super) async fn replay_scope(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let (key, at) = (call.name()?.into_owned(), self.time(call.query)?);
        let load = match self.read_load(call, false).await? {
            // The path names the scope.
            Ok(load) => Load { name: None, ..load },
            Err(too_large) => return Ok(refused(&too_large)),
        };
        Ok(match self.runtime.lifecycle().replay_scope(&key, at, load).await? {
            Ok(report) => json(StatusCode::OK, &report),
            Err(error) => refused(&error),
        })
    }

    /// The time that a call is about, in milliseconds since 1970.
    fn time(&self, query: Option<&str>) -> Result<Option<u64>, Failure> {
        let now = self.clock.now_ms();
        let at = Parameters::of(query, &[Parameter::At])?.at;
        Ok(at.map(|at| if at < 0 { now.saturating_sub(at.unsigned_abs()) } else { at.unsigned_abs() }))
    }
}
