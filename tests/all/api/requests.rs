//! The API as a whole: keys, methods, content types and its description.

use std::path::PathBuf;
use std::process::Command;

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{TestHost, http, skip};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn calls_need_a_key_with_the_scope() {
    let config = "auth.jwt.secret = \"s\"\n\
                  [[api_keys]]\nname = \"publisher\"\nkey = \"publisher-key\"\nscopes = [\"publish\"]\n\
                  [[api_keys]]\nname = \"ops\"\nkey_sha256 = \"2c6e8dd8ee80a7bb3fd6e4c9ded67ffe4bb5ed1c5ae6ce62f0e1a0a2f5e0ed6c\"\nscopes = [\"admin\"]\n\
                  [[api_keys]]\nname = \"admin\"\nkey = \"admin-key\"\nscopes = [\"admin\"]\n";
    let host = TestHost::start_with(config, &[]);
    let call = async |method: &str, path: &str, authorization: &str| {
        let header = [("authorization", authorization)];
        let headers = if authorization.is_empty() { &[][..] } else { &header[..] };
        http(&host.api, method, path, headers, "{\"to\":{\"user\":\"ana\"},\"event\":\"x\"}").await.unwrap()
    };
    for (method, path, publisher, admin) in [
        ("POST", "/v1/emit", 200, 403),
        ("POST", "/v1/events", 400, 403),
        ("POST", "/v1/query/ticket-collision/stats", 200, 403),
        ("GET", "/v1/stats", 403, 200),
        ("GET", "/v1/plugins", 403, 200),
        ("GET", "/v1/plugins/ticket-collision", 403, 200),
        ("PUT", "/v1/plugins/ticket-collision", 403, 422),
        ("POST", "/v1/plugins/ticket-collision/rollback", 403, 409),
        ("DELETE", "/v1/plugins/nothing", 403, 404),
        ("GET", "/v1/connections", 403, 200),
        ("GET", "/v1/connections/0000000000000000", 403, 404),
        ("DELETE", "/v1/connections/0000000000000000", 403, 404),
        ("GET", "/v1/users/ana", 403, 404),
        ("DELETE", "/v1/users/ana/connections", 403, 404),
        ("GET", "/v1/rooms/x", 403, 404),
    ] {
        for authorization in ["", "Bearer wrong", "Bearer ", "Basic publisher-key", "publisher-key"] {
            let answer = call(method, path, authorization).await;
            assert_eq!((answer.status, answer.body["code"].as_str()), (401, Some("unauthorized")), "{method} {path}");
        }
        assert_eq!(call(method, path, "bearer publisher-key").await.status, publisher, "{method} {path}");
        assert_eq!(call(method, path, "Bearer admin-key").await.status, admin, "{method} {path}");
    }
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(call("GET", path, "").await.status, 200, "{path}");
    }
    assert!(call("GET", "/metrics", "").await.text.contains("roundhouse_connections"));
    assert!(!host.log().contains("-key"), "a key is in no log");
}

#[tokio::test]
async fn wrong_method_names_the_allowed_ones() {
    let host = TestHost::start();
    let address = host.api.trim_start_matches("http://").to_owned();
    let mut socket = TcpStream::connect(&address).await.unwrap();
    // One connection serves several requests, one after another and pipelined.
    for (method, path, status, allow) in [
        ("GET", "/v1/emit", 405, "POST"),
        ("PATCH", "/v1/plugins/x", 405, "GET, HEAD, PUT, DELETE"),
        ("GET", "/v1/users/x/connections", 405, "DELETE"),
        ("POST", "/healthz", 405, "GET, HEAD"),
        ("GET", "/healthz", 200, ""),
        ("POST", "/v1/no", 404, ""),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let n = socket.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
        let given = answer.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap_or_default();
        assert_eq!(given, allow, "{method} {path}");
        assert_eq!(answer.contains("\"code\":"), status >= 400, "{answer}");
    }
}

#[tokio::test]
async fn other_content_types_are_refused() {
    let host = TestHost::start();
    let authorization = format!("Bearer {}", host.key);
    let body = json!({ "to": { "user": "ana" }, "event": "x" }).to_string();
    for (content_type, status) in [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/plain", 415),
        ("multipart/form-data; boundary=x", 415),
    ] {
        let headers = [("authorization", authorization.as_str()), ("content-type", content_type)];
        let answer = http(&host.api, "POST", "/v1/emit", &headers, body.clone()).await.unwrap();
        assert_eq!(answer.status, status, "{content_type}: {}", answer.text);
    }
    for (coding, status) in [("identity", 200), ("gzip", 415)] {
        let headers = [("authorization", authorization.as_str()), ("content-encoding", coding)];
        let answer = http(&host.api, "POST", "/v1/emit", &headers, body.clone()).await.unwrap();
        assert_eq!(answer.status, status, "{coding}: {}", answer.text);
    }
}

#[tokio::test]
async fn unknown_parameters_are_refused() {
    let host = TestHost::start();
    for (method, path) in
        [("GET", "/v1/stats?limit=1"), ("POST", "/v1/emit?event=x"), ("GET", "/v1/users/ana?user=ana")]
    {
        let answer = host.call(method, path, "{}").await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some("bad_request")), "{path}");
    }
    assert_eq!(host.call("GET", "/v1/stats?", "").await.status, 200);
    assert_eq!(host.call("GET", "/healthz?from=balancer", "").await.status, 200);
}

