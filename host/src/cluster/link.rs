//! The thread that keeps the connection to Redis.
//!
//! Commands are pipelined and answered in order. Those that must not be lost are kept until they are answered, and asked
//! again over the next connection: each is safe to ask twice. A command that takes longer than a second counts as an end of
//! the connection: a Redis that hangs is a Redis that is away.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, PushInfo, PushKind, RedisResult, Value};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::command::{Command, Lasting, Task};
use super::config::ClusterConfig;
use super::inbox::{Arrival, Forwarded, Outputs};
use super::keys::Keys;
use super::listener::{AWAY_AFTER, Listener, Responder};
use super::nodes::{BEAT_MS, LOOK_MS, NodeInfo, Observer, View};
use super::ops::{self, Commit, Committed, EventId, MessageId};
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

/// How long the nodes have to put back what they know, after Redis has lost everything, before partitions are taken.
const SETTLE_MS: u64 = 2000;

/// How many partitions are checked with each beat: all of them within half a minute.
const CHECKED_AT_ONCE: usize = 4;

/// After which time what partitions have of a node that has gone is removed.
const FORGET_AFTER_MS: u64 = 10_000;

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
    redis: MultiplexedConnection,
    pushes: mpsc::UnboundedReceiver<PushInfo>,
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
        let (redis, pushes) = runtime
            .block_on(connect(&config))
            .with_context(|| format!("cannot join the cluster {}: cluster.redis is {}", config.name, config.redis))?;
        Ok(Self {
            runtime: Some(runtime),
            config,
            keys,
            redis,
            pushes,
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
            (self.redis, self.pushes) = connect(&self.config).await?;
            self.register().await?;
            subscribe(&mut self.redis, &self.keys, self.me).await
        })?;
        joined(self.me);
        self.status.is_up.store(true, Ordering::Release);
        let thread = thread::Builder::new().name("cluster".to_owned());
        Ok(spawn_essential(thread, move || runtime.block_on(self.serve()))?)
    }

    async fn register(&mut self) -> anyhow::Result<()> {
        let (keys, name) = (&self.keys, &self.config.node);
        self.registered = format!("{name}\0{}", random_text());
        let mut cmd = call(&scripts::REGISTER, &[keys.nodes(), keys.beats(), keys.run(), keys.number()]);
        let begin = u16::from_le_bytes([random_bytes()[0], random_bytes()[1]]);
        cmd.arg(&self.registered).arg(random_text()).arg(begin).arg(keys.news());
        let answer = self.redis.send_packed_command(&cmd).await?;
        let [number, run] = ops::items(&answer)? else { bail!("Redis answers {answer:?}") };
        (self.me, self.run) = (NodeId(u16::try_from(ops::number(number)?)?), ops::octets(run)?.to_vec());
        self.status.me.store(self.me.0, Ordering::Release);
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
                let (mut redis, pushes) = connect(&self.config).await?;
                subscribe(&mut redis, &self.keys, self.me).await?;
                anyhow::Ok((redis, pushes))
            };
            match attempt.await {
                Ok((redis, pushes)) => {
                    (self.redis, self.pushes) = (redis, pushes);
                    break;
                }
                Err(error) => tracing::debug!(%error, "Redis is still away"),
            }
        }
        self.observer.forgive(self.now());
        self.outgoing.clear();
        // The beat comes first: it says whether Redis has lost everything, or the others gave this node up.
        self.beat();
        // What the nodes wait for is asked for last, so that this node's own commits come before those that followed.
        for partition in Partition::all() {
            self.outputs.begin_reading(partition);
        }
        // All that is not answered is forwarded again, in its order.
        self.lasting.retain(|command| !matches!(command, Lasting::Forward { .. }));
        for at in 0..self.lasting.len() {
            let cmd = self.cmd_of(&self.lasting[at]);
            self.outgoing.push_back((Op::Lasting, cmd));
        }
        let owned: Vec<_> = self.owned.keys().copied().collect();
        owned.into_iter().for_each(|partition| self.check(partition));
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
                push = self.pushes.recv() => match push {
                    Some(push) => self.pushed(&push)?,
                    None => bail!("the connection has ended"),
                },
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

    /// Sends what waits as one pipeline.
    fn send(&mut self) -> BoxFuture<'static, Sent> {
        let n = self.outgoing.len().min(PIPELINE);
        let mut pipeline = Pipeline::with_capacity(n);
        pipeline.ignore_errors();
        let ops = self.outgoing.drain(..n).map(|(op, cmd)| {
            pipeline.add_command(cmd);
            op
        });
        let ops: Vec<Op> = ops.collect();
        let mut redis = self.redis.clone();
        Box::pin(async move {
            let answers = redis.send_packed_commands(&pipeline, 0, ops.len()).await;
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

    /// Takes an answer in. Returns whether the node has left.
    async fn answered(&mut self, op: Op, answer: &Value) -> anyhow::Result<bool> {
        if let Value::ServerError(error) = answer {
            bail!("Redis refuses {op:?}: {}", error.details().unwrap_or(error.code()));
        }
        match op {
            Op::Lasting => {
                let Some(command) = self.lasting.pop_front() else { return Ok(false) };
                self.done(command, answer)?;
            }
            Op::Beat => self.beaten(answer).await?,
            Op::Look(nodes) => {
                let now = self.now();
                for (node, pair) in nodes.into_iter().zip(ops::items(answer)?.chunks(2)) {
                    let is_heard = ops::number(&pair[1]).is_ok_and(|heard| heard > 0);
                    self.observer.note_connection(now, node, is_heard);
                }
                self.give_up_gone();
            }
            Op::GiveUp(node) => {
                if ops::number(answer)? > 0 {
                    tracing::warn!(node = node.0, "a node of the cluster has gone");
                    self.metrics.gone.inc();
                }
                self.beat();
            }
            Op::ReadOutputs(partition) => {
                let read = ops::items(answer)?.iter().map(read_message).collect::<anyhow::Result<Vec<_>>>()?;
                for output in self.outputs.read(partition, read) {
                    self.tell(|listener| listener.output(partition, output));
                }
            }
            Op::Check(partition) => self.checked(partition, answer)?,
            Op::Revive => {
                self.run = ops::octets(answer)?.to_vec();
                self.beat();
            }
            Op::Leave => return Ok(true),
            Op::Other => {}
        }
        Ok(false)
    }

    fn done(&mut self, command: Lasting, answer: &Value) -> anyhow::Result<()> {
        match command {
            Lasting::Take(partition) => {
                let snapshot = ops::snapshot(partition, answer)?;
                self.epoch = self.epoch.max(snapshot.epoch);
                let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
                (owned.epoch, owned.answered) = (snapshot.epoch, snapshot.sequence);
                let since = owned.forwarded.taken(&snapshot.forwarded);
                self.metrics.takeovers.inc();
                let now = self.now();
                let view = self.status.view.load();
                let unknown = snapshot.forwarded.keys().filter(|node| !view.nodes.contains_key(node));
                for node in unknown {
                    self.gone.entry(*node).or_insert(now);
                }
                // Members may be of nodes that have gone, or of ones that are newer than the view.
                self.is_beat_due = true;
                self.tell(|listener| listener.taken(snapshot));
                self.deliver(partition, since);
            }
            Lasting::Commit(commit) => self.committed(&commit, ops::committed(answer)?),
            Lasting::Heal(heal) => {
                let answer = ops::committed(answer)?;
                self.committed(&heal.commit, answer);
                if answer == Committed::Done {
                    self.metrics.healed.inc();
                    // Events that came meanwhile are read now.
                    self.check(heal.commit.partition);
                }
            }
            Lasting::Forward { partition, .. } => match ops::items(answer)?.first().map(ops::octets).transpose()? {
                Some(b"gap") => {
                    let last = ops::items(answer)?.get(1).map_or(Ok(0), ops::number)?;
                    self.tell(|listener| listener.missing(partition, last));
                }
                _ => self.metrics.forwarded.inc(),
            },
        }
        Ok(())
    }

    fn committed(&mut self, commit: &Commit, answer: Committed) {
        let Commit { partition, epoch, sequence, .. } = *commit;
        match answer {
            Committed::Done => {
                self.metrics.commits.inc();
                if let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.epoch == epoch) {
                    owned.answered = owned.answered.max(sequence);
                }
            }
            Committed::Fenced { .. } => self.fenced(partition, epoch),
            Committed::Lost => {}
        }
        self.tell(|listener| listener.committed(partition, epoch, sequence, answer));
    }

    fn fenced(&mut self, partition: Partition, epoch: u64) {
        if self.owned.get(&partition).is_some_and(|owned| owned.epoch == epoch) {
            self.owned.remove(&partition);
            self.metrics.fenced.inc();
            // The view that made another node take it may be news.
            self.is_beat_due = true;
        }
    }

    fn checked(&mut self, partition: Partition, answer: &Value) -> anyhow::Result<()> {
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.epoch > 0) else { return Ok(()) };
        let (epoch, answered) = (owned.epoch, owned.answered);
        match ops::committed(answer)? {
            Committed::Done => {
                let waiting = ops::items(answer)?.get(1).map_or_else(|| Ok(BTreeMap::new()), ops::waiting)?;
                let events = owned.forwarded.read(waiting);
                self.deliver(partition, events);
            }
            other => {
                if other != Committed::Lost {
                    self.fenced(partition, epoch);
                }
                self.tell(|listener| listener.committed(partition, epoch, answered, other));
            }
        }
        Ok(())
    }

    fn deliver(&self, partition: Partition, events: Vec<(EventId, Bytes)>) {
        for (id, event) in events {
            self.tell(|listener| listener.event(partition, id, event));
        }
    }

    /// Takes in what Redis publishes.
    fn pushed(&mut self, push: &PushInfo) -> anyhow::Result<()> {
        match (&push.kind, &push.data[..]) {
            (PushKind::Disconnection, _) => bail!("the connection has ended"),
            (PushKind::Message, [channel, message]) => {
                let message = Bytes::copy_from_slice(ops::octets(message)?);
                match ops::octets(channel)? == self.keys.news().as_bytes() {
                    true => self.is_beat_due = true,
                    false => drop(self.received(&message)),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes in a message on this node's channel. `None` if it is cut short.
    fn received(&mut self, message: &Bytes) -> Option<()> {
        let number = |at: usize| Some(u64::from_be_bytes(message.get(at..at + 8)?.try_into().ok()?));
        match *message.first()? {
            ops::OUTPUT => {
                let (partition, ids) = (Partition(*message.get(1)?), message.get(2..)?);
                let id = MessageId::from_bytes(ids)?;
                let before = MessageId::from_bytes(ids.get(MessageId::BYTES..)?)?;
                let output = message.slice(2 + 2 * MessageId::BYTES..);
                match self.outputs.receive(partition, id, before, output) {
                    Arrival::Next(output) => self.tell(|listener| listener.output(partition, output)),
                    Arrival::Missing(_) => self.read_outputs(partition),
                    Arrival::Nothing => {}
                }
            }
            // Without an event of its own the owner would not notice.
            ops::TAKEN => self.check(Partition(*message.get(1)?)),
            ops::EVENT => {
                let partition = Partition(*message.get(1)?);
                let origin = NodeId(u16::from_be_bytes(message.get(2..4)?.try_into().ok()?));
                let id = EventId { origin, number: number(4)? };
                let owned = self.owned.get_mut(&partition)?;
                let (event, is_missing) = owned.forwarded.receive(id, number(12)?, message.slice(20..));
                self.deliver(partition, event.map(|event| (id, event)).into_iter().collect());
                if is_missing {
                    self.check(partition);
                }
            }
            kind @ (ops::QUESTION | ops::ANSWER) => {
                let from = NodeId(u16::from_be_bytes(message.get(1..3)?.try_into().ok()?));
                let (id, body) = (number(3)?, message.slice(11..));
                if kind == ops::ANSWER {
                    self.peers.answered(id, from, body);
                } else if let Some(listener) = &self.listener {
                    listener.ask(&body, Responder { commands: self.commands.clone(), node: from, id });
                }
            }
            _ => {}
        }
        Some(())
    }

    fn publish(&mut self, node: NodeId, kind: u8, id: u64, body: &[u8]) {
        let mut message = vec![kind];
        message.extend_from_slice(&self.me.0.to_be_bytes());
        message.extend_from_slice(&id.to_be_bytes());
        message.extend_from_slice(body);
        let mut cmd = redis::cmd("PUBLISH");
        cmd.arg(self.keys.channel(node)).arg(message);
        self.outgoing.push_back((Op::Other, cmd));
    }

    fn beat(&mut self) {
        let mut cmd = call(&scripts::BEAT, &[self.keys.nodes(), self.keys.beats(), self.keys.run()]);
        cmd.arg(self.me.0).arg(&self.registered);
        self.outgoing.push_back((Op::Beat, cmd));
    }

    async fn beaten(&mut self, answer: &Value) -> anyhow::Result<()> {
        let [known, run, lists @ ..] = ops::items(answer)? else { bail!("Redis answers {answer:?}") };
        let is_same = ops::octets(run).is_ok_and(|run| run == self.run);
        let is_known = ops::number(known)? > 0;
        if !is_same {
            self.revive();
            return Ok(());
        }
        let [names, beats] = lists else {
            return if is_known { Ok(()) } else { self.begin_anew().await };
        };
        let now = self.now();
        let beats = ops::pairs(ops::items(beats)?)?.into_iter();
        let beats = beats.map(|(node, beats)| Ok((NodeId(ops::text_number(node)?), ops::text_number(beats)?)));
        let mut beats = beats.collect::<anyhow::Result<HashMap<_, _>>>()?;
        beats.remove(&self.me);
        self.observer.note_beats(now, &beats);
        let names = ops::pairs(ops::items(names)?)?.into_iter();
        let nodes = names.map(|(node, name)| {
            let registered = String::from_utf8_lossy(name).into_owned();
            let name = registered.split('\0').next().unwrap_or_default().to_owned();
            Ok((NodeId(ops::text_number(node)?), NodeInfo { name, registered }))
        });
        let view = Arc::new(View { nodes: nodes.collect::<anyhow::Result<_>>()? });
        if now < self.settles_at {
            return Ok(());
        }
        self.metrics.nodes.set(view.nodes.len() as i64);
        let before = self.status.view.swap(view.clone());
        for node in before.nodes.keys().filter(|node| !view.nodes.contains_key(node)) {
            self.gone.insert(*node, now);
        }
        self.tell(|listener| listener.nodes(&view));
        self.give_up_gone();
        Ok(())
    }

    /// Redis has lost everything: this node puts the nodes back, and heals its partitions.
    fn revive(&mut self) {
        tracing::error!("Redis has lost the cluster's data: this node puts what it knows of it back");
        let keys = [self.keys.nodes(), self.keys.beats(), self.keys.run(), self.keys.number()];
        let view = self.status.view.load_full();
        let highest = view.nodes.keys().map(|node| node.0).max().unwrap_or(0).max(self.me.0);
        let mut cmd = call(&scripts::REVIVE, &keys);
        cmd.arg(random_text()).arg(highest);
        cmd.arg(self.me.0).arg(&self.registered);
        for (node, info) in view.nodes.iter().filter(|(node, _)| **node != self.me) {
            cmd.arg(node.0).arg(&info.registered);
        }
        self.settles_at = self.now() + SETTLE_MS;
        self.outgoing.push_back((Op::Revive, cmd));
        let owned: Vec<_> = self.owned.keys().copied().collect();
        owned.into_iter().for_each(|partition| self.check(partition));
    }

    /// The others gave this node up, so it begins anew under another number.
    async fn begin_anew(&mut self) -> anyhow::Result<()> {
        tracing::error!(
            node = self.me.0,
            "the other nodes gave this one up, which begins anew: its clients connect again"
        );
        self.metrics.reborn.inc();
        // Nothing of the old number counts any more.
        self.lasting.clear();
        self.outgoing.clear();
        self.owned.clear();
        self.outputs.clear();
        self.register().await?;
        self.tell(|listener| listener.reborn(self.me));
        // Answers to what was asked before would be taken for those to what is asked now.
        bail!("a new number needs a new connection")
    }

    fn look(&mut self) {
        let view = self.status.view.load();
        let nodes: Vec<NodeId> = view.nodes.keys().copied().filter(|node| *node != self.me).collect();
        if nodes.is_empty() {
            return;
        }
        let mut cmd = redis::cmd("PUBSUB");
        cmd.arg("NUMSUB").arg(nodes.iter().map(|node| self.keys.channel(*node)).collect::<Vec<_>>());
        self.outgoing.push_back((Op::Look(nodes), cmd));
    }

    fn give_up_gone(&mut self) {
        for (node, beats) in self.observer.gone(self.now()) {
            let mut cmd = call(&scripts::GIVE_UP, &[self.keys.nodes(), self.keys.beats()]);
            cmd.arg(node.0).arg(beats).arg(self.keys.news());
            self.outgoing.push_back((Op::GiveUp(node), cmd));
        }
    }

    fn read_outputs(&mut self, partition: Partition) {
        let last = self.outputs.begin_reading(partition);
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(self.keys.outputs(partition, self.me)).arg(format!("({}", last.to_text())).arg("+");
        self.outgoing.push_back((Op::ReadOutputs(partition), cmd));
    }

    fn check(&mut self, partition: Partition) {
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.epoch > 0) else { return };
        owned.forwarded.begin_reading();
        let cmd = ops::check(&self.keys, partition, self.me, owned.epoch, owned.answered);
        self.outgoing.push_back((Op::Check(partition), cmd));
    }

    /// Checks some of the partitions, each in its turn, in case that a message went astray.
    fn check_next(&mut self) {
        for _ in 0..CHECKED_AT_ONCE {
            self.checked = self.checked.wrapping_add(1);
            self.check(Partition(self.checked));
        }
    }

    /// Removes the messages that came from Redis.
    fn trim(&mut self) {
        for (partition, last) in self.outputs.take_grown() {
            let mut cmd = redis::cmd("XTRIM");
            let after = MessageId { sequence: last.sequence + 1, ..last };
            cmd.arg(self.keys.outputs(partition, self.me)).arg("MINID").arg(after.to_text());
            self.outgoing.push_back((Op::Other, cmd));
        }
    }

    /// Removes what partitions have of nodes that have gone for long.
    fn forget_gone(&mut self) {
        let now = self.now();
        let gone: Vec<_> =
            self.gone.extract_if(|_, since| now >= *since + FORGET_AFTER_MS).map(|(node, _)| node).collect();
        let view = self.status.view.load_full();
        let gone: Vec<_> = gone.into_iter().filter(|node| !view.nodes.contains_key(node)).collect();
        if gone.is_empty() {
            return;
        }
        for (partition, owned) in self.owned.iter().filter(|(_, owned)| owned.epoch > 0) {
            let cmd = ops::forget(&self.keys, *partition, self.me, owned.epoch, &gone);
            self.outgoing.push_back((Op::Other, cmd));
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

async fn connect(config: &ClusterConfig) -> anyhow::Result<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>)> {
    let (sender, pushes) = mpsc::unbounded_channel();
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(AWAY_AFTER))
        .set_response_timeout(Some(AWAY_AFTER))
        .set_push_sender(sender);
    let connected = async {
        let client = config.redis.client().await?;
        let mut redis = client.get_multiplexed_async_connection_with_config(&settings).await?;
        scripts::load_all(&mut redis).await?;
        anyhow::Ok(redis)
    };
    let redis = tokio::time::timeout(2 * AWAY_AFTER, connected).await.context("Redis does not answer")??;
    Ok((redis, pushes))
}

async fn subscribe(redis: &mut MultiplexedConnection, keys: &Keys, me: NodeId) -> anyhow::Result<()> {
    redis.subscribe(&[keys.channel(me), keys.news()]).await.context("Redis refuses the subscription")
}

fn random_text() -> String {
    uuid::Builder::from_random_bytes(random_bytes()).into_uuid().to_string()
}

fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    // Without the kernel's random numbers nothing of the host would work.
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes
}

/// A message as XRANGE returns it.
fn read_message(entry: &Value) -> anyhow::Result<(MessageId, Bytes)> {
    let [id, fields] = ops::items(entry)? else { bail!("Redis answers {entry:?}") };
    let id = MessageId::from_text(ops::octets(id)?).context("Redis answers no id")?;
    let message = ops::items(fields)?.get(1).context("Redis answers no message")?;
    Ok((id, Bytes::copy_from_slice(ops::octets(message)?)))
}
