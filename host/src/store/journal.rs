//! The journal: what was promised to be stored, written down before anybody hears of it.
//!
//! It is a folder of segments. Each line of a segment is the CRC-32 of a record (RFC 1952, section 8), in hexadecimal, and
//! the record, in JSON: a promise, or the numbers of promises that were settled or given up. A line that the end of the
//! process cut short is left out when the journal is read. A segment goes when all promises in it and in those before it
//! are settled.
//!
//! A line is handed to the operating system before the promise is told to anybody, so it outlives the process. It is
//! forced to disk when the store does not take documents at once; while it does, the store's own commit comes as soon.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Promise, lock_file};

/// Bytes after which a segment is followed by another: some ten thousand messages, read in a fraction of a second.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Segments beyond which what keeps the oldest is written again.
const MANY_SEGMENTS: usize = 4;

/// Promises that are written again at a time, to let a segment go: some hundred kilobytes.
const PIECE: usize = 1000;

/// The suffix of a segment's name, which is the number of its first promise.
const SUFFIX: &str = "journal";

/// A promise that nobody has settled.
#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) promise: Promise,
    /// Whether it was given up: it must not be stored any more.
    pub(super) is_given_up: bool,
}

/// The journal of a host.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    state: Mutex<State>,
    /// Held for as long as the journal is open: two hosts would take each other's promises.
    _lock: File,
}

#[derive(Debug)]
struct State {
    /// From the oldest to the one that is written to; there is always one.
    segments: VecDeque<Segment>,
    /// The length of the last segment.
    bytes: u64,
    last_number: u64,
    /// Promises that were given up and are not settled.
    given_up: HashSet<u64>,
    /// Whether the oldest segment cannot be removed.
    is_stuck: bool,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    /// The number of the first promise that may be in it.
    first: u64,
    file: File,
    /// Whether something was written that has not been forced to disk.
    is_unsynced: bool,
    /// Promises that were ever written here.
    n_written: usize,
    /// Those of them that are not settled.
    unsettled: HashSet<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Record<P> {
    Promise(P),
    GivenUp(Vec<u64>),
    Settled(Vec<u64>),
}

impl Journal {
    /// Opens the journal in `dir`, and gives what is unsettled in it, in the order in which it was promised.
    ///
    /// # Errors
    /// Where the folder cannot be used, or another host uses it.
    pub(super) fn open(dir: &Path) -> anyhow::Result<(Self, Vec<Unsettled>)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot make the journal's folder {}", dir.display()))?;
        let lock = lock_file(&dir.join("lock"), "the journal")?;
        let mut segments = VecDeque::new();
        let mut unsettled = BTreeMap::new();
        let mut last_number = 0;
        for (first, path) in segments_in(dir)? {
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let numbers = read_segment(&text, &path, &mut unsettled);
            last_number = numbers.iter().copied().max().unwrap_or(0).max(last_number).max(first);
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            let n_written = numbers.len();
            segments.push_back(Segment { path, first, file, is_unsynced: false, n_written, unsettled: numbers });
        }
        // One that was written again counts where it was written last.
        let mut seen = HashSet::new();
        for segment in segments.iter_mut().rev() {
            segment.unsettled.retain(|number| unsettled.contains_key(number) && seen.insert(*number));
        }
        segments.push_back(new_segment(dir, last_number + 1)?);
        let given_up = unsettled.values().filter(|one| one.is_given_up).map(|one| one.promise.number).collect();
        let mut state = State { segments, bytes: 0, last_number, given_up, is_stuck: false };
        state.drop_settled_segments();
        let journal = Self { dir: dir.to_owned(), state: Mutex::new(state), _lock: lock };
        Ok((journal, unsettled.into_values().collect()))
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes promises down, and numbers them. All of them, or none.
    ///
    /// # Errors
    /// Where the file cannot be written, as on a full disk.
    pub(super) fn promise(&self, promises: &mut [Promise]) -> io::Result<()> {
        let mut state = self.state();
        let mut lines = Vec::with_capacity(promises.len() * 1024);
        let mut number = state.last_number;
        for promise in &mut *promises {
            number += 1;
            promise.number = number;
            append_line(&mut lines, &Record::Promise(&*promise))?;
        }
        state.write(&self.dir, &lines)?;
        state.last_number = number;
        if let Some(segment) = state.segments.back_mut() {
            segment.n_written += promises.len();
            segment.unsettled.extend(promises.iter().map(|promise| promise.number));
        }
        Ok(())
    }

    /// Whether a promise was given up, by whichever process, and is not settled.
    pub(super) fn is_given_up(&self, number: u64) -> bool {
        self.state().given_up.contains(&number)
    }

