//! The journal: a promise is written here before its document is sent to any client.
//!
//! The journal is a folder of segments, files of lines: a promise, or the numbers of promises that expired or were
//! acknowledged. A line that a crash cut short is skipped when the journal is read. A segment is removed when all
//! promises in it and in earlier segments are acknowledged.
//!
//! Plugin threads write promises, and the store's writer everything else. Shards never use the journal: its lock is
//! held while the file is written, however long the file system takes.
//!
//! Promises that are saved without the journal ([`FIRST_SAVED`]) are in no line; only their expiry is kept, in memory.
//!
//! A line survives the process once the operating system has it. Lines are forced to disk (fsync) only while the
//! database fails; otherwise the database's own commit follows soon.

mod record;
mod segments;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use anyhow::Context as _;

use self::record::{Record, Unacknowledged, append_line, read_segment};
use self::segments::{Segment, Segments, segments_in};
use super::Promise;
use super::database::lock_file;
use super::promise::FIRST_SAVED;

/// Number of segments above which the promises of the oldest are copied.
const MANY_SEGMENTS: usize = 4;

/// Promises that are copied at a time to free a segment: some hundred kilobytes.
const PIECE: usize = 1000;

/// The journal of a host.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    state: Mutex<State>,
    /// Held while the journal is open: a second host would take over this host's promises.
    _lock: File,
}

#[derive(Debug)]
struct State {
    segments: Segments,
    /// Expired promises that are not acknowledged yet.
    expired: HashSet<u64>,
}

