//! The interface of the plugin runtime to the rest of the host: it starts and stops the plugin threads, and queues
//! events for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::event::senders::{Reservation, Senders};
use super::event::{AckMissing, ClientEvent, Event, LeftReason, Member, Once, Origin, ReplyTo};
use super::guest::engine::{self, Ticker};
use super::lifecycle::component_store::ComponentStore;
use super::lifecycle::install::Lifecycle;
use super::load::catalogue::Catalogue;
use super::load::loader::Loader;
use super::load::options::PluginConfig;
use super::run::clustered::hands::Hands;
use super::run::clustered::node::Node;
use super::run::inboxes::Inboxes;
use super::run::job::{Envelope, Job};
use super::run::query::{PendingAnswer, bad_request};
use super::run::shared::Shared;
use super::run::state::RollBack;
use super::run::worker::Worker;
use crate::cluster::Cluster;
use crate::hub::{Departure, Hub, Presence};
use crate::metrics::Metrics;
use crate::model::{Clock, ConnId, ErrorCode, Failure, Payload};
use crate::policy::{Action, Verdict};
use crate::store::{Listener, Store, StoreConfig};

/// How long a node may take to get its first partitions. A node that gets none has nothing to restore.
const FIRST_TAKES: Duration = Duration::from_secs(3);

