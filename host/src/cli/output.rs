//! Standard output, and lines for people on standard error.

use std::io::Write as _;

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

/// Writes a line for people to standard error. Failures are ignored.
pub(super) fn eprint(line: &str) {
    let _ = writeln!(std::io::stderr(), "roundhouse: {line}");
}