impl Journal {
    /// Opens the journal in `dir`, and returns its unacknowledged promises in the order of their numbers.
    ///
    /// # Errors
    /// Where the folder cannot be used, or another host uses it.
    pub(super) fn open(dir: &Path) -> anyhow::Result<(Self, Vec<Unacknowledged>)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot make the journal's folder {}", dir.display()))?;
        let lock = lock_file(&dir.join("lock"), "the journal")?;
        let mut earlier = VecDeque::new();
        let mut unacknowledged = BTreeMap::new();
        let mut last_number = 0;
        for (first, path) in segments_in(dir)? {
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let numbers = read_segment(&text, &path, &mut unacknowledged);
            last_number = numbers.iter().copied().max().unwrap_or(0).max(last_number).max(first);
            earlier.push_back(Segment::of_earlier(path, first, numbers)?);
        }
        // A copied promise counts in the last segment that has it.
        let mut seen = HashSet::new();
        for segment in earlier.iter_mut().rev() {
            segment.unacknowledged.retain(|number| unacknowledged.contains_key(number) && seen.insert(*number));
        }
        let mut segments = Segments::new(dir, earlier, last_number)?;
        segments.remove_acknowledged();
        let expired = unacknowledged.values().filter(|one| one.is_expired).map(|one| one.promise.number).collect();
        let state = Mutex::new(State { segments, expired });
        Ok((Self { dir: dir.to_owned(), state, _lock: lock }, unacknowledged.into_values().collect()))
    }

    /// The journal's folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers promises and writes all of them, or none.
    ///
    /// # Errors
    /// Where the file cannot be written, as on a full disk.
    pub(super) fn promise(&self, promises: &mut [Promise]) -> io::Result<()> {
        let segments = &mut self.state().segments;
        let mut lines = Vec::with_capacity(promises.len() * 1024);
        let mut number = segments.last_number;
        for promise in &mut *promises {
            number += 1;
            promise.number = number;
            append_line(&mut lines, &Record::Promise(&*promise))?;
        }
        segments.write(&lines)?;
        segments.last_number = number;
        segments.count(promises.len(), promises.iter().map(|promise| promise.number));
        Ok(())
    }

    /// Whether an unacknowledged promise has expired, in this process or in an earlier one.
    pub(super) fn is_expired(&self, number: u64) -> bool {
        self.state().expired.contains(&number)
    }

    /// Writes that the outcomes of these promises were acknowledged. If the write fails, the next process may send them
    /// again.
    pub(super) fn acknowledge_or_log(&self, numbers: Vec<u64>) {
        if let Err(error) = self.acknowledge(numbers) {
            tracing::error!(%error, "the journal cannot be written: what became of a document may be told again");
        }
    }

    fn acknowledge(&self, numbers: Vec<u64>) -> io::Result<()> {
        let line = line_of(&numbers, Record::Acknowledged)?;
        let mut state = self.state();
        let written = state.segments.write(&line);
        for number in &numbers {
            state.expired.remove(number);
        }
        state.segments.acknowledge(&numbers);
        written
    }

    /// Writes that these promises have expired: their documents must no longer be stored, in this process or a later
    /// one.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(super) fn expire(&self, numbers: Vec<u64>) -> io::Result<()> {
        let line = line_of(&numbers, Record::Expired)?;
        let mut state = self.state();
        state.segments.write(&line)?;
        state.expired.extend(numbers);
        Ok(())
    }

    /// Forces everything written so far to disk.
    ///
    /// # Errors
    /// Where the disk fails.
    pub(super) fn sync(&self) -> io::Result<()> {
        // The lock is released during the fsync, so that new promises do not wait for the disk.
        let mut unsynced = Vec::new();
        for segment in self.state().segments.files.iter_mut().filter(|segment| segment.is_unsynced) {
            unsynced.push(segment.file.try_clone()?);
            segment.is_unsynced = false;
        }
        // The folder is synced, too: the files' names must survive a loss of power as well.
        let synced = unsynced.iter().try_for_each(File::sync_data).and_then(|()| File::open(&self.dir)?.sync_all());
        if synced.is_err() {
            self.state().segments.files.iter_mut().for_each(|segment| segment.is_unsynced = true);
        }
        synced
    }

    /// Copies some of the promises that keep the oldest segment to the last one, so that the oldest can be removed.
    /// Otherwise promises that are never acknowledged, such as those of a disabled feature, would keep every later
    /// segment. A mostly unacknowledged journal is the backlog of a database outage, and is not shortened.
    ///
    /// # Errors
    /// Where a segment cannot be read or written.
    pub(super) fn shorten(&self) -> io::Result<()> {
        let Some((path, numbers)) = self.promises_to_copy() else { return Ok(()) };
        // The lock is not held while the file is read: no promise is written to this segment any more.
        let mut found = BTreeMap::new();
        read_segment(&fs::read(&path)?, &path, &mut found);
        let mut state = self.state();
        let mut lines = Vec::new();
        let mut copied = HashSet::new();
        for number in numbers {
            let oldest = state.segments.files.front();
            let is_unacknowledged = oldest.is_some_and(|oldest| oldest.unacknowledged.contains(&number));
            if let Some(Unacknowledged { promise, .. }) = found.get(&number).filter(|_| is_unacknowledged) {
                append_line(&mut lines, &Record::Promise(promise))?;
                if state.expired.contains(&number) {
                    append_line(&mut lines, &Record::<&Promise>::Expired(vec![number]))?;
                }
                copied.insert(number);
            }
        }
        state.segments.write(&lines)?;
        state.segments.count(copied.len(), copied.iter().copied());
        drop(state);
        // The copies must be on disk before the originals are removed.
        self.sync()?;
        let segments = &mut self.state().segments;
        if let Some(oldest) = segments.files.front_mut().filter(|oldest| oldest.path == path) {
            oldest.unacknowledged.retain(|number| !copied.contains(number));
        }
        segments.remove_acknowledged();
        Ok(())
    }

    /// The oldest segment and some of the promises that keep it, if it is to be let go. Nothing while the journal is written:
    /// the writer has outcomes to send, and asks again after its next batch.
    fn promises_to_copy(&self) -> Option<(PathBuf, Vec<u64>)> {
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let files = &state.segments.files;
        let n_written: usize = files.iter().map(|segment| segment.n_written).sum();
        let n_unacknowledged: usize = files.iter().map(|segment| segment.unacknowledged.len()).sum();
        let oldest = files.front().filter(|_| files.len() > MANY_SEGMENTS && n_unacknowledged < n_written / 2)?;
        Some((oldest.path.clone(), oldest.unacknowledged.iter().copied().take(PIECE).collect()))
    }
}

/// A line about those of these promises that are in the journal; empty if none is.
fn line_of(numbers: &[u64], record: fn(Vec<u64>) -> Record<&'static Promise>) -> io::Result<Vec<u8>> {
    let journalled: Vec<u64> = numbers.iter().copied().filter(|number| *number < FIRST_SAVED).collect();
    let mut line = Vec::new();
    if !journalled.is_empty() {
        append_line(&mut line, &record(journalled))?;
    }
    Ok(line)
}

#[cfg(test)]
impl Journal {
    /// Replaces the file of the last segment.
    pub(super) fn write_to(&self, file: File) {
        if let Some(last) = self.state().segments.files.back_mut() {
            last.file = file;
        }
    }

    pub(super) fn is_locked(&self) -> bool {
        self.state.try_lock().is_err()
    }
}

#[cfg(test)]
mod tests;
