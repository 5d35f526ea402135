//! Why clients were sent what they were sent.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::oneshot;

use super::parameters::{Parameter, Parameters};
use super::route::OperatorCall;
use super::state::Api;
use crate::hub::{ShardCommand, Traced, WakeBatch};
use crate::model::{ConnId, ErrorCode, Failure, GenerationId};
use crate::net::response::{Answer, json};

/// How many events are told by default, and at most.
pub(super) const DEFAULT_LAST: u64 = 20;
pub(super) const MAX_LAST: u64 = 1000;

/// Events that were sent to clients.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SentEvents {
    /// The newest first, of each connection.
    events: Vec<SentEvent>,
}

/// An event that was sent to a client, and what it comes from.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SentEvent {
    /// The connection that got it.
    connection: String,
    /// Its name.
    event: String,
    /// Its number, as in the offset that Socket.IO's clients keep.
    offset: String,
    /// What it comes from, if that is known: another node of the cluster may have made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Origin>,
}

/// What an event comes from.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Cause")]
struct Origin {
    /// The build of the feature; none where a service has emitted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<GenerationId>,
    /// The event that the feature handled.
    event: String,
    /// The user or the service that this came from, if it came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    /// The scope that handled it.
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    /// Its number among the events of the scope.
    sequence: u64,
    /// When, in milliseconds since 1970.
    at_ms: u64,
}

impl SentEvent {
    fn of(connection: ConnId, traced: Traced) -> Self {
        let cause = traced.cause.map(|cause| Origin {
            build: cause.build.as_ref().map(|build| GenerationId::clone(build)),
            event: cause.event.to_string(),
            sender: cause.sender.as_ref().map(ToString::to_string),
            scope: cause.scope.to_string(),
            sequence: cause.sequence,
            at_ms: cause.at_ms,
        });
        let (event, offset) = (traced.event.to_string(), format!("{:x}", traced.number));
        Self { connection: connection.to_string(), event, offset, cause }
    }
}

impl Api {
    /// What a connection was sent lately.
    pub(super) async fn why_connection(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let id = &*call.name()?;
        let here = id.parse().ok().filter(|id| self.hub.identity(*id).is_some());
        self.why(here.into_iter().collect(), format!("there is no connection {id:?} on this host"), call.query).await
    }

    /// What all connections of a user on this host were sent lately.
    pub(super) async fn why_user(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let user = &*call.name()?;
        let nobody = format!("the user {user:?} is not connected to this host");
        self.why(self.hub.connections_of(user), nobody, call.query).await
    }

    async fn why(&self, connections: Vec<ConnId>, nobody: String, query: Option<&str>) -> Result<Answer, Failure> {
        let last = Parameters::of(query, &[Parameter::Last])?.last.unwrap_or(DEFAULT_LAST);
        if last > MAX_LAST {
            let message = format!("last is {last}, and must be a number of events, 1 to {MAX_LAST}");
            return Err(Failure::new(ErrorCode::BadRequest, message));
        }
        if connections.is_empty() {
            let elsewhere = if self.runtime.cluster().is_some() { ": ask the other nodes of the cluster" } else { "" };
            return Err(Failure::new(ErrorCode::NotFound, nobody + elsewhere));
        }
        let most = last as usize;
        let mut events = Vec::new();
        for connection in connections {
            let (answer, traced) = oneshot::channel();
            let Some(shard) = self.hub.queue_of(connection) else { continue };
            let wakes = WakeBatch::default();
            shard.push_quietly(ShardCommand::Trace { connection, most, answer }, &wakes);
            wakes.wake();
            // A connection may have ended meanwhile.
            let traced = traced.await.unwrap_or_default();
            events.extend(traced.into_iter().map(|traced| SentEvent::of(connection, traced)));
        }
        Ok(json(StatusCode::OK, &SentEvents { events }))
    }
}