    /// Notes that these promises are settled: they were stored or not, and their features have been told. Where that
    /// cannot be written, they may come up again when the host starts the next time.
    pub(super) fn settle_or_log(&self, numbers: Vec<u64>) {
        if let Err(error) = self.settle(numbers) {
            tracing::error!(%error, "the journal cannot be written: what became of a document may be told again");
        }
    }

    fn settle(&self, numbers: Vec<u64>) -> io::Result<()> {
        let mut line = Vec::new();
        let record: Record<&Promise> = Record::Settled(numbers);
        append_line(&mut line, &record)?;
        let Record::Settled(numbers) = record else { return Ok(()) };
        let mut state = self.state();
        let written = state.write(&self.dir, &line);
        for number in numbers {
            state.given_up.remove(&number);
            // It is in two while it is being written again.
            for segment in &mut state.segments {
                segment.unsettled.remove(&number);
            }
        }
        state.drop_settled_segments();
        written
    }

    /// Notes that these promises will not be kept: they must not be stored any more, whatever happens.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(super) fn give_up(&self, numbers: Vec<u64>) -> io::Result<()> {
        let mut line = Vec::new();
        let record: Record<&Promise> = Record::GivenUp(numbers);
        append_line(&mut line, &record)?;
        let mut state = self.state();
        state.write(&self.dir, &line)?;
        if let Record::GivenUp(numbers) = record {
            state.given_up.extend(numbers);
        }
        Ok(())
    }

    /// Forces what was written to disk.
    ///
    /// # Errors
    /// Where the disk says no.
    pub(super) fn sync(&self) -> io::Result<()> {
        // Not under the lock: those who promise need not wait for the disk.
        let mut unsynced = Vec::new();
        for segment in self.state().segments.iter_mut().filter(|segment| segment.is_unsynced) {
            unsynced.push(segment.file.try_clone()?);
            segment.is_unsynced = false;
        }
        // The names must outlive a loss of power as much as what is written under them.
        let synced = unsynced.iter().try_for_each(File::sync_data).and_then(|()| File::open(&self.dir)?.sync_all());
        if synced.is_err() {
            self.state().segments.iter_mut().for_each(|segment| segment.is_unsynced = true);
        }
        synced
    }

    /// Writes some of the promises again that keep the oldest segment, so that it can go: those that cannot be settled, as of
    /// a feature that is switched off, must not keep all that was written since. Where most of the journal is unsettled, it is
    /// the backlog of a store that is away, and stays.
    ///
    /// # Errors
    /// Where a segment cannot be read or written.
    pub(super) fn shorten(&self) -> io::Result<()> {
        let (path, numbers) = {
            let state = self.state();
            let n_written: usize = state.segments.iter().map(|segment| segment.n_written).sum();
            let n_unsettled: usize = state.segments.iter().map(|segment| segment.unsettled.len()).sum();
            match state.segments.front() {
                Some(oldest) if state.segments.len() > MANY_SEGMENTS && n_unsettled < n_written / 2 => {
                    let piece: Vec<u64> = oldest.unsettled.iter().copied().take(PIECE).collect();
                    (oldest.path.clone(), piece)
                }
                _ => return Ok(()),
            }
        };
        // It is written to no more, so that it can be read without holding anybody up.
        let mut found = BTreeMap::new();
        read_segment(&fs::read(&path)?, &path, &mut found);
        let mut state = self.state();
        let mut lines = Vec::new();
        let mut moved = HashSet::new();
        for number in numbers {
            let is_unsettled = state.segments.front().is_some_and(|oldest| oldest.unsettled.contains(&number));
            if let Some(Unsettled { promise, .. }) = found.get(&number).filter(|_| is_unsettled) {
                append_line(&mut lines, &Record::Promise(promise))?;
                if state.given_up.contains(&number) {
                    append_line(&mut lines, &Record::<&Promise>::GivenUp(vec![number]))?;
                }
                moved.insert(number);
            }
        }
        state.write(&self.dir, &lines)?;
        if let Some(last) = state.segments.back_mut() {
            last.n_written += moved.len();
            last.unsettled.extend(&moved);
        }
        drop(state);
        // They must be safe in their new place before the old one goes.
        self.sync()?;
        let mut state = self.state();
        if let Some(oldest) = state.segments.front_mut().filter(|oldest| oldest.path == path) {
            oldest.unsettled.retain(|number| !moved.contains(number));
        }
        state.drop_settled_segments();
        Ok(())
    }
}

