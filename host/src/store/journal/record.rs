//! The lines of a segment: the CRC-32 of a record (RFC 1952, section 8) in hexadecimal, and the record in JSON.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::store::Promise;

/// A promise whose outcome has not been acknowledged.
#[derive(Debug)]
pub(in crate::store) struct Unacknowledged {
    pub(in crate::store) promise: Promise,
    /// Whether the promise has expired, so that its document must not be stored.
    pub(in crate::store) is_expired: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Record<P> {
    #[serde(rename = "promise")]
    Promise(P),
    /// Promises that have expired, by number.
    #[serde(rename = "givenup")]
    Expired(Vec<u64>),
    /// Promises whose outcome was acknowledged, by number.
    #[serde(rename = "settled")]
    Acknowledged(Vec<u64>),
}

/// Appends a record as a line.
///
/// # Errors
/// Where it cannot be written as JSON.
pub(super) fn append_line<P: Serialize>(to: &mut Vec<u8>, record: &Record<P>) -> io::Result<()> {
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

/// Applies the lines of a segment to the unacknowledged promises of earlier segments. Returns the numbers of the
/// promises in the segment.
pub(super) fn read_segment(
    text: &[u8],
    path: &Path,
    unacknowledged: &mut BTreeMap<u64, Unacknowledged>,
) -> HashSet<u64> {
    let mut numbers = HashSet::new();
    for (n, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(record) = read_line(line) else {
            // The process ended while it wrote the line, before the promise left the plugin thread; or the disk
            // corrupted the line.
            tracing::warn!(path = %path.display(), line = n + 1, "a line of the journal is not whole and is left out");
            continue;
        };
        match record {
            Record::Promise(promise) => {
                numbers.insert(promise.number);
                // A copied promise may have expired before, which must stay so.
                unacknowledged.entry(promise.number).or_insert(Unacknowledged { promise, is_expired: false });
            }
            Record::Expired(numbers) => {
                for number in numbers {
                    if let Some(promise) = unacknowledged.get_mut(&number) {
                        promise.is_expired = true;
                    }
                }
            }
            Record::Acknowledged(numbers) => numbers.iter().for_each(|number| drop(unacknowledged.remove(number))),
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
