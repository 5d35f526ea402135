//! The installed components by digest, and a record of each plugin's generations, on disk.
//!
//! A record is replaced as a whole, after the components that it names are on disk; so whenever the process dies, the
//! next start finds either the state before a change or the state after it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::plugin::load::generation::Installed;
use crate::plugin::load::loader::digest;

/// The version of the records' format. A host refuses to read the format of a newer one.
const FORMAT: u32 = 1;

/// The file of the plugin folder that a plugin was last loaded from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FolderFile {
    pub(crate) name: String,
    pub(crate) digest: String,
}

/// The record of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) name: String,
    /// The generation that runs; none after an unload.
    pub(crate) current: Option<Installed>,
    /// The generations that a rollback can go back to, the oldest first.
    pub(crate) previous: Vec<Installed>,
    /// Generations that were rolled back and can migrate states down, the oldest first.
    pub(crate) rolled_back: Vec<Installed>,
    /// Schemas whose states may be given up if no build can migrate them.
    pub(crate) given_up: Vec<u32>,
    /// The highest generation number that was ever used.
    pub(crate) last_generation: u64,
    /// The revision of the cluster's plugins at the last change; 0 if the host was alone then.
    #[serde(default)]
    pub(crate) revision: u64,
    /// The digest of the last component that any node of the cluster took from its folder: a node that starts with the same file
    /// must not undo what was made of it since.
    #[serde(default)]
    pub(crate) last_file: Option<String>,
    /// The id of the registry that the revision is of.
    #[serde(default)]
    pub(crate) registry: Option<String>,
    pub(crate) folder: Option<FolderFile>,
    /// The events that the plugin routes. While the plugin does not run, their senders get an error that says so.
    pub(crate) events: Vec<String>,
}

impl Record {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            format: FORMAT,
            name: name.to_owned(),
            current: None,
            previous: Vec::new(),
            rolled_back: Vec::new(),
            given_up: Vec::new(),
            last_generation: 0,
            revision: 0,
            last_file: None,
            registry: None,
            folder: None,
            events: Vec::new(),
        }
    }

    /// All generations whose components are kept.
    pub(crate) fn installed(&self) -> impl Iterator<Item = &Installed> {
        self.current.iter().chain(&self.previous).chain(&self.rolled_back)
    }
}

/// A folder of installed components, which belongs to one host. Without a folder, records are kept in memory, for hosts
/// that only inspect plugins.
#[derive(Debug)]
pub(crate) struct ComponentStore {
    dir: Option<PathBuf>,
    is_read_only: bool,
    /// The records, by name, as they are on disk.
    records: Mutex<Vec<Record>>,
    /// Records that cannot be read: the plugin's name, and the error.
    unreadable: Vec<(String, String)>,
}

impl ComponentStore {
    /// A store without a folder, which ends with the process.
    pub(crate) fn in_memory() -> Self {
        Self { dir: None, is_read_only: true, records: Mutex::default(), unreadable: Vec::new() }
    }

    /// Opens the folder. A missing folder is created, open to this user alone. A read-only store creates and changes
    /// nothing.
    ///
    /// # Errors
    /// If the folder cannot be created or read.
    pub(crate) fn open(dir: &Path, is_read_only: bool) -> io::Result<Self> {
        if !is_read_only {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let mut store =
            Self { dir: Some(dir.to_owned()), is_read_only, records: Mutex::default(), unreadable: Vec::new() };
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(store),
            entries => entries?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()).and_then(|n| n.strip_suffix(".json"))
            else {
                continue;
            };
            match read_record(&path, name) {
                Ok(record) => records.push(record),
                Err(error) => store.unreadable.push((name.to_owned(), format!("{}: {error}", path.display()))),
            }
        }
        records.sort_by(|a, b| a.name.cmp(&b.name));
        store.records = Mutex::new(records);
        if !is_read_only {
            store.prune();
        }
        Ok(store)
    }

    /// The records, by name.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The record of a plugin, or an empty one.
    pub(crate) fn record(&self, name: &str) -> Record {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().find(|record| record.name == name).cloned().unwrap_or_else(|| Record::new(name))
    }

    /// The records that cannot be read: the plugin's name, and the error.
    pub(crate) fn unreadable(&self) -> &[(String, String)] {
        &self.unreadable
    }

    /// Writes a component to disk, unless it is there undamaged.
    ///
    /// # Errors
    /// If the component cannot be written.
    pub(crate) fn keep(&self, component: &[u8], digest: &str) -> io::Result<()> {
        let Some(path) = self.component(digest).filter(|_| !self.is_read_only) else { return Ok(()) };
        if self.read(digest).is_ok() {
            return Ok(());
        }
        replace(&path, component)
    }

    /// Reads a component by its digest.
    ///
    /// # Errors
    /// If the component is missing or damaged.
    pub(crate) fn read(&self, wanted: &str) -> io::Result<Vec<u8>> {
        let Some(path) = self.component(wanted) else { return Err(io::ErrorKind::NotFound.into()) };
        let component =
            fs::read(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        if digest(&component) != wanted {
            return Err(io::Error::other(format!("{} is damaged: its digest is another", path.display())));
        }
        Ok(component)
    }

    /// Replaces the record of a plugin, and deletes the components that no record names any more. When this returns,
    /// the next start finds the new record.
    ///
    /// # Errors
    /// If the record cannot be written. Then the old record stays.
    pub(crate) fn write(&self, record: Record) -> io::Result<()> {
        if let Some(dir) = self.dir.as_ref().filter(|_| !self.is_read_only) {
            let json = serde_json::to_vec_pretty(&record).map_err(io::Error::other)?;
            replace(&dir.join(format!("{}.json", record.name)), &json)?;
        }
        {
            let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            match records.iter_mut().find(|other| other.name == record.name) {
                Some(place) => *place = record,
                None => records.push(record),
            }
        }
        self.prune();
        Ok(())
    }

    /// Deletes components that no record names, and files that a process left half written when it died. Deletes
    /// nothing while a record is unreadable, because that may name any component.
    fn prune(&self) {
        let Some(dir) = self.dir.as_ref().filter(|_| !self.is_read_only && self.unreadable.is_empty()) else { return };
        let records = self.records();
        let is_needed = |digest: &str| records.iter().flat_map(Record::installed).any(|kept| kept.digest == digest);
        let Ok(entries) = fs::read_dir(dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let is_waste =
                name.ends_with(".partial") || name.strip_suffix(".wasm").is_some_and(|digest| !is_needed(digest));
            if is_waste && let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "cannot delete a component that is not needed any more");
            }
        }
    }

    fn component(&self, digest: &str) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(format!("{digest}.wasm")))
    }
}

