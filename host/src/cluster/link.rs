//! The thread that keeps the connection to Redis.
//!
//! Commands are pipelined and answered in order. Those that must not be lost are kept until they are answered, and asked
//! again over the next connection: each is safe to ask twice. A command that takes longer than a second counts as an end of
//! the connection: a Redis that hangs is a Redis that is away.
//!
//! The thread's loop is here; `answers` takes in what Redis answers, `messages` what it publishes, and `membership` has the
//! beats of this node and of the others.

mod answers;
mod membership;
mod messages;

pub(super) use self::membership::random_text;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use redis::{Cmd, RedisResult, Value};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::command::{Command, Lasting, Task};
use super::config::ClusterConfig;
use super::connection::{self, Connection, Presence};
use super::inbox::{Forwarded, Outputs};
use super::keys::Keys;
use super::listener::Listener;
use super::nodes::{BEAT_MS, LOOK_MS, Observer};
use super::ops::{self, EventId};
use super::partition::Partition;
use super::peers::Peers;
use super::scripts::{self, call};
use super::status::Status;
use crate::metrics::ClusterMetrics;
use crate::model::{NodeId, spawn_essential};

/// The most commands of one pipeline, and the most pipelines that wait for answers.
const PIPELINE: usize = 256;
const IN_FLIGHT: usize = 64;

/// The pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A command to Redis whose answer is awaited.
#[derive(Debug)]
enum Op {
    /// The first of those that are asked again until they are answered.
    Lasting,
    Beat,
    /// The nodes whose connections are looked at.
    Look(Vec<NodeId>),
    GiveUp(NodeId),
    Leave,
    /// Reads the messages of a partition that were missed.
    ReadOutputs(Partition),
    /// Checks a partition, and reads the events that wait for it.
    Check(Partition),
    Revive,
    /// Its answer does not matter.
    Other,
}

/// A partition that this node owns, or is taking.
#[derive(Debug)]
struct Owned {
    epoch: u64,
    /// The last batch that was answered.
    answered: u64,
    forwarded: Forwarded,
}

type Sent = (Vec<Op>, RedisResult<Vec<Value>>);

/// The connection, and all that is asked over it.
pub(super) struct Link {
    runtime: Option<Runtime>,
    config: ClusterConfig,
    keys: Keys,
    connection: Connection,
    /// From when the node has its number.
    presence: Option<Presence>,
    commands: mpsc::UnboundedSender<Command>,
    queue: mpsc::UnboundedReceiver<Command>,
    status: Arc<Status>,
    peers: Arc<Peers>,
    metrics: ClusterMetrics,
    me: NodeId,
    /// The node's name with a random text, as it was registered.
    registered: String,
    /// See [`Keys::run`].
    run: Vec<u8>,
    observer: Observer,
    started: Instant,
    /// Commands to send.
    outgoing: VecDeque<(Op, Cmd)>,
    /// Those that are asked again until they are answered, in order.
    lasting: VecDeque<Lasting>,
    owned: HashMap<Partition, Owned>,
    outputs: Outputs,
    /// The highest epoch that this node has seen.
    epoch: u64,
    /// Until when no news of nodes is told, because Redis has lost the cluster's data and the others have to put theirs back.
    settles_at: u64,
    /// Nodes that have gone, each with when that was noticed.
    gone: HashMap<NodeId, u64>,
    /// Whether a beat is due before its time.
    is_beat_due: bool,
    is_leaving: bool,
    /// The number of the partition that was checked last.
    checked: u8,
    listener: Option<Arc<dyn Listener>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// Where Redis cannot be reached or refuses.
    pub(super) fn connect(
        config: ClusterConfig,
        (commands, queue): (mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>),
        status: Arc<Status>,
        peers: Arc<Peers>,
        metrics: ClusterMetrics,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let keys = Keys::new(&config.name);
        let connection = runtime
            .block_on(Connection::open(&config))
            .with_context(|| format!("cannot join the cluster {}: cluster.redis is {}", config.name, config.redis))?;
        Ok(Self {
            runtime: Some(runtime),
            config,
            keys,
            connection,
            presence: None,
            commands,
            queue,
            status,
            peers,
            metrics,
            me: NodeId::default(),
            registered: String::new(),
            run: Vec::new(),
            observer: Observer::default(),
            started: Instant::now(),
            outgoing: VecDeque::new(),
            lasting: VecDeque::new(),
            owned: HashMap::new(),
            outputs: Outputs::default(),
            epoch: 0,
            settles_at: 0,
            gone: HashMap::new(),
            is_beat_due: false,
            is_leaving: false,
            checked: 0,
            listener: None,
        })
    }

