//! The Rust files of a tree, by their paths from its root.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

/// The text of each file, by its path from the root with `/` between folders.
pub type Sources = BTreeMap<String, String>;

/// Folders without sources of this repository.
const SKIPPED: [&str; 3] = ["target", "node_modules", "corpus"];

/// Reads all Rust files below `root`, except those in hidden folders and in folders without sources.
///
/// # Errors
/// If a folder cannot be listed, or a file is not text.
pub fn read(root: &Path) -> io::Result<Sources> {
    let mut sources = Sources::new();
    read_folder(root, "", &mut sources)?;
    Ok(sources)
}

fn read_folder(folder: &Path, prefix: &str, into: &mut Sources) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                read_folder(&entry.path(), &format!("{path}/"), into)?;
            }
        } else if name.ends_with(".rs") {
            into.insert(path, fs::read_to_string(entry.path())?);
        }
    }
    Ok(())
}

/// The folder of a file, with a `/` at its end unless it is the root.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |end| &path[..=end])
}

/// Resolves `.` and `..` in a path.
pub(crate) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
