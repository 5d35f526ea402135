//! Secrets that nobody configured: generated once, readable by this user alone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The folder for what the host keeps to itself.
pub const PRIVATE_DIR: &str = ".roundhouse";

/// Bytes of a secret: as many as SHA-256 takes in (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;

/// Generated secrets, in a folder.
#[derive(Debug)]
pub(super) struct Secrets {
    dir: PathBuf,
}

impl Secrets {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.join(PRIVATE_DIR) }
    }

    /// The secret that tokens are signed with.
    pub(super) fn jwt_secret(&self) -> anyhow::Result<String> {
        self.find_or_make("jwt-secret")
    }

    /// The API key.
    pub(super) fn api_key(&self) -> anyhow::Result<String> {
        self.find_or_make("api-key")
    }

    fn find_or_make(&self, name: &str) -> anyhow::Result<String> {
        let path = self.dir.join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .with_context(|| format!("cannot make {}", self.dir.display()))?;
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                let mut bytes = [0; SECRET_BYTES];
                getrandom::fill(&mut bytes).context("cannot get random bytes for a secret")?;
                let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                file.write_all(secret.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
                Ok(secret)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let metadata = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
                if metadata.permissions().mode() & 0o077 != 0 {
                    bail!(
                        "{0} can be read by others: run `chmod 600 {0}`, or delete it to have a new one made",
                        path.display()
                    );
                }
                let secret = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let secret = secret.trim().to_owned();
                if secret.is_empty() {
                    bail!("{} is empty: delete it to have a new one made", path.display());
                }
                Ok(secret)
            }
            Err(error) => Err(error).with_context(|| format!("cannot make {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept_from_others() {
        let dir = std::env::temp_dir().join(format!("roundhouse-secrets-{}", std::process::id()));
        let secrets = Secrets::new(&dir);
        let first = secrets.api_key().unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(secrets.api_key().unwrap(), first);
        assert_ne!(secrets.jwt_secret().unwrap(), first);
        let path = dir.join(PRIVATE_DIR).join("api-key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(secrets.api_key().unwrap_err().to_string().contains("chmod 600"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