impl State {
    fn write(&mut self, dir: &Path, lines: &[u8]) -> io::Result<()> {
        // One that has no promise in it has the name that the next would have.
        if self.bytes > SEGMENT_BYTES && self.segments.back().is_some_and(|last| last.first <= self.last_number) {
            self.segments.push_back(new_segment(dir, self.last_number + 1)?);
            self.bytes = 0;
        }
        let Some(last) = self.segments.back_mut() else { return Err(io::Error::other("there is no segment")) };
        last.is_unsynced = true;
        let written = last.file.write_all(lines);
        if written.is_err() {
            // Of what is not there whole, nothing must be: nobody was promised it.
            last.file.set_len(self.bytes)?;
            return written;
        }
        self.bytes += lines.len() as u64;
        Ok(())
    }

    fn drop_settled_segments(&mut self) {
        while self.segments.len() > 1 && self.segments[0].unsettled.is_empty() {
            let path = &self.segments[0].path;
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // What later ones say of its promises must stay for as long as it does.
                    if !std::mem::replace(&mut self.is_stuck, true) {
                        tracing::warn!(path = %path.display(), %error, "a segment of the journal cannot be removed");
                    }
                    return;
                }
                _ => self.is_stuck = false,
            }
            self.segments.pop_front();
        }
    }
}

fn segments_in(dir: &Path) -> anyhow::Result<Vec<(u64, PathBuf)>> {
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

fn new_segment(dir: &Path, first: u64) -> io::Result<Segment> {
    let path = dir.join(format!("{first:020}.{SUFFIX}"));
    let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path)?;
    Ok(Segment { path, first, file, is_unsynced: true, n_written: 0, unsettled: HashSet::new() })
}

fn append_line<P: Serialize>(to: &mut Vec<u8>, record: &Record<P>) -> io::Result<()> {
    let start = to.len();
    to.extend_from_slice(b"00000000 ");
    let json = to.len();
    serde_json::to_writer(&mut *to, record)?;
    let checksum = crc32fast::hash(&to[json..]);
    let mut digits = &mut to[start..json - 1];
    write!(digits, "{checksum:08x}")?;
    to.push(b'\n');
    Ok(())
}

/// Reads one segment into what is unsettled so far. Gives the promises in it.
fn read_segment(text: &[u8], path: &Path, unsettled: &mut BTreeMap<u64, Unsettled>) -> HashSet<u64> {
    let mut numbers = HashSet::new();
    for (n, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(record) = read_line(line) else {
            // The process ended while it wrote, or the disk has changed what was written. Nobody heard of the former.
            tracing::warn!(path = %path.display(), line = n + 1, "a line of the journal is not whole and is left out");
            continue;
        };
        match record {
            Record::Promise(promise) => {
                numbers.insert(promise.number);
                // One that was written again may have been given up before.
                unsettled.entry(promise.number).or_insert(Unsettled { promise, is_given_up: false });
            }
            Record::GivenUp(numbers) => {
                for number in numbers {
                    if let Some(promise) = unsettled.get_mut(&number) {
                        promise.is_given_up = true;
                    }
                }
            }
            Record::Settled(numbers) => numbers.iter().for_each(|number| drop(unsettled.remove(number))),
        }
    }
    numbers
}

