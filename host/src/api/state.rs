//! State shared by all calls.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;

use super::idempotency::Idempotency;
use super::keys::ApiConfig;
use crate::auth::Blocks;
use crate::cluster::Cluster;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::model::Clock;
use crate::net::{Budget, Tls};
use crate::plugin::Runtime;

/// How long a call waits for a shard, which runs its commands within milliseconds, and the interval of polling.
const SHARD_WAIT: Duration = Duration::from_secs(1);
const SHARD_POLL: Duration = Duration::from_millis(1);

/// The API.
#[derive(Debug)]
pub struct Api {
    pub(super) config: ApiConfig,
    pub(super) tls: Option<Tls>,
    pub(super) runtime: Runtime,
    /// The cluster; none if the host is alone.
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) hub: Arc<Hub>,
    pub(super) blocks: Blocks,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) idempotency: Idempotency,
    /// Bytes of requests that are incomplete or being answered.
    pub(super) budget: Budget,
    /// The description of the API, as encoded JSON.
    pub(super) description: Bytes,
    /// Whether `/readyz` answers that the host is ready.
    pub(super) ready: AtomicBool,
}

/// Waits for shards until nothing is pending. Returns false if something still is after [`SHARD_WAIT`].
pub(super) async fn wait_while(is_pending: impl Fn() -> bool) -> bool {
    let mut waited = Duration::ZERO;
    while is_pending() {
        if waited >= SHARD_WAIT {
            return false;
        }
        tokio::time::sleep(SHARD_POLL).await;
        waited += SHARD_POLL;
    }
    true
}