#[tokio::test]
async fn malformed_json_is_refused_with_its_position() {
    let host = TestHost::start();
    for path in ["/v1/emit", "/v1/events", "/v1/query/ticket-collision/viewers"] {
        for (body, expected) in
            [("{\"event\": \"x\",}", "column 15"), ("{\"event\" 1}", "column 10"), ("\u{0}", "column 1")]
        {
            let answer = host.call("POST", path, body).await;
            assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some("bad_request")), "{path}: {body}");
            let message = answer.body["message"].as_str().unwrap();
            assert!(message.contains("not JSON") && message.contains(expected), "{path}: {message}");
        }
        let answer = host.call("POST", path, b"\"\xff\"".to_vec()).await;
        assert_eq!(answer.status, 400, "{path}: what is not UTF-8 is not JSON");
        assert_eq!(host.call("POST", path, "x".repeat(1_000_001)).await.status, 413, "{path}");
    }
    for (body, expected) in [
        ("[\"hostile:service\"]", "expected an object"),
        ("{\"evnt\": \"x\"}", "did you mean event?"),
        ("{\"event\": 5}", "event: "),
        ("{\"event\": \"\"}", "event must be"),
        ("{\"event\": \"a\", \"event\": \"b\"}", "duplicate field"),
    ] {
        let answer = host.call("POST", "/v1/events", body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body["message"].as_str().unwrap().contains(expected), "{body}: {}", answer.text);
    }
    assert_eq!(host.call("POST", "/v1/events", "").await.status, 400);
}

/// The path of the program schemathesis: beside the build, or on the path.
fn schemathesis() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().map(|folder| folder.join("schemathesis/bin/schemathesis")).find(|file| file.is_file());
    built.unwrap_or_else(|| "schemathesis".into())
}

#[tokio::test]
async fn openapi_description_matches_the_api() {
    let program = schemathesis();
    if !Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip(
            "openapi_description_matches_the_api",
            "there is no schemathesis: .ci/run says how it is installed",
        );
    }
    let host = TestHost::start();
    host.load("hostile", hostile("normal")).await;
    let mut ana = host.client("ana").await;
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    // schemathesis gets existing names besides those that it generates. No call is left out; those that unload and
    // disconnect come last.
    let settings = "[[operations]]\ninclude-operation-id = \"readUser\"\nparameters = { \"path.id\" = \"ana\" }\n\
                    [[operations]]\ninclude-operation-id = \"readRoom\"\nparameters = { \"path.room\" = \"ticket:t1\" }\n\
                    [[operations]]\ninclude-operation-id = \"readPlugin\"\nparameters = { \"path.name\" = \"hostile\" }\n\
                    # Later calls need the others.\n\
                    [[operations]]\ninclude-operation-id = \"unloadPlugin\"\nparameters = { \"path.name\" = \"hostile\" }\n\
                    # A recording lasts for as long as is asked for.\n\
                    [[operations]]\ninclude-operation-id = \"recordPlugin\"\nparameters = { \"path.name\" = \"absent\" }\n\
                    # A component that is none is refused, though it is bytes as they should be.\n\
                    [[operations]]\ninclude-operation-id = \"loadPlugin\"\n\
                    checks.positive_data_acceptance.expected-statuses = [\"2xx\", \"401\", \"403\", \"422\"]\n\
                    [[operations]]\ninclude-operation-id = \"installPlugin\"\n\
                    checks.positive_data_acceptance.expected-statuses = [\"2xx\", \"401\", \"403\", \"422\"]\n\
                    [[operations]]\ninclude-operation-id = \"tryPlugin\"\n\
                    checks.positive_data_acceptance.expected-statuses = [\"2xx\", \"401\", \"403\", \"422\"]\n\
                    [[operations]]\ninclude-operation-id = \"beginShadow\"\n\
                    checks.positive_data_acceptance.expected-statuses = [\"2xx\", \"401\", \"403\", \"422\"]\n\
                    [[operations]]\ninclude-operation-id = \"beginCanary\"\n\
                    checks.positive_data_acceptance.expected-statuses = [\"2xx\", \"401\", \"403\", \"422\"]\n\
                    [[operations]]\ninclude-operation-id = \"replayScope\"\nparameters = { \"path.key\" = \"ticket:t1\" }\n\
                    checks.positive_data_acceptance.expected-statuses = [\"2xx\", \"401\", \"403\", \"404\", \"422\"]\n";
    std::fs::write(host.dir().join("schemathesis.toml"), settings).unwrap();
    let (url, key, dir) = (format!("{}/openapi.json", host.api), host.key.clone(), host.dir().to_owned());
    let run = tokio::task::spawn_blocking(move || {
        Command::new(program)
            .current_dir(dir)
            .args(["run", &url, "--header", &format!("Authorization: Bearer {key}")])
            .args(["--checks", "all", "--max-examples", "15", "--max-time", "25", "--seed", "1", "--no-color"])
            .args(["--suppress-health-check", "all"])
            .output()
    });
    let output = run.await.unwrap().unwrap();
    let report: String = String::from_utf8_lossy(&output.stdout).lines().map(|line| format!("{line:.300}\n")).collect();
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    drop(ana);
    drop(host.client("ana").await);
}
