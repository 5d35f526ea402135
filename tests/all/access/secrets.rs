//! Secrets stay where they were given: they appear in no log, error, metric, answer, process argument or stored file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use roundhouse_tests::{
    ENGINE, EngineSocket, Polling, SocketIoClient, TestAuthority, TestClient, TestHost, Tunnel, connect_tls, http,
    with_headers,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::connect_async;

const JWT_SECRET: &str = "parrot-of-the-secret-that-signs";
const OLD_SECRET: &str = "parrot-of-the-secret-before";
const API_KEY: &str = "parrot-of-the-api-key";
const OTHER_KEY: &str = "parrot-of-another-api-key";

/// Writes a file for its user alone.
fn write_private(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A host with a secret of every kind, each in the log if the host were to log it.
fn host(authority: &TestAuthority) -> TestHost {
    let dir = tempfile::tempdir().unwrap();
    write_private(&dir.path().join("jwt"), JWT_SECRET);
    write_private(&dir.path().join("key"), API_KEY);
    let toml = format!(
        "auth.jwt.secret_file = \"jwt\"\nauth.jwt.secrets = [\"{OLD_SECRET}\"]\nauth.jwt.cookie = \"session\"\n\
         cors.origins = [\"https://app.example\"]\ntls.api.enabled = false\n{}\n\
         [[api_keys]]\nname = \"all\"\nkey_file = \"key\"\nscopes = [\"publish\", \"admin\"]\n\
         [[api_keys]]\nname = \"other\"\nkey = \"{OTHER_KEY}\"\nscopes = [\"publish\"]\n",
        authority.issue("host").section("tls")
    );
    write_private(&dir.path().join("roundhouse.toml"), &toml);
    let mut host = TestHost::start_in(dir, &[("RUST_LOG", "trace"), ("RUST_BACKTRACE", "1")]);
    host.key = API_KEY.to_owned();
    host
}

/// A token that no secret signed, marked by its place.
fn forged(place: &str) -> String {
    format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbmEifQ.parrot-in-the-{place}")
}

/// Signs in by each door, with good tokens and with bad ones.
async fn sign_in(host: &TestHost, ws: &str, token: &str) {
    let own_origin = ("origin", "https://app.example");
    let bearer = |token: &str| format!("Bearer {token}");
    let cookie = |token: &str| format!("session={token}");
    for (token, place) in [(Some(token), ""), (None, "header"), (None, "query"), (None, "cookie")] {
        let of = |at: &str| token.map_or_else(|| forged(if place == at { place } else { "other" }), str::to_owned);
        let headers = [("authorization", &*bearer(&of("header"))), ("cookie", &*cookie(&of("cookie"))), own_origin];
        let query = format!("token={}", of("query"));
        for path in [format!("/ws?{query}"), format!("{ENGINE}&transport=websocket&{query}")] {
            drop(connect_async(with_headers(&format!("{ws}{path}"), &headers)).await);
        }
        let polling = Polling::open_with(ws, &format!("&{query}"), &headers).await;
        polling.post(&format!("40{}", json!({ "token": of("payload") }))).await;
        polling.poll().await;
        // A page of a stranger.
        let stranger = [headers[1], ("origin", "https://evil.example")];
        drop(connect_async(with_headers(&format!("{ws}/ws"), &stranger)).await);
    }
    for said in [json!({ "token": token }), json!({ "token": forged("payload"), "pid": "parrot-in-the-pid" })] {
        let mut client = SocketIoClient::on_socket(EngineSocket::open(ws).await);
        let _ = client.connect("/", &said).await;
    }
    for token in [forged("message"), token.to_owned()] {
        let mut client = TestClient::open(with_headers(&format!("{ws}/ws"), &[])).await;
        client.emit("authenticate", json!({ "token": token })).await;
        let _ = client.next_or_closed().await;
    }
    let mut client = TestClient::connect(ws, &host.token("ben")).await;
    let _ = client.emit_with_ack("authenticate", json!({ "token": forged("renewal") })).await;
    let _ = client.emit_with_ack("authenticate", json!({ "tokn": forged("misspelt") })).await;
    let _ = client.emit_with_ack("joinRoom", json!({ "roomId": "r1" })).await;
    let _ = client.emit_with_ack("roomMessage", json!({ "roomId": "r1", "body": "hello" })).await;
    client.close().await;
}

/// Requests that break the protocol around a credential.
async fn break_requests(host: &TestHost, authority: &TestAuthority) {
    for request in [
        format!("GET /ws?token={} HTTP/1.1\r\nhost x\r\n\r\n", forged("broken-query")),
        format!("GET /ws HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\x01\r\n\r\n", forged("broken-header")),
        format!("GET /ws?token={} HTTP/9.9\r\n\r\n", forged("version")),
        format!(
            "POST /socket.io/?EIO=4&transport=polling&sid={} HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc",
            forged("session-id")
        ),
        format!("{}\r\n\r\n", forged("no-request")),
    ] {
        let mut socket = connect_tls(&host.ws, authority.client(None)).await.unwrap();
        let _ = socket.write_all(request.as_bytes()).await;
        let _ = socket.shutdown().await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
}

/// Calls the API with good and bad keys. Returns all answers.
async fn call_api(host: &TestHost) -> String {
    let mut answers = String::new();
    let bad_key = format!("Bearer {}", forged("api-key"));
    let good_key = format!("Bearer {API_KEY}");
    let other_key = format!("Bearer {OTHER_KEY}");
    for key in [&*bad_key, "Basic cGFycm90LW9mLWJhc2lj", &good_key, &other_key] {
        for (method, path, body) in [
            ("GET", "/v1/connections?user=ben", ""),
            ("GET", "/v1/users/ben", ""),
            ("GET", "/v1/rooms/r1", ""),
            ("GET", "/v1/plugins", ""),
            ("GET", "/v1/stats", ""),
            ("GET", "/openapi.json", ""),
            ("GET", "/metrics", ""),
            ("GET", "/nowhere", ""),
            ("POST", "/v1/emit", "{\"to\": \"nobody\"}"),
            ("POST", "/v1/plugins", "not a component"),
            ("DELETE", "/v1/users/ben/connections", ""),
        ] {
            let answer = http(&host.api, method, path, &[("authorization", key)], body).await.unwrap();
            answers += &format!("{:?}{}", answer.headers, answer.text);
        }
    }
    answers
}

/// The contents of all files below a folder, except those that were given secrets.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            if entry.is_dir() {
                dirs.push(entry);
            } else if !["jwt", "key", "roundhouse.toml"].contains(&&*name) {
                found.push((entry.clone(), fs::read(entry).unwrap()));
            }
        }
    }
    found
}

