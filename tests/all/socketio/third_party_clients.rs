//! Third-party Socket.IO clients: JavaScript's newest, an old one, and Python's.

use roundhouse_tests::{Script, TestHost, skip};
use serde_json::{Value, json};

const TRANSPORTS: [&str; 3] = ["polling", "websocket", "upgrade"];

/// Runs a script for two users, with `args`, a transport and the users' tokens, on each transport.
fn work(test: &str, script: impl Fn() -> Result<Script, &'static str>, args: &[&str]) {
    if let Err(why) = script() {
        return skip(test, why);
    }
    // The scripts send hundreds of events per second.
    let host = TestHost::start_with("", &[("ROUNDHOUSE_LIMITS__EVENTS_PER_SECOND", "0")]);
    let (ana, ben) = (host.token("ana"), host.token("ben"));
    for transport in TRANSPORTS {
        script().unwrap().expect_success(&host, &[args, &[transport, &ana, &ben]].concat());
    }
}

#[test]
fn newest_client_is_recovered_on_each_transport() {
    let test = "newest_client_is_recovered_on_each_transport";
    work(test, || Script::on_node("socketio.mjs"), &["newest"]);
}

#[test]
fn old_client_reconnects_on_each_transport() {
    let test = "old_client_reconnects_on_each_transport";
    work(test, || Script::on_node("socketio.mjs"), &["4.1"]);
}

#[test]
fn away_agent_leaves_the_viewers_until_back() {
    let test = "away_agent_leaves_the_viewers_until_back";
    for version in ["newest", "4.1"] {
        for transport in TRANSPORTS {
            let script = match Script::on_node("socketio-away.mjs") {
                Ok(script) => script,
                Err(why) => return skip(test, why),
            };
            // A polling client may be cut off between two requests, which only its heartbeat notices.
            let heartbeat = "[heartbeat]\ninterval = \"2s\"\ntimeout = \"6s\"\n";
            let settings = "[plugins.ticket-collision.settings]\nawaySeconds = 1\n";
            let config = &format!("auth.jwt.secret = \"s\"\n{heartbeat}{settings}");
            let host = TestHost::start_with(config, &[]);
            script.expect_success(&host, &[version, transport, &host.token("ana"), &host.token("ben")]);
        }
    }
}

#[test]
fn python_client_reconnects_on_each_transport() {
    let test = "python_client_reconnects_on_each_transport";
    work(test, || Script::on_python("python_socketio.py"), &[]);
}

#[test]
fn tokens_and_refusals_reach_the_newest_client() {
    if let Err(why) = Script::on_node("socketio-doors.mjs") {
        return skip("tokens_and_refusals_reach_the_newest_client", why);
    }
    let config = r#"
        auth.jwt.secret = "a secret for this test"
        auth.jwt.cookie = "jwt"
        socketio.namespaces = ["/custom"]
    "#;
    let host = TestHost::start_with(config, &[]);
    let tokens = [
        host.token("ana"),
        host.token("ben"),
        host.token_with("ana", &["--ttl", "0s"]),
        TestHost::start_with("auth.jwt.secret = \"another\"", &[]).token("ana"),
    ];
    for transport in ["polling", "websocket"] {
        let [ana, ben, expired, foreign] = &tokens;
        let script = Script::on_node("socketio-doors.mjs").unwrap();
        script.expect_success(&host, &[transport, ana, ben, expired, foreign]);
    }
}

#[tokio::test]
async fn client_reconnects_after_restart_not_after_disconnect() {
    for transport in TRANSPORTS {
        let script = match Script::on_node("socketio-ends.mjs") {
            Ok(script) => script,
            Err(why) => {
                return skip("client_reconnects_after_restart_not_after_disconnect", why);
            }
        };
        let mut host = TestHost::start();
        let mut client = script.start(&host, &[transport, &host.token("ana")]);
        if let Some(line) = client.read_line() {
            // The client's id is that of the connection in the API.
            let connection = format!("/v1/connections/{}", line["connection"].as_str().unwrap());
            assert_eq!(host.get(&connection).await["userId"], "ana", "{transport}");
            assert_eq!(host.call("DELETE", &connection, "").await.body, json!({ "disconnected": 1 }), "{transport}");
            assert_eq!(host.call("GET", &connection, "").await.status, 404, "{transport}");
        }
        if client.read_line().is_some_and(|line| line["connection"] != Value::Null) {
            host.terminate();
        }
        client.expect_success(&host);
        assert!(host.wait_for_exit().success(), "{transport}");
    }
}
