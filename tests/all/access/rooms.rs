//! The room policy: only those whom a rule allows join a room, publish to it and get its history.

use roundhouse_tests::{SocketIoClient, TestClient, TestHost, metric};
use serde_json::{Value, json};

/// Only who belongs to a company sees its campaigns, whose ids begin with the company's.
const CAMPAIGNS: &str = "auth.jwt.secret = \"s\"\n\
     [[rooms]]\npattern = \"campaign:{id}\"\nallow = \"id.startsWith(identity.claims.companyId + '-')\"\n\
     [[rooms]]\npattern = \"ticket:{id}\"\njoin = \"true\"\npublish = \"'agent' in identity.roles\"\n";

fn of_company(host: &TestHost, user: &str, company: &str) -> String {
    host.token_with(user, &["--claim", &format!("companyId=\"{company}\"")])
}

async fn subscribe(client: &mut TestClient, campaign: &str) -> Result<Value, Value> {
    client.emit_with_ack("subscribe:campaign", json!(campaign)).await
}

#[tokio::test]
async fn campaigns_are_for_their_company_alone() {
    let host = TestHost::start_with(CAMPAIGNS, &[]);
    let mut ours = TestClient::connect(&host.ws, &of_company(&host, "ana", "acme")).await;
    let mut theirs = TestClient::connect(&host.ws, &of_company(&host, "eve", "evil")).await;
    let mut nobody = host.client("nora").await;
    subscribe(&mut ours, "acme-1").await.unwrap();
    for client in [&mut theirs, &mut nobody] {
        let refused = subscribe(client, "acme-1").await.unwrap_err();
        assert_eq!(refused["code"], "forbidden", "{refused}");
        assert!(
            refused["message"].as_str().unwrap().contains("campaign:acme-1, by the rule campaign:{id}"),
            "{refused}"
        );
    }
    let mut socketio = SocketIoClient::socket(&host.ws).await;
    socketio.connect_as(&of_company(&host, "eve", "evil")).await;
    assert_eq!(socketio.emit_refused("subscribe:campaign", json!(["acme-1"])).await, "forbidden");
    // What happens is heard by the company alone, and a refusal is no fault of the feature.
    let started = json!({ "campaignId": "acme-1", "name": "Spring", "total": 1, "ownerId": "owen", "list": "all" });
    host.post_event("campaign:started", started).await.expect("services are not subject to the policy");
    ours.expect_event("campaign:started").await;
    assert!(!theirs.drain_events().await.contains(&"campaign:started".to_owned()));
    assert_eq!(host.get("/v1/rooms/campaign:acme-1").await["connectionCount"], 1);
    assert_eq!(host.report("campaign-progress").await["traps"], 0);
    assert!(metric(&host.api, "room_decisions_total{action=\"publish\",verdict=\"refused\"}").await >= 3);
    assert!(!host.log().contains("cannot be evaluated") || host.log().contains("nora"), "{}", host.log());
}

#[tokio::test]
async fn rooms_without_a_rule_are_closed() {
    let host = TestHost::start_with(CAMPAIGNS, &[]);
    let mut ana = host.client("ana").await;
    let refused = ana.emit_with_ack("subscribe:contact", json!({ "contactId": "c" })).await.unwrap_err();
    assert_eq!(refused["code"], "forbidden", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("no rule"), "{refused}");
}

#[tokio::test]
async fn publishing_has_a_condition_of_its_own() {
    let host = TestHost::start_with(CAMPAIGNS, &[]);
    let (mut guest, mut agent) = (host.client("gus").await, host.client_with("ana", &["--role", "agent"]).await);
    let view = json!({ "ticketId": "t1" });
    assert_eq!(guest.emit_refused("ticket:view", view.clone()).await, "forbidden");
    agent.emit_with_ack("ticket:view", view).await.unwrap();
}

#[tokio::test]
async fn lost_role_takes_the_connection_out_of_its_rooms() {
    let rules =
        "auth.jwt.secret = \"s\"\n[[rooms]]\npattern = \"ticket:{id}\"\nallow = \"'agent' in identity.roles\"\n";
    let host = TestHost::start_with(rules, &[]);
    let agent = |user: &str| host.token_with(user, &["--role", "agent"]);
    let mut ana = TestClient::connect(&host.ws, &agent("ana")).await;
    let mut ben = TestClient::connect(&host.ws, &agent("ben")).await;
    for client in [&mut ana, &mut ben] {
        client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    }
    ben.emit_with_ack("authenticate", json!({ "token": host.token("ben") })).await.unwrap();
    let left = ana.expect_event("agent:left").await;
    assert_eq!(left["agentId"], "ben", "{left}");
    assert_eq!(host.get("/v1/rooms/ticket:t1").await["connectionCount"], 1);
    assert_eq!(ben.emit_refused("ticket:view", json!({ "ticketId": "t1" })).await, "forbidden");
}

