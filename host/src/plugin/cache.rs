//! Compiled components, kept on disk so that a start costs milliseconds and not seconds.
//!
//! A file is found by the component's digest and by what the engine compiles for, so that neither another component nor
//! another host version can be taken for it.
#![allow(unsafe_code, reason = "loading compiled code is unsafe: see `CompiledCache::load`")]

use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// A private folder of compiled components.
#[derive(Debug)]
pub(super) struct CompiledCache {
    dir: PathBuf,
    compatibility: u64,
    /// Whether components are added to it.
    is_kept: bool,
}

impl CompiledCache {
    /// Opens the folder, and makes it for this user alone where there is none.
    ///
    /// # Errors
    /// Where it cannot be made, is another user's, or is open to others.
    pub(super) fn open(dir: PathBuf, engine: &Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Self::open_existing(dir, engine, true)
    }

    /// Opens the folder to read from it and change nothing. None where there is none that can be trusted.
    pub(super) fn read_only(dir: PathBuf, engine: &Engine) -> Option<Self> {
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

    /// The component of this digest, if it was compiled before and the file is whole.
    pub(super) fn load(&self, digest: &str, engine: &Engine) -> Option<Component> {
        let path = self.path(digest);
        let file = fs::read(&path).ok()?;
        let (checksum, code) = file.split_first_chunk::<32>()?;
        if Sha256::digest(code)[..] != checksum[..] {
            tracing::warn!(path = %path.display(), "a compiled component is damaged and is compiled again");
            return None;
        }
        // SAFETY: compiled code runs as it is. The file was written by `store`, in a folder that is open to this user
        // alone, is never one that somebody handed in, and is as it was written.
        match unsafe { Component::deserialize(engine, code) } {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a compiled component cannot be used and is compiled again");
                None
            }
        }
    }

    /// Keeps a compiled component. Failing to is no error, only slower next time.
    pub(super) fn store(&self, digest: &str, component: &Component) {
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
}
