//! Clients that others wrote: a browser, and another language's WebSocket library.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use roundhouse_tests::guests::ticket_collision;
use roundhouse_tests::{TestHost, skip};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// What of a client is missing on this machine, if anything.
fn missing(needs_browser: bool) -> Option<&'static str> {
    if !Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Some("there is no node");
    }
    if !folder().join("node_modules").exists() {
        return Some("run `npm ci` in tests/clients first");
    }
    if needs_browser && !Path::new("/usr/bin/chromium").exists() {
        return Some("there is no /usr/bin/chromium");
    }
    None
}

#[test]
fn nodes_ws_library_speaks_the_plain_protocol() {
    if let Some(why) = missing(false) {
        return skip("nodes_ws_library_speaks_the_plain_protocol", why);
    }
    // It waits for heartbeats.
    let env = [("ROUNDHOUSE_HEARTBEAT__INTERVAL", "300ms"), ("ROUNDHOUSE_HEARTBEAT__TIMEOUT", "1s")];
    let host = TestHost::start_with("", &env);
    let tokens = ["ana", "ben"].map(|user| host.token(user));
    let output = Command::new("node")
        .arg(folder().join("plain.mjs"))
        .args([&format!("{}/ws", host.ws), &tokens[0], &tokens[1]])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", host.log());
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["ok"], true);
    assert!(result["checks"].as_u64().unwrap() >= 10, "{result}");
}

#[tokio::test]
async fn two_browser_tabs_are_warned_and_stay_connected_over_a_swap() {
    if let Some(why) = missing(true) {
        return skip("two_browser_tabs_are_warned_and_stay_connected_over_a_swap", why);
    }
    let host = TestHost::start();
    let page = host.ws.replace("ws://", "http://");
    let screenshot = host.dir().join("screenshot.png");
    let mut browser = Command::new("node")
        .arg(folder().join("browser.mjs"))
        .args([page.as_ref(), screenshot.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let mut stdin = browser.stdin.take().unwrap();
    let mut next = || lines.next().and_then(Result::ok).and_then(|line| serde_json::from_str::<Value>(&line).ok());
    if next().is_some_and(|line| line["ready"] == true) {
        host.must_load("ticket-collision", ticket_collision("0.1.1")).await;
        writeln!(stdin, "{}", json!({ "expectVersion": "0.1.1" })).unwrap();
        next();
    }
    let output = browser.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), host.log());
    assert!(std::fs::metadata(screenshot).unwrap().len() > 10_000, "there is a picture of it");
}