    /// Registers this node, and starts the thread.
    ///
    /// # Errors
    /// Where Redis refuses, or the thread cannot be started.
    pub(super) fn start(
        mut self,
        joined: impl FnOnce(NodeId),
        listener: Arc<dyn Listener>,
    ) -> anyhow::Result<JoinHandle<()>> {
        self.listener = Some(listener);
        let runtime = self.runtime.take().context("the link is started once")?;
        runtime.block_on(async {
            // The connection may have broken while the plugins were loaded.
            self.connection = Connection::open(&self.config).await?;
            self.register().await?;
            self.presence = Some(subscribe(&mut self.connection, &self.keys, self.me).await?);
            anyhow::Ok(())
        })?;
        joined(self.me);
        self.status.is_up.store(true, Ordering::Release);
        // Before clients and services come: without a view, what is for all nodes would be for this one alone.
        runtime.block_on(self.look_around())?;
        let thread = thread::Builder::new().name("cluster".to_owned());
        Ok(spawn_essential(thread, move || runtime.block_on(self.serve()))?)
    }

    /// Sees who else is there. In an empty Redis that takes as long as others may need to put back what they know.
    async fn look_around(&mut self) -> anyhow::Result<()> {
        let mut beat = ticks(Duration::from_millis(BEAT_MS));
        while self.status.view.load().nodes.is_empty() {
            beat.tick().await;
            self.beat();
            while !self.outgoing.is_empty() {
                let (ops, answers) = self.send().await;
                for (op, answer) in ops.into_iter().zip(answers?) {
                    self.answered(op, &answer).await?;
                }
            }
        }
        Ok(())
    }

    async fn serve(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            match self.serve_connection().await {
                Ok(()) => return,
                Err(error) if self.is_leaving => {
                    return tracing::warn!(%error, "Redis is away: the others notice by themselves that this node left");
                }
                Err(error) => tracing::warn!(%error, redis = %self.config.redis, "Redis is away: connecting again"),
            }
            self.status.is_up.store(false, Ordering::Release);
            self.metrics.redis_up.set(0);
            self.tell(|listener| listener.reachable(false));
            // What Redis refuses again and again must not keep both busy.
            pause = if begun.elapsed() < LONGEST_PAUSE { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
            if !self.reconnect(pause).await {
                return;
            }
            self.status.is_up.store(true, Ordering::Release);
            tracing::info!(redis = %self.config.redis, "Redis is back");
            self.tell(|listener| listener.reachable(true));
        }
    }

