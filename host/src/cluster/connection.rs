//! Connections of a node to Redis, and the time that answers may take.

use std::io;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError, RedisResult};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::config::ClusterConfig;
use super::listener::AWAY_AFTER;
use super::scripts;

/// The parts in which a time-out runs down: see [`within`].
const TURNS: u32 = 10;

/// A connection that carries commands, and what Redis publishes.
pub(super) struct Connection {
    client: Client,
    pub(super) redis: MultiplexedConnection,
    pub(super) pushes: mpsc::UnboundedReceiver<PushInfo>,
}

impl Connection {
    /// Connects to the Redis that takes writes now.
    ///
    /// # Errors
    /// Where it cannot be reached, does not answer or refuses.
    pub(super) async fn open(config: &ClusterConfig) -> anyhow::Result<Self> {
        let connected = async {
            let client = config.redis.client().await?;
            let (mut redis, pushes) = open(&client).await?;
            scripts::load_all(&mut redis).await?;
            anyhow::Ok(Self { client, redis, pushes })
        };
        within(2 * AWAY_AFTER, connected).await.context("Redis does not answer")?
    }

    /// Subscribes to channels.
    ///
    /// # Errors
    /// Where Redis does not answer or refuses.
    pub(super) async fn subscribe(&mut self, channels: &[String]) -> anyhow::Result<()> {
        let subscribed = within(AWAY_AFTER, self.redis.subscribe(channels)).await.context("Redis does not answer")?;
        subscribed.context("Redis refuses the subscription")
    }

    /// Opens a connection that shows the other nodes that this one lives, as the only subscriber to a channel.
    ///
    /// # Errors
    /// Where Redis cannot be reached, does not answer or refuses.
    pub(super) async fn show_presence(&self, channel: String) -> anyhow::Result<Presence> {
        let opened = async {
            let (mut redis, pushes) = open(&self.client).await?;
            redis.subscribe(channel).await?;
            anyhow::Ok(Presence { _redis: redis, pushes })
        };
        within(AWAY_AFTER, opened).await.context("Redis does not answer")?
    }
}

/// A connection that nothing is asked over, so that only the end of the process or of the network ends it: a slow Redis or a
/// busy machine makes the node connect again, which must not look like its death.
pub(super) struct Presence {
    _redis: MultiplexedConnection,
    pushes: mpsc::UnboundedReceiver<PushInfo>,
}

/// Waits for the end of a presence.
pub(super) async fn ended(presence: &mut Option<Presence>) {
    let Some(presence) = presence else { return std::future::pending().await };
    while presence.pushes.recv().await.is_some_and(|push| push.kind != PushKind::Disconnection) {}
}

/// A connection of its own for what takes long, as a component does, so that nothing else waits behind it.
///
/// # Errors
/// Where Redis cannot be reached, does not answer or refuses.
pub(super) async fn open_another(config: &ClusterConfig) -> anyhow::Result<MultiplexedConnection> {
    let opened = async { anyhow::Ok(open(&config.redis.client().await?).await?.0) };
    within(2 * AWAY_AFTER, opened).await.context("Redis does not answer")?
}

async fn open(client: &Client) -> RedisResult<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>)> {
    let (sender, pushes) = mpsc::unbounded_channel();
    // Answers are bounded by `within`.
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(AWAY_AFTER))
        .set_response_timeout(None)
        .set_push_sender(sender);
    Ok((client.get_multiplexed_async_connection_with_config(&settings).await?, pushes))
}

/// Bounds the time that an answer of Redis takes.
///
/// # Errors
/// Those of `answer`, and [`io::ErrorKind::TimedOut`].
pub(super) async fn answer_in_time<T>(answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let late = || RedisError::from(io::Error::new(io::ErrorKind::TimedOut, "Redis does not answer"));
    within(AWAY_AFTER, answer).await.unwrap_or_else(|| Err(late()))
}

/// Bounds the time of `work` in parts, of each of which this thread has seen the end: where a busy machine lets the whole
/// thread wait, an answer that has come meanwhile is still taken.
pub(super) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    for _ in 0..TURNS {
        if let Ok(done) = timeout(time / TURNS, &mut work).await {
            return Some(done);
        }
    }
    None
}
