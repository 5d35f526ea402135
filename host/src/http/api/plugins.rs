//! Plugins as operators see and change them, and the figures of the host.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::keys::Caller;
use super::{Api, body};
use crate::http::response::{Answer, json};
use crate::metrics::quantile;
use crate::model::{ErrorCode, Failure};
use crate::plugin::{LoadError, MAX_COMPONENT_BYTES, PluginReport, Source, Step};

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
        json(StatusCode::OK, &Plugins { plugins: self.runtime.reports() })
    }

    pub(super) async fn plugin(&self, name: &str) -> Result<Answer, Failure> {
        self.runtime.report(name).await.map(|report| json(StatusCode::OK, &report))
    }

    pub(super) async fn load(
        &self,
        caller: Caller<'_>,
        name: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, Failure> {
        let digest =
            request.headers().get("x-content-sha256").and_then(|digest| digest.to_str().ok()).map(str::to_owned);
        let bytes = match body::read(request.into_body(), MAX_COMPONENT_BYTES).await {
            Ok(bytes) => bytes,
            Err(too_large) if too_large.code == ErrorCode::TooLarge => {
                let message = format!("the component is larger than {MAX_COMPONENT_BYTES} bytes");
                return Ok(refused(&LoadError { step: Step::Size, message }));
            }
            Err(broken) => return Err(broken),
        };
        tracing::info!(plugin = name, key = caller.name, bytes = bytes.len(), "asked to load a plugin");
        Ok(match self.runtime.load(bytes.into(), Some(name.to_owned()), digest, Source::Api).await {
            Ok(loaded) => json(StatusCode::OK, &loaded),
            Err(error) => refused(&error),
        })
    }

    pub(super) async fn unload(&self, caller: Caller<'_>, name: &str) -> Result<Answer, Failure> {
        tracing::info!(plugin = name, key = caller.name, "asked to unload a plugin");
        self.runtime.unload(name).await.map(|()| json(StatusCode::OK, &Unloaded { name: name.to_owned() }))
    }

    pub(super) async fn roll_back(&self, caller: Caller<'_>, name: &str) -> Result<Answer, Failure> {
        tracing::info!(plugin = name, key = caller.name, "asked to roll a plugin back");
        self.runtime.roll_back(name).await.map(|loaded| json(StatusCode::OK, &loaded))
    }
}

fn refused(error: &LoadError) -> Answer {
    let body = Refused { code: ErrorCode::BadRequest, message: &error.message, step: error.step };
    json(StatusCode::UNPROCESSABLE_ENTITY, &body)
}
