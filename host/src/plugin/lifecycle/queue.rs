//! What operators may ask for: each request runs on a thread of its own, off every hot path, so that neither a long
//! compilation nor a store that does not answer keeps a failing build from being rolled back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::install::{Change, Load, lock};
use crate::model::{ErrorCode, Failure};
use crate::plugin::load::bundled::bundled;
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::generation::Source;
use crate::plugin::load::loader::{Described, LoadError, Step};
use crate::plugin::runtime::{Inner, Runtime};

/// Requests that run at once, at most: each may hold a component and a thread.
const MAX_REQUESTS: usize = 64;

/// Stack of the threads, in bytes: guests run on them too, so it is a plugin thread's.
const STACK_BYTES: usize = 4 * 1024 * 1024;

/// The pause between two attempts to read durable scopes while the store is away.
const RESTORE_PAUSE: Duration = Duration::from_secs(5);

/// The threads that run requests, until the host ends.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    threads: Vec<JoinHandle<()>>,
    is_stopping: bool,
}

impl Requests {
    /// Runs an operator's request on a thread of its own. Says whether it could be started.
    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<(), &'static str> {
        self.spawn_within(MAX_REQUESTS, work)
    }

    /// Runs what the host itself needs, however much operators ask for: one thread a plugin at the most.
    fn spawn_own(&self, work: impl FnOnce() + Send + 'static) -> Result<(), &'static str> {
        self.spawn_within(usize::MAX, work)
    }

    fn spawn_within(&self, most: usize, work: impl FnOnce() + Send + 'static) -> Result<(), &'static str> {
        let mut state = lock(&self.state);
        if state.is_stopping {
            return Err("the host is shutting down");
        }
        state.threads.retain(|thread| !thread.is_finished());
        if state.threads.len() >= most {
            return Err("too many plugins are being loaded: try again later");
        }
        let thread = thread::Builder::new().name("plugin-load".to_owned()).stack_size(STACK_BYTES).spawn(work);
        state.threads.push(thread.map_err(|_| "the host cannot start a thread for it: try again later")?);
        Ok(())
    }

    /// Waits for some time, or until the host ends: that is so where it says `false`.
    fn pause(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        let mut state = lock(&self.state);
        while !state.is_stopping {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.stopped.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Ends all threads. What is asked for from now on is refused.
    pub(crate) fn stop(&self) {
        let threads = {
            let mut state = lock(&self.state);
            state.is_stopping = true;
            std::mem::take(&mut state.threads)
        };
        self.stopped.notify_all();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that loads plugins panicked");
            }
        }
    }
}

impl Runtime {
    /// Runs `work` on a thread of its own, and gives what came of it.
    pub(in crate::plugin) async fn request<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> T + Send + 'static,
    ) -> Result<T, &'static str> {
        let (reply, done) = oneshot::channel();
        let inner = self.0.clone();
        // A caller may have gone; what was asked for is done all the same.
        self.0.requests.spawn(move || drop(reply.send(work(&inner))))?;
        done.await.map_err(|_| "it failed, for a reason that the log says")
    }

    /// Loads a component, or replaces the running build of the same plugin by it. The same bytes again change nothing.
    ///
    /// # Errors
    /// With the step that said no. Nothing has changed then.
    pub async fn load(&self, load: Load) -> Result<Change, LoadError> {
        let done = self.request(move |inner| {
            let done = inner.installer.load(inner, &load);
            if let Ok(change) = &done {
                inner.wait_for_losses(change);
            }
            // The folder knows the file, and when it is worth a line.
            if let Err(error) = done.as_ref()
                && load.source != Source::Folder
            {
                let Load { source, name, .. } = &load;
                tracing::warn!(step = ?error.step, ?source, name, "a component was refused: {error}");
            }
            done
        });
        done.await.unwrap_or_else(|why| Err(LoadError::passing(Step::Compile, why)))
    }

    /// What a component calls itself.
    ///
    /// # Errors
    /// With the step that said no.
    pub async fn describe(&self, bytes: Vec<u8>) -> Result<Described, LoadError> {
        let described = self.request(move |inner| inner.installer.loader.describe(&bytes, None));
        described.await.unwrap_or_else(|why| Err(LoadError::passing(Step::Compile, why)))
    }

    /// The largest component that may be loaded, in bytes.
    pub fn largest_component(&self) -> usize {
        self.0.config.largest_component()
    }

    /// Whether this component is what was last loaded of its plugin from the plugin folder.
    pub(crate) fn took_from_folder(&self, described: &Described) -> bool {
        let record = self.0.installer.store.record(&described.name);
        record.folder.is_some_and(|file| file.digest == described.digest)
    }

    /// The plugins whose running or failed build is from the plugin folder, and the names of their files.
    pub(crate) fn plugins_from_folder(&self) -> Vec<(String, String)> {
        let catalogue = self.0.catalogue.load();
        let is_in_use = |name: &str| {
            catalogue.plugins.contains_key(name) || catalogue.idle.get(name).is_some_and(|idle| idle.failed.is_some())
        };
        let records = self.0.installer.store.records().into_iter().filter(|record| is_in_use(&record.name));
        let is_from_folder = |source: Source| source == Source::Folder;
        records
            .filter(|record| record.current.as_ref().is_some_and(|current| is_from_folder(current.source)))
            .filter_map(|record| Some((record.name, record.folder?.name)))
            .collect()
    }

    /// Takes the generation before into use again.
    ///
    /// # Errors
    /// Where there is no such plugin or none before, or changes would be lost and `lose_writes` does not allow it.
    pub async fn roll_back(&self, name: &str, lose_writes: bool) -> Result<Change, Failure> {
        let name = name.to_owned();
        let done = self.request(move |inner| {
            let done = inner.installer.roll_back(inner, &name, lose_writes, false);
            if let Ok(change) = &done {
                inner.wait_for_losses(change);
            }
            done
        });
        done.await.unwrap_or_else(|why| Err(Failure::new(ErrorCode::FeatureUnavailable, why)))
    }

    /// Unloads a plugin: its scopes, timers and rooms go with it. It stays unloaded over a restart.
    ///
    /// # Errors
    /// Where there is no such plugin.
    pub async fn unload(&self, name: &str) -> Result<(), Failure> {
        let name = name.to_owned();
        let done = self.request(move |inner| inner.installer.unload(inner, &name));
        done.await.unwrap_or_else(|why| Err(Failure::new(ErrorCode::FeatureUnavailable, why)))
    }

    /// Goes back to the build of a feature that is part of the host.
    ///
    /// # Errors
    /// Where there is none, or it cannot be loaded.
    pub async fn reset(&self, name: &str, lose_writes: bool) -> Result<Change, Result<LoadError, Failure>> {
        let feature = bundled().iter().find(|feature| feature.name == name).ok_or_else(|| {
            let names: Vec<_> = bundled().iter().map(|feature| feature.name).collect();
            let message = format!("the host has no build of {name} of its own: it has {}", names.join(", "));
            Err(Failure::new(ErrorCode::NotFound, message))
        })?;
        let load = Load { lose_writes, ..Load::new(feature.component.to_vec(), Source::Bundled) };
        self.load(load).await.map_err(Ok)
    }
}