#[tokio::test]
async fn resumption_with_another_identity_checks_rooms_again() {
    let rules =
        "auth.jwt.secret = \"s\"\n[[rooms]]\npattern = \"ticket:{id}\"\nallow = \"'agent' in identity.roles\"\n";
    let host = TestHost::start_with(rules, &[]);
    let mut lost = SocketIoClient::socket(&host.ws).await;
    lost.connect_as(&host.token_with("ana", &["--role", "agent"])).await;
    lost.emit_with_ack("ticket:view", json!([{ "ticketId": "t1" }])).await;
    let session = lost.session_with(&host.token("ana"));
    lost.cut().await;
    let mut again = SocketIoClient::socket(&host.ws).await;
    again.connect("/", &session).await.unwrap();
    assert_eq!(host.call("GET", "/v1/rooms/ticket:t1", "").await.status, 404, "she is in the room no longer");
}

#[test]
fn explanation_names_rule_and_verdict() {
    let host = TestHost::start_with(CAMPAIGNS, &[]);
    let explain = |token: &str, room: &str| {
        let args = ["check", "--config", "roundhouse.toml", "--explain", token, room];
        let output = TestHost::command(host.dir()).args(args).output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert!(!String::from_utf8_lossy(&output.stderr).contains(token), "a token is not repeated");
        (output.status.code(), said)
    };
    let token = of_company(&host, "ana", "acme");
    let (code, said) = explain(&token, "campaign:acme-1");
    assert_eq!((code, &said["decisions"]["join"]["allowed"]), (Some(0), &json!(true)), "{said}");
    let (code, said) = explain(&token, "campaign:evil-1");
    let because = &said["decisions"]["join"]["because"];
    assert_eq!((code, &because["rule"], &because["pattern"]), (Some(1), &json!(1), &json!("campaign:{id}")), "{said}");
    let (code, said) = explain(&host.token("nora"), "campaign:evil-1");
    assert!(code == Some(1) && said["decisions"]["join"]["because"]["error"].is_string(), "{said}");
    let (code, said) = explain(&token, "chat:1");
    assert_eq!((code, &said["decisions"]["publish"]["because"]), (Some(1), &json!("no rule matches the room")));
}

#[test]
fn mistakes_in_rules_are_refused_at_the_start() {
    for (rule, said) in [
        ("pattern = \"a:{id\"\nallow = \"true\"", "rooms[0]: pattern"),
        ("pattern = \"a:{id}\"\nallow = \"identity.\"", "rooms[0]: allow"),
        ("pattern = \"a:{id}\"\nallow = \"user == 'x'\"", "uses user"),
        ("pattern = \"a:{id}\"\nalow = \"true\"", "alow"),
        ("pattern = \"a:{id}\"", "no condition"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("r.toml"), format!("auth.jwt.secret = \"s\"\n[[rooms]]\n{rule}\n")).unwrap();
        let output = TestHost::command(dir.path()).args(["check", "--config", "r.toml"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains(said), "{rule}: {stderr}");
    }
}

#[tokio::test]
async fn events_are_narrowed_by_role_and_condition() {
    let config = "auth.jwt.secret = \"s\"\n[plugins.ticket-collision.events.\"ticket:typing\"]\nroles = [\"agent\"]\n\
                  allow = \"room != 'ticket:secret'\"\n";
    let host = TestHost::start_with(config, &[]);
    let (mut guest, mut agent) = (host.client("gus").await, host.client_with("ana", &["--role", "agent"]).await);
    for client in [&mut guest, &mut agent] {
        for ticket in ["t1", "secret"] {
            client.emit_with_ack("ticket:view", json!({ "ticketId": ticket })).await.expect("this is not narrowed");
        }
    }
    let typing = |ticket: &str| json!({ "ticketId": ticket });
    assert_eq!(guest.emit_refused("ticket:typing", typing("t1")).await, "forbidden");
    assert_eq!(agent.emit_refused("ticket:typing", typing("secret")).await, "forbidden");
    agent.emit_with_ack("ticket:typing", typing("t1")).await.unwrap();
    guest.expect_event("agent:typing").await;
}

#[test]
fn narrowing_of_an_unknown_event_is_refused() {
    for (events, said) in [
        ("[plugins.timeline.events.\"no:such\"]\nroles = [\"a\"]", "no:such"),
        ("[plugins.timeline.events.\"joinRoom\"]\n", "narrows nothing"),
        ("[plugins.timeline.events.\"joinRoom\"]\nallow = \"x\"", "uses x"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("r.toml"), format!("auth.jwt.secret = \"s\"\n{events}\n")).unwrap();
        let output = TestHost::command(dir.path()).args(["check", "--config", "r.toml"]).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.code() == Some(1) && text.contains(said), "{events}: {text}");
    }
}
