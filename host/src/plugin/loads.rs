//! Loads, swaps, roll-backs and unloads: one after another, on a thread of their own, off every hot path.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::catalogue::{Catalogue, Plugin};
use super::generation::{Generation, Loaded, Source};
use super::loader::{LoadError, Loader, Step};
use super::runtime::{Inner, Runtime};
use super::scope::State;
use super::worker::Job;
use crate::model::{ErrorCode, Failure, Mailbox};
use crate::store::ScopeRecord;

/// The pause between two attempts to read durable scopes while the store is away.
const RESTORE_PAUSE: Duration = Duration::from_secs(5);

/// What the loading thread is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    Load {
        bytes: Vec<u8>,
        /// The name that the component must have, and the digest.
        name: Option<String>,
        digest: Option<String>,
        source: Source,
        reply: oneshot::Sender<Result<Loaded, LoadError>>,
    },
    RollBack {
        name: String,
        reply: oneshot::Sender<Result<Loaded, Failure>>,
    },
    /// A plugin thread says that this generation fails.
    RollBackFailing {
        name: String,
        generation: u64,
    },
    Unload {
        name: String,
        reply: oneshot::Sender<Result<(), Failure>>,
    },
    Stop,
}

/// The way to the loading thread.
#[derive(Debug)]
pub(super) struct Loads(mpsc::Sender<Request>);

impl Loads {
    pub(super) fn new() -> (Self, mpsc::Receiver<Request>) {
        // What comes in is bounded by who asks: operators, one folder, and one request per failing generation.
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    fn request(&self, request: Request) {
        // The thread ends last, at shutdown, when nothing is to be loaded any more.
        let _ = self.0.send(request);
    }

    pub(super) fn roll_back_failing(&self, name: &str, generation: u64) {
        self.request(Request::RollBackFailing { name: name.to_owned(), generation });
    }

    pub(super) fn stop(&self) {
        self.request(Request::Stop);
    }
}

impl Runtime {
    /// Loads a component, or replaces the running build of the same plugin by it. The same bytes again change nothing.
    ///
    /// # Errors
    /// With the step that said no. Nothing has changed then.
    pub async fn load(
        &self,
        bytes: Vec<u8>,
        name: Option<String>,
        digest: Option<String>,
        source: Source,
    ) -> Result<Loaded, LoadError> {
        let (reply, loaded) = oneshot::channel();
        self.0.loads.request(Request::Load { bytes, name, digest, source, reply });
        loaded.await.unwrap_or_else(|_| Err(LoadError::new(Step::Compile, "the host is shutting down")))
    }

    /// Takes the generation before into use again.
    ///
    /// # Errors
    /// Where there is no such plugin, or none before.
    pub async fn roll_back(&self, name: &str) -> Result<Loaded, Failure> {
        let (reply, rolled_back) = oneshot::channel();
        self.0.loads.request(Request::RollBack { name: name.to_owned(), reply });
        rolled_back.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Unloads a plugin: its scopes, timers and rooms go with it.
    ///
    /// # Errors
    /// Where there is no such plugin.
    pub async fn unload(&self, name: &str) -> Result<(), Failure> {
        let (reply, unloaded) = oneshot::channel();
        self.0.loads.request(Request::Unload { name: name.to_owned(), reply });
        unloaded.await.unwrap_or_else(|_| Err(shutting_down()))
    }
}

fn shutting_down() -> Failure {
    Failure::new(ErrorCode::FeatureUnavailable, "the host is shutting down")
}

pub(super) fn start(
    inner: Arc<Inner>,
    loader: Loader,
    requests: mpsc::Receiver<Request>,
) -> std::io::Result<JoinHandle<()>> {
    let mut thread =
        LoadingThread { inner, loader, last_plugin: 0, last_generations: HashMap::new(), unrestored: Vec::new() };
    // Guests run on it too, so it has a plugin thread's stack.
    thread::Builder::new().name("plugin-load".to_owned()).stack_size(4 * 1024 * 1024).spawn(move || {
        loop {
            let request = if thread.unrestored.is_empty() {
                requests.recv().map_err(RecvTimeoutError::from)
            } else {
                requests.recv_timeout(RESTORE_PAUSE)
            };
            match request {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(request) => thread.perform(request),
                Err(RecvTimeoutError::Timeout) => thread.restore_again(),
            }
        }
    })
}

struct LoadingThread {
    inner: Arc<Inner>,
    loader: Loader,
    last_plugin: u32,
    /// The last generation of each plugin that was ever loaded.
    last_generations: HashMap<String, u64>,
    /// Plugins whose durable scopes could not be read.
    unrestored: Vec<Arc<Plugin>>,
}

impl LoadingThread {
    fn perform(&mut self, request: Request) {
        // Whoever asked may have gone, here and below; what was asked is done all the same.
        match request {
            Request::Load { bytes, name, digest, source, reply } => {
                let loaded = self.load(&bytes, name.as_deref(), digest.as_deref(), source);
                if let Err(error) = &loaded {
                    tracing::warn!(step = ?error.step, ?source, name, "a component was refused: {error}");
                }
                let _ = reply.send(loaded);
            }
            Request::RollBack { name, reply } => {
                let _ = reply.send(self.roll_back(&name));
            }
            Request::RollBackFailing { name, generation } => {
                let runs = self.plugin(&name).is_some_and(|plugin| plugin.current().id.generation == generation);
                if runs {
                    tracing::error!(plugin = %name, generation, "a new generation fails too often and is rolled back");
                    if let Err(error) = self.roll_back(&name) {
                        tracing::error!(plugin = %name, generation, %error, "it cannot be rolled back");
                    }
                }
            }
            Request::Unload { name, reply } => {
                let _ = reply.send(self.unload(&name));
            }
            Request::Stop => {}
        }
    }

