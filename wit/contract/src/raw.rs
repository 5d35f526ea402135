//! Manifests and outcomes as a component returns them: the records of `wit/1.0` with owned fields, unchecked. A host makes
//! them from the types that its bindings generate.

use crate::Grants;

/// `manifest.manifest`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The feature's name in the API and the configuration.
    pub name: String,
    /// The semantic version of this build.
    pub version: String,
    /// One line for people.
    pub description: String,
    /// Version of the state's schema.
    pub state_version: u32,
    /// The kinds of scope.
    pub scopes: Vec<Scope>,
    /// The events that it handles.
    pub routes: Vec<Route>,
    /// The queries that it answers.
    pub queries: Vec<Query>,
    /// The events that it may emit.
    pub emits: Vec<String>,
    /// What it needs beyond its own scopes' rooms.
    pub needs: Grants,
    /// Name and JSON value of each extension.
    pub extensions: Vec<(String, String)>,
}

/// `manifest.scope`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The template of its keys.
    pub template: String,
    /// `volatile` or `durable`.
    pub durability: String,
    /// The state is dropped after this time without member, timer or event, in milliseconds.
    pub idle_ms: u64,
}

/// `manifest.route`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The event's name.
    pub event: String,
    /// The senders: `client`, `service` or `host`.
    pub origins: Vec<String>,
    /// The template of the scope that handles it.
    pub scope: String,
}

/// `manifest.query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The query's name.
    pub name: String,
    /// The template of the scope that answers; without one, all scopes answer.
    pub scope: Option<String>,
}
