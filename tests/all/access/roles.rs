//! The roles that a feature's manifest asks of who sends an event, which an operator narrows.

use roundhouse_tests::{SocketIoClient, TestHost, guests};
use serde_json::json;

#[tokio::test]
async fn manifest_says_which_roles_send_an_event() {
    let host = TestHost::start();
    host.load("hostile", guests::hostile("roles")).await;
    let mut agent = host.client_with("ana", &["--role", "agent"]).await;
    let mut lead = host.client_with("ben", &["--role", "lead"]).await;
    let (scope, told) = (json!({ "id": "a" }), "hostile:told");
    for client in [&mut agent, &mut lead] {
        client.emit_with_ack("hostile:count", scope.clone()).await.unwrap();
    }
    lead.emit_with_ack(told, scope.clone()).await.unwrap();
    let refused = agent.emit_with_ack(told, scope.clone()).await.unwrap_err();
    assert_eq!(refused["code"], "forbidden", "{refused}");
    assert_eq!(refused["message"], "you may not send hostile:told: it takes one of the roles lead, admin");
    let mut socketio = SocketIoClient::socket(&host.ws).await;
    socketio.connect_as(&host.token("eve")).await;
    assert_eq!(socketio.emit_refused(told, json!([scope])).await, "forbidden");
    host.post_event("hostile:service", scope.clone()).await.expect("services are not concerned");
    // A role that is lost counts at once.
    lead.emit_with_ack("authenticate", json!({ "token": host.token("ben") })).await.unwrap();
    assert_eq!(lead.emit_refused(told, scope).await, "forbidden");
}

#[tokio::test]
async fn operator_narrows_and_never_widens_a_manifest() {
    let toml = "auth.jwt.secret = \"s\"\n[plugins.hostile.events.\"hostile:told\"]\nroles = [\"agent\", \"admin\"]\n";
    let host = TestHost::start_with(toml, &[]);
    host.load("hostile", guests::hostile("roles")).await;
    for (roles, is_allowed) in
        [(&["agent"][..], false), (&["lead"], false), (&["admin"], true), (&["lead", "agent"], true)]
    {
        let args: Vec<_> = roles.iter().flat_map(|role| ["--role", role]).collect();
        let mut client = host.client_with("ana", &args).await;
        let sent = client.emit_with_ack("hostile:told", json!({ "id": "a" })).await;
        assert_eq!(sent.is_ok(), is_allowed, "{roles:?}: {sent:?}");
    }
}
