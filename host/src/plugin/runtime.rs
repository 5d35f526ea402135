//! The plugin runtime as the rest of the host sees it: events go in, plugins come and go.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use roundhouse_contract::ScopeAddress;
use tokio::sync::oneshot;

use super::event::senders::{Reservation, Senders};
use super::event::{ClientEvent, Event, Member, Once, Origin, ReplyTo};
use super::guest::engine::{self, Ticker};
use super::lifecycle::component_store::ComponentStore;
use super::lifecycle::install::Installer;
use super::lifecycle::queue::Requests;
use super::lifecycle::restore::StoredScopes;
use super::load::catalogue::Catalogue;
use super::load::loader::Loader;
use super::load::options::PluginConfig;
use super::run::gather::Gather;
use super::run::worker::{Job, Worker};
use crate::hub::{Departure, Hub, ShardCommand, WakeBatch};
use crate::metrics::Metrics;
use crate::model::{Clock, ConnId, ErrorCode, Failure, Mailbox, Payload};
use crate::store::{Outcome, Promise, Store};

/// Scopes that are asked by one query without a scope, at most.
const MAX_GATHERED_SCOPES: usize = 10_000;

/// How long a caller waits for an answer: far more than any deadline, for a queue may stand before it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The plugins of a host, and the threads that they run on. Clones share them.
#[derive(Debug, Clone)]
pub struct Runtime(pub(super) Arc<Inner>);

/// What the runtime's threads share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: Arc<PluginConfig>,
    pub(super) hub: Arc<Hub>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) ticker: Arc<Ticker>,
    pub(super) catalogue: ArcSwap<Catalogue>,
    pub(super) inboxes: Vec<Arc<Mailbox<Job>>>,
    pub(super) installer: Installer,
    pub(super) requests: Requests,
    /// Where documents and durable states go. A host that only looks at plugins has none.
    pub(super) store: Option<Arc<Store>>,
    /// What such a host looks at instead.
    pub(super) looked_at: OnceLock<Box<dyn StoredScopes>>,
    /// Whether the host ends.
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) senders: Senders,
    hasher: RandomState,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Inner {
    /// Where durable states are read from.
    pub(super) fn stored(&self) -> Option<&dyn StoredScopes> {
        let own = self.store.as_deref().map(|store| store as &dyn StoredScopes);
        own.or_else(|| self.looked_at.get().map(|stored| &**stored))
    }

    pub(super) fn inbox_of(&self, key: &str) -> &Arc<Mailbox<Job>> {
        // A scope always has the same thread, which is what orders its events.
        &self.inboxes[(self.hasher.hash_one(key) % self.inboxes.len() as u64) as usize]
    }

    /// Queues a job for each thread.
    pub(super) fn submit_to_all(&self, job: impl Fn() -> Job) {
        self.inboxes.iter().for_each(|inbox| inbox.push(job()));
    }

    /// Answers an event. A client's shard is woken with the others of `wakes`.
    pub(super) fn answer(&self, event: &str, reply: ReplyTo, outcome: Result<Payload, Failure>, wakes: &WakeBatch) {
        match reply {
            ReplyTo::Nobody => {}
            // Without an id, success is silent.
            ReplyTo::Client { id: None, .. } if outcome.is_ok() => {}
            ReplyTo::Client { connection, id, read_at } => {
                let command = ShardCommand::Reply { connection, event: event.into(), id, outcome, read_at };
                self.hub.shards()[connection.shard()].push_quietly(command, wakes);
            }
            ReplyTo::Caller { caller, .. } => {
                // Whoever asked may have gone.
                let _ = caller.send(outcome);
            }
        }
    }

    /// Tells a feature what became of a document.
    fn saved(&self, promise: Arc<Promise>, outcome: Outcome) {
        let catalogue = self.catalogue.load();
        let plugin = catalogue.plugins.get(&promise.plugin);
        let addressed = plugin.and_then(|plugin| {
            let (_, address) = plugin.current().manifest.scope_of_key(&promise.scope)?;
            Some((plugin.clone(), address))
        });
        match addressed {
            Some((plugin, address)) => {
                let event = Event::Saved { promise, outcome };
                self.submit(Job::Event { plugin, address, event, reply: ReplyTo::Nobody });
            }
            // The feature was unloaded meanwhile. It is told when it is there again.
            None => self.store.iter().for_each(|store| store.put_back(&promise)),
        }
    }

    /// Queues what must not be lost.
    pub(super) fn submit(&self, job: Job) {
        if let Job::Event { address, .. } = &job {
            self.inbox_of(&address.key).push(job);
        }
    }
}

