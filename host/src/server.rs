//! The wiring of the whole host, its start and its shutdown.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::Api;
use crate::auth::{Authenticator, Blocks, CookieSessions, JwksMetrics, SessionChanges, SessionMetrics};
use crate::cluster::{Cluster, Joining};
use crate::config::{Budgets, Config, ShutdownConfig, TlsConfig};
use crate::conn::{Acceptor, Admission, EioSessions, OverloadAnswers, ShardThread, Shared, incomplete_budget};
use crate::hub::{Hub, ShardCommand, ShardQueue};
use crate::ledger::Ledger;
use crate::metrics::{ClusterMetrics, Metrics};
use crate::model::Clock;
use crate::net::{CertificateWatch, Tls, TlsFiles};
use crate::outbound::Outbound;
use crate::plugin::{Folder, Runtime};
use crate::policy::RoomPolicy;

/// The capacity of a shard's command queue: a few milliseconds of a publisher to many rooms.
const SHARD_COMMANDS: usize = 65_536;

/// The time that clients have to come back to another node of the cluster after their connection was closed here, in
/// milliseconds: Socket.IO's client waits for half a second to one and a half.
const RETURN_MS: u64 = 3000;

/// A running host.
#[derive(Debug)]
pub struct Server {
    /// The clients' address.
    pub listening: SocketAddr,
    /// The API's address.
    pub api: SocketAddr,
    /// Whether the listeners of clients and of the API speak TLS.
    pub has_tls: (bool, bool),
    clock: Clock,
    shutdown: ShutdownConfig,
    admission: Arc<Admission>,
    acceptor: Acceptor,
    certificates: Option<CertificateWatch>,
    shards: Vec<ShardThread>,
    runtime: Runtime,
    cluster: Option<Membership>,
    outbound: Option<Outbound>,
    api_service: Arc<Api>,
    stop_api: watch::Sender<bool>,
    api_thread: JoinHandle<()>,
}

impl Server {
    /// Starts a host. It accepts connections when this returns.
    ///
    /// # Errors
    /// Where an address is taken, the store cannot be used, or a thread cannot be started.
    pub fn start(mut config: Config, clock: Clock) -> anyhow::Result<Self> {
        let client_listener = bind("listen", config.listen)?;
        let api_listener = bind("api", config.api)?;
        let (listening, api) = (client_listener.local_addr()?, api_listener.local_addr()?);
        let metrics = Metrics::new()?;
        let [client_tls, api_tls] = load_tls(&config, &metrics)?;
        warn_of_plain(&config, listening, api);
        warn_of_weak(&config);
        // After the addresses are bound and the certificates read, so that a start that fails on them leaves no files
        // behind.
        config.prepare()?;

        let outbound = start_outbound(&config, &clock)?;
        config.plugins.rooms = room_policy(&config, &metrics, outbound.as_ref().map(|outbound| (outbound, &clock)))?;
        let ports = (0..config.shards).map(|_| ShardQueue::new(SHARD_COMMANDS)).collect();
        let Budgets { user, service } = config.budgets;
        let ledger = Ledger::new(user, service, clock.clone(), metrics.clone());
        let hub = Arc::new(Hub::new(ports, config.rooms_per_connection, ledger));
        let (cluster, joining) = connect_cluster(&config, &metrics)?.unzip();
        let (plugins, store) = (config.plugins.clone(), Some(&config.store));
        let runtime = Runtime::start(plugins, store, cluster.clone(), hub.clone(), clock.clone(), metrics.clone())?;
        let (shutdown, admission) = (config.shutdown, Arc::<Admission>::default());
        let auth = authenticator(&config, &clock, &metrics, outbound.as_ref(), adopt_on(hub.clone()));
        let mut shared = share(&config, &hub, &runtime, &admission, auth, &clock, &metrics);
        shared.tls.clone_from(&client_tls);
        let answers = overload_answers(&shared);
        let shards = start_shards(config.shards, &shared)?;

        let api_service = Arc::new(Api::new(
            config.api_access.clone(),
            api_tls.clone(),
            runtime.clone(),
            hub.clone(),
            shared.auth.blocks().clone(),
            metrics.clone(),
            clock.clone(),
        ));
        if let Some(store) = runtime.store() {
            api_service.remember_calls(store)?;
            api_service.restore_blocks(store)?;
        }
        api_service.follow_blocks();
        let (stop_api, stopped) = watch::channel(false);
        let (api_thread, serve_api) = start_api(api_service.clone(), api_listener, runtime.clone(), config, stopped)?;
        let cluster = cluster.zip(joining).map(|(cluster, joining)| Membership::begin(cluster, joining, &runtime));
        let cluster = cluster.transpose()?;
        // Not before: a node without its number cannot forward an event.
        let _ = serve_api.send(());
        runtime.store().iter().for_each(|store| store.wait_until_resumed());
        let has_tls = (client_tls.is_some(), api_tls.is_some());
        let certificates = CertificateWatch::start([client_tls, api_tls], metrics.clone())?;
        let acceptor =
            Acceptor::start(client_listener, hub, metrics, answers).context("cannot start to accept connections")?;
        api_service.set_ready(true);
        Ok(Self {
            listening,
            api,
            has_tls,
            clock,
            shutdown,
            admission,
            acceptor,
            certificates,
            shards,
            runtime,
            cluster,
            outbound,
            api_service,
            stop_api,
            api_thread,
        })
    }

