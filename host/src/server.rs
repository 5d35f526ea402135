//! The whole host, wired together: how it starts, and how it ends.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use tokio::sync::{oneshot, watch};

use crate::auth::Authenticator;
use crate::config::Config;
use crate::conn::{Acceptor, Engines, HttpService, MakeHttpService, ShardThread, Shared};
use crate::http::{Api, ClientService};
use crate::hub::{Hub, ShardPort};
use crate::metrics::Metrics;
use crate::model::Clock;
use crate::plugin::{Folder, Runtime, Source};
use crate::store::Store;

/// Commands that wait for one shard, at most: what a publisher to many rooms sends in some milliseconds.
const SHARD_COMMANDS: usize = 65_536;

/// A host that serves.
#[derive(Debug)]
pub struct Server {
    /// Where clients connect.
    pub listening: SocketAddr,
    /// Where the API is.
    pub api: SocketAddr,
    acceptor: Acceptor,
    shards: Vec<ShardThread>,
    runtime: Runtime,
    api_service: Arc<Api>,
    stop_api: watch::Sender<bool>,
    api_thread: JoinHandle<()>,
}

impl Server {
    /// Starts a host. It takes connections when this returns.
    ///
    /// # Errors
    /// Where an address is taken, a bundled feature cannot be loaded, or a thread cannot be started.
    pub fn start(mut config: Config, clock: Clock) -> anyhow::Result<Self> {
        let bind = |what: &str, address: SocketAddr| {
            TcpListener::bind(address).with_context(|| format!("cannot listen on {what} = {address}"))
        };
        let client_listener = bind("listen", config.listen)?;
        let api_listener = bind("api", config.api)?;
        let (listening, api) = (client_listener.local_addr()?, api_listener.local_addr()?);
        // Only now: where another host has the addresses, nothing is left behind.
        config.prepare()?;

        let metrics = Metrics::new()?;
        let ports = (0..config.shards).map(|_| ShardPort::new(SHARD_COMMANDS)).collect();
        let hub = Arc::new(Hub::new(ports, config.rooms_per_connection));
        let store = Arc::new(Store::open(&config.store, clock.clone(), metrics.clone())?);
        let runtime =
            Runtime::start(config.plugins.clone(), Some(store.clone()), hub.clone(), clock.clone(), metrics.clone())?;
        let auth = Arc::new(Authenticator::new(config.auth.clone(), clock.clone()));
        let shared = Shared {
            config: Arc::new(config.conn.clone()),
            hub: hub.clone(),
            auth,
            plugins: runtime.clone(),
            admission: Arc::default(),
            engines: Arc::new(Engines::new(config.shards)),
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        let make_http: MakeHttpService = {
            let (client, runtime) = (config.client.clone(), runtime.clone());
            Arc::new(move || Rc::new(ClientService::new(client.clone(), &runtime)) as Rc<dyn HttpService>)
        };
        let shards = (0..config.shards)
            .map(|index| ShardThread::start(index, shared.clone(), make_http.clone()))
            .collect::<Result<Vec<_>, _>>()
            .context("cannot start a shard")?;

        let api_service = Arc::new(Api::new(config.api_access.clone(), runtime.clone(), hub.clone(), metrics, clock));
        api_service.remember_calls(&store)?;
        let (stop_api, stopped) = watch::channel(false);
        let (report, started) = oneshot::channel();
        let api_thread = {
            let (api, runtime) = (api_service.clone(), runtime.clone());
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            thread::Builder::new()
                .name("api".to_owned())
                .spawn(move || tokio.block_on(run_api(api, api_listener, runtime, config, report, stopped)))?
        };
        started.blocking_recv().context("the API's thread ended before it began")??;
        store.wait_until_resumed();
        let acceptor = Acceptor::start(client_listener, hub).context("cannot start to accept connections")?;
        api_service.set_ready(true);
        Ok(Self { listening, api, acceptor, shards, runtime, api_service, stop_api, api_thread })
    }

    /// Ends the host: no new connections, every client is told to come back (1012), what is queued is written, and
    /// everything ends. It takes as long as the slowest client, and not more than the time that a close may take.
    pub fn shut_down(self) {
        self.api_service.set_ready(false);
        self.acceptor.stop();
        self.runtime.begin_shutdown();
        self.shards.iter().for_each(ShardThread::begin_shutdown);
        self.shards.into_iter().for_each(ShardThread::join);
        self.runtime.shut_down();
        self.stop_api.send_replace(true);
        if self.api_thread.join().is_err() {
            tracing::error!("the API's thread panicked");
        }
    }
}

/// Loads the plugins, says how that went, and serves the API until it is told to stop.
async fn run_api(
    api: Arc<Api>,
    listener: TcpListener,
    runtime: Runtime,
    config: Config,
    report: oneshot::Sender<anyhow::Result<()>>,
    mut stopped: watch::Receiver<bool>,
) {
    let folder = match load_plugins(&runtime, &config).await {
        Ok(folder) => folder,
        // Whoever starts the host waits for this, here and below.
        Err(error) => return drop(report.send(Err(error))),
    };
    let watching = config.watch_plugins.then(|| folder.watch());
    if let Some(Err(error)) = watching {
        tracing::error!(dir = %config.plugin_dir.display(), "the plugin folder is not watched: {error:#}");
    }
    let _ = report.send(Ok(()));
    tokio::select! {
        served = api.serve(listener) => {
            if let Err(error) = served {
                tracing::error!(%error, "the API cannot be served");
            }
        }
        _ = stopped.changed() => {}
    }
}

/// Loads the bundled features and those of the plugin folder. A file in the folder may replace a bundled feature; one
/// that is refused is logged, and does not keep the host from starting.
///
/// # Errors
/// Where a bundled feature is refused, as by its settings.
pub async fn load_plugins(runtime: &Runtime, config: &Config) -> anyhow::Result<Folder> {
    for feature in config.enabled_features() {
        runtime
            .load(feature.component.to_vec(), None, None, Source::Bundled)
            .await
            .with_context(|| format!("the bundled feature {} cannot be loaded", feature.name))?;
    }
    let mut folder = Folder::new(config.plugin_dir.clone(), runtime.clone());
    folder.read().await;
    let known: Vec<String> = runtime.reports().into_iter().map(|plugin| plugin.id.name).collect();
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
    Ok(folder)
}
