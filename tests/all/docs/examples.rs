//! The configuration and the clients of `examples/` work unchanged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use roundhouse_tests::{TestHost, skip, target_dir};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// Runs a client to its end. Returns its output.
fn run(program: &Path, options: &[&str], name: &str) -> String {
    let host = TestHost::start();
    let url = host.ws.replace("ws://", "http://");
    let mut command = Command::new("timeout");
    command.arg("30").arg(program).args(options).arg(example(name)).args([&url, &host.token("ana"), "507f"]);
    let output = command.output().expect("the client can be started");
    let printed = String::from_utf8(output.stdout).expect("it prints text");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {printed}{complaint}");
    printed
}

fn can_run(program: &Path, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

#[test]
fn example_configuration_passes_check() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    fs::copy(example("roundhouse.toml"), dir.path().join("roundhouse.toml")).expect("the example can be read");
    let output = TestHost::command(dir.path()).args(["check", "--config", "roundhouse.toml"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
}

#[test]
fn javascript_client_views_a_ticket() {
    let (node, option) = (Path::new("node"), "--experimental-websocket");
    if !can_run(node, &[option, "--eval", "if (typeof WebSocket !== 'function') process.exit(1)"]) {
        return skip("javascript_client_views_a_ticket", "there is no node with a WebSocket");
    }
    let printed = run(node, &[option], "client.mjs");
    assert!(printed.contains("acknowledged") && printed.contains("viewers:updated"), "{printed}");
}

#[test]
fn python_client_views_a_ticket() {
    let pythons = [target_dir().join("python-socketio/bin/python"), PathBuf::from("python3")];
    let Some(python) = pythons.iter().find(|python| can_run(python, &["-c", "import aiohttp, socketio"])) else {
        return skip("python_client_views_a_ticket", "there is no python with python-socketio and aiohttp");
    };
    let printed = run(python, &[], "client.py");
    assert!(printed.contains("acknowledged") && printed.contains("viewers:updated"), "{printed}");
}