impl Runtime {
    /// Starts the threads. No plugin is loaded yet.
    ///
    /// # Errors
    /// Where this machine cannot run WebAssembly, or a thread cannot be started.
    pub fn start(
        config: PluginConfig,
        store: Option<Arc<Store>>,
        hub: Arc<Hub>,
        clock: Clock,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let stopping = Arc::new(AtomicBool::new(false));
        let engine = engine::engine(config.most_memory()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let ticker = Arc::new(Ticker::start(engine.clone(), config.shortest_deadline())?);
        let loader = Loader::new(
            engine,
            config.cache_dir.clone(),
            ticker.clone(),
            config.clone(),
            clock.clone(),
            metrics.clone(),
            stopping.clone(),
        )
        .map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let inboxes: Vec<_> = (0..config.threads.max(1)).map(|_| Arc::new(Mailbox::unbounded())).collect();
        let components = match &config.components_dir {
            Some(dir) => ComponentStore::open(dir, config.is_read_only)
                .with_context(|| format!("cannot use the folder of installed components, {}", dir.display()))?,
            None => ComponentStore::in_memory(),
        };
        let senders = Senders::new(config.senders, metrics.clone());
        let inner = Arc::new(Inner {
            config,
            hub,
            clock,
            metrics,
            ticker,
            catalogue: ArcSwap::default(),
            inboxes,
            installer: Installer::new(loader, components),
            requests: Requests::default(),
            store,
            looked_at: OnceLock::new(),
            stopping,
            senders,
            hasher: RandomState::new(),
            threads: Mutex::default(),
        });
        let mut threads = Vec::new();
        for (index, inbox) in inner.inboxes.iter().enumerate() {
            threads.push(Worker::start(index, inner.clone(), inbox.clone())?);
        }
        if let Some(store) = &inner.store {
            let weak = Arc::downgrade(&inner);
            store.start(Box::new(move |promise, outcome| {
                if let Some(inner) = weak.upgrade() {
                    inner.saved(promise, outcome);
                }
            }))?;
        }
        *inner.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        Ok(Self(inner))
    }

    /// Has a host without a store look at durable states all the same, so that it can say what would start.
    pub fn look_at(&self, stored: Box<dyn StoredScopes>) {
        // Once is enough: nobody looks at two stores.
        let _ = self.0.looked_at.set(stored);
    }

    /// To be called before connections are closed: what became of promises is left to the next process to tell.
    pub fn begin_shutdown(&self) {
        self.0.store.iter().for_each(|store| store.begin_shutdown());
    }

    /// Ends all threads. What is queued still is dropped: nobody is connected any more.
    pub fn shut_down(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
        self.0.inboxes.iter().for_each(|inbox| inbox.interrupt());
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a plugin thread panicked");
            }
        }
        self.0.requests.stop();
        self.0.ticker.stop();
        // Last, for all that changed is to be written.
        if let Some(store) = &self.0.store {
            store.shut_down();
        }
    }

    /// Hands a client's event to the feature that it is for. The answer goes to the connection.
    ///
    /// # Errors
    /// Where there is no such feature, the client may not send this, or the feature cannot take it now.
    pub fn client_event(&self, event: ClientEvent<'_>) -> Result<(), Failure> {
        let catalogue = self.0.catalogue.load();
        let destination = catalogue.destination(event.event).ok_or_else(|| not_handled(&catalogue, event.event))?;
        if !destination.from_client {
            let message = format!("only services may send {}", event.event);
            return Err(Failure::new(ErrorCode::Forbidden, message));
        }
        self.0.check_limits(&destination.limits, event.event, &event.payload)?;
        let address = destination.template.address(event.payload.first()).map_err(bad_request)?;
        let ClientEvent { connection, identity, event, payload, id, read_at } = event;
        let plugin = destination.plugin.clone();
        let backlog = (plugin.number, plugin.name.as_str(), &plugin.backlog);
        let now = self.0.clock.uptime_ms();
        let place = Some(self.0.senders.admit(&identity.principal, backlog, payload.bytes(), now)?);
        let origin = Origin::Client(Member { connection, identity });
        let event = Event::Message { event: event.into(), origin, payload, wants_reply: id.is_some(), place };
        let reply = ReplyTo::Client { connection, id, read_at };
        self.0.submit(Job::Event { plugin, address, event, reply });
        Ok(())
    }

    /// Hands a service's event to the feature that it is for. What it answers is still to come. `once`: what a durable scope
    /// answers is stored with what it changes.
    ///
    /// # Errors
    /// Where there is no such feature, services may not send this, or the feature cannot take it now.
    pub fn service_event(
        &self,
        service: &str,
        event: &str,
        payload: Payload,
        once: Option<Once>,
    ) -> Result<PendingAnswer, Failure> {
        let catalogue = self.0.catalogue.load();
        let destination = catalogue.destination(event).ok_or_else(|| not_handled(&catalogue, event))?;
        if !destination.from_service {
            return Err(Failure::new(ErrorCode::Forbidden, format!("only clients may send {event}")));
        }
        self.0.check_limits(&destination.limits, event, &payload)?;
        let address = destination.template.address(payload.first()).map_err(bad_request)?;
        let origin = Origin::Service(service.into());
        let plugin = destination.plugin.clone();
        let place = Some(Reservation::of_service(&plugin.backlog, &plugin.name, payload.bytes())?);
        let event = Event::Message { event: event.into(), origin, payload, wants_reply: true, place };
        let (caller, answer) = oneshot::channel();
        let reply = ReplyTo::Caller { caller, once: once.map(Box::new) };
        self.0.submit(Job::Event { plugin, address, event, reply });
        Ok(PendingAnswer(answer))
    }

    /// Asks a feature, and gives its answer. `data` is JSON.
    ///
    /// # Errors
    /// Where there is no such feature or query, or the feature refuses it.
    pub async fn query(&self, plugin: &str, name: &str, data: &str) -> Result<Payload, Failure> {
        let not_found = |message: String| Failure::new(ErrorCode::NotFound, message);
        let (plugin, address) = {
            let catalogue = self.0.catalogue.load();
            let plugin = catalogue.plugins.get(plugin).ok_or_else(|| self.0.no_plugin(plugin))?;
            let manifest = &plugin.current().manifest;
            let scope = manifest.queries.get(name);
            let scope = scope.ok_or_else(|| not_found(format!("{} has no query {name}", plugin.name)))?;
            let address =
                scope.map(|scope| manifest.scopes[scope].template.address(data)).transpose().map_err(bad_request)?;
            (plugin.clone(), address)
        };
        // So that questions are as bounded as events.
        let place = Arc::new(Reservation::of_service(&plugin.backlog, &plugin.name, data.len())?);
        let (caller, answer) = oneshot::channel();
        let reply = ReplyTo::Caller { caller, once: None };
        if let Some(address) = address {
            let event = Event::Query { name: name.into(), data: data.into(), place };
            self.0.submit(Job::Event { plugin, address, event, reply });
            return wait_for(answer).await?;
        }
        let mut waiting = Vec::new();
        for inbox in &self.0.inboxes {
            let (reply, answers) = oneshot::channel();
            let limit = MAX_GATHERED_SCOPES / self.0.inboxes.len();
            let (plugin, place, name, data) = (plugin.clone(), place.clone(), name.into(), data.into());
            inbox.push(Job::Gather(Gather { plugin, name, data, limit, reply, progress: None, place }));
            waiting.push(answers);
        }
        let (mut answers, mut omitted) = (Vec::new(), 0);
        for thread in waiting {
            let (more, left_out) = wait_for(thread).await?;
            answers.extend(more);
            omitted += left_out;
        }
        let event = Event::Gathered { name: name.into(), data: data.into(), answers, omitted };
        // It has no scope, and so no state and no room.
        let address = ScopeAddress { key: "".into(), params: Arc::new([]) };
        self.0.submit(Job::Event { plugin, address, event, reply });
        wait_for(answer).await?
    }

    /// A client acknowledged an event. Where too much of its user waits already, the answer is as good as none.
    pub fn acknowledged(&self, connection: ConnId, id: u64, payload: Payload) {
        // What this connection does not owe is nobody's business.
        if !self.0.hub.expects_ack(connection, id) {
            return;
        }
        let Some(identity) = self.0.hub.identity(connection) else { return };
        let now = self.0.clock.uptime_ms();
        let Ok(place) = self.0.senders.admit_answer(&identity.principal, payload.bytes(), now) else { return };
        if self.0.hub.take_ack(connection, id) {
            let inbox = &self.0.inboxes[(id % self.0.inboxes.len() as u64) as usize];
            inbox.push(Job::Acknowledged { id, connection, answer: Ok(payload), place: Some(place) });
        }
    }

    /// A connection is gone: every scope that it took part in is told, after everything that it sent.
    pub fn departed(&self, connection: ConnId, departure: Departure) {
        let catalogue = self.0.catalogue.load();
        let watching = departure.watchers.iter().filter_map(|(number, key)| {
            let plugin = catalogue.plugins.values().find(|plugin| plugin.number == *number)?;
            Some((plugin, plugin.current().manifest.scope_of_key(key)?.1))
        });
        let in_rooms = departure.rooms.iter().filter_map(|room| catalogue.owner(room));
        for (plugin, address) in in_rooms.chain(watching) {
            let member = Member { connection, identity: departure.identity.clone() };
            let event = Event::Left { member, reason: "disconnected", is_gone: true };
            self.0.submit(Job::Event { plugin: plugin.clone(), address, event, reply: ReplyTo::Nobody });
        }
        for id in departure.pending_acks {
            let inbox = &self.0.inboxes[(id % self.0.inboxes.len() as u64) as usize];
            inbox.push(Job::Acknowledged { id, connection, answer: Err("disconnected"), place: None });
        }
    }
}

