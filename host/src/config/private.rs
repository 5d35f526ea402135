//! Checks of the host's own files: an earlier command may have run as another user, and a volume may have changed modes.

use std::collections::BTreeSet;
use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::bail;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{getegid, geteuid, getgroups};

use super::secrets::PRIVATE_DIR;

/// Permission bits of a file's group, and of all other users.
const GROUP: u32 = 0o070;
const OTHERS: u32 = 0o007;

/// The host's own files, which may not exist yet.
#[derive(Debug)]
pub(super) struct OwnFiles<'a> {
    /// Generated secrets that are in use.
    pub(super) secrets: Vec<PathBuf>,
    /// The folder of the secrets.
    pub(super) private_dir: &'a Path,
    /// The cache of compiled components.
    pub(super) cache: Option<&'a Path>,
    pub(super) journal: &'a Path,
    /// Installed components.
    pub(super) components: Option<&'a Path>,
    /// The database, where it is a file.
    pub(super) database: Option<&'a Path>,
}

/// # Errors
/// All problems found, each with its remedy.
pub(super) fn check(files: &OwnFiles<'_>) -> anyhow::Result<()> {
    let mut found = Found::default();
    for secret in &files.secrets {
        found.look_at(secret, Access::READ_OK);
        if let Ok(metadata) = fs::metadata(secret) {
            found.look_at_mode(secret, &metadata);
        }
    }
    found.look_at_folder(files.private_dir);
    for dir in [files.journal].into_iter().chain(files.components) {
        found.look_at_folder(dir);
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            found.look_at(&entry.path(), Access::READ_OK | Access::WRITE_OK);
        }
    }
    if let Some(database) = files.database {
        // SQLite creates files beside it.
        found.look_at_folder(database.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")));
        for suffix in ["", "-wal", "-shm", ".owner"] {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            found.look_at(Path::new(&path), Access::READ_OK | Access::WRITE_OK);
        }
    }
    found.into_result()
}

/// Removes the group's permissions from the host's own files where their group is one of this process: Kubernetes adds them
/// to a volume's files (`fsGroup`) at each start.
pub(super) fn close_to_group(files: &OwnFiles<'_>) {
    let paths = files.secrets.iter().map(PathBuf::as_path).chain(files.cache).chain(files.components);
    let mut closed = Vec::new();
    let mut open = Vec::new();
    for path in paths {
        let Ok(metadata) = fs::metadata(path) else { continue };
        let mode = metadata.mode() & 0o7777;
        if mode & GROUP == 0 || !is_own_group(metadata.gid()) {
            continue;
        }
        let change = fs::set_permissions(path, Permissions::from_mode(mode & 0o777 & !GROUP));
        let is_closed = change.is_ok() && fs::metadata(path).is_ok_and(|now| now.mode() & GROUP == 0);
        if is_closed { &mut closed } else { &mut open }.push(path.display().to_string());
    }
    if !closed.is_empty() {
        tracing::info!("{} had been opened to the group, as volumes are: for this user alone again", closed.join(", "));
    }
    if !open.is_empty() {
        tracing::warn!(
            "{} can be used by a group that the host is in, and this cannot be changed: have no other user in it",
            open.join(", ")
        );
    }
}

fn is_own_group(gid: u32) -> bool {
    getegid().as_raw() == gid || getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == gid))
}

/// The problems that were found.
#[derive(Debug, Default)]
struct Found {
    problems: Vec<String>,
    /// Files that another user owns, but the host's user must own.
    foreign: BTreeSet<PathBuf>,
}

impl Found {
    fn look_at(&mut self, path: &Path, access: Access) {
        // Missing files will be created.
        let Ok(metadata) = fs::metadata(path) else { return };
        if accessat(CWD, path, access, AtFlags::EACCESS).is_ok() {
            return;
        }
        let verb = if access.contains(Access::WRITE_OK) { "written" } else { "read" };
        let mode = metadata.mode() & 0o777;
        self.problems.push(format!(
            "{} (of user {}, mode {mode:04o}) cannot be {verb}",
            path.display(),
            metadata.uid()
        ));
        if metadata.uid() != geteuid().as_raw() {
            self.foreign.insert(path.to_owned());
        }
    }