    /// Connects again, and asks again what was not answered. Returns false if the host ends meanwhile.
    async fn reconnect(&mut self, mut pause: Duration) -> bool {
        loop {
            if !self.wait_accepting(pause).await {
                return false;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            let attempt = async {
                let mut connection = Connection::open(&self.config).await?;
                let presence = subscribe(&mut connection, &self.keys, self.me).await?;
                anyhow::Ok((connection, presence))
            };
            match attempt.await {
                Ok((connection, presence)) => {
                    // The former presence ends only now, so the others never miss it.
                    (self.connection, self.presence) = (connection, Some(presence));
                    break;
                }
                Err(error) => tracing::debug!(%error, "Redis is still away"),
            }
        }
        self.observer.forgive(self.now());
        self.outgoing.clear();
        // The beat comes first: it says whether Redis has lost everything, or the others gave this node up.
        self.beat();
        // All that is not answered is forwarded again, in its order.
        self.lasting.retain(|command| !matches!(command, Lasting::Forward { .. }));
        for at in 0..self.lasting.len() {
            let cmd = self.cmd_of(&self.lasting[at]);
            self.outgoing.push_back((Op::Lasting, cmd));
        }
        let owned: Vec<_> = self.owned.keys().copied().collect();
        owned.into_iter().for_each(|partition| self.check(partition));
        // What the other owners have committed since comes behind what this node committed before.
        Partition::all().for_each(|partition| self.read_outputs(partition));
        Partition::all().for_each(|partition| self.tell(|listener| listener.missing(partition, 0)));
        true
    }

    /// Takes commands in for a time. Returns false if the host ends meanwhile.
    async fn wait_accepting(&mut self, time: Duration) -> bool {
        let until = tokio::time::Instant::now() + time;
        loop {
            match tokio::time::timeout_at(until, self.queue.recv()).await {
                Ok(None | Some(Command::Leave)) => return false,
                Ok(Some(command)) => self.accept(command),
                Err(_) => return true,
            }
        }
    }

    /// Serves until the connection ends with an error, or the node has left.
    async fn serve_connection(&mut self) -> anyhow::Result<()> {
        self.metrics.redis_up.set(1);
        let mut in_flight: FuturesOrdered<BoxFuture<'static, Sent>> = FuturesOrdered::new();
        let (mut beat, mut look) = (ticks(Duration::from_millis(BEAT_MS)), ticks(Duration::from_millis(LOOK_MS)));
        let mut commands = Vec::new();
        loop {
            if std::mem::take(&mut self.is_beat_due) {
                self.beat();
            }
            while !self.outgoing.is_empty() && in_flight.len() < IN_FLIGHT {
                in_flight.push_back(self.send());
            }
            tokio::select! {
                Some((ops, answers)) = in_flight.next(), if !in_flight.is_empty() => {
                    let answers = answers?;
                    for (op, answer) in ops.into_iter().zip(answers) {
                        if self.answered(op, &answer).await? {
                            return Ok(());
                        }
                    }
                }
                push = self.connection.pushes.recv() => match push {
                    Some(push) => self.pushed(&push)?,
                    None => bail!("the connection has ended"),
                },
                () = connection::ended(&mut self.presence) => bail!("the connection that shows the node's presence has ended"),
                n = self.queue.recv_many(&mut commands, PIPELINE) => {
                    if n == 0 {
                        return Ok(());
                    }
                    for command in commands.drain(..) {
                        self.accept(command);
                    }
                }
                _ = beat.tick() => {
                    self.beat();
                    self.trim();
                    self.forget_gone();
                    self.check_next();
                }
                _ = look.tick() => self.look(),
            }
        }
    }

    /// Sends what waits at once.
    fn send(&mut self) -> BoxFuture<'static, Sent> {
        let n = self.outgoing.len().min(PIPELINE);
        let (ops, commands): (Vec<Op>, Vec<Cmd>) = self.outgoing.drain(..n).unzip();
        let (mut redis, lag) = (self.connection.redis.clone(), self.metrics.lag.clone());
        let sent = Instant::now();
        Box::pin(async move {
            let answers = redis.ask_all(commands).await;
            lag.observe(sent.elapsed().as_secs_f64());
            (ops, answers)
        })
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Ask { id, nodes, request } => {
                for node in nodes {
                    self.publish(node, ops::QUESTION, id, &request);
                }
            }
            Command::Answer { id, node, answer } => self.publish(node, ops::ANSWER, id, &answer),
            Command::Run(Task(task)) => drop(tokio::spawn(task)),
            Command::Leave => {
                self.is_leaving = true;
                let mut cmd = call(&scripts::GIVE_UP, &[self.keys.nodes(), self.keys.beats()]);
                cmd.arg(self.me.0).arg("").arg(self.keys.news());
                self.outgoing.push_back((Op::Leave, cmd));
            }
            // What was asked for a former number is as if it had never been: its node has gone.
            Command::Lasting(me, _) if me != self.me => {}
            Command::Lasting(_, command) => {
                if let Lasting::Take(partition) = command {
                    let owned = Owned { epoch: 0, answered: 0, forwarded: Forwarded::taking() };
                    self.owned.insert(partition, owned);
                }
                let cmd = self.cmd_of(&command);
                self.lasting.push_back(command);
                self.outgoing.push_back((Op::Lasting, cmd));
            }
        }
    }

    fn cmd_of(&self, command: &Lasting) -> Cmd {
        match command {
            Lasting::Take(partition) => ops::take(&self.keys, *partition, self.me, self.epoch),
            Lasting::Commit(commit) => ops::commit(&self.keys, self.me, commit),
            Lasting::Heal(heal) => ops::heal(&self.keys, self.me, heal),
            Lasting::Forward { partition, number, before, event } => {
                let id = EventId { origin: self.me, number: *number };
                ops::forward(&self.keys, *partition, id, *before, event)
            }
        }
    }

    fn tell(&self, news: impl FnOnce(&dyn Listener)) {
        if let Some(listener) = &self.listener {
            news(&**listener);
        }
    }

    /// Milliseconds on this node's own clock, which is never set.
    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Listens to what concerns the node of this number, and shows that it lives.
async fn subscribe(connection: &mut Connection, keys: &Keys, me: NodeId) -> anyhow::Result<Presence> {
    connection.subscribe(&[keys.channel(me), keys.news()]).await?;
    connection.show_presence(keys.presence(me)).await
}
