//! Features that decide whether a connection opens.

use roundhouse_tests::{
    EngineSocket, Polling, Script, SocketIoClient, TestClient, TestHost, eventually, guests, metric, skip, with_headers,
};
use serde_json::{Value, json};

const ANONYMOUS: &str = "auth.anonymous = true\n";

async fn private_messaging(toml: &str) -> TestHost {
    let grants = "[plugins.private-messaging.grants]\nactions = [\"connect\"]\n";
    let host = TestHost::start_with(&format!("{toml}{grants}"), &[]);
    host.load("private-messaging", guests::private_messaging()).await;
    host
}

async fn hostile() -> TestHost {
    let toml = "auth.jwt.secret = \"s\"\nplugins.connect_headers = [\"X-Tenant\"]\n\
                [plugins.hostile.grants]\nactions = [\"connect\"]\n";
    let host = TestHost::start_with(toml, &[]);
    host.load("hostile", guests::hostile("admits")).await;
    host
}

#[tokio::test]
async fn refusal_reaches_socketio_as_connect_error_with_data() {
    let host = private_messaging(ANONYMOUS).await;
    for transport in [SocketIoClient::socket(&host.ws).await, SocketIoClient::polling(&host.ws).await] {
        let mut client = transport;
        for auth in [Value::Null, json!({ "sessionID": "forged" })] {
            let error = client.connect("/", &auth).await.unwrap_err();
            let expected = json!({ "message": "invalid username", "data": { "content": "Please retry with a name" } });
            assert_eq!(error, expected);
        }
        // The form again, on the same transport: what the feature emits follows the connect packet.
        client.connect("/", &json!({ "username": "ana" })).await.unwrap();
        let session = client.expect_event("session").await.argument().clone();
        assert_eq!(
            client.expect_event("users").await.argument().as_array().unwrap().last().unwrap()["connected"],
            true
        );
        let mut tab = SocketIoClient::socket(&host.ws).await;
        tab.connect("/", &json!({ "sessionID": session["sessionID"] })).await.unwrap();
        assert_eq!(tab.expect_event("session").await.argument(), &session);
    }
    assert!(metric(&host.api, "connections_refused_total").await >= 4);
    // Refused connections are not listed.
    eventually("two connections of each client are there", async || {
        (host.get("/v1/connections").await["connections"].as_array().unwrap().len() == 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn refusal_closes_a_plain_connection() {
    let host = private_messaging(ANONYMOUS).await;
    let closed = TestClient::open(with_headers(&format!("{}/ws", host.ws), &[])).await.closed().await;
    assert_eq!((closed.code, &*closed.reason), (Some(4001), "invalid username"));
}

#[tokio::test]
async fn refusals_of_each_code_close_accordingly() {
    let host = hostile().await;
    let mut client = SocketIoClient::socket(&host.ws).await;
    let token = host.token("ana");
    let error = client.connect("/", &json!({ "token": token, "how": "refuse" })).await.unwrap_err();
    assert_eq!(error["data"], json!({ "code": "forbidden", "message": "it was told to refuse" }));
    // A feature that fails opens no connection.
    let error = client.connect("/", &json!({ "token": token, "how": "panic" })).await.unwrap_err();
    assert_eq!(error["data"]["code"], "internal", "{error}");
    client.connect("/", &json!({ "token": token })).await.unwrap();
    client.emit_with_ack("hostile:count", json!([{ "id": "a" }])).await;
}

#[tokio::test]
async fn plain_events_wait_for_the_admission() {
    let host = hostile().await;
    let mut ana = TestClient::open(with_headers(&format!("{}/ws", host.ws), &[])).await;
    let authenticate = json!({ "event": "authenticate", "data": { "token": host.token("ana") }, "id": 1 });
    ana.send_text(authenticate.to_string()).await;
    for id in 2..5 {
        ana.send_text(json!({ "event": "hostile:count", "data": { "id": "a" }, "id": id }).to_string()).await;
    }
    assert_eq!(ana.next().await["event"], "connected");
    for id in 1..5 {
        assert_eq!(ana.next().await["id"], id);
    }
    // A client that may resume is asked about like others.
    ana.emit_with_ack("resume", json!({})).await.unwrap();
    let mut second = TestClient::connect(&host.ws, &host.token("ana")).await;
    second.emit_with_ack("hostile:count", json!({ "id": "a" })).await.unwrap();
}

#[tokio::test]
async fn features_see_the_handshake_without_credentials() {
    let host = hostile().await;
    let token = host.token("ana");
    let headers = [("x-tenant", "acme"), ("cookie", "a=b"), ("user-agent", "test")];
    let query = format!("&token={token}&room=7&jwt={token}");
    let auth = json!({ "how": "handshake" });
    let seen = async |mut client: SocketIoClient| {
        client.connect("/", &auth).await.unwrap();
        let noise = client.expect_event("hostile:noise").await.argument()["noise"].as_str().unwrap().to_owned();
        serde_json::from_str::<Value>(&noise).unwrap()
    };
    for told in [
        seen(SocketIoClient::on_socket(EngineSocket::open_with(&host.ws, &query, &headers).await)).await,
        seen(SocketIoClient::on_polling(Polling::open_with(&host.ws, &query, &headers).await)).await,
    ] {
        assert_eq!(told["query"], json!({ "room": "7", "jwt": "" }), "{told}");
        assert_eq!(told["headers"], json!({ "x-tenant": "acme" }));
        assert_eq!(told["address"], "127.0.0.1");
        assert!(told["time"].as_u64().unwrap() > 1_700_000_000_000);
    }
}

#[tokio::test]
async fn headers_with_credentials_cannot_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("roundhouse.toml"), "plugins.connect_headers = [\"Cookie\"]\n").unwrap();
    let checked = TestHost::command(dir.path()).args(["check", "--config", "roundhouse.toml"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success() && said.contains("carries credentials"), "{said}");
}

#[tokio::test]
async fn admission_against_the_room_policy_is_refused_whole() {
    let rules = "[[rooms]]\npattern = \"private-messaging\"\nallow = \"false\"\n";
    let host = private_messaging(&format!("{ANONYMOUS}{rules}")).await;
    let mut client = SocketIoClient::socket(&host.ws).await;
    for n in 0..20 {
        let error = client.connect("/", &json!({ "username": format!("user{n}") })).await.unwrap_err();
        assert_eq!(error["data"]["code"], "forbidden", "{error}");
    }
    // The feature stores no refused connection, and does not fail on one that has ended.
    assert_eq!(host.report("private-messaging").await["traps"], 0);
}

#[tokio::test]
async fn handshake_over_the_limits_is_refused_not_emptied() {
    let host = hostile().await;
    let mut client = SocketIoClient::socket(&host.ws).await;
    let mut auth: serde_json::Map<String, Value> = (0..1100).map(|n| (n.to_string(), json!(0))).collect();
    auth.insert("token".to_owned(), json!(host.token("ana")));
    let error = client.connect("/", &Value::Object(auth)).await.unwrap_err();
    assert_eq!(error["data"]["code"], "too_large", "{error}");
}

#[tokio::test]
async fn client_that_leaves_while_asked_leaves_nothing() {
    let host = hostile().await;
    for _ in 0..20 {
        let mut ana = TestClient::open(with_headers(&format!("{}/ws?token={}", host.ws, host.token("ana")), &[])).await;
        ana.send_text("{\"event\":\"hostile:count\",\"data\":{\"id\":\"a\"}}").await;
        ana.close().await;
    }
    eventually("nobody is left", async || {
        (host.get("/v1/connections").await["connections"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
}

#[test]
fn reference_example_comes_back_to_its_form() {
    let script = match Script::on_node("private-messaging.mjs") {
        Ok(script) => script,
        Err(missing) => return skip("private-messaging.mjs", missing),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let host = runtime.block_on(private_messaging(ANONYMOUS));
    script.expect_success(&host, &[]);
}
