//! Compiled components, kept on disk so that a start costs milliseconds and not seconds.
//!
//! A file's name has the component's digest and a hash of what the engine compiles for, so that neither another
//! component nor another host version can be taken for it.
#![allow(unsafe_code, reason = "loading compiled code is unsafe: see `CompiledCache::load`")]

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// The most bytes of compiled components that are kept although they are not loaded: some dozen features, in case one
/// is loaded again.
const MAX_UNUSED_BYTES: u64 = 64 * 1024 * 1024;

/// A private folder of compiled components.
#[derive(Debug)]
pub(crate) struct CompiledCache {
    dir: PathBuf,
    compatibility: u64,
    /// Whether compiled components are written to the folder.
    is_kept: bool,
}

impl CompiledCache {
    /// Opens the folder. A missing folder is created, open to this user alone.
    ///
    /// # Errors
    /// If the folder cannot be created, belongs to another user, or is open to others.
    pub(crate) fn open(dir: PathBuf, engine: &Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Self::open_existing(dir, engine, true)
    }

    /// Opens the folder for reading only. None if there is no folder that is open to this user alone.
    pub(crate) fn read_only(dir: PathBuf, engine: &Engine) -> Option<Self> {
        Self::open_existing(dir, engine, false).ok()
    }

    fn open_existing(dir: PathBuf, engine: &Engine, is_kept: bool) -> io::Result<Self> {
        let metadata = fs::metadata(&dir)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!("{} belongs to another user", dir.display())));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            let message = format!("{0} is open to others: run `chmod 700 {0}` after looking into it", dir.display());
            return Err(io::Error::other(message));
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { dir, compatibility: hasher.finish(), is_kept })
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}-{:016x}.cwasm", self.compatibility))
    }

    /// The compiled component of this digest, if it was compiled before and its file is whole.
    pub(crate) fn load(&self, digest: &str, engine: &Engine) -> Option<Component> {
        let path = self.path(digest);
        let file = fs::read(&path).ok()?;
        let (checksum, code) = file.split_first_chunk::<32>()?;
        if Sha256::digest(code)[..] != checksum[..] {
            tracing::warn!(path = %path.display(), "a compiled component is damaged and is compiled again");
            return None;
        }
        // SAFETY: compiled code runs as it is, unchecked. The file was written by `store`, in a folder that is open to
        // this user alone, was never uploaded, and is as it was written: its checksum was compared.
        match unsafe { Component::deserialize(engine, code) } {
            Ok(component) => {
                if self.is_kept {
                    // Marks the file as used, so that `prune` keeps it. An error is ignored: on a read-only file system
                    // nothing is pruned either.
                    let _ = fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                }
                Some(component)
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a compiled component cannot be used and is compiled again");
                None
            }
        }
    }

    /// Writes a compiled component to disk. A failure is logged and is no error: the next start compiles the component
    /// again.
    pub(crate) fn store(&self, digest: &str, component: &Component) {
        if !self.is_kept {
            return;
        }
        let path = self.path(digest);
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let write = |code: Vec<u8>| {
            let mut file = fs::File::create(&partial)?;
            file.write_all(&Sha256::digest(&code))?;
            file.write_all(&code)?;
            file.sync_all()?;
            fs::rename(&partial, &path)
        };
        if let Err(error) = component.serialize().map_err(io::Error::other).and_then(write) {
            tracing::warn!(%error, path = %path.display(), "cannot keep a compiled component");
        }
    }

    /// Deletes the components that were unused for longest above [`MAX_UNUSED_BYTES`], except those of the digests in
    /// `keep`.
    pub(crate) fn prune(&self, keep: &HashSet<String>) {
        if !self.is_kept {
            return;
        }
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut unused = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.split('-').next()).unwrap_or_default();
            let is_current = name.to_str().is_some_and(|n| n.ends_with(&format!("-{:016x}.cwasm", self.compatibility)));
            if is_current && keep.contains(digest) {
                continue;
            }
            // The file may have been deleted meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            unused.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), entry.path()));
        }
        // The newest first.
        unused.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut bytes = 0;
        for (_, size, path) in unused {
            bytes += size;
            if bytes > MAX_UNUSED_BYTES
                && let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "cannot delete a compiled component that is not used");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn pruning_deletes_least_recently_used_components() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CompiledCache::open(dir.path().join("cache"), &engine).unwrap();
        let third = MAX_UNUSED_BYTES / 3 + 1;
        for (age, digest) in ["kept", "oldest", "older", "newer"].into_iter().enumerate() {
            let file = fs::File::create(cache.path(digest)).unwrap();
            file.set_len(third).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age as u64)).unwrap();
        }
        fs::File::create(cache.dir.join("older-0000000000000000.cwasm")).unwrap().set_len(third).unwrap();
        cache.prune(&HashSet::from(["kept".to_owned()]));
        let is_there = |digest: &str| cache.path(digest).exists();
        assert_eq!(["kept", "oldest", "older", "newer"].map(is_there), [true, false, false, true]);
    }
}
