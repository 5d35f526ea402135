//! Generated secrets: created once, readable by this user alone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// The folder of the host's own files.
pub const PRIVATE_DIR: &str = ".roundhouse";

/// Bytes of a secret: as long as SHA-256's output (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;

/// A secret that the host can generate.
#[derive(Debug, Clone, Copy)]
pub(super) enum Secret {
    /// The key that signs tokens.
    Jwt,
    /// The API key.
    ApiKey,
}

/// The secrets that are not configured and must be generated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    pub(super) jwt_secret: bool,
    pub(super) api_key: bool,
}

/// Generated secrets, in a folder.
#[derive(Debug, Clone)]
pub(super) struct Secrets {
    dir: PathBuf,
}

impl Secrets {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.join(PRIVATE_DIR) }
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, secret: Secret) -> PathBuf {
        self.dir.join(match secret {
            Secret::Jwt => "jwt-secret",
            Secret::ApiKey => "api-key",
        })
    }

    /// The secret, if it was generated before.
    ///
    /// # Errors
    /// Where its file cannot be read, or is empty.
    pub(super) fn find(&self, secret: Secret) -> anyhow::Result<Option<String>> {
        let path = self.path(secret);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        ensure!(!text.trim().is_empty(), "{} is empty: delete it to have a new one made", path.display());
        Ok(Some(text.trim().to_owned()))
    }

    /// The secret, which is generated if it does not exist.
    ///
    /// # Errors
    /// Where its file cannot be read, is empty or cannot be created.
    pub(super) fn find_or_make(&self, secret: Secret) -> anyhow::Result<String> {
        if let Some(found) = self.find(secret)? {
            return Ok(found);
        }
        let path = self.path(secret);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .with_context(|| format!("cannot make {}", self.dir.display()))?;
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).context("cannot get random bytes for a secret")?;
        let made: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(made.as_bytes()));
        written.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_generated_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path());
        assert_eq!(secrets.find(Secret::ApiKey).unwrap(), None);
        assert!(!secrets.dir().exists(), "looking for a secret makes nothing");
        let first = secrets.find_or_make(Secret::ApiKey).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(secrets.find_or_make(Secret::ApiKey).unwrap(), first);
        assert_ne!(secrets.find_or_make(Secret::Jwt).unwrap(), first);
        let path = secrets.path(Secret::ApiKey);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "\n").unwrap();
        assert!(secrets.find(Secret::ApiKey).unwrap_err().to_string().contains("is empty"));
    }
}
