//! Engine.IO and Socket.IO.

mod authentication;
mod client_bundle;
mod engineio;
mod namespaces;
mod packets;
mod polling;
mod third_party_clients;
mod upgrade;

use roundhouse_tests::{Answer, InnerHost, Polling, SocketIoClient, eventually};
use serde_json::Value;

const CONFIG: &str = "auth.anonymous = true\nauth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n\
                                 plugins.conformance.grants.actions = [\"connect\"]\n\
                                 plugins.hostile.grants.actions = [\"connect\", \"disconnect\"]\n";

/// The HTTP status and the Engine.IO error code of a refusal.
fn error_code(answer: &Answer) -> (u16, i64) {
    (answer.status, answer.body["code"].as_i64().unwrap_or(-1))
}

/// A polling session, connected to the main namespace.
async fn connected_polling(host: &InnerHost) -> Polling {
    let polling = Polling::open(&host.ws).await;
    polling.send(&["40".into()]).await;
    let answer = polling.poll().await;
    assert!(answer.text.starts_with("40{\"sid\":"), "{}", answer.text);
    polling
}

/// Waits until a session has ended.
async fn expect_session_gone(polling: &Polling) {
    eventually("the session is gone", async || {
        let answer = polling.post("3").await;
        (answer.status == 400).then(|| assert_eq!(error_code(&answer), (400, 1)))
    })
    .await;
}

/// A client on a WebSocket, connected to the main namespace.
async fn client(host: &InnerHost) -> SocketIoClient {
    let mut client = SocketIoClient::socket(&host.ws).await;
    client.connect("/", &Value::Null).await.unwrap();
    client
}