fn read_line(line: &[u8]) -> Option<Record<Promise>> {
    let line = line.strip_suffix(b"\n")?;
    let (checksum, json) = line.split_at_checked(9)?;
    let checksum = u32::from_str_radix(std::str::from_utf8(&checksum[..8]).ok()?, 16).ok()?;
    if checksum != crc32fast::hash(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(tag: &str) -> Promise {
        Promise { tag: tag.to_owned(), ..Promise::of_test() }
    }

    fn tags(unsettled: &[Unsettled]) -> Vec<(&str, bool)> {
        unsettled.iter().map(|unsettled| (unsettled.promise.tag.as_str(), unsettled.is_given_up)).collect()
    }

    #[test]
    fn what_is_not_settled_comes_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, unsettled) = Journal::open(dir.path()).unwrap();
        assert!(unsettled.is_empty());
        let mut promises = ["a", "b", "c"].map(promise);
        journal.promise(&mut promises).unwrap();
        let numbers = promises.map(|promise| promise.number);
        let mut last = [promise("d\n\u{0}\u{1f600}")];
        journal.promise(&mut last).unwrap();
        journal.settle(vec![numbers[1]]).unwrap();
        journal.give_up(vec![numbers[2]]).unwrap();
        drop(journal);
        for _ in 0..2 {
            let (_, unsettled) = Journal::open(dir.path()).unwrap();
            assert_eq!(tags(&unsettled), [("a", false), ("c", true), ("d\n\u{0}\u{1f600}", false)]);
        }
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_settled_segments_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = 0;
        for _ in 0..3 {
            let (journal, unsettled) = Journal::open(dir.path()).unwrap();
            assert!(unsettled.is_empty());
            let mut one = [promise("a")];
            journal.promise(&mut one).unwrap();
            assert!(one[0].number > last);
            last = one[0].number;
            journal.settle(vec![last]).unwrap();
        }
        let (_journal, _) = Journal::open(dir.path()).unwrap();
        assert_eq!(segments_in(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_segment_is_followed_by_another_and_goes_when_all_before_it_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        let body = "x".repeat(SEGMENT_BYTES as usize / 2 + 1);
        let mut numbers = Vec::new();
        for tag in ["a", "b", "c", "d", "e"] {
            let mut one = [Promise { document: body.clone(), ..promise(tag) }];
            journal.promise(&mut one).unwrap();
            numbers.push(one[0].number);
        }
        assert_eq!(segments_in(dir.path()).unwrap().len(), 3);
        journal.settle(numbers[2..].to_vec()).unwrap();
        assert_eq!(segments_in(dir.path()).unwrap().len(), 3);
        journal.settle(numbers[..2].to_vec()).unwrap();
        assert_eq!(segments_in(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_promise_that_nobody_settles_does_not_keep_what_came_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        let mut kept = [promise("a"), promise("b")];
        journal.promise(&mut kept).unwrap();
        journal.give_up(vec![kept[1].number]).unwrap();
        let body = "x".repeat(SEGMENT_BYTES as usize + 1);
        for _ in 0..20 {
            let mut one = [Promise { document: body.clone(), ..promise("c") }];
            journal.promise(&mut one).unwrap();
            journal.settle_or_log(vec![one[0].number]);
            journal.shorten().unwrap();
        }
        assert!(segments_in(dir.path()).unwrap().len() <= MANY_SEGMENTS + 1);
        drop(journal);
        let (_, unsettled) = Journal::open(dir.path()).unwrap();
        assert_eq!(tags(&unsettled), [("a", false), ("b", true)]);
    }

    #[test]
    fn many_promises_that_nobody_settles_do_not_keep_what_came_after_them() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        let mut kept: Vec<Promise> = (0..PIECE * 3 / 2).map(|n| promise(&n.to_string())).collect();
        journal.promise(&mut kept).unwrap();
        let body = "x".repeat(SEGMENT_BYTES as usize / 1000);
        for _ in 0..12 {
            let mut many: Vec<Promise> =
                (0..1001).map(|_| Promise { document: body.clone(), ..promise("c") }).collect();
            journal.promise(&mut many).unwrap();
            journal.settle_or_log(many.iter().map(|promise| promise.number).collect());
            journal.shorten().unwrap();
            journal.shorten().unwrap();
        }
        assert!(segments_in(dir.path()).unwrap().len() <= MANY_SEGMENTS + 2);
        drop(journal);
        let (_, unsettled) = Journal::open(dir.path()).unwrap();
        assert_eq!(unsettled.len(), kept.len());
    }

    #[test]
    fn a_promise_that_was_being_written_again_at_the_end_is_what_it_was_and_goes_when_it_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        let mut both = [promise("a"), promise("b")];
        journal.promise(&mut both).unwrap();
        journal.give_up(vec![both[0].number]).unwrap();
        drop(journal);
        // The process ended when the promises were in their new place and not all that was known of them.
        let mut copies = Vec::new();
        both.iter().for_each(|promise| append_line(&mut copies, &Record::Promise(promise)).unwrap());
        fs::write(dir.path().join(format!("{:020}.{SUFFIX}", 3)), copies).unwrap();
        let (journal, unsettled) = Journal::open(dir.path()).unwrap();
        assert_eq!(tags(&unsettled), [("a", true), ("b", false)]);
        assert!(journal.is_given_up(both[0].number) && !journal.is_given_up(both[1].number));
        journal.settle(both.map(|promise| promise.number).to_vec()).unwrap();
        assert_eq!(segments_in(dir.path()).unwrap().len(), 1);
        drop(journal);
        assert!(Journal::open(dir.path()).unwrap().1.is_empty());
    }

    #[test]
    fn a_line_that_was_cut_short_or_changed_is_left_out_and_the_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        for tag in ["a", "b", "c", "d"] {
            journal.promise(&mut [promise(tag)]).unwrap();
        }
        drop(journal);
        let (_, path) = segments_in(dir.path()).unwrap().remove(0);
        let mut text = fs::read_to_string(&path).unwrap().replace("\"tag\":\"b\"", "\"tag\":\"x\"");
        text.truncate(text.len() - 10);
        fs::write(&path, text).unwrap();
        let (_, unsettled) = Journal::open(dir.path()).unwrap();
        assert_eq!(tags(&unsettled), [("a", false), ("c", false)]);
    }

    #[test]
    fn one_host_has_a_journal_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Journal::open(dir.path()).unwrap();
        let error = Journal::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another host"), "{error}");
        drop(first);
        Journal::open(dir.path()).unwrap();
    }
}
