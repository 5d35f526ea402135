//! Operators' calls about plugins.

use std::time::Duration;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{self, MAX_BODY_BYTES, Object, given_integer, parse};
use super::config_file::ConfigFile;
use super::parameters::{Parameter, Parameters};
use super::route::OperatorCall;
use super::state::Api;
use crate::model::{ErrorCode, Failure};
use crate::net::response::{Answer, json};
use crate::plugin::{Change, GrantList, Load, LoadError, PluginReport, Source, Step};

/// All plugins.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Plugins {
    plugins: Vec<PluginReport>,
    /// That the configuration file has changed since the host started, where it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
}

/// What to record of a plugin.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRecording {
    /// The most events.
    #[serde(deserialize_with = "given_integer")]
    #[schemars(with = "u32", range(min = 1, max = 10_000))]
    events: Option<u64>,
    /// The most time.
    #[serde(deserialize_with = "given_integer")]
    #[schemars(with = "u32", range(min = 1, max = 60))]
    seconds: Option<u64>,
}

/// The most events and the most time of a recording.
const MAX_RECORDED: u64 = 10_000;
const MAX_RECORDED_SECONDS: u64 = 60;

/// What a plugin got, and what it made of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Recording {
    /// A case for each event, in the order of the events of each scope.
    cases: Vec<serde_json::Value>,
}

/// A plugin that is loaded no more.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Unloaded {
    name: String,
}

/// Why a component was refused. Nothing has changed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RefusedComponent")]
pub(super) struct Refused<'a> {
    code: ErrorCode,
    message: &'a str,
    step: Step,
    /// What the component asks for and is not granted, where that is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<GrantList>,
}

impl Api {
    pub(super) async fn plugins(&self) -> Result<Answer, Failure> {
        let mut plugins = self.runtime.lifecycle().reports();
        self.runtime.lifecycle().compare_nodes(&mut plugins).await;
        Ok(json(StatusCode::OK, &Plugins { plugins, notice: self.config_notice() }))
    }

    /// A notice where the configuration file, from which plugins have their settings, has changed.
    fn config_notice(&self) -> Option<String> {
        self.config.file.as_ref().and_then(ConfigFile::notice)
    }

    pub(super) async fn plugin(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        self.runtime.lifecycle().report(&call.name()?).await.map(|report| json(StatusCode::OK, &report))
    }

    /// Loads a component under the name in the path, or without one under the name in its manifest.
    pub(super) async fn load(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let lose_writes = Parameters::of(call.query, &[Parameter::LoseWrites])?.lose_writes;
        let caller = call.caller.name.to_owned();
        let load = match self.read_load(call, lose_writes).await? {
            Ok(load) => load,
            Err(too_large) => return Ok(refused(&too_large)),
        };
        tracing::info!(plugin = load.name, key = caller, bytes = load.bytes.len(), "asked to load a plugin");
        Ok(match self.runtime.lifecycle().load(load).await {
            Ok(change) => json(StatusCode::OK, &Change { warning: change.warning.or(self.config_notice()), ..change }),
            Err(error) if !error.missing.is_empty() => {
                // If the grants were added to the file, only the restart is missing.
                let notice = self.config_notice().map(|notice| format!(". {notice}"));
                refused(&LoadError { message: error.message + &notice.unwrap_or_default(), ..error })
            }
            Err(error) => refused(&error),
        })
    }

    /// Reads the component in a call's body. The inner error is that it is too large.
    pub(super) async fn read_load(
        &self,
        call: OperatorCall<'_>,
        lose_writes: bool,
    ) -> Result<Result<Load, LoadError>, Failure> {
        let name = Some(call.name()?.into_owned()).filter(|name| !name.is_empty());
        let request = call.request;
        let digest =
            request.headers().get("x-content-sha256").and_then(|digest| digest.to_str().ok()).map(str::to_owned);
        let largest = self.runtime.lifecycle().largest_component();
        match body::read(request, largest).await {
            Ok(bytes) => Ok(Ok(Load { name, digest, lose_writes, ..Load::new(bytes.into(), Source::Api) })),
            Err(too_large) if too_large.code == ErrorCode::TooLarge => {
                let message = format!("the component is larger than {largest} bytes");
                Ok(Err(LoadError::new(Step::Size, message)))
            }
            Err(broken) => Err(broken),
        }
    }

    /// What a plugin asks for, is given, and made use of.
    pub(super) async fn grants(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let report = self
            .runtime
            .lifecycle()
            .grants(&call.name()?, Parameters::of(call.query, &[Parameter::Last])?.last.unwrap_or(u64::MAX))
            .await?;
        Ok(json(StatusCode::OK, &report))
    }

    /// Records what a plugin gets.
    pub(super) async fn record(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let name = call.name()?.into_owned();
        if let Some(refused) = body::refuse_type(call.request.headers()) {
            return Ok(refused);
        }
        let body = body::read_json(call.request, MAX_BODY_BYTES).await?;
        let NewRecording { events, seconds } = parse::<Object<NewRecording>>(&body)?.0;
        let events = events.filter(|events| (1..=MAX_RECORDED).contains(events));
        let seconds = seconds.filter(|seconds| (1..=MAX_RECORDED_SECONDS).contains(seconds));
        let (Some(events), Some(seconds)) = (events, seconds) else {
            let message = format!("a recording has 1 to {MAX_RECORDED} events of 1 to {MAX_RECORDED_SECONDS} seconds");
            return Err(Failure::new(ErrorCode::BadRequest, message));
        };
        tracing::info!(plugin = name, key = call.caller.name, events, seconds, "asked to record a plugin");
        let within = Duration::from_secs(seconds);
        let cases = self.runtime.lifecycle().record(&name, events as usize, within).await?;
        let cases = cases.iter().map(|case| serde_json::to_value(case).unwrap_or_default()).collect();
        Ok(json(StatusCode::OK, &Recording { cases }))
    }

    pub(super) async fn unload(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let name = call.name()?;
        tracing::info!(plugin = &*name, key = call.caller.name, "asked to unload a plugin");
        self.runtime
            .lifecycle()
            .unload(&name)
            .await
            .map(|()| json(StatusCode::OK, &Unloaded { name: name.into_owned() }))
    }

    pub(super) async fn roll_back(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let name = call.name()?;
        tracing::info!(plugin = &*name, key = call.caller.name, "asked to roll a plugin back");
        let Parameters { lose_writes, to, .. } = Parameters::of(call.query, &[Parameter::LoseWrites, Parameter::To])?;
        let change = self.runtime.lifecycle().roll_back(&name, lose_writes, to).await?;
        Ok(json(StatusCode::OK, &change))
    }

    pub(super) async fn reset(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let name = call.name()?;
        tracing::info!(plugin = &*name, key = call.caller.name, "asked to reset a plugin");
        let lose_writes = Parameters::of(call.query, &[Parameter::LoseWrites])?.lose_writes;
        match self.runtime.lifecycle().reset(&name, lose_writes).await {
            Ok(change) => Ok(json(StatusCode::OK, &change)),
            Err(Ok(error)) => Ok(refused(&error)),
            Err(Err(failure)) => Err(failure),
        }
    }
}

pub(super) fn refused(error: &LoadError) -> Answer {
    let missing = (!error.missing.is_empty()).then(|| GrantList::from(&error.missing));
    let body = Refused { code: ErrorCode::BadRequest, message: &error.message, step: error.step, missing };
    json(StatusCode::UNPROCESSABLE_ENTITY, &body)
}
