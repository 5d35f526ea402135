//! State shared by all shards.

use std::sync::Arc;

use super::admission::Admission;
use super::config::ConnConfig;
use super::http::ClientConfig;
use super::state::EioSessions;
use crate::auth::Authenticator;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::model::Clock;
use crate::net::{Budget, Tls};
use crate::plugin::Runtime;

/// The state shared by all shards.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Limits and timeouts of connections.
    pub config: Arc<ConnConfig>,
    /// Settings of the client listener.
    pub client: Arc<ClientConfig>,
    /// The directory of connections and rooms.
    pub hub: Arc<Hub>,
    /// Verifies tokens.
    pub auth: Arc<Authenticator>,
    /// The features, which handle events.
    pub plugins: Runtime,
    /// The TLS of the client listener, if configured.
    pub tls: Option<Tls>,
    /// The limits of connections.
    pub admission: Arc<Admission>,
    /// The budget for incomplete input.
    pub unfinished: Budget,
    /// The polling sessions of all shards.
    pub eio_sessions: Arc<EioSessions>,
    /// The host's clock.
    pub clock: Clock,
    /// The host's metrics.
    pub metrics: Metrics,
}
