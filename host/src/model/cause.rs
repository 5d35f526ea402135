//! What an outgoing event comes from.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

/// What identifies a generation of a plugin wherever it is spoken of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Generation")]
pub struct GenerationId {
    /// The plugin's name.
    pub name: String,
    /// The version that this build gives itself.
    pub version: String,
    /// Its number among the builds of this plugin that were ever installed on this host, from 1.
    pub generation: u64,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
}

/// What an outgoing event comes from: the event that a build of a feature handled, or the call of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The build; none where a service has emitted straight to connections.
    pub build: Option<Arc<GenerationId>>,
    /// The name of the event that it handled.
    pub event: Arc<str>,
    /// The user or the service that the event came from, if it came from one.
    pub sender: Option<Arc<str>>,
    /// The scope that handled it.
    pub scope: Arc<str>,
    /// The number of the event among those of the scope, from 1.
    pub sequence: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}