#[tokio::test]
async fn secrets_appear_nowhere_at_any_log_level() {
    let authority = TestAuthority::new();
    let mut host = host(&authority);
    let tunnel = Tunnel::to(&host.ws, authority.client(None)).await;
    let token = host.token("ana");
    sign_in(&host, &tunnel.ws, &token).await;
    break_requests(&host, &authority).await;
    let mut recoverable = SocketIoClient::socket(&tunnel.ws).await;
    recoverable.connect_as(&token).await;
    let recovery_key = recoverable.session("/")["pid"].as_str().unwrap().to_owned();
    let answers = call_api(&host).await;
    let arguments = fs::read(format!("/proc/{}/cmdline", host.pid())).unwrap();
    host.terminate();
    assert!(host.wait_for_exit().success());

    let key_file = fs::read_to_string(authority.dir().join("host.key")).unwrap();
    let signature = token.rsplit('.').next().unwrap().to_owned();
    let secrets = ["parrot", "cGFycm90", &signature, &recovery_key, key_file.lines().nth(1).unwrap()];
    let mut places = contents(host.dir());
    places.push(("the API's answers".into(), answers.into_bytes()));
    places.push(("the process's arguments".into(), arguments));
    let log = host.log();
    assert!(log.contains("TRACE") && log.contains("ended"), "the log is there");
    assert!(places.iter().any(|(path, _)| path.ends_with("roundhouse.db")) && places.len() > 4, "the data is there");
    for (path, content) in &places {
        for secret in secrets {
            let at = content.windows(secret.len()).position(|window| window == secret.as_bytes());
            let around =
                at.map(|at| String::from_utf8_lossy(&content[at.saturating_sub(200)..(at + 80).min(content.len())]));
            assert_eq!(around, None, "{secret:?} is in {}", path.display());
        }
    }
    // Nothing that the host made can be read by others.
    for path in [".roundhouse/journal", ".roundhouse"] {
        let mode = fs::metadata(host.dir().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0, "{path}: {mode:o}");
    }
}