    fn plugin(&self, name: &str) -> Option<Arc<Plugin>> {
        self.inner.catalogue.load().plugins.get(name).cloned()
    }

    fn load(
        &mut self,
        bytes: &[u8],
        name: Option<&str>,
        digest: Option<&str>,
        source: Source,
    ) -> Result<Loaded, LoadError> {
        let next = |name: &str| self.last_generations.get(name).map_or(1, |last| last + 1);
        let generation = self.loader.prepare(bytes, digest, source, next)?;
        let id = generation.id.clone();
        if let Some(name) = name.filter(|name| *name != id.name) {
            let message = format!("the component calls itself {:?}, not {name:?}", id.name);
            return Err(LoadError::new(Step::Manifest, message));
        }
        self.try_routes(&generation)?;
        let plugin = self.plugin(&id.name);
        let now = self.inner.clock.uptime_ms();
        if let Some(plugin) = &plugin {
            let running = plugin.current();
            if running.id.digest == id.digest {
                return Ok(running.id.clone());
            }
            let generation = Arc::new(generation);
            self.try_inheritance(plugin, &generation)?;
            plugin.health.activate(id.generation, now);
            plugin.replace(generation);
            self.publish(|_| {});
            self.resume(plugin);
            if let Some(store) = &self.inner.store {
                // What the build before did not take.
                store.resume(&id.name);
            }
            tracing::info!(plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest, ?source,
                before = running.id.generation, "a plugin was replaced");
        } else {
            self.last_plugin += 1;
            let plugin = Arc::new(Plugin::new(self.last_plugin, generation));
            plugin.health.activate(id.generation, now);
            self.restore(&plugin)?;
            self.publish(|plugins| drop(plugins.insert(id.name.clone(), plugin)));
            if let Some(n) = self.inner.store.as_ref().map(|store| store.resume(&id.name)).filter(|n| *n > 0) {
                tracing::info!(plugin = %id.name, documents = n, "documents that were promised before are being stored");
            }
            tracing::info!(plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest, ?source,
                "a plugin was loaded");
        }
        self.last_generations.insert(id.name.clone(), id.generation);
        Ok(id)
    }

    /// Takes over what a plugin's durable scopes were when the process before ended, or when it was unloaded. Where the
    /// store cannot be read, that is tried again later; until then scopes are read one by one, when something comes for them.
    ///
    /// # Errors
    /// Where the plugin cannot take one of the states over.
    fn restore(&mut self, plugin: &Arc<Plugin>) -> Result<(), LoadError> {
        let generation = plugin.current();
        let is_durable = generation.manifest.scopes.iter().any(|scope| scope.is_durable);
        let Some(store) = self.inner.store.as_ref().filter(|_| is_durable) else { return Ok(()) };
        let mut refused = None;
        let restored = store.scopes(&plugin.name, |records| {
            let wanted = generation.manifest.state_version;
            let others = records.iter().filter(|record| record.version != wanted).filter_map(|record| {
                let bytes = record.state.clone()?;
                Some((State { version: record.version, bytes }, false))
            });
            if let Err(error) = self.loader.try_migrations(&generation, &others.collect::<Vec<_>>()) {
                refused = Some(error);
                return ControlFlow::Break(());
            }
            let mut by_thread: HashMap<*const _, (&Arc<Mailbox<Job>>, Vec<ScopeRecord>)> = HashMap::new();
            for record in records {
                let inbox = self.inner.inbox_of(&record.key);
                by_thread.entry(Arc::as_ptr(inbox)).or_insert_with(|| (inbox, Vec::new())).1.push(record);
            }
            for (inbox, records) in by_thread.into_values() {
                inbox.push(Job::Restore { plugin: plugin.clone(), records });
            }
            ControlFlow::Continue(())
        });
        if let Some(refused) = refused {
            self.inner.submit_to_all(|| Job::Forget { plugin: plugin.number });
            return Err(refused);
        }
        if let Err(failure) = restored {
            tracing::error!(
                plugin = %plugin.name, "durable scopes cannot be restored yet, and their timers do not run: {}",
                failure.message
            );
            self.unrestored.push(plugin.clone());
        }
        Ok(())
    }