/// How long a node that leaves its cluster waits for what events that are done with have their answers wait for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The plugins of a host and the threads that run them. Clones share both.
#[derive(Debug, Clone)]
pub struct Runtime(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    lifecycle: Arc<Lifecycle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The store's listener, which queues the outcome of a promise for its scope. It returns `false` if the plugin is not
/// loaded or has no such scope.
fn listener(catalogue: Arc<ArcSwap<Catalogue>>, inboxes: Inboxes) -> Listener {
    Box::new(move |promise, outcome| {
        let catalogue = catalogue.load();
        let Some(plugin) = catalogue.plugins.get(&promise.plugin) else { return false };
        let Some((_, address)) = plugin.current().manifest.scope_of_key(&promise.scope) else { return false };
        let (plugin, event) = (plugin.clone(), Event::Saved { promise, outcome });
        let inbox = inboxes.of(&address.key).clone();
        inbox.push(Job::Event(Envelope::without_reply(plugin, address, event)));
        true
    })
}

impl Runtime {
    /// Opens the store and starts the threads. No plugin is loaded yet.
    ///
    /// # Errors
    /// If the store or the folder of installed components cannot be used, this machine cannot run WebAssembly, or a
    /// thread cannot be started.
    pub fn start(
        config: PluginConfig,
        store: Option<&StoreConfig>,
        cluster: Option<Arc<Cluster>>,
        hub: Arc<Hub>,
        clock: Clock,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let (catalogue, inboxes) =
            (Arc::<ArcSwap<Catalogue>>::default(), Inboxes::new(config.threads.max(1), cluster.is_some()));
        let open =
            |config| Store::open(config, clock.clone(), metrics.clone(), listener(catalogue.clone(), inboxes.clone()));
        let store = store.map(open).transpose()?;
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
        let components = match &config.components_dir {
            Some(dir) => ComponentStore::open(dir, config.is_read_only)
                .with_context(|| format!("cannot use the folder of installed components, {}", dir.display()))?,
            None => ComponentStore::in_memory(),
        };
        let senders = Senders::new(config.senders, metrics.clone());
        let shared = Arc::new(Shared {
            config,
            hub,
            clock,
            metrics,
            ticker,
            catalogue,
            node: cluster.map(|cluster| Arc::new(Node::new(cluster, inboxes.len()))),
            inboxes,
            store,
            stopping,
            senders,
            rechecks: Mutex::default(),
        });
        let lifecycle = Arc::new(Lifecycle::new(shared.clone(), loader, components));
        if let Some(node) = &shared.node {
            node.set_builds(lifecycle.builds());
        }
        let roll_back: RollBack = {
            let lifecycle = lifecycle.clone();
            Arc::new(move |plugin, generation| lifecycle.roll_back_failing(plugin, generation))
        };
        let mut threads = Vec::new();
        for (index, inbox) in shared.inboxes.iter().enumerate() {
            threads.push(Worker::start(index, shared.clone(), inbox.clone(), roll_back.clone())?);
        }
        Ok(Self(Arc::new(Inner { shared, lifecycle, threads: Mutex::new(threads) })))
    }

    /// The database of documents and durable states; none if the host was started without one.
    pub fn store(&self) -> Option<&Store> {
        self.0.shared.store.as_ref()
    }

    /// The requests of operators: loads, rollbacks, unloads, reports.
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.0.lifecycle
    }

    /// What hears the news of the cluster; none if the host is alone.
    pub fn cluster_listener(&self) -> Option<Arc<dyn crate::cluster::Listener>> {
        Hands::new(&self.0.shared).map(|hands| Arc::new(hands) as _)
    }

    /// Restores the durable scopes that this node of a cluster owns and that the cluster does not have, when the node has taken
    /// its first partitions. Waits for the database.
    pub fn restore_owned(&self) {
        let until = std::time::Instant::now() + FIRST_TAKES;
        while self.n_owned_partitions() == Some(0) && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.lifecycle.restore_owned();
    }

    /// The cluster; none if the host is alone.
    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        self.0.shared.node.as_ref().map(|node| node.cluster.clone())
    }

    /// The number of partitions of the cluster that this node owns; none if the host is alone.
    pub fn n_owned_partitions(&self) -> Option<usize> {
        self.0.shared.node.as_ref().map(|node| node.n_owned())
    }

    /// From now on no outcome of a promise counts as acknowledged, so the next process sends it again. To be called
    /// before connections are closed.
    pub fn begin_shutdown(&self) {
        self.0.shared.store.iter().for_each(|store| store.begin_shutdown());
    }

    /// Waits until the plugin threads have handled what was queued before, for a second at most, and have handed its
    /// consequences to the cluster, the answers among them that wait for a disk or for other nodes.
    pub fn flush(&self) {
        let Some(node) = &self.0.shared.node else { return };
        node.begin_to_leave();
        self.flush_batches();
        let begun = Instant::now();
        while node.has_outstanding_answers() && begun.elapsed() < ANSWERS_WITHIN {
            thread::sleep(Duration::from_millis(5));
        }
        self.flush_batches();
    }

    fn flush_batches(&self) {
        let (done, waiting) = std::sync::mpsc::channel();
        self.0.shared.submit_to_all(|| Job::Flush(done.clone()));
        drop(done);
        while waiting.recv_timeout(Duration::from_secs(1)).is_ok() {}
    }

    /// Ends all threads. Queued events are dropped, for no client is connected any more.
    pub fn shut_down(&self) {
        self.0.shared.stopping.store(true, Ordering::Relaxed);
        self.0.shared.inboxes.iter().for_each(|inbox| inbox.interrupt());
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a plugin thread panicked");
            }
        }
        self.0.lifecycle.stop();
        self.0.shared.ticker.stop();
        // The store ends last, so that all changes are written.
        if let Some(store) = &self.0.shared.store {
            store.shut_down();
        }
    }

    /// Queues a client's event for the feature that handles it. The answer goes to the connection.
    ///
    /// # Errors
    /// If no running feature handles the event, only services may send it, its payload is too large or names no scope,
    /// or its sender or the feature is over a bound.
    pub fn client_event(&self, event: ClientEvent<'_>) -> Result<(), Failure> {
        let catalogue = self.0.shared.catalogue.load();
        let destination = catalogue.destination(event.event).ok_or_else(|| not_handled(&catalogue, event.event))?;
        if !destination.from_client {
            let message = format!("only services may send {}", event.event);
            return Err(Failure::new(ErrorCode::Forbidden, message));
        }
        self.0.shared.check_limits(&destination.limits, event.event, &event.payload)?;
        let address = destination.template.address(event.payload.first()).map_err(bad_request)?;
        let ClientEvent { connection, identity, event, payload, id, read_at } = event;
        if let Some(permission) = &destination.required {
            permission.check(event, &identity.roles).map_err(|why| Failure::new(ErrorCode::Forbidden, why))?;
        }
        if let Some(permission) = &destination.permission {
            permission.check(&identity, event, &address.key)?;
        }
        let rooms = self.0.shared.config.rooms.as_ref();
        let verdict =
            rooms.map_or(Verdict::Allowed, |rooms| rooms.check(&identity, &address.key, Action::Publish, event));
        if let Verdict::Refused(failure) | Verdict::Unknown(failure) = verdict {
            return Err(failure);
        }
        let plugin = destination.plugin.clone();
        let backlog = (plugin.number, plugin.name.as_str(), &plugin.backlog);
        let now = self.0.shared.clock.uptime_ms();
        let place = Some(self.0.shared.senders.admit(&identity.principal, backlog, payload.bytes(), now)?);
        let member = Member { connection, identity };
        let origin = Origin::Client(member.clone());
        let event = destination.event.clone();
        let event = Event::Message { event, origin, payload, wants_reply: id.is_some(), place };
        let reply = ReplyTo::Client { connection, id, read_at };
        let envelope = Envelope { plugin, address, event, reply };
        match rooms.filter(|_| verdict != Verdict::Allowed) {
            Some(rooms) => self.0.shared.submit_authorized(rooms, member, envelope)?,
            None => self.0.shared.submit(envelope),
        }
        Ok(())
    }

    /// The plugin that handles an event, and the room of the scope that the payload names.
    ///
    /// # Errors
    /// If no running feature handles the event, or its payload names no scope.
    pub fn destination(&self, event: &str, payload: &Payload) -> Result<(String, Arc<str>), Failure> {
        let catalogue = self.0.shared.catalogue.load();
        let destination = catalogue.destination(event).ok_or_else(|| not_handled(&catalogue, event))?;
        let address = destination.template.address(payload.first()).map_err(bad_request)?;
        Ok((destination.plugin.name.clone(), address.key))
    }

    /// Queues a service's event for the feature that handles it. With `once`, the answer of a durable scope is stored
    /// together with the change to the scope.
    ///
    /// # Errors
    /// If no running feature handles the event, only clients may send it, its payload is too large or names no scope,
    /// or too many events wait for the feature.
    pub fn service_event(
        &self,
        service: &str,
        event: &str,
        payload: Payload,
        once: Option<Once>,
    ) -> Result<PendingAnswer, Failure> {
        let catalogue = self.0.shared.catalogue.load();
        let destination = catalogue.destination(event).ok_or_else(|| not_handled(&catalogue, event))?;
        if !destination.from_service {
            return Err(Failure::new(ErrorCode::Forbidden, format!("only clients may send {event}")));
        }
        self.0.shared.check_limits(&destination.limits, event, &payload)?;
        let address = destination.template.address(payload.first()).map_err(bad_request)?;
        let origin = Origin::Service(service.into());
        let plugin = destination.plugin.clone();
        let place = Some(Reservation::of_service(&plugin.backlog, &plugin.name, payload.bytes())?);
        let event = destination.event.clone();
        let event = Event::Message { event, origin, payload, wants_reply: true, place };
        let (caller, answer) = oneshot::channel();
        let reply = ReplyTo::Caller { caller, once: once.map(Box::new) };
        self.0.shared.submit(Envelope { plugin, address, event, reply });
        Ok(PendingAnswer(answer))
    }

    /// Sends a query to a feature and returns the answer. `data` is JSON.
    ///
    /// # Errors
    /// If there is no such feature or query, or the feature refuses the query or does not answer in time.
    pub async fn query(&self, plugin: &str, name: &str, data: &str) -> Result<Payload, Failure> {
        self.0.shared.query(plugin, name, data).await
    }

    /// Queues a client's acknowledgement for the scope that waits for it. The acknowledgement is ignored if the
    /// client's principal is over its bounds.
    pub fn acknowledged(&self, connection: ConnId, id: u64, payload: Payload) {
        // An acknowledgement that this connection is not expected to send is ignored.
        if !self.0.shared.hub.expects_ack(connection, id) {
            return;
        }
        let Some(identity) = self.0.shared.hub.identity(connection) else { return };
        let now = self.0.shared.clock.uptime_ms();
        let Ok(place) = self.0.shared.senders.admit_answer(&identity.principal, payload.bytes(), now) else { return };
        if self.0.shared.hub.take_ack(connection, id) {
            if let Some(node) = &self.0.shared.node {
                return self.0.shared.answered_ask(node, id, Ok(payload));
            }
            let inbox = self.0.shared.inboxes.of_number(id);
            inbox.push(Job::Acknowledged { id, connection, answer: Ok(payload), place: Some(place) });
        }
    }

    /// Takes a connection out of the rooms that its user may no longer be in, and away from the scopes that it may no longer
    /// subscribe to, after a change of its identity. The scopes are told that it left.
    pub fn recheck_rooms(&self, connection: ConnId) {
        self.0.shared.recheck_rooms(connection);
    }

    /// Queues `away` or `back` of a connection for the scopes that ask for presence: after the events that the
    /// connection sent so far, and before later ones.
    pub fn presence_changed(&self, connection: ConnId, presence: &Presence) {
        let catalogue = self.0.shared.catalogue.load();
        let in_rooms = presence.rooms.iter().filter_map(|room| catalogue.owner(room));
        let watching = presence.watchers.iter().filter_map(|watcher| catalogue.watcher(watcher));
        let Presence { is_away, n_changes, .. } = *presence;
        for (plugin, address) in in_rooms.chain(watching) {
            if plugin.current().manifest.has_presence(&address.key) {
                let member = Member { connection, identity: presence.identity.clone() };
                let event = Event::Presence { member, is_away, n_changes };
                self.0.shared.submit(Envelope::without_reply(plugin.clone(), address, event));
            }
        }
    }

    /// Queues the departure of a connection that has ended for each of its scopes, after all events that the connection
    /// sent, and ends the wait for its acknowledgements.
    pub fn departed(&self, connection: ConnId, departure: Departure) {
        let catalogue = self.0.shared.catalogue.load();
        let watching = departure.watchers.iter().filter_map(|watcher| catalogue.watcher(watcher));
        let in_rooms = departure.rooms.iter().filter_map(|room| catalogue.owner(room));
        for (plugin, address) in in_rooms.chain(watching) {
            let member = Member { connection, identity: departure.identity.clone() };
            let event = Event::Left { member, reason: LeftReason::Disconnected, is_gone: true };
            self.0.shared.submit(Envelope::without_reply(plugin.clone(), address, event));
        }
        for id in departure.pending_acks {
            if let Some(node) = &self.0.shared.node {
                self.0.shared.answered_ask(node, id, Err(AckMissing::Disconnected));
                continue;
            }
            let inbox = self.0.shared.inboxes.of_number(id);
            inbox.push(Job::Acknowledged { id, connection, answer: Err(AckMissing::Disconnected), place: None });
        }
    }
}

/// The failure for an event that no running feature handles.
fn not_handled(catalogue: &Catalogue, event: &str) -> Failure {
    match catalogue.idle_for(event) {
        Some(plugin) => {
            let message = format!("the feature {plugin}, which handles {event}, is not running: try again later");
            Failure::new(ErrorCode::FeatureUnavailable, message)
        }
        None => Failure::new(ErrorCode::UnknownEvent, format!("no feature handles the event {event}")),
    }
}