/// What a feature is going to answer.
#[derive(Debug)]
pub struct PendingAnswer(oneshot::Receiver<Result<Payload, Failure>>);

impl PendingAnswer {
    /// The answer, if it comes while somebody may well wait for it.
    ///
    /// # Errors
    /// Where the feature refuses the event, or does not answer in time.
    pub async fn in_time(self) -> Result<Payload, Failure> {
        wait_for(self.0).await?
    }

    /// The answer, however long it takes, as while what it says cannot be stored.
    ///
    /// # Errors
    /// Where the feature refuses the event.
    pub async fn at_last(self) -> Result<Payload, Failure> {
        self.0.await.unwrap_or_else(|_| Err(Failure::new(ErrorCode::FeatureUnavailable, "the host is shutting down")))
    }
}

async fn wait_for<T>(answer: oneshot::Receiver<T>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Failure::new(ErrorCode::FeatureUnavailable, "the host is shutting down")),
        Err(_) => Err(Failure::new(
            ErrorCode::FeatureUnavailable,
            "no answer came in time, but what was asked may still be done: repeat it with an idempotencyKey to be sure",
        )),
    }
}

/// The refusal of a payload that names no scope.
fn bad_request(message: String) -> Failure {
    Failure::new(ErrorCode::BadRequest, message)
}

/// Why an event of this name goes nowhere.
fn not_handled(catalogue: &Catalogue, event: &str) -> Failure {
    match catalogue.idle_for(event) {
        Some(plugin) => {
            let message = format!("the feature {plugin}, which handles {event}, is not running: try again later");
            Failure::new(ErrorCode::FeatureUnavailable, message)
        }
        None => Failure::new(ErrorCode::UnknownEvent, format!("no feature handles the event {event}")),
    }
}
