//! Standard output, and lines for people on standard error.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::Serialize;

/// Writes to standard output.
///
/// # Errors
/// Where the write fails; a closed pipe is an error, too.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

pub(super) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// A time in milliseconds since 1970 as a date.
pub(super) fn date(ms: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_millis(at).to_string()
}

/// Writes a line for people to standard error. Failures are ignored.
pub(super) fn eprint(line: &str) {
    let _ = writeln!(std::io::stderr(), "roundhouse: {line}");
}
