//! The host itself: health, figures, and the description of its API.

use std::sync::atomic::Ordering;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::state::Api;
use crate::metrics::quantile;
use crate::model::Failure;
use crate::net::response::{Answer, body, json, text};

/// Figures of the host, since it was started where they only go up.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    uptime_ms: u64,
    /// WebSockets and polling sessions that are open.
    sockets: i64,
    /// Connections: a Socket.IO client has one for each namespace. Detached ones, which may resume, count.
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

impl Api {
    pub(super) fn alive() -> Answer {
        text(StatusCode::OK, "ok\n")
    }

    pub(super) fn ready(&self) -> Answer {
        if self.cluster.as_ref().is_some_and(|cluster| !cluster.is_up()) {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the cluster's Redis is away\n")
        } else if self.ready.load(Ordering::Acquire) {
            text(StatusCode::OK, "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    }

    pub(super) fn metrics(&self) -> Answer {
        self.runtime.lifecycle().refresh_metrics();
        body(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
    }

    pub(super) fn description(&self) -> Answer {
        body(StatusCode::OK, "application/json", self.description.clone())
    }

    pub(super) async fn stats(&self) -> Result<Answer, Failure> {
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
        Ok(json(StatusCode::OK, &stats))
    }
}