    /// Tries again to take over what could not be read.
    fn restore_again(&mut self) {
        for plugin in std::mem::take(&mut self.unrestored) {
            if plugin.is_unloaded() {
                continue;
            }
            if let Err(error) = self.restore(&plugin) {
                tracing::error!(plugin = %plugin.name, "durable scopes cannot be restored: {error}");
            } else if !self.unrestored.iter().any(|other| other.number == plugin.number) {
                tracing::info!(plugin = %plugin.name, "durable scopes were restored");
            }
        }
    }

    /// Whether what a generation wants to handle is free.
    fn try_routes(&self, generation: &Generation) -> Result<(), LoadError> {
        match self.inner.catalogue.load().conflict(generation) {
            Some(conflict) => Err(LoadError::new(Step::Routes, conflict)),
            None => Ok(()),
        }
    }

    /// Whether a generation can take over the scopes that there are.
    fn try_inheritance(&self, plugin: &Plugin, generation: &Arc<Generation>) -> Result<(), LoadError> {
        for inbox in &self.inner.inboxes {
            let (reply, answer) = oneshot::channel();
            inbox.push(Job::Inherit { plugin: plugin.number, by: generation.clone(), reply });
            // A thread that has ended drops what it was asked.
            let inheritance =
                answer.blocking_recv().map_err(|_| LoadError::new(Step::Migrate, "the host is shutting down"))?;
            if let Some(orphan) = inheritance.orphan {
                let message = format!("it has no template for the scope {orphan}, which there is");
                return Err(LoadError::new(Step::Migrate, message));
            }
            self.loader.try_migrations(generation, &inheritance.states)?;
        }
        Ok(())
    }

    /// Has the generation that runs now told what could not be told to the one before.
    fn resume(&self, plugin: &Plugin) {
        self.inner.submit_to_all(|| Job::Resume { plugin: plugin.number });
    }

    /// Replaces the catalogue by one of changed plugins.
    fn publish(&self, change: impl FnOnce(&mut std::collections::BTreeMap<String, Arc<Plugin>>)) {
        let mut plugins = self.inner.catalogue.load().plugins.clone();
        change(&mut plugins);
        self.inner.catalogue.store(Arc::new(Catalogue::new(plugins)));
    }

    fn roll_back(&self, name: &str) -> Result<Loaded, Failure> {
        let plugin = self.plugin(name).ok_or_else(|| no_plugin(name))?;
        let nothing = || Failure::new(ErrorCode::Conflict, format!("there is no generation of {name} before this one"));
        let before = plugin.before().ok_or_else(nothing)?;
        // What was loaded since may handle the events that the generation before handled.
        self.try_routes(&before).and_then(|()| self.try_inheritance(&plugin, &before)).map_err(|error| {
            Failure::new(ErrorCode::Conflict, format!("the generation before cannot run now: {error}"))
        })?;
        plugin.health.activate(before.id.generation, self.inner.clock.uptime_ms());
        plugin.roll_back();
        self.publish(|_| {});
        self.resume(&plugin);
        let id = before.id.clone();
        tracing::warn!(plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest, "a plugin was rolled back");
        Ok(id)
    }

    fn unload(&self, name: &str) -> Result<(), Failure> {
        let plugin = self.plugin(name).ok_or_else(|| no_plugin(name))?;
        plugin.mark_unloaded();
        self.publish(|plugins| drop(plugins.remove(name)));
        self.inner.submit_to_all(|| Job::Forget { plugin: plugin.number });
        let id = &plugin.current().id;
        tracing::info!(
            plugin = %name, version = %id.version, generation = id.generation, digest = %id.digest,
            "a plugin was unloaded"
        );
        Ok(())
    }
}

pub(super) fn no_plugin(name: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("there is no plugin {name}"))
}
