//! The plugin folder: the newest version of each plugin in it is loaded. A plugin whose last file is removed is
//! unloaded after a while.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use notify::{RecursiveMode, Watcher as _};
use semver::Version;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::install::{Lifecycle, Load};
use crate::plugin::load::generation::Source;
use crate::plugin::load::loader::{Described, LoadError, Step};

/// The time without a change after which the folder is read: a copy comes in many writes.
const DEBOUNCE: Duration = Duration::from_millis(150);

/// The longest time that changes delay the reading.
const MAX_DEBOUNCE: Duration = Duration::from_secs(2);

/// How often the folder is read without a notification.
const RESCAN_INTERVAL: Duration = Duration::from_secs(5);

/// The time that a file must be gone before its plugin is unloaded: a replacement may delete the old file first.
const GONE_FOR: Duration = Duration::from_secs(10);

/// The time that a refused file must stay unchanged before the refusal is logged: until then it may be half a copy.
const SETTLED: Duration = Duration::from_secs(2);

/// The longest pause between two attempts to load a file that was refused for a passing reason.
const LONGEST_RETRY: Duration = Duration::from_secs(5 * 60);

/// A cheap identity of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    inode: u64,
    /// When content or permissions last changed, in seconds and nanoseconds since 1970.
    changed: (i64, i64),
}

/// A file of the folder.
#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    since: Instant,
    /// The plugin's name, version and digest; for a refused file, those of the file before it.
    described: Option<Described>,
    /// Whether the file is still to be loaded, unless another is newer.
    is_due: bool,
    /// Whether it is as it was when the host started.
    was_at_start: bool,
    refusal: Option<Refusal>,
}

/// Why a file was not loaded.
#[derive(Debug)]
struct Refusal {
    why: String,
    is_logged: bool,
    /// The time of the next attempt, and the pause after that; none if the same file cannot be accepted later.
    again: Option<(Instant, Duration)>,
}

/// A watched plugin folder.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    lifecycle: Arc<Lifecycle>,
    seen: BTreeMap<PathBuf, Seen>,
    /// Plugins whose files are gone: the time of their unload, and the pause before another attempt.
    gone: BTreeMap<String, (Instant, Duration)>,
    /// Plugins whose newest file is gone, while an older one is there: the time at which the older one is loaded.
    stepping_back: BTreeMap<String, Instant>,
    /// Whether it is read for the first time.
    is_start: bool,
    /// Why the folder itself cannot be read.
    unreadable: Option<String>,
}

