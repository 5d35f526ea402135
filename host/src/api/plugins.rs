//! Plugins as operators see and change them, and the figures of the host.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::keys::Caller;
use super::{Api, ConfigFile, body};
use crate::metrics::quantile;
use crate::model::{ErrorCode, Failure};
use crate::net::response::{Answer, json};
use crate::plugin::{Change, Load, LoadError, PluginReport, Source, Step};

/// Figures of the host, since it was started where they only go up.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    uptime_ms: u64,
    /// WebSockets and polling sessions that are open.
    sockets: i64,
    /// Who takes part: a Socket.IO client once for each namespace, and whoever may come back.
    connections: usize,
    users: usize,
    rooms: usize,
    events_received: u64,
    events_refused: u64,
    frames_queued: u64,
    slow_connections: u64,
    #[serde(rename = "eventP50Us")]
    event_p50_us: f64,
    #[serde(rename = "eventP99Us")]
    event_p99_us: f64,
    plugin_calls: u64,
    plugin_faults: u64,
}

/// All plugins.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Plugins {
    plugins: Vec<PluginReport>,
    /// That the configuration file has changed since the host started, where it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
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
}

impl Api {
    pub(super) fn stats(&self) -> Answer {
        let (connections, users, rooms) = self.hub.counts();
        let metrics = &self.metrics;
        let stats = Stats {
            uptime_ms: self.clock.uptime_ms(),
            sockets: metrics.connections.get(),
            connections,
            users,
            rooms,
            events_received: metrics.events_received.get(),
            events_refused: metrics.events_refused.get(),
            frames_queued: metrics.frames_queued.get(),
            slow_connections: metrics.slow_connections.get(),
            event_p50_us: quantile(&metrics.event_seconds, 0.5) * 1e6,
            event_p99_us: quantile(&metrics.event_seconds, 0.99) * 1e6,
            plugin_calls: metrics.plugin_calls.get(),
            plugin_faults: metrics.plugin_faults.get(),
        };
        json(StatusCode::OK, &stats)
    }

    pub(super) fn plugins(&self) -> Answer {
        json(StatusCode::OK, &Plugins { plugins: self.runtime.reports(), notice: self.config_notice() })
    }

    /// What to say where the configuration file, from which plugins have their settings, has changed.
    fn config_notice(&self) -> Option<String> {
        self.config.file.as_ref().and_then(ConfigFile::notice)
    }

    pub(super) async fn plugin(&self, name: &str) -> Result<Answer, Failure> {
        self.runtime.report(name).await.map(|report| json(StatusCode::OK, &report))
    }

    /// Loads a component: of this name, or of the name that it gives itself.
    pub(super) async fn load(
        &self,
        caller: Caller<'_>,
        name: Option<&str>,
        query: Option<&str>,
        request: Request<Incoming>,
    ) -> Result<Answer, Failure> {
        let lose_writes = lose_writes(query)?;
        let digest =
            request.headers().get("x-content-sha256").and_then(|digest| digest.to_str().ok()).map(str::to_owned);
        let largest = self.runtime.largest_component();
        let bytes: Vec<u8> = match body::read(request, largest).await {
            Ok(bytes) => bytes.into(),
            Err(too_large) if too_large.code == ErrorCode::TooLarge => {
                let message = format!("the component is larger than {largest} bytes");
                return Ok(refused(&LoadError { step: Step::Size, message, is_passing: false }));
            }
            Err(broken) => return Err(broken),
        };
        tracing::info!(plugin = name, key = caller.name, bytes = bytes.len(), "asked to load a plugin");
        let load = Load { name: name.map(str::to_owned), digest, lose_writes, ..Load::new(bytes, Source::Api) };
        Ok(match self.runtime.load(load).await {
            Ok(change) => json(StatusCode::OK, &Change { warning: change.warning.or(self.config_notice()), ..change }),
            Err(error) => refused(&error),
        })
    }

    pub(super) async fn unload(&self, caller: Caller<'_>, name: &str) -> Result<Answer, Failure> {
        tracing::info!(plugin = name, key = caller.name, "asked to unload a plugin");
        self.runtime.unload(name).await.map(|()| json(StatusCode::OK, &Unloaded { name: name.to_owned() }))
    }

    pub(super) async fn roll_back(
        &self,
        caller: Caller<'_>,
        name: &str,
        query: Option<&str>,
    ) -> Result<Answer, Failure> {
        tracing::info!(plugin = name, key = caller.name, "asked to roll a plugin back");
        let change = self.runtime.roll_back(name, lose_writes(query)?).await?;
        Ok(json(StatusCode::OK, &change))
    }

    pub(super) async fn reset(&self, caller: Caller<'_>, name: &str, query: Option<&str>) -> Result<Answer, Failure> {
        tracing::info!(plugin = name, key = caller.name, "asked to reset a plugin");
        match self.runtime.reset(name, lose_writes(query)?).await {
            Ok(change) => Ok(json(StatusCode::OK, &change)),
            Err(Ok(error)) => Ok(refused(&error)),
            Err(Err(failure)) => Err(failure),
        }
    }
}

/// Whether a caller accepts that states are lost: the parameter `loseWrites`.
fn lose_writes(query: Option<&str>) -> Result<bool, Failure> {
    let mut lose_writes = false;
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        lose_writes = match (&*name, &*value) {
            ("loseWrites", "true") => true,
            ("loseWrites", "false") => false,
            ("loseWrites", _) => {
                let message = format!("loseWrites is {value:?}, and must be true or false");
                return Err(Failure::new(ErrorCode::BadRequest, message));
            }
            _ => {
                let message = format!("there is no parameter {name:?} here: there is loseWrites");
                return Err(Failure::new(ErrorCode::BadRequest, message));
            }
        };
    }
    Ok(lose_writes)
}

fn refused(error: &LoadError) -> Answer {
    let body = Refused { code: ErrorCode::BadRequest, message: &error.message, step: error.step };
    json(StatusCode::UNPROCESSABLE_ENTITY, &body)
}