    /// Checks a folder in which files will be created.
    fn look_at_folder(&mut self, dir: &Path) {
        self.look_at(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK);
    }

    fn look_at_mode(&mut self, path: &Path, metadata: &Metadata) {
        let mode = metadata.mode() & 0o777;
        if mode & OTHERS != 0 || mode & GROUP != 0 && !is_own_group(metadata.gid()) {
            self.problems.push(format!(
                "{0} can be read by others (mode {mode:04o}): run `chmod 600 {0}`, or delete it to have a new one made; \
                 where a volume sets the modes, configure a secret of your own",
                path.display()
            ));
        }
    }

    fn into_result(mut self) -> anyhow::Result<()> {
        self.problems.dedup();
        if self.problems.is_empty() {
            return Ok(());
        }
        let mut problems = self.problems.join("; ");
        if self.foreign.remove(Path::new("/")) {
            problems += "; start the host in a folder of its own (a container's working directory on a volume), or set \
                         store.url, store.journal, plugins.cache and plugins.components";
        }
        if !self.foreign.is_empty() {
            // An unlisted folder may have more files of another user.
            let (dirs, files): (Vec<_>, Vec<_>) = self.foreign.iter().partition(|path| path.ends_with(PRIVATE_DIR));
            for (command, paths) in [("chown -R", dirs), ("chown", files)] {
                let paths: Vec<_> = paths.into_iter().map(|path| path.display().to_string()).collect();
                if !paths.is_empty() {
                    problems += &format!("; run `{command} {} {}`", geteuid().as_raw(), paths.join(" "));
                }
            }
        }
        bail!("the host's own files cannot be used: {problems}")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    fn files<'a>(dir: &'a Path, journal: &'a Path) -> OwnFiles<'a> {
        OwnFiles {
            secrets: vec![dir.join("jwt-secret"), dir.join("api-key")],
            private_dir: dir,
            cache: None,
            components: None,
            journal,
            database: None,
        }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, cache) = (dir.path().join("journal"), dir.path().join("cache"));
        let files = OwnFiles { cache: Some(&cache), ..files(dir.path(), &journal) };
        check(&files).unwrap();
        for path in &files.secrets {
            fs::write(path, "s").unwrap();
            set_mode(path, 0o644);
        }
        let told = check(&files).unwrap_err().to_string();
        for path in &files.secrets {
            assert!(told.contains(&format!("chmod 600 {}", path.display())), "{told}");
        }
        assert!(!journal.exists() && !cache.exists(), "looking makes nothing");
    }

    #[test]
    fn group_permissions_of_volumes_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, cache) = (dir.path().join("journal"), dir.path().join("cache"));
        let files = OwnFiles { cache: Some(&cache), ..files(dir.path(), &journal) };
        fs::create_dir(&cache).unwrap();
        set_mode(&cache, 0o2770);
        for path in &files.secrets {
            fs::write(path, "s").unwrap();
            set_mode(path, 0o660);
        }
        check(&files).unwrap();
        close_to_group(&files);
        assert_eq!((mode(&cache), mode(&files.secrets[0]), mode(&files.secrets[1])), (0o700, 0o600, 0o600));
    }

    #[test]
    fn foreign_groups_permissions_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path(), dir.path());
        fs::write(&files.secrets[0], "s").unwrap();
        set_mode(&files.secrets[0], 0o640);
        // Only root can give a file to a group of which the user is no member.
        if chown(&files.secrets[0], None, Some(54_321)).is_ok() {
            assert!(check(&files).unwrap_err().to_string().contains("can be read by others"));
        }
    }
}