    /// Shuts the host down: `/readyz` answers 503, and new clients are refused; after `shutdown.delay` the listener
    /// closes; over `shutdown.drain` every client is closed with 1012, to reconnect; other nodes of a cluster take their
    /// connections over, for which this one waits for some seconds; queued frames are written, and all threads end. The last step takes as long as the slowest client, and at most `shutdown.timeout`.
    pub fn shut_down(self) {
        self.api_service.set_ready(false);
        self.admission.close();
        let ShutdownConfig { delay, drain } = self.shutdown;
        let closing = self.clock.uptime_ms() + delay.as_millis() as u64;
        let closed = closing + drain.as_millis() as u64;
        if !delay.is_zero() {
            tracing::info!(?delay, "not ready any more; the listener stays open for load balancers to notice");
            wait(&self.clock, closing, None);
        }
        self.acceptor.stop();
        let goes_on_elsewhere = self.runtime.has_other_nodes();
        if !drain.is_zero() || goes_on_elsewhere {
            tracing::info!(?drain, "closing connections, one after another");
            let (working, done) = mpsc::channel(1);
            self.shards.iter().for_each(|shard| shard.begin_drain(closing..closed, working.clone()));
            drop(working);
            let awaited = if goes_on_elsewhere { RETURN_MS } else { 0 };
            wait(&self.clock, closed + awaited, Some(done));
        }
        self.runtime.begin_shutdown();
        self.shards.iter().for_each(ShardThread::begin_shutdown);
        self.shards.into_iter().for_each(ShardThread::join);
        if let Some(cluster) = self.cluster {
            cluster.end(&self.runtime);
        }
        self.runtime.shut_down();
        // Its thread ends with it.
        drop(self.outbound);
        if let Some(certificates) = self.certificates {
            certificates.stop();
        }
        self.stop_api.send_replace(true);
        if self.api_thread.join().is_err() {
            tracing::error!("the API's thread panicked");
        }
    }
}

/// The membership of a cluster, from when the plugins are loaded.
#[derive(Debug)]
struct Membership {
    cluster: Arc<Cluster>,
    thread: JoinHandle<()>,
}

impl Membership {
    fn begin(cluster: Arc<Cluster>, joining: Joining, runtime: &Runtime) -> anyhow::Result<Self> {
        let listener = runtime.cluster_listener().context("the plugin threads know of no cluster")?;
        let thread = joining.listen(|me| runtime.set_node(me), listener).context("cannot join the cluster")?;
        let restoring = runtime.clone();
        thread::Builder::new().name("restore".to_owned()).spawn(move || restoring.restore_owned())?;
        Ok(Self { cluster, thread })
    }

    /// Leaves the cluster, after all that this node has yet to say.
    fn end(self, runtime: &Runtime) {
        runtime.flush();
        self.cluster.leave();
        if self.thread.join().is_err() {
            tracing::error!("the cluster's thread panicked");
        }
    }
}

/// Connects to the cluster, if the configuration names one. The host joins it when its plugins are loaded.
fn connect_cluster(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<(Arc<Cluster>, Joining)>> {
    let Some(cluster) = config.cluster.clone() else { return Ok(None) };
    Cluster::join(cluster, ClusterMetrics::register(metrics)?).map(Some)
}

fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen on {what} = {address}"))
}

