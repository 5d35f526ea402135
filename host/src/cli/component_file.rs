//! Components on disk, and the names of plugins.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

/// Reads a component.
///
/// # Errors
/// If the file cannot be read, or is far larger than any component.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    // The host has a bound of its own; this one keeps a device or a disk image from filling memory.
    const MOST_BYTES: u64 = 1 << 30;
    let mut component = Vec::new();
    let read = fs::File::open(file).and_then(|open| open.take(MOST_BYTES + 1).read_to_end(&mut component));
    read.with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(component.len() as u64 <= MOST_BYTES, "{} is larger than {MOST_BYTES} bytes", file.display());
    Ok(component)
}

/// The name of a plugin, which is part of a path.
///
/// # Errors
/// If it can be none.
pub(super) fn checked(name: &str) -> anyhow::Result<&str> {
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    ensure!(is_name, "a plugin's name is lower-case letters, digits and hyphens");
    Ok(name)
}
