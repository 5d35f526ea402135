//! The name of this host in the database that it owns. The name is kept beside the journal, so that a host that is
//! restarted in the same folder after a kill need not wait for its own lease to expire.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use uuid::Uuid;

/// The file's name.
const FILE: &str = "owner";

/// Reads the name, or generates one. The journal must be locked, so that no other host uses the folder.
///
/// # Errors
/// Where the file cannot be read or written.
pub(super) fn read_or_make(journal: &Path) -> anyhow::Result<String> {
    let path = journal.join(FILE);
    let is_usable = || format!("cannot use {}, by which the database knows this host", path.display());
    // A name that a crash cut short is replaced: the host then waits for its own lease to expire.
    let text = if path.exists() { fs::read_to_string(&path).with_context(is_usable)? } else { String::new() };
    if let Ok(id) = Uuid::try_parse(text.trim()) {
        return Ok(id.to_string());
    }
    let id = Uuid::from_u64_pair(getrandom::u64()?, getrandom::u64()?).to_string();
    let new = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(id.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(journal)?.sync_all()
    };
    write().with_context(is_usable)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_kept_and_differs_between_folders() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, other] = dirs.each_ref().map(|dir| read_or_make(dir.path()).unwrap());
        assert_ne!(one, other);
        assert_eq!(read_or_make(dirs[0].path()).unwrap(), one);
        fs::write(dirs[0].path().join(FILE), &one[..20]).unwrap();
        let anew = read_or_make(dirs[0].path()).unwrap();
        assert!(anew != one && read_or_make(dirs[0].path()).unwrap() == anew);
    }
}
