//! Files that commands write, and the host's own files when it cannot use them as they are.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{TestHost, skip, target_dir};

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { BTreeSet::new() }.into_iter().chain([path]))
        .collect()
}

fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let cache = target_dir().join("compiled-for-tests");
    let mut command = TestHost::command(dir);
    let Output { status, stderr, .. } = command.args(args).env("ROUNDHOUSE_PLUGINS__CACHE", cache).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn read_only_commands_create_no_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), "limits.connections = 5").unwrap();
    fs::write(dir.path().join("hostile.wasm"), hostile("normal")).unwrap();
    let before = files(dir.path());
    for (args, code) in [
        (&["check"][..], Some(0)),
        (&["check", "--config", "c.toml"], Some(0)),
        (&["token", "--user", "ana"], Some(1)),
        (&["plugin", "inspect", "hostile.wasm"], Some(0)),
        (&["plugin", "inspect", "hostile.wasm", "--config", "c.toml"], None),
        (&["plugin", "list", "--api", "127.0.0.1:1"], Some(1)),
    ] {
        let mut command = TestHost::command(dir.path());
        let output = command.args(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(code.is_none() || output.status.code() == code, "{args:?}: {stderr}");
        assert_eq!(files(dir.path()), before, "{args:?}");
    }
}

#[test]
fn token_without_a_secret_names_searched_places() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stderr) = run(dir.path(), &["token", "--user", "ana"]);
    assert_eq!(code, Some(1));
    let path = dir.path().join(".roundhouse/jwt-secret");
    assert!(stderr.contains(path.to_str().unwrap()) && stderr.contains("--config"), "{stderr}");
}

#[test]
fn taken_address_creates_no_files() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    for args in [["--listen", &address, "--api", "127.0.0.1:0"], ["--listen", "127.0.0.1:0", "--api", &address]] {
        let (code, stderr) = run(dir.path(), &args);
        assert_eq!(code, Some(1));
        assert!(stderr.contains(&address), "{stderr}");
        assert_eq!(files(dir.path()), BTreeSet::new());
    }
}

#[test]
fn volume_file_modes_do_not_fail_the_start() {
    let mut host = TestHost::start();
    host.kill();
    // The modes that Kubernetes sets for fsGroup.
    for path in files(host.dir()).into_iter().chain([host.dir().join(".roundhouse")]) {
        let mode = if path.is_dir() { 0o2770 } else { 0o660 };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    host.restart();
    for name in ["jwt-secret", "api-key"] {
        let metadata = fs::metadata(host.dir().join(".roundhouse").join(name)).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600, "{name}");
    }
    assert!(host.log().contains("opened to the group"), "{}", host.log());
}

#[test]
fn all_unusable_files_are_reported_together() {
    let mut host = TestHost::start();
    host.kill();
    for name in ["jwt-secret", "api-key"] {
        fs::set_permissions(host.dir().join(".roundhouse").join(name), Permissions::from_mode(0o644)).unwrap();
    }
    for args in [&["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"][..], &["check"]] {
        let (code, stderr) = run(host.dir(), args);
        assert_eq!(code, Some(1), "{args:?}");
        assert!(
            stderr.contains("jwt-secret can be read by others") && stderr.contains("api-key can be read by"),
            "{stderr}"
        );
    }
}

#[test]
fn unread_configuration_file_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("roundhouse.toml"), "auth.jwt.secret = \"s\"").unwrap();
    for args in [&["check"][..], &["token", "--user", "ana"], &["serve", "--listen", "0.0.0.0:0"]] {
        let (_, stderr) = run(dir.path(), args);
        assert!(stderr.contains("add --config roundhouse.toml"), "{args:?}: {stderr}");
    }
    let (code, stderr) = run(dir.path(), &["token", "--user", "ana", "--config", "roundhouse.toml"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn files_of_another_user_are_reported_with_remedy() {
    const OTHER_USER: u32 = 65_534;
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root {
        return skip("files_of_another_user_are_reported_with_remedy", "only root can make files of two users");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".roundhouse")).unwrap();
    fs::set_permissions(dir.path().join(".roundhouse"), Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.path().join("roundhouse.db"), "").unwrap();
    fs::set_permissions(dir.path().join("roundhouse.db"), Permissions::from_mode(0o600)).unwrap();
    chown(dir.path(), Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    let mut command = TestHost::command(dir.path());
    command.args(["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]).uid(OTHER_USER).gid(OTHER_USER);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return skip("files_of_another_user_are_reported_with_remedy", &error.to_string()),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    let at = |name: &str| dir.path().join(name).display().to_string();
    assert!(stderr.contains(&format!("chown -R {OTHER_USER} {}`", at(".roundhouse"))), "{stderr}");
    assert!(stderr.contains(&format!("chown {OTHER_USER} {}`", at("roundhouse.db"))), "{stderr}");
}