/// What answering connections over the limit of descriptors needs.
fn overload_answers(shared: &Shared) -> OverloadAnswers {
    OverloadAnswers {
        trusted: shared.config.trusted_proxies.clone(),
        tls: shared.tls.clone(),
        unfinished: shared.unfinished.clone(),
        header_bytes: shared.config.header_bytes,
    }
}

/// Loads the TLS of the listeners of clients and of the API, where configured.
pub fn load_tls(config: &Config, metrics: &Metrics) -> anyhow::Result<[Option<Tls>; 2]> {
    let TlsConfig { clients, api } = config.tls.clone();
    let load = |listener, files: Option<TlsFiles>| {
        files.map(|files| Tls::load(listener, files, config.conn.handshake, metrics.clone())).transpose()
    };
    Ok([load("clients", clients)?, load("api", api)?])
}

/// Warns of listeners without TLS that other machines can reach: tokens and keys pass unencrypted.
fn warn_of_plain(config: &Config, listening: SocketAddr, api: SocketAddr) {
    for (key, section, files, address) in
        [("listen", "tls", &config.tls.clients, listening), ("api", "tls.api", &config.tls.api, api)]
    {
        if files.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                "{key} = {address} is no loopback address and has no TLS: tokens and data pass unencrypted unless a proxy \
                 in front has TLS and the network behind it is trusted; {section}.certificate_file turns TLS on"
            );
        }
    }
}

/// Warns of secrets that can be guessed.
fn warn_of_weak(config: &Config) {
    match config.auth.jwt.weak_secrets() {
        0 => {}
        weak => tracing::warn!(
            "{weak} of the secrets of auth.jwt have less than 32 bytes, and can be guessed from a token: use longer ones"
        ),
    }
}

/// The state that all shards share, without TLS.
fn share(
    config: &Config,
    hub: &Arc<Hub>,
    runtime: &Runtime,
    admission: &Arc<Admission>,
    auth: Authenticator,
    clock: &Clock,
    metrics: &Metrics,
) -> Shared {
    let unfinished = incomplete_budget(
        config.conn.unfinished_bytes,
        clock.clone(),
        metrics.unfinished_bytes.clone(),
        metrics.unfinished_evicted.clone(),
        hub.clone(),
    );
    Shared {
        config: Arc::new(config.conn.clone()),
        client: Arc::new(config.client.clone()),
        hub: hub.clone(),
        auth: Arc::new(auth),
        plugins: runtime.clone(),
        tls: None,
        admission: admission.clone(),
        unfinished,
        eio_sessions: Arc::new(EioSessions::new(config.shards)),
        clock: clock.clone(),
        metrics: metrics.clone(),
    }
}

/// Starts the shards, which serve no client yet.
fn start_shards(n_shards: usize, shared: &Shared) -> anyhow::Result<Vec<ShardThread>> {
    (0..n_shards)
        .map(|index| ShardThread::start(index, shared.clone()))
        .collect::<Result<Vec<_>, _>>()
        .context("cannot start a shard")
}

/// Has all shards adopt the sessions of cookies that have changed.
fn adopt_on(hub: Arc<Hub>) -> impl Fn(SessionChanges) + Send {
    move |changes| {
        let changes = Arc::new(changes);
        hub.shards().iter().for_each(|shard| shard.push(ShardCommand::AdoptSessions(changes.clone())));
    }
}

/// Starts the thread of calls to the operator's services, if the configuration names one.
///
/// # Errors
/// Where the thread cannot be started.
pub fn start_outbound(config: &Config, clock: &Clock) -> anyhow::Result<Option<Outbound>> {
    let is_needed = config.auth.jwt.jwks_url.is_some()
        || config.auth.session.is_some()
        || config.rooms.iter().any(|rule| rule.authorize.is_some());
    let start = || Outbound::start(clock.clone()).context("cannot start the thread of calls");
    is_needed.then(start).transpose()
}