fn read_record(path: &Path, name: &str) -> io::Result<Record> {
    let record: Record = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    if record.format > FORMAT {
        let message = format!("it was written by a newer host (format {}, this one knows {FORMAT})", record.format);
        return Err(io::Error::other(message));
    }
    if record.name != name {
        return Err(io::Error::other(format!("it is the record of {}", record.name)));
    }
    Ok(record)
}

/// Replaces a file as a whole: when this returns, the new content is on disk under its name.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    // The new name is on disk when the folder is synced.
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::load::generation::Source;

    fn installed(generation: u64, component: &[u8]) -> Installed {
        Installed { generation, version: "1.0.0".to_owned(), digest: digest(component), source: Source::Api }
    }

    fn files(dir: &Path, extension: &str) -> usize {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).count()
    }

    #[test]
    fn records_and_components_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(dir.path(), false).unwrap();
        store.keep(b"one", &digest(b"one")).unwrap();
        let record = Record { current: Some(installed(1, b"one")), last_generation: 1, ..Record::new("chat") };
        store.write(record.clone()).unwrap();
        let store = ComponentStore::open(dir.path(), false).unwrap();
        assert_eq!(store.records(), [record]);
        assert_eq!(store.read(&digest(b"one")).unwrap(), b"one");
        assert_eq!(store.record("other"), Record::new("other"));
    }

    #[test]
    fn unneeded_components_and_partial_files_are_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(dir.path(), false).unwrap();
        for (generation, component) in [(1, b"one"), (2, b"two")] {
            store.keep(component, &digest(component)).unwrap();
            let current = Some(installed(generation, component));
            store.write(Record { current, last_generation: generation, ..Record::new("chat") }).unwrap();
        }
        assert_eq!(files(dir.path(), "wasm"), 1);
        // The folder as a process leaves it that dies between a component and its record.
        store.keep(b"three", &digest(b"three")).unwrap();
        fs::write(dir.path().join("chat.partial"), "{").unwrap();
        let store = ComponentStore::open(dir.path(), false).unwrap();
        assert_eq!((files(dir.path(), "wasm"), files(dir.path(), "partial")), (1, 0));
        assert_eq!(store.record("chat").current, Some(installed(2, b"two")));
    }

    #[test]
    fn damaged_files_are_reported_and_not_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let store = ComponentStore::open(dir.path(), false).unwrap();
        store.keep(b"one", &digest(b"one")).unwrap();
        store.write(Record { current: Some(installed(1, b"one")), ..Record::new("chat") }).unwrap();
        let component = dir.path().join(digest(b"one")).with_extension("wasm");
        fs::write(&component, "other").unwrap();
        assert!(store.read(&digest(b"one")).unwrap_err().to_string().contains("damaged"));
        // A damaged component is written again.
        store.keep(b"one", &digest(b"one")).unwrap();
        assert_eq!(store.read(&digest(b"one")).unwrap(), b"one");
        fs::write(dir.path().join("chat.json"), "{").unwrap();
        let store = ComponentStore::open(dir.path(), false).unwrap();
        assert_eq!(store.unreadable()[0].0, "chat");
        assert!(component.exists(), "what an unreadable record may need is not deleted");
    }

    #[test]
    fn a_read_only_store_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("components");
        let store = ComponentStore::open(&missing, true).unwrap();
        store.keep(b"one", &digest(b"one")).unwrap();
        store.write(Record { current: Some(installed(1, b"one")), ..Record::new("chat") }).unwrap();
        assert!(!missing.exists());
        assert_eq!(store.record("chat").current, Some(installed(1, b"one")));
    }
}
