//! Plugins as operators see and change them, and the figures of the host.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::json;

use super::keys::Caller;
use super::{Api, body};
use crate::http::response::{Answer, json};
use crate::metrics::quantile;
use crate::model::{ErrorCode, Failure};
use crate::plugin::{LoadError, MAX_COMPONENT_BYTES, Source, Step};

impl Api {
    pub(super) fn stats(&self) -> Answer {
        let (connections, users, rooms) = self.hub.counts();
        let metrics = &self.metrics;
        json(
            StatusCode::OK,
            &json!({
                "uptimeMs": self.clock.uptime_ms(),
                "sockets": metrics.connections.get(),
                "connections": connections,
                "users": users,
                "rooms": rooms,
                "eventsReceived": metrics.events_received.get(),
                "eventsRefused": metrics.events_refused.get(),
                "framesQueued": metrics.frames_queued.get(),
                "slowConnections": metrics.slow_connections.get(),
                "eventP50Us": quantile(&metrics.event_seconds, 0.5) * 1e6,
                "eventP99Us": quantile(&metrics.event_seconds, 0.99) * 1e6,
                "pluginCalls": metrics.plugin_calls.get(),
                "pluginFaults": metrics.plugin_faults.get(),
            }),
        )
    }

    pub(super) fn plugins(&self) -> Answer {
        json(StatusCode::OK, &json!({ "plugins": self.runtime.reports() }))
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
        self.runtime.unload(name).await.map(|()| json(StatusCode::OK, &json!({ "name": name })))
    }

    pub(super) async fn roll_back(&self, caller: Caller<'_>, name: &str) -> Result<Answer, Failure> {
        tracing::info!(plugin = name, key = caller.name, "asked to roll a plugin back");
        self.runtime.roll_back(name).await.map(|loaded| json(StatusCode::OK, &loaded))
    }
}

fn refused(error: &LoadError) -> Answer {
    let body = json!({ "code": "bad_request", "message": error.message, "step": error.step });
    json(StatusCode::UNPROCESSABLE_ENTITY, &body)
}
