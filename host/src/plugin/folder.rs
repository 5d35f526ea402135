//! The plugin folder: a component that is put there is loaded, one that is replaced is swapped, one that is taken away
//! is unloaded.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::bundled::bundled;
use super::generation::Source;
use super::loader::MAX_COMPONENT_BYTES;
use super::runtime::Runtime;

/// How long a folder must be quiet before it is read: a copy comes in many writes.
const QUIET: Duration = Duration::from_millis(150);

/// How long changes may keep the folder from being read.
const LONGEST_UNREST: Duration = Duration::from_secs(2);

/// How often the folder is read though nothing was heard of it.
const LOOK: Duration = Duration::from_secs(5);

/// What identifies a file's content cheaply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    inode: u64,
    /// When content or permissions last changed, in seconds and nanoseconds since 1970.
    changed: (i64, i64),
}

/// A watched plugin folder.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    runtime: Runtime,
    /// Each file that was read, and the plugin that came of it.
    seen: BTreeMap<PathBuf, (Stamp, Option<String>)>,
    /// Whether the folder itself could be read.
    is_readable: bool,
}

impl Folder {
    /// A folder whose components belong into `runtime`.
    pub fn new(dir: PathBuf, runtime: Runtime) -> Self {
        Self { dir, runtime, seen: BTreeMap::new(), is_readable: true }
    }

    /// The files that no plugin came of, or the folder itself if it could not be read.
    pub fn refused(&self) -> Vec<&Path> {
        if !self.is_readable {
            return vec![&self.dir];
        }
        self.seen.iter().filter(|(_, (_, name))| name.is_none()).map(|(path, _)| path.as_path()).collect()
    }

    /// Reads the folder and loads what is new in it. A folder that does not exist is empty.
    pub async fn read(&mut self) {
        let files = match components(&self.dir) {
            Ok(files) => files,
            Err(error) => {
                self.is_readable = false;
                return tracing::error!(%error, dir = %self.dir.display(), "cannot read the plugin folder");
            }
        };
        self.is_readable = true;
        // First what is new: a build under another file name takes over before the file of the one before goes.
        self.load_new(&files).await;
        let gone: Vec<PathBuf> = self.seen.keys().filter(|path| !files.contains_key(*path)).cloned().collect();
        for path in &gone {
            if let Some((_, Some(name))) = self.seen.remove(path) {
                self.take_away(&name).await;
            }
        }
        if !gone.is_empty() {
            // What was in the way of a file that was refused may be gone.
            self.seen.retain(|_, (_, name)| name.is_some());
            self.load_new(&files).await;
        }
    }

    /// Loads files that were not seen as they are now.
    async fn load_new(&mut self, files: &BTreeMap<PathBuf, Stamp>) {
        for (path, stamp) in files {
            let before = self.seen.get(path);
            if before.is_some_and(|(seen, _)| seen == stamp) {
                continue;
            }
            let name_before = before.and_then(|(_, name)| name.clone());
            let name = self.load(path, *stamp).await;
            let replaced = name_before.clone().filter(|before| name.as_ref().is_some_and(|name| name != before));
            self.seen.insert(path.clone(), (*stamp, name.or(name_before)));
            if let Some(replaced) = replaced {
                self.take_away(&replaced).await;
            }
        }
    }

    async fn load(&self, path: &Path, stamp: Stamp) -> Option<String> {
        if stamp.bytes > MAX_COMPONENT_BYTES as u64 {
            tracing::warn!(path = %path.display(), bytes = stamp.bytes, "a file in the plugin folder is too large to be a component");
            return None;
        }
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "cannot read a file in the plugin folder");
                return None;
            }
        };
        match self.runtime.load(bytes, None, None, Source::Folder).await {
            Ok(loaded) => Some(loaded.name),
            Err(error) => {
                tracing::warn!(step = ?error.step, path = %path.display(), "a file in the plugin folder was refused: {error}");
                None
            }
        }
    }

    /// No file of this name's is left where it was: another one that is a build of the same plugin takes over, or the
    /// build that is part of the host.
    async fn take_away(&mut self, name: &str) {
        let other = self.seen.iter().find(|(_, (_, other))| other.as_deref() == Some(name));
        if let Some((path, stamp)) = other.map(|(path, (stamp, _))| (path.clone(), *stamp)) {
            self.load(&path, stamp).await;
            return;
        }
        // It may have been replaced or unloaded through another door meanwhile: then it is not the folder's any more.
        let is_ours =
            self.runtime.reports().iter().any(|report| report.id.name == name && report.source == Source::Folder);
        if !is_ours {
            return;
        }
        let done = match bundled().iter().find(|bundled| bundled.name == name) {
            Some(bundled) => {
                let loaded = self.runtime.load(bundled.component.to_vec(), None, None, Source::Bundled).await;
                loaded.map(drop).map_err(|error| error.to_string())
            }
            None => self.runtime.unload(name).await.map_err(|error| error.to_string()),
        };
        if let Err(error) = done {
            tracing::warn!(plugin = %name, "the plugin's file is gone, but it goes on: {error}");
        }
    }

    /// Watches the folder until the task is aborted. The folder is made if need be.
    ///
    /// # Errors
    /// Where the folder cannot be made or watched.
    pub fn watch(mut self) -> anyhow::Result<JoinHandle<()>> {
        fs::create_dir_all(&self.dir)?;
        // One message is enough to say that something changed.
        let (changed, mut changes) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Ok(event) if event.kind.is_access() && !is_close_write(&event) => {}
            Ok(_) => drop(changed.try_send(())),
            Err(error) => tracing::warn!(%error, "cannot watch the plugin folder"),
        })?;
        watcher.watch(&self.dir, RecursiveMode::NonRecursive)?;
        Ok(tokio::spawn(async move {
            // It watches for as long as it lives.
            let _watcher = watcher;
            // What came between the first reading and the watch.
            self.read().await;
            loop {
                // A folder that is replaced by another is watched no more, so that it is looked at now and then.
                let Ok(Some(())) = tokio::time::timeout(LOOK, changes.recv()).await else {
                    self.read().await;
                    continue;
                };
                let since = Instant::now();
                while since.elapsed() < LONGEST_UNREST
                    && matches!(tokio::time::timeout(QUIET, changes.recv()).await, Ok(Some(())))
                {}
                self.read().await;
            }
        }))
    }
}

fn is_close_write(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

fn components(dir: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        // It may be gone by now.
        if let Ok(metadata) = fs::metadata(&path)
            && metadata.is_file()
        {
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            files.insert(path, Stamp { bytes: metadata.len(), inode: metadata.ino(), changed });
        }
    }
    Ok(files)
}
