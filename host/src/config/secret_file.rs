//! Secrets in files, as orchestrators mount them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::model::is_open_to_all;

/// The largest file, in bytes: larger than any secret, and small enough for a wrong path that names a disk image.
const MAX_BYTES: u64 = 64 * 1024;

/// A secret that is configured directly or by a file (`{key}_file`). One trailing newline of the file is dropped,
/// because editors add it.
///
/// # Errors
/// Where both are given, or the file cannot be read, is empty or is not text.
pub(super) fn value_of(
    key: &str,
    value: Option<String>,
    file: Option<&PathBuf>,
    dir: &Path,
) -> anyhow::Result<Option<String>> {
    let Some(file) = file else { return Ok(value) };
    ensure!(value.is_none(), "{key} and {key}_file are both configured: leave one out");
    read(&dir.join(file)).map(Some).with_context(|| format!("{key}_file"))
}

/// Secrets that are configured as a list, or as a file with one on each line.
///
/// # Errors
/// As [`value_of`].
pub(super) fn values_of(
    key: &str,
    values: Vec<String>,
    file: Option<&PathBuf>,
    dir: &Path,
) -> anyhow::Result<Vec<String>> {
    let Some(file) = file else { return Ok(values) };
    ensure!(values.is_empty(), "{key} and {key}_file are both configured: leave one out");
    let text = read(&dir.join(file)).with_context(|| format!("{key}_file"))?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        text.len() as u64 <= MAX_BYTES,
        "{} is larger than {MAX_BYTES} bytes: is it the right file?",
        path.display()
    );
    if is_open_to_all(path) {
        tracing::warn!(
            "{0} holds a secret, and every user of this machine can read it: run `chmod 600 {0}`",
            path.display()
        );
    }
    let secret = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    if secret.trim().is_empty() {
        bail!("{} is empty: put the secret there, or leave the key out", path.display());
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_stripped() {
        let dir = tempfile::tempdir().unwrap();
        let file = PathBuf::from("secret");
        for (text, secret) in [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), ("s\n\n", "s\n"), (" s ", " s ")] {
            std::fs::write(dir.path().join(&file), text).unwrap();
            assert_eq!(value_of("k", None, Some(&file), dir.path()).unwrap().as_deref(), Some(secret), "{text:?}");
        }
        std::fs::write(dir.path().join(&file), "a\n\nb\n").unwrap();
        assert_eq!(values_of("k", Vec::new(), Some(&file), dir.path()).unwrap(), ["a", "b"]);
    }

    #[test]
    fn unusable_secret_files_are_refused_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = PathBuf::from("secret");
        let refused = |value| format!("{:#}", value_of("a.key", value, Some(&file), dir.path()).unwrap_err());
        assert!(refused(None).contains("a.key_file") && refused(None).contains("cannot read"));
        for text in [&b"\n"[..], b"", b"\xff\xfe", &[b'x'; 70_000]] {
            std::fs::write(dir.path().join(&file), text).unwrap();
            assert!(refused(None).contains("a.key_file"), "{}", refused(None));
        }
        assert!(refused(Some("s".into())).contains("both"));
    }
}
