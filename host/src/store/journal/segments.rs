//! The files of the journal, from the oldest to the current one.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The size at which a new segment is begun, in bytes: some ten thousand messages, read in a fraction of a second.
pub(super) const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// The suffix of a segment's name, which is the number of its first promise.
pub(super) const SUFFIX: &str = "journal";

/// A file of the journal.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The number of the first promise that may be in it.
    first: u64,
    pub(super) file: File,
    /// Whether the file has writes that were not forced to disk.
    pub(super) is_unsynced: bool,
    /// The number of promises ever written to the segment.
    pub(super) n_written: usize,
    /// The numbers of its unacknowledged promises.
    pub(super) unacknowledged: HashSet<u64>,
}

impl Segment {
    fn create(dir: &Path, first: u64) -> io::Result<Self> {
        let path = dir.join(format!("{first:020}.{SUFFIX}"));
        let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path)?;
        Ok(Self { path, first, file, is_unsynced: true, n_written: 0, unacknowledged: HashSet::new() })
    }

    /// A segment of an earlier process, with the numbers of the promises in it.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub(super) fn of_earlier(path: PathBuf, first: u64, numbers: HashSet<u64>) -> anyhow::Result<Self> {
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { path, first, file, is_unsynced: false, n_written: numbers.len(), unacknowledged: numbers })
    }
}

/// All files of the journal.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    /// Never empty. The last file is the current one.
    pub(super) files: VecDeque<Segment>,
    /// The length of the last file, in bytes.
    bytes: u64,
    /// The number of the last promise.
    pub(super) last_number: u64,
    /// Whether the oldest file cannot be removed.
    is_stuck: bool,
}

impl Segments {
    /// The files of earlier processes, and a new one behind them.
    ///
    /// # Errors
    /// Where a file cannot be created.
    pub(super) fn new(dir: &Path, mut earlier: VecDeque<Segment>, last_number: u64) -> io::Result<Self> {
        earlier.push_back(Segment::create(dir, last_number + 1)?);
        Ok(Self { dir: dir.to_owned(), files: earlier, bytes: 0, last_number, is_stuck: false })
    }

    /// Appends whole lines to the last file, or to a new one if that is full.
    ///
    /// # Errors
    /// Where the lines cannot be written. None of them is in the file then.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        // A file without a promise already has the name of the next file.
        if self.bytes > SEGMENT_BYTES && self.files.back().is_some_and(|last| last.first <= self.last_number) {
            self.files.push_back(Segment::create(&self.dir, self.last_number + 1)?);
            self.bytes = 0;
        }
        let Some(last) = self.files.back_mut() else { return Err(io::Error::other("there is no segment")) };
        last.is_unsynced = true;
        let written = last.file.write_all(lines);
        if written.is_err() {
            // The caller refuses these promises, so no part of them may stay.
            last.file.set_len(self.bytes)?;
            return written;
        }
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Counts promises that were written to the last file.
    pub(super) fn count(&mut self, n: usize, numbers: impl Iterator<Item = u64>) {
        if let Some(last) = self.files.back_mut() {
            last.n_written += n;
            last.unacknowledged.extend(numbers);
        }
    }

    /// Marks promises as acknowledged, and removes files that are no longer needed.
    pub(super) fn acknowledge(&mut self, numbers: &[u64]) {
        for number in numbers {
            // A copied promise is in two files.
            for segment in &mut self.files {
                segment.unacknowledged.remove(number);
            }
        }
        self.remove_acknowledged();
    }

    /// Removes the oldest files for as long as all of their promises are acknowledged.
    pub(super) fn remove_acknowledged(&mut self) {
        while self.files.len() > 1 && self.files[0].unacknowledged.is_empty() {
            let path = &self.files[0].path;
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // Later files must stay as long as this one, because they record the outcomes of its promises.
                    if !std::mem::replace(&mut self.is_stuck, true) {
                        tracing::warn!(path = %path.display(), %error, "a segment of the journal cannot be removed");
                    }
                    return;
                }
                _ => self.is_stuck = false,
            }
            self.files.pop_front();
        }
    }
}

/// The segments in a folder, each with the number of the first promise that may be in it, the oldest first.
///
/// # Errors
/// Where the folder cannot be listed.
pub(super) fn segments_in(dir: &Path) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let is_segment = path.extension().is_some_and(|suffix| suffix == SUFFIX);
        let first = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(first) = first.filter(|_| is_segment) {
            segments.push((first, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}