impl Folder {
    /// A folder whose components are loaded by `lifecycle`.
    pub fn new(dir: PathBuf, lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            dir,
            lifecycle,
            seen: BTreeMap::new(),
            gone: BTreeMap::new(),
            stepping_back: BTreeMap::new(),
            is_start: false,
            unreadable: None,
        }
    }

    /// The files that were refused, or the folder itself if it could not be read.
    pub fn refused(&self) -> Vec<&Path> {
        if self.unreadable.is_some() {
            return vec![&self.dir];
        }
        self.seen.iter().filter(|(_, seen)| seen.refusal.is_some()).map(|(path, _)| path.as_path()).collect()
    }

    /// Reads the folder once, at the start. Components that are new since the last process read it are loaded. Plugins
    /// whose files are gone are unloaded at once if the folder is not watched later.
    pub async fn read_at_start(&mut self, is_watched: bool) {
        self.read(true).await;
        if !is_watched {
            self.unload_gone(|_| true).await;
        }
        self.log_refusals(Duration::ZERO);
    }

    /// Reads the folder, loads new components, and unloads plugins whose files have been gone for long enough. A
    /// missing folder unloads nothing.
    async fn read(&mut self, is_start: bool) {
        self.is_start = is_start;
        let files = match components(&self.dir) {
            Ok(Some(files)) => files,
            Ok(None) => return self.unreadable = None,
            Err(error) => {
                let why = error.to_string();
                if self.unreadable.as_ref() != Some(&why) {
                    tracing::error!(%error, dir = %self.dir.display(), "cannot read the plugin folder");
                }
                return self.unreadable = Some(why);
            }
        };
        self.unreadable = None;
        self.seen.retain(|path, _| files.contains_key(path));
        for (path, stamp) in &files {
            self.look_at(path, *stamp).await;
        }
        self.load_newest().await;
        self.note_gone();
        self.unload_gone(|due| due <= Instant::now()).await;
        self.log_refusals(SETTLED);
    }

    /// Describes a file that has changed or is to be tried again.
    async fn look_at(&mut self, path: &Path, stamp: Stamp) {
        let before = self.seen.get(path);
        let is_as_before = before.is_some_and(|seen| seen.stamp == stamp);
        let is_due_again =
            before.and_then(|seen| seen.refusal.as_ref()?.again).is_some_and(|(again, _)| again <= Instant::now());
        if is_as_before && !is_due_again {
            return;
        }
        let described = match self.describe(path, stamp).await {
            Ok(described) => described,
            Err(error) => return self.refuse(path, stamp, &error),
        };
        // A component that the last process loaded from the folder is not loaded again: since then it may have been
        // rolled back or replaced by intention.
        let was_at_start = self.was_at_start(path, stamp);
        let is_older = was_at_start && self.lifecycle.is_older_than_the_clusters(&described);
        if is_older {
            tracing::warn!(plugin = %described.name, version = %described.version, path = %path.display(),
                "a file of the plugin folder is passed over: the cluster runs another build, which is no older");
        }
        let is_taken = is_older || was_at_start && self.lifecycle.took_from_folder(&described);
        let (since, is_due) = (Instant::now(), !is_taken);
        let seen = Seen { stamp, since, described: Some(described), is_due, was_at_start, refusal: None };
        self.seen.insert(path.to_owned(), seen);
    }

    /// Whether a file is as it was when the host started.
    fn was_at_start(&self, path: &Path, stamp: Stamp) -> bool {
        self.is_start || self.seen.get(path).is_some_and(|seen| seen.was_at_start && seen.stamp == stamp)
    }

    async fn describe(&self, path: &Path, stamp: Stamp) -> Result<Described, LoadError> {
        self.lifecycle.describe(self.component(path, stamp)?).await
    }

    fn component(&self, path: &Path, stamp: Stamp) -> Result<Vec<u8>, LoadError> {
        let largest = self.lifecycle.largest_component() as u64;
        if stamp.bytes > largest {
            return Err(LoadError::new(
                Step::Size,
                format!("the file is {} bytes large, and a component may be {largest}", stamp.bytes),
            ));
        }
        fs::read(path).map_err(|error| LoadError::passing(Step::Size, format!("it cannot be read: {error}")))
    }

    fn refuse(&mut self, path: &Path, stamp: Stamp, error: &LoadError) {
        let was_at_start = self.was_at_start(path, stamp);
        let before = self.seen.remove(path);
        let (since, refusal) = match &before {
            Some(seen) if seen.stamp == stamp => (seen.since, seen.refusal.as_ref()),
            _ => (Instant::now(), None),
        };
        let pause = refusal.and_then(|refusal| refusal.again).map_or(RESCAN_INTERVAL, |(_, pause)| pause);
        let why = format!("{error} (step {:?})", error.step);
        let refusal = Refusal {
            is_logged: refusal.is_some_and(|refusal| refusal.is_logged && refusal.why == why),
            why,
            again: error.is_passing.then(|| (Instant::now() + pause, (pause * 2).min(LONGEST_RETRY))),
        };
        let described = before.and_then(|seen| seen.described);
        self.seen.insert(
            path.to_owned(),
            Seen { stamp, since, described, is_due: false, was_at_start, refusal: Some(refusal) },
        );
    }

    /// Loads the newest file of each plugin, if that file is due.
    async fn load_newest(&mut self) {
        let mut newest: BTreeMap<String, (Version, (i64, i64), PathBuf)> = BTreeMap::new();
        for (path, seen) in &self.seen {
            let Some(described) = seen.described.as_ref().filter(|_| seen.refusal.is_none()) else { continue };
            // The manifest was checked to have a semantic version; a version that this library cannot parse comes last.
            let version = Version::parse(&described.version).unwrap_or_else(|_| Version::new(0, 0, 0));
            let this = (version, seen.stamp.changed, path.clone());
            let best = newest.entry(described.name.clone()).or_insert_with(|| this.clone());
            if this > *best {
                *best = this;
            }
        }
        let is_newest = |path: &Path| newest.values().any(|(_, _, best)| best == path);
        for (path, seen) in self.seen.iter_mut().filter(|(path, seen)| seen.is_due && !is_newest(path)) {
            seen.is_due = false;
            tracing::info!(path = %path.display(), "a file is passed over, for the folder has a newer version of its plugin");
        }
        for (_, _, path) in newest.into_values() {
            let Some(seen) = self.seen.get(&path) else { continue };
            let Some(described) = &seen.described else { continue };
            // An older file is loaded if a newer one was removed, but not while a file is refused, which may be a newer
            // one that is being overwritten.
            let is_refused = |other: &Seen| {
                other.refusal.is_some() && other.described.as_ref().is_some_and(|other| other.name == described.name)
            };
            let is_passed_over = seen.was_at_start && self.lifecycle.is_older_than_the_clusters(described);
            let steps_back = !seen.is_due
                && !is_passed_over
                && !self.lifecycle.took_from_folder(described)
                && !self.seen.values().any(is_refused);
            let name = described.name.clone();
            if !steps_back {
                self.stepping_back.remove(&name);
            }
            // A replacement of the newer file may delete it first.
            let is_time = |due: &mut Instant| *due <= Instant::now();
            if seen.is_due || steps_back && is_time(self.stepping_back.entry(name).or_insert(Instant::now() + GONE_FOR))
            {
                self.load(&path).await;
            }
        }
    }

    async fn load(&mut self, path: &Path) {
        let Some(seen) = self.seen.get_mut(path) else { return };
        seen.is_due = false;
        let stamp = seen.stamp;
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let loaded = match self.component(path, stamp) {
            Ok(bytes) => self.lifecycle.load(Load { file, ..Load::new(bytes, Source::Folder) }).await,
            Err(error) => Err(error),
        };
        if let Err(error) = loaded {
            self.refuse(path, stamp, &error);
        }
    }

    /// Notes the plugins that were loaded from the folder and have no file there any more.
    fn note_gone(&mut self) {
        let has_file = |(name, file): &(String, String)| {
            let by_name = self.seen.keys().any(|path| path.file_name().is_some_and(|found| found == file.as_str()));
            by_name || self.seen.values().any(|seen| seen.described.as_ref().is_some_and(|d| d.name == *name))
        };
        let missing: Vec<String> = self
            .lifecycle
            .plugins_from_folder()
            .into_iter()
            .filter(|plugin| !has_file(plugin))
            .map(|(name, _)| name)
            .collect();
        self.gone.retain(|name, _| missing.contains(name));
        for name in missing {
            self.gone.entry(name).or_insert_with(|| (Instant::now() + GONE_FOR, GONE_FOR));
        }
    }

    /// Unloads the plugins whose files have been gone for long enough. A plugin with a bundled build is reset to that
    /// instead.
    async fn unload_gone(&mut self, is_due: impl Fn(Instant) -> bool) {
        let due: Vec<_> = self
            .gone
            .iter()
            .filter(|(_, (due, _))| is_due(*due))
            .map(|(name, (_, pause))| (name.clone(), *pause))
            .collect();
        for (name, pause) in due {
            let done = match crate::plugin::load::bundled::bundled().iter().any(|feature| feature.name == name) {
                true => self.lifecycle.reset(&name, false).await.map(drop).map_err(|error| match error {
                    Ok(error) => error.to_string(),
                    Err(failure) => failure.to_string(),
                }),
                false => self.lifecycle.unload(&name).await.map_err(|error| error.to_string()),
            };
            match done {
                Ok(()) => {
                    tracing::info!(plugin = %name, "the plugin's file is gone from the folder");
                    self.gone.remove(&name);
                }
                Err(error) => {
                    tracing::warn!(plugin = %name, "the plugin's file is gone, but it goes on: {error}");
                    let pause = (pause * 2).min(LONGEST_RETRY);
                    self.gone.insert(name, (Instant::now() + pause, pause));
                }
            }
        }
    }

    /// Logs each refused file once, when it has not changed for `settled`.
    fn log_refusals(&mut self, settled: Duration) {
        for (path, seen) in &mut self.seen {
            let Some(refusal) = seen.refusal.as_mut().filter(|refusal| !refusal.is_logged) else { continue };
            if seen.since.elapsed() >= settled {
                refusal.is_logged = true;
                tracing::warn!(path = %path.display(), "a file in the plugin folder was refused: {}", refusal.why);
            }
        }
    }

    /// The time until the folder has to be read again, unless it changes before.
    fn next_look(&self) -> Duration {
        let due = self.gone.values().map(|(due, _)| due).chain(self.stepping_back.values());
        let gone = due.map(|due| due.saturating_duration_since(Instant::now()));
        let unsettled = self.seen.values().filter(|seen| seen.refusal.as_ref().is_some_and(|r| !r.is_logged));
        let settling = unsettled.map(|seen| SETTLED.saturating_sub(seen.since.elapsed()));
        gone.chain(settling).min().unwrap_or(RESCAN_INTERVAL).clamp(DEBOUNCE, RESCAN_INTERVAL)
    }

    /// Watches the folder until the task is aborted. A missing folder is created. If the system cannot watch the
    /// folder, it is read every five seconds.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn watch(mut self) -> io::Result<JoinHandle<()>> {
        fs::create_dir_all(&self.dir)?;
        // One message is enough to say that something changed.
        let (changed, mut changes) = mpsc::channel(1);
        let watcher = watcher(&self.dir, changed).inspect_err(|error| {
            tracing::warn!(%error, dir = %self.dir.display(), "the plugin folder cannot be watched, and is read every {RESCAN_INTERVAL:?}");
        });
        Ok(tokio::spawn(async move {
            // The watcher watches until it is dropped.
            let watcher = watcher.ok();
            // Reads the changes between the first reading and the watch.
            self.read(false).await;
            loop {
                let pause = self.next_look();
                // A folder that was replaced is no longer watched, so the folder is also read now and then.
                let is_changed = match &watcher {
                    Some(_) => matches!(tokio::time::timeout(pause, changes.recv()).await, Ok(Some(()))),
                    None => {
                        tokio::time::sleep(pause).await;
                        false
                    }
                };
                let since = Instant::now();
                while is_changed
                    && since.elapsed() < MAX_DEBOUNCE
                    && matches!(tokio::time::timeout(DEBOUNCE, changes.recv()).await, Ok(Some(())))
                {}
                self.read(false).await;
            }
        }))
    }
}

fn watcher(dir: &Path, changed: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
        Ok(event) if event.kind.is_access() && !is_close_write(&event) => {}
        Ok(_) => drop(changed.try_send(())),
        Err(error) => tracing::warn!(%error, "cannot watch the plugin folder"),
    })?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn is_close_write(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

/// The components in a folder; none if the folder is missing.
fn components(dir: &Path) -> io::Result<Option<BTreeMap<PathBuf, Stamp>>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        // The file may be gone by now.
        if let Ok(metadata) = fs::metadata(&path)
            && metadata.is_file()
        {
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            files.insert(path, Stamp { bytes: metadata.len(), inode: metadata.ino(), changed });
        }
    }
    Ok(Some(files))
}
