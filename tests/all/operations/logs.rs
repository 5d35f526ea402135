//! The log on standard error: its format, and the secrets that it must not contain.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use roundhouse_tests::{Polling, TestHost, TestPostgres, eventually, metric, skip};
use serde_json::{Value, json};

/// The messages of a JSON log, line by line.
fn messages(log: &str) -> Vec<String> {
    let message = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        line["fields"]["message"].as_str().expect("a message").to_owned()
    };
    log.lines().map(message).collect()
}

#[test]
fn startup_failures_use_the_configured_log_format() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    for (file, toml) in [
        ("good", "log_format = \"json\"\nauth.jwt.secret = \"s\""),
        ("unknown", "log_format = \"json\"\nlissten = 1"),
        ("broken", "log_format = \"json\"\nlisten = "),
    ] {
        fs::write(dir.path().join(file), toml).unwrap();
    }
    let in_env = ("ROUNDHOUSE_LOG_FORMAT", "json");
    let unset = ("RUST_LOG", "off");
    for (args, env, code, reason) in [
        (&["--config", "good", "--listen", &taken][..], unset, 1, taken.as_str()),
        (&["--config", "unknown"], unset, 1, "lissten"),
        (&["check", "--config", "broken"], unset, 1, "TOML"),
        (&["--config", "missing", "--log-format", "json"], unset, 1, "missing"),
        (&["--listen", "0.0.0.0:0"], in_env, 1, "development mode"),
        (&["check", "--listen", "here"], in_env, 2, "here"),
        (&["--log-format", "json", "--no-such-option"], unset, 2, "--no-such-option"),
    ] {
        let mut command = TestHost::command(dir.path());
        let Output { status, stderr, .. } = command.args(args).env(env.0, env.1).output().unwrap();
        let log = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}: {log}");
        assert!(messages(&log).iter().any(|message| message.contains(reason)), "{args:?}: {log}");
    }
}

#[test]
fn every_line_has_the_configured_format() {
    for (toml, env) in
        [("log_format = \"json\"\nauth.jwt.secret = \"s\"", &[][..]), ("", &[("ROUNDHOUSE_LOG_FORMAT", "json")])]
    {
        let mut host = TestHost::start_with(toml, env);
        host.terminate();
        assert!(host.wait_for_exit().success());
        let messages = messages(&host.log());
        assert!(messages.iter().any(|message| message == "serving") && messages.last().unwrap() == "ended");
    }
}

#[test]
fn command_line_overrides_the_configured_format() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), "log_format = \"json\"\nlissten = 1").unwrap();
    let refused = |args: &[&str]| {
        let output = TestHost::command(dir.path()).args(args).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["check", "--config", "c.toml", "--log-format", "text"]).starts_with("roundhouse: "));
    fs::write(dir.path().join("c.toml"), "log_format = \"xml\"").unwrap();
    let stderr = refused(&["check", "--config", "c.toml"]);
    assert!(stderr.contains("log_format") && stderr.contains("json"), "{stderr}");
}

#[tokio::test]
async fn logs_contain_no_chat_bodies() {
    const BODY: &str = "between-you-and-me";
    let server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("logs_contain_no_chat_bodies", &why),
    };
    let config = format!("auth.jwt.secret = \"s\"\nstore.url = \"{}\"\n", server.url());
    let host = TestHost::start_with(&config, &[("RUST_LOG", "trace,tokio_postgres::query=trace")]);
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("joinRoom", json!({ "roomId": "r1" })).await.unwrap();
    ana.emit_with_ack("roomMessage", json!({ "roomId": "r1", "body": BODY })).await.unwrap();
    ana.expect_event("roomMessageConfirmed").await;
    let history = ana.emit_with_ack("roomHistory", json!({ "roomId": "r1" })).await.unwrap();
    assert_eq!(history["messages"][0]["body"], BODY, "{history}");
    let log = host.log();
    assert!(log.contains("TRACE") && !log.contains(BODY), "{}", lines_with(&log, BODY));
}

fn lines_with(log: &str, text: &str) -> String {
    log.lines().filter(|line| line.contains(text)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn message_over_the_limit_is_logged_and_counted() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\nlimits.message_bytes = 1000", &[]);
    for _ in 0..20 {
        let mut ana = host.client("ana").await;
        ana.send_text("x".repeat(1001)).await;
        assert_eq!(ana.closed().await.code, Some(1009));
    }
    assert_eq!(metric(&host.api, "closes_total{code=\"1009\"}").await, 20);
    assert_eq!(metric(&host.api, "closes_total{code=\"4003\"}").await, 0, "codes are shown before they occur");
    let log = host.log();
    let lines = log.matches("message was too large").count();
    assert!((1..20).contains(&lines) && log.contains("limits.message_bytes") && log.contains("ana"), "{log}");
}

#[tokio::test]
async fn polling_body_over_the_limit_is_logged() {
    let host = TestHost::start_with("auth.anonymous = true\nlimits.message_bytes = 1000", &[]);
    let polling = Polling::open(&host.ws).await;
    assert_eq!(polling.post(&"4".repeat(1001)).await.status, 413);
    eventually("it is logged", async || host.log().contains("message was too large").then_some(())).await;
}

#[tokio::test]
async fn closes_are_counted_by_code() {
    let host = TestHost::start_with("auth.jwt.secret = \"s\"", &[]);
    let mut ana = host.client("ana").await;
    let answer = host.call("DELETE", &format!("/v1/connections/{}", ana.id()), "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(ana.closed().await.code, Some(4010));
    assert_eq!(metric(&host.api, "closes_total{code=\"4010\"}").await, 1);
    // Closes by clients are not counted as closes by the host.
    host.client("ben").await.close().await;
    assert_eq!(metric(&host.api, "closes_total{code=\"1000\"}").await, 0);
}

#[test]
fn invalid_filter_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let log = |filter: &str, dir: &Path| {
        let output = TestHost::command(dir).args(["serve", "--listen", "0.0.0.0:0"]).env("RUST_LOG", filter).output();
        String::from_utf8(output.unwrap().stderr).unwrap()
    };
    assert!(log("roundhouse=loud=quiet", dir.path()).contains("RUST_LOG is not understood"));
    assert!(!log("", dir.path()).contains("RUST_LOG"));
}
