//! Operators' calls about case files.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::route::OperatorCall;
use super::state::Api;
use crate::model::{ErrorCode, Failure};
use crate::net::response::{Answer, json};
use crate::plugin::CaseReport;

/// The events on which plugins failed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Cases {
    /// Of each plugin the newest first.
    cases: Vec<CaseReport>,
}

/// A case file.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct CaseFile(Value);

impl Api {
    /// The events on which one plugin failed.
    pub(super) async fn cases(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let cases = self.runtime.lifecycle().cases(&call.name()?)?;
        Ok(json(StatusCode::OK, &Cases { cases }))
    }

    /// The events on which any plugin failed.
    pub(super) async fn all_cases(&self) -> Result<Answer, Failure> {
        Ok(json(StatusCode::OK, &Cases { cases: self.runtime.lifecycle().all_cases() }))
    }

    /// One case file.
    pub(super) async fn case(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let name = call.name()?;
        let found = self.runtime.lifecycle().all_cases().into_iter().find(|case| case.name == name);
        let found = found.ok_or_else(|| {
            Failure::new(
                ErrorCode::NotFound,
                format!("there is no case {name}: GET /v1/cases lists those that are kept"),
            )
        })?;
        Ok(json(StatusCode::OK, &CaseFile(found.case)))
    }
}
