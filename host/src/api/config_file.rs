//! The configuration file as it was when the host started, so that operators see that a later change is not in use.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// A configuration file, and the digest of the content in use.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    sha256: [u8; 32],
}

impl ConfigFile {
    /// The file as it is now; `None` where it cannot be read.
    pub fn read(path: &Path) -> Option<Self> {
        let sha256 = Sha256::digest(fs::read(path).ok()?).into();
        Some(Self { path: path.to_owned(), sha256 })
    }

    /// A notice where the file has changed.
    pub(super) fn notice(&self) -> Option<String> {
        let is_same = Self::read(&self.path).is_some_and(|now| now.sha256 == self.sha256);
        let path = self.path.display();
        (!is_same)
            .then(|| format!("{path} has changed since the host started, which uses what it said then: start it anew"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_or_deleted_file_gives_a_notice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, "shards = 1").unwrap();
        let file = ConfigFile::read(&path).unwrap();
        assert_eq!(file.notice(), None);
        fs::write(&path, "shards = 2").unwrap();
        assert!(file.notice().unwrap().contains("c.toml has changed"));
        fs::remove_file(&path).unwrap();
        assert!(file.notice().is_some());
    }
}
