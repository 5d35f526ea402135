//! The command line without a running host: its output and its errors.

use std::fs;
use std::process::Output;

use roundhouse_tests::TestHost;
use serde_json::Value;

fn run(dir: &std::path::Path, args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = TestHost::command(dir).args(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn exit_codes_distinguish_failure_and_usage() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), &["--version"]).0, Some(0));
    assert_eq!(run(dir.path(), &["--no-such-option"]).0, Some(2));
    assert_eq!(run(dir.path(), &["token"]).0, Some(2));
    let (code, _, stderr) = run(dir.path(), &["--config", "missing.toml"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("missing.toml"), "{stderr}");
    let (code, _, stderr) = run(dir.path(), &["plugin", "list", "--api", "127.0.0.1:1", "--key", "k"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("127.0.0.1:1"), "{stderr}");
    let (code, _, stderr) = run(dir.path(), &["--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("development mode"), "{stderr}");
}

#[test]
fn taken_address_is_named_in_the_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(dir.path(), &["--listen", &address, "--api", "127.0.0.1:0"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&address), "{stderr}");
}

#[test]
fn check_prints_the_setup_and_refuses_bad_files() {
    let dir = tempfile::tempdir().unwrap();
    let (code, printed, stderr) = run(dir.path(), &["check"]);
    assert_eq!(code, Some(0), "{stderr}");
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let names: Vec<_> =
        printed["plugins"].as_array().unwrap().iter().map(|plugin| plugin["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"ticket-collision") && names.contains(&"chat-confirmation"), "{names:?}");
    assert!(!dir.path().join("roundhouse.db").exists(), "to look at something leaves nothing behind");
    assert_eq!(printed["listen"], "127.0.0.1:8080");
    assert_eq!(printed["development"], true);

    fs::write(dir.path().join("c.toml"), "[limits]\nmessage_byte = 1").unwrap();
    let (code, _, stderr) = run(dir.path(), &["check", "--config", "c.toml"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("limits.message_byte") && stderr.contains("did you mean message_bytes?"), "{stderr}");

    fs::create_dir(dir.path().join("plugins.d")).unwrap();
    fs::write(dir.path().join("plugins.d/broken.wasm"), "broken").unwrap();
    let (code, _, stderr) = run(dir.path(), &["check"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("broken.wasm"), "{stderr}");
}

#[test]
fn token_has_the_requested_claims() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), "auth.jwt.secret = \"s\"").unwrap();
    let args = "token --config c.toml --user ana --name Ana --role admin --role agent --claim team={\"id\":5}"
        .split(' ')
        .collect::<Vec<_>>();
    let (code, token, stderr) = run(dir.path(), &args);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(token.trim().split('.').count(), 3);
    let (code, _, stderr) = run(dir.path(), &["token", "--config", "c.toml", "--user", "a b"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("user id"), "{stderr}");
}