/// The authenticator. If the configuration names a key set, waits for the first keys for a bounded time. `on_change` gets
/// the sessions of cookies that have changed.
pub fn authenticator(
    config: &Config,
    clock: &Clock,
    metrics: &Metrics,
    outbound: Option<&Outbound>,
    on_change: impl Fn(SessionChanges) + Send + 'static,
) -> Authenticator {
    let mut auth = Authenticator::new(config.auth.clone(), Blocks::new(metrics.blocks.clone()), clock.clone());
    let Some(outbound) = outbound else { return auth };
    if let Some(url) = &config.auth.jwt.jwks_url {
        let of_keys = JwksMetrics { fetches: metrics.jwks_fetches.clone(), fetched: metrics.jwks_fetched.clone() };
        auth.fetch_keys(url, &config.auth.jwt, outbound, of_keys);
    }
    if let Some(session) = config.auth.session.clone() {
        let of_sessions =
            SessionMetrics { checks: metrics.session_checks.clone(), in_use: metrics.sessions_in_use.clone() };
        auth.accept_sessions(CookieSessions::start(session, outbound, clock.clone(), of_sessions, on_change));
    }
    auth
}

/// The rules of rooms, compiled. `None` where there are none, so that every user may use every room.
///
/// # Errors
/// With the rule and the mistake.
pub fn room_policy(
    config: &Config,
    metrics: &Metrics,
    outbound: Option<(&Outbound, &Clock)>,
) -> anyhow::Result<Option<RoomPolicy>> {
    if config.rooms.is_empty() {
        if !config.development {
            tracing::warn!("there are no [[rooms]]: every user may use every room");
        }
        return Ok(None);
    }
    RoomPolicy::compile(&config.rooms, metrics.room_decisions.clone(), outbound).map(Some)
}

/// Starts the API's thread. Returns after the plugins were loaded, with what has the API be served.
fn start_api(
    api: Arc<Api>,
    listener: TcpListener,
    runtime: Runtime,
    config: Config,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<(JoinHandle<()>, oneshot::Sender<()>)> {
    let (report, started) = oneshot::channel();
    let (serve, may_serve) = oneshot::channel();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new()
        .name("api".to_owned())
        .spawn(move || tokio.block_on(run_api(api, listener, runtime, config, (report, may_serve), stopped)))?;
    started.blocking_recv().context("the API's thread ended before it began")?;
    Ok((thread, serve))
}

/// Waits until `until`, in milliseconds of uptime, or until every sender of `done` is dropped.
fn wait(clock: &Clock, until: u64, done: Option<mpsc::Receiver<Infallible>>) {
    let done = async {
        match done {
            Some(mut done) => drop(done.recv().await),
            None => std::future::pending().await,
        }
    };
    match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                () = clock.sleep_until(until) => {}
                () = done => {}
            }
        }),
        Err(error) => tracing::error!(%error, "cannot wait, and goes on with the end of the host"),
    }
}

/// Loads the plugins, reports that, and serves the API from when it may until `stopped`.
async fn run_api(
    api: Arc<Api>,
    listener: TcpListener,
    runtime: Runtime,
    config: Config,
    (report, may_serve): (oneshot::Sender<()>, oneshot::Receiver<()>),
    stopped: watch::Receiver<bool>,
) {
    let folder = load_plugins(&runtime, &config).await;
    let watching = config.watch_plugins.then(|| folder.watch());
    if let Some(Err(error)) = watching {
        tracing::error!(%error, dir = %config.plugin_dir.display(), "the plugin folder cannot be made, and is not watched");
    }
    let _ = report.send(());
    if may_serve.await.is_err() {
        // The host cannot start.
        return;
    }
    if let Err(error) = api.serve(listener, stopped).await {
        tracing::error!(%error, "the API cannot be served");
    }
}

/// Starts the installed plugins, the bundled features that no installed one replaces, and the new components of the
/// plugin folder. A plugin that cannot start is logged and reported as failed; the host starts nevertheless.
pub async fn load_plugins(runtime: &Runtime, config: &Config) -> Folder {
    runtime.lifecycle().start_installed().await;
    let mut folder = Folder::new(config.plugin_dir.clone(), runtime.lifecycle().clone());
    folder.read_at_start(config.watch_plugins).await;
    let known: Vec<String> = runtime.lifecycle().reports().into_iter().map(|plugin| plugin.id.name).collect();
    for name in config.plugins.plugins.keys().filter(|name| !known.contains(name)) {
        let is_off = config.plugins.plugins.get(name).is_some_and(|options| !options.enabled);
        let is_bundled = crate::plugin::bundled().iter().any(|feature| feature.name == name);
        if !(is_off && is_bundled) {
            tracing::warn!(
                "plugins.{name} is configured, but there is no such plugin yet; there are: {}",
                known.join(", ")
            );
        }
    }
    folder
}