/// Runs the host with a configuration that it must refuse. Returns all that it wrote.
fn refused(toml: &str, env: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    write_private(&dir.path().join("roundhouse.toml"), toml);
    let mut command = TestHost::command(dir.path());
    command.args(["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--config", "roundhouse.toml"]);
    let output = command.envs(env.iter().copied()).env("RUST_LOG", "trace").stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "{toml}");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn refused_configurations_repeat_no_secret() {
    for toml in [
        "auth.jwt.secret = \"parrot",
        "auth.jwt = \"parrot\"",
        "auth = \"parrot\"",
        "auth.jwt.secret = [\"parrot\"]",
        "auth.jwt.secrets = \"parrot\"",
        "auth.jwt.secert = \"parrot\"",
        "api_keys = \"parrot\"",
        "api_keys = [\"parrot\"]",
        "[[api_keys]]\nname = \"a\"\nkey = \"parrot\"\nscopes = [\"root\"]",
        "[[api_keys]]\nname = \"a\"\nkey_sha256 = \"parrot\"\nscopes = [\"admin\"]",
        "store = \"postgres://u:parrot@127.0.0.1/d\"",
        "store.url = \"postgres://u:parrot@127.0.0.1:99999999/d\"",
        "store.url = \"postgres://u:parrot@127.0.0.1:1/d\"",
        "store.url = \"mysql://u:parrot@127.0.0.1/d\"",
        "store.url = \"postgres://u:parrot@[::1/d\"",
    ] {
        let written = refused(toml, &[]);
        assert!(!written.contains("parrot"), "{toml}: {written}");
    }
    for variable in ["ROUNDHOUSE_AUTH__JWT", "ROUNDHOUSE_AUTH", "ROUNDHOUSE_API_KEYS", "ROUNDHOUSE_AUTH__JWT__SECERT"] {
        let written = refused("", &[(variable, "parrot")]);
        assert!(!written.contains("parrot"), "{variable}: {written}");
    }
}

#[test]
fn secret_files_open_to_all_are_warned_of() {
    // In the folder of the build, because the folder for temporary files may be in memory.
    let dir = tempfile::tempdir_in(roundhouse_tests::target_dir()).unwrap();
    fs::write(dir.path().join("roundhouse.toml"), "auth.jwt.secret_file = \"jwt\"").unwrap();
    for (mode, is_warned) in [(0o644, true), (0o640, false)] {
        write_private(&dir.path().join("jwt"), "s");
        fs::set_permissions(dir.path().join("jwt"), fs::Permissions::from_mode(mode)).unwrap();
        let output = TestHost::command(dir.path()).args(["check", "--config", "roundhouse.toml"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert_eq!(stderr.contains("every user of this machine can read it"), is_warned, "{mode:o}: {stderr}");
    }
}

#[tokio::test]
async fn key_file_keeps_the_key_out_of_arguments() {
    let host = TestHost::start();
    fs::copy(host.dir().join(".roundhouse/api-key"), host.dir().join("mine")).unwrap();
    let run = |args: &[&str]| {
        let mut command = TestHost::command(host.dir());
        let output = command.args(["plugin", "list", "--api", &host.api]).args(args).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&["--key-file", "mine"]), (true, String::new()));
    let (ok, stderr) = run(&["--key", &host.key]);
    assert!(ok && stderr.contains("--key-file") && !stderr.contains(&host.key), "{stderr}");
    let (ok, stderr) = run(&["--key-file", "missing"]);
    assert!(!ok && stderr.contains("--key-file: missing cannot be read"), "{stderr}");
}
