//! Socket.IO's client for browsers, which the host serves to pages.

use std::fs;

use roundhouse_tests::{TestHost, http};

const CONFIG: &str = "auth.jwt.secret = \"s\"\n";

async fn get(host: &TestHost, name: &str) -> roundhouse_tests::Answer {
    http(&host.ws, "GET", &format!("/socket.io/{name}"), &[], "").await.unwrap()
}

#[tokio::test]
async fn unconfigured_bundle_is_not_found_with_a_remedy() {
    let host = TestHost::start();
    for name in ["socket.io.js", "socket.io.min.js", "socket.io.esm.min.js.map", "socket.io.msgpack.min.js"] {
        let answer = get(&host, name).await;
        assert_eq!((answer.status, &answer.body["code"]), (404, &"not_found".into()), "{name}");
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(name) && message.contains("npm") && message.contains("socketio.client"), "{message}");
    }
    // Any other path gets the general message for unknown paths.
    assert!(get(&host, "other.js").await.body["message"].as_str().unwrap().contains("clients connect to /ws"));
}

#[tokio::test]
async fn bundle_is_served_from_file_or_folder() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("socket.io.min.js", "min");
    write("socket.io.esm.min.js", "esm");
    write("socket.io.esm.min.js.map", "{}");
    write("secret.txt", "no");
    let host = TestHost::start_with(&format!("{CONFIG}socketio.client = {:?}", folder.path()), &[]);
    for (name, status, text) in [
        ("socket.io.min.js", 200, "min"),
        ("socket.io.esm.min.js", 200, "esm"),
        ("socket.io.esm.min.js.map", 200, "{}"),
        ("socket.io.js", 404, ""),
        ("secret.txt", 404, ""),
        ("../secret.txt", 404, ""),
    ] {
        let answer = get(&host, name).await;
        assert!(answer.status == status && (status != 200 || answer.text == text), "{name}: {}", answer.text);
        if status == 200 {
            let kind = if name.ends_with("map") { "application/json" } else { "application/javascript" };
            assert!(answer.header("content-type").starts_with(kind), "{name}");
            assert_eq!(answer.header("access-control-allow-origin"), "*");
        }
    }
    let file = folder.path().join("socket.io.min.js");
    let host = TestHost::start_with(&format!("{CONFIG}socketio.client = {file:?}"), &[]);
    for (name, status) in [("socket.io.js", 200), ("socket.io.min.js", 200), ("socket.io.esm.min.js", 404)] {
        assert_eq!(get(&host, name).await.status, status, "{name}");
    }
}

#[tokio::test]
async fn bundle_requests_redirect_to_the_configured_url() {
    let url = "https://cdn.example/4.8/";
    let host = TestHost::start_with(&format!("{CONFIG}socketio.client = {url:?}"), &[]);
    let answer = get(&host, "socket.io.min.js").await;
    assert_eq!((answer.status, answer.header("location")), (302, "https://cdn.example/4.8/socket.io.min.js"));
    let host = TestHost::start_with(&format!("{CONFIG}socketio.client = \"{url}client.js\""), &[]);
    assert_eq!(get(&host, "socket.io.js").await.header("location"), "https://cdn.example/4.8/client.js");
    assert_eq!(get(&host, "socket.io.esm.min.js").await.status, 404);
}

#[tokio::test]
async fn absent_bundle_fails_the_check() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    for (client, expected) in [("nowhere.js", "nowhere.js"), ("empty", "has none of")] {
        let config = format!("{CONFIG}socketio.client = {client:?}");
        fs::write(folder.path().join("roundhouse.toml"), config).unwrap();
        let output = TestHost::command(folder.path()).args(["check", "--config", "roundhouse.toml"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("socketio.client") && error.contains(expected), "{error}");
    }
}