impl Inner {
    pub(crate) fn plugin(&self, name: &str) -> Option<Arc<Plugin>> {
        self.catalogue.load().plugins.get(name).cloned()
    }

    /// Why a plugin that does not run cannot be asked for anything.
    pub(crate) fn no_plugin(&self, name: &str) -> Failure {
        let catalogue = self.catalogue.load();
        match catalogue.idle.get(name).map(|idle| &idle.failed) {
            Some(Some(failed)) => Failure::new(
                ErrorCode::FeatureUnavailable,
                format!("the plugin {name} could not be started: {}", failed.error.message),
            ),
            Some(None) => Failure::new(
                ErrorCode::NotFound,
                format!("the plugin {name} is unloaded: load it, or reset it to the bundled build"),
            ),
            None => Failure::new(ErrorCode::NotFound, format!("there is no plugin {name}")),
        }
    }

    /// Waits until what scopes went back to is stored, so that a restart finds it.
    fn wait_for_losses(&self, change: &Change) {
        if let Some(store) = self.store.as_ref().filter(|_| change.lost_scopes.is_some())
            && !store.wait_until_written(&change.id.name)
        {
            tracing::error!(plugin = %change.id.name, "what scopes went back to is not stored yet: a restart may lose it");
        }
    }

    /// A plugin thread says that this generation fails too often.
    pub(crate) fn roll_back_failing(self: &Arc<Self>, name: &str, generation: u64) {
        let (inner, plugin) = (self.clone(), name.to_owned());
        let started = self.requests.spawn_own(move || {
            let runs = inner.plugin(&plugin).is_some_and(|running| running.current().id.generation == generation);
            if !runs {
                return;
            }
            tracing::error!(plugin = %plugin, generation, "a new generation fails too often and is rolled back");
            if let Err(error) = inner.installer.roll_back(&inner, &plugin, false, true) {
                tracing::error!(plugin = %plugin, generation, %error, "it cannot be rolled back");
            }
        });
        if let Err(why) = started {
            tracing::error!(plugin = %name, generation, "a generation that fails too often is not rolled back: {why}");
        }
    }

    /// Tries again, until it is done, to read the durable scopes of a plugin.
    pub(crate) fn restore_later(self: &Arc<Self>, plugin: Arc<Plugin>) {
        let inner = self.clone();
        let name = plugin.name.clone();
        let started = self.requests.spawn_own(move || {
            while inner.requests.pause(RESTORE_PAUSE)
                && !plugin.is_unloaded()
                && !inner.stopping.load(Ordering::Relaxed)
            {
                if inner.installer.restore_again(&inner, &plugin) {
                    return tracing::info!(plugin = %plugin.name, "durable scopes were restored");
                }
            }
        });
        if let Err(why) = started {
            tracing::error!(plugin = %name, "its durable scopes are read one by one: {why}");
        }
    }
}
