//! Configuration by environment variables and by secret files, as orchestrators provide them.

use std::fs;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{TestHost, http};
use serde_json::json;

#[tokio::test]
async fn kubernetes_service_variables_are_ignored() {
    let host = TestHost::start_with(
        "",
        &[
            ("ROUNDHOUSE_PORT", "tcp://10.96.7.1:8080"),
            ("ROUNDHOUSE_SERVICE_HOST", "10.96.7.1"),
            ("ROUNDHOUSE_SERVICE_PORT", "8080"),
            ("ROUNDHOUSE_SERVICE_PORT_HTTP", "8080"),
            ("ROUNDHOUSE_PORT_8080_TCP", "tcp://10.96.7.1:8080"),
            ("ROUNDHOUSE_PORT_8080_TCP_ADDR", "10.96.7.1"),
            ("ROUNDHOUSE_PORT_8080_TCP_PORT", "8080"),
            ("ROUNDHOUSE_PORT_8080_TCP_PROTO", "tcp"),
            ("ROUNDHOUSE_API_SERVICE_HOST", "10.96.7.2"),
            ("ROUNDHOUSE_API_PORT", "tcp://10.96.7.2:8081"),
        ],
    );
    let log = host.log();
    assert_eq!(log.matches("tell where a Service is").count(), 1, "{log}");
    assert!(log.contains("ROUNDHOUSE_API_PORT") && log.contains("development mode"), "{log}");
}

#[test]
fn unknown_variable_is_refused_with_a_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    for (variable, value, hint) in [
        ("ROUNDHOUSE_LISTN", "127.0.0.1:0", "did you mean listen?"),
        ("ROUNDHOUSE_PORT", "8080", "did you mean listen?"),
        ("ROUNDHOUSE_LIMITS__MESSAGE_BYTE", "5", "did you mean message_bytes?"),
    ] {
        let output = TestHost::command(dir.path()).arg("check").env(variable, value).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(variable) && stderr.contains(hint), "{stderr}");
    }
}

#[tokio::test]
async fn empty_variables_count_as_unset() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("roundhouse.toml"), "auth.jwt.secret = \"s\"").unwrap();
    // If an empty variable set the plugin folder to the working folder, this file would be loaded.
    fs::write(dir.path().join("hostile.wasm"), hostile("normal")).unwrap();
    let empty = [
        "AUTH__JWT__ISSUER",
        "AUTH__JWT__AUDIENCE",
        "AUTH__JWT__COOKIE",
        "AUTH__JWT__SECRET",
        "PLUGINS__DIR",
        "STORE__URL",
        "LIMITS__MESSAGE_BYTES",
        "LOG_FORMAT",
    ];
    let names: Vec<String> = empty.iter().map(|key| format!("ROUNDHOUSE_{key}")).collect();
    let env: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "")).chain([("RUST_LOG", "")]).collect();
    let host = TestHost::start_in(dir, &env);
    host.client("ana").await;
    assert_eq!(host.call("GET", "/v1/plugins/hostile", "").await.status, 404);
    assert!(host.log().contains("empty, which counts as unset"), "{}", host.log());
}

#[tokio::test]
async fn secrets_are_read_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let config = "auth.jwt.secret_file = \"jwt\"\nauth.jwt.secrets_file = \"old\"\nstore.url_file = \"url\"\n\
                  [[api_keys]]\nname = \"billing\"\nkey_file = \"key\"\nscopes = [\"admin\"]";
    for (file, text) in [
        ("roundhouse.toml", config),
        ("jwt", "first\n"),
        ("old", "second\nthird\n"),
        ("url", "sqlite://other.db\n"),
        ("key", "k\r\n"),
    ] {
        fs::write(dir.path().join(file), text).unwrap();
    }
    let host = TestHost::start_in(dir, &[]);
    for secret in ["first", "second", "third"] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = TestHost::command(dir.path());
        let output = command.args(["token", "--user", "ana"]).env("ROUNDHOUSE_AUTH__JWT__SECRET", secret).output();
        let token = String::from_utf8(output.unwrap().stdout).unwrap();
        roundhouse_tests::TestClient::connect(&host.ws, token.trim()).await;
    }
    assert!(host.dir().join("other.db").exists() && !host.dir().join("roundhouse.db").exists());
    let answer = http(&host.api, "GET", "/v1/stats", &[("authorization", "Bearer k")], "").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn host_names_are_accepted_as_addresses() {
    let host = TestHost::start();
    let (ok, listed) = host.plugin_at(&host.api.replace("127.0.0.1", "localhost"), &["list"]);
    assert!(ok && listed.contains("ticket-collision"), "{listed}");
    let (ok, stderr) = host.plugin_at(&host.api.replace("http://", "https://"), &["list"]);
    assert!(!ok && stderr.contains("TLS handshake"), "{stderr}");

    let dir = tempfile::tempdir().unwrap();
    let check = |listen: &str| TestHost::command(dir.path()).args(["check", "--listen", listen]).output().unwrap();
    let checked: serde_json::Value = serde_json::from_slice(&check("localhost:8080").stdout).unwrap();
    assert_eq!(checked["listen"], json!("127.0.0.1:8080"));
    let unknown = check("no-such-host.invalid:8080");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("cannot resolve no-such-host.invalid:8080"));
    assert_eq!(check("localhost").status.code(), Some(2));
}
