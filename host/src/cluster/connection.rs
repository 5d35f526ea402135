//! Connections of a node to Redis, and the time that answers may take.

use std::io;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisError, RedisFuture, RedisResult,
    Value,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::config::{ClusterConfig, Route};
use super::listener::AWAY_AFTER;
use super::scripts;

/// The parts in which a time-out runs down: see [`within`].
const TURNS: u32 = 10;

/// A Redis, or a Redis Cluster.
#[derive(Clone)]
pub(super) enum Redis {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Redis {
    /// Connects. What Redis publishes, and the end of the connection, come by the receiver.
    async fn open(route: &Route) -> RedisResult<(Self, mpsc::UnboundedReceiver<PushInfo>)> {
        let (sender, pushes) = mpsc::unbounded_channel();
        // Answers are bounded by `within`.
        let redis = match route {
            Route::One(client) => {
                let settings = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(AWAY_AFTER))
                    .set_response_timeout(None)
                    .set_push_sender(sender);
                Self::One(client.get_multiplexed_async_connection_with_config(&settings).await?)
            }
            Route::Cluster(servers) => {
                let client = ClusterClient::builder(servers.iter().map(String::as_str))
                    .use_protocol(ProtocolVersion::RESP3)
                    .connection_timeout(AWAY_AFTER)
                    .push_sender(sender)
                    .build()?;
                Self::Cluster(client.get_async_connection().await?)
            }
        };
        Ok((redis, pushes))
    }

    /// Asks, and returns the answers in the order of the commands. The commands of a partition are done in their order.
    ///
    /// # Errors
    /// Where the connection ends, or Redis does not answer in time.
    pub(super) async fn ask_all(&mut self, commands: Vec<Cmd>) -> RedisResult<Vec<Value>> {
        match self {
            Self::One(redis) => {
                let n = commands.len();
                let mut pipeline = Pipeline::with_capacity(n);
                pipeline.ignore_errors();
                for command in commands {
                    pipeline.add_command(command);
                }
                answer_in_time(redis.send_packed_commands(&pipeline, 0, n)).await
            }
            // A pipeline of a cluster is of one slot. Each server has its connection, which keeps the order.
            Self::Cluster(redis) => {
                let asked = commands.into_iter().map(|command| {
                    let mut redis = redis.clone();
                    async move { redis.req_packed_command(&command).await }
                });
                answer_in_time(try_join_all(asked)).await
            }
        }
    }

    /// Asks.
    ///
    /// # Errors
    /// Where the connection ends, or Redis refuses or does not answer in time.
    pub(super) async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        answer_in_time(self.req_packed_command(command)).await
    }

    async fn subscribe(&mut self, channels: &[String]) -> RedisResult<()> {
        match self {
            Self::One(redis) => redis.subscribe(channels).await,
            // Each channel has a slot of its own.
            Self::Cluster(redis) => {
                for channel in channels {
                    redis.subscribe(channel).await?;
                }
                Ok(())
            }
        }
    }
}

impl ConnectionLike for Redis {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(redis) => redis.req_packed_command(cmd),
            Self::Cluster(redis) => redis.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(redis) => redis.req_packed_commands(cmd, offset, count),
            Self::Cluster(redis) => redis.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(redis) => redis.get_db(),
            Self::Cluster(redis) => redis.get_db(),
        }
    }
}

/// A connection that carries commands, and what Redis publishes.
pub(super) struct Connection {
    route: Route,
    pub(super) redis: Redis,
    pub(super) pushes: mpsc::UnboundedReceiver<PushInfo>,
}

impl Connection {
    /// Connects to the Redis that takes writes now.
    ///
    /// # Errors
    /// Where it cannot be reached, does not answer or refuses.
    pub(super) async fn open(config: &ClusterConfig) -> anyhow::Result<Self> {
        let connected = async {
            let route = config.redis.route().await?;
            let (mut redis, pushes) = Redis::open(&route).await?;
            scripts::load_all(&mut redis).await?;
            anyhow::Ok(Self { route, redis, pushes })
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
            let (mut redis, pushes) = Redis::open(&self.route).await?;
            redis.subscribe(&[channel]).await?;
            anyhow::Ok(Presence { _redis: redis, pushes })
        };
        within(AWAY_AFTER, opened).await.context("Redis does not answer")?
    }
}

/// A connection that nothing is asked over, so that only the end of the process or of the network ends it: a slow Redis or a
/// busy machine makes the node connect again, which must not look like its death.
pub(super) struct Presence {
    _redis: Redis,
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
pub(super) async fn open_another(config: &ClusterConfig) -> anyhow::Result<Redis> {
    let opened = async { anyhow::Ok(Redis::open(&config.redis.route().await?).await?.0) };
    within(2 * AWAY_AFTER, opened).await.context("Redis does not answer")?
}

/// Bounds the time that an answer of Redis takes.
///
/// # Errors
/// Those of `answer`, and [`io::ErrorKind::TimedOut`].
async fn answer_in_time<T>(answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
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
