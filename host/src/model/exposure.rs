//! Whether a file with a secret is open to every user of the machine.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::statfs;

/// Permission bits of users that are neither the file's owner nor in its group.
const OTHERS: u32 = 0o007;

/// File systems in memory (`statfs(2)`): tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether every user of the machine can use a file. Files in memory are left out: an orchestrator mounts secrets so
/// (Kubernetes, Docker, systemd), with modes that it chooses itself, where no other user gets to them.
pub fn is_open_to_all(path: &Path) -> bool {
    let is_open = fs::metadata(path).is_ok_and(|metadata| metadata.mode() & OTHERS != 0);
    is_open && !statfs(path).is_ok_and(|system| IN_MEMORY.contains(&(system.f_type as u64)))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn modes_for_others_are_noticed_on_disk() {
        // Beside the sources, because the folder for temporary files may be in memory.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("secret");
        assert!(!is_open_to_all(&path));
        fs::write(&path, "s").unwrap();
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open_to_all(&path), is_open, "{mode:o}");
        }
    }
}
