//! ticket-collision over real sockets: its section of the contract once. Each rule has a native test too.

use roundhouse_tests::{TestClient, TestHost};
use serde_json::{Value, json};

const TICKET: &str = "t1";

async fn view(client: &mut TestClient) -> Value {
    client.emit_with_ack("ticket:view", json!({ "ticketId": TICKET })).await.expect("a view is acknowledged")
}

fn agents(viewers: &Value) -> Vec<(&str, &str)> {
    let viewers = viewers["viewers"].as_array().expect("a list of viewers");
    viewers.iter().map(|v| (v["agentId"].as_str().unwrap(), v["status"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn two_agents_see_each_other_on_a_ticket() {
    let host = TestHost::start();
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    let acknowledged = view(&mut ana).await;
    assert_eq!(acknowledged["ticketId"], TICKET);
    assert_eq!(agents(&acknowledged), [("ana", "viewing")]);
    assert_eq!(ana.drain_events().await, ["viewers:updated"], "who is alone is not warned");

    let acknowledged = view(&mut ben).await;
    assert_eq!(agents(&acknowledged), [("ana", "viewing"), ("ben", "viewing")]);
    let warning = ben.next().await;
    assert_eq!(warning["event"], "collision:warning", "the warning comes first");
    assert_eq!(warning["data"]["severity"], "viewing");
    assert_eq!(agents(&warning["data"]), [("ana", "viewing")], "the others");
    assert_eq!(ben.drain_events().await, ["viewers:updated"]);
    let joined = ana.next().await;
    assert_eq!(
        joined,
        json!({ "event": "agent:joined", "data": { "ticketId": TICKET, "agentId": "ben", "agentName": "Ben" } })
    );
    assert_eq!(ana.drain_events().await, ["viewers:updated"]);

    ben.emit_with_ack("ticket:typing", json!({ "ticketId": TICKET })).await.unwrap();
    let typing = ana.expect_event("agent:typing").await;
    assert_eq!((typing["agentId"].as_str(), typing["warning"].as_str()), (Some("ben"), Some("COLLISION_RISK")));
    assert_eq!(agents(&ana.expect_event("viewers:updated").await), [("ana", "viewing"), ("ben", "typing")]);
    ana.emit_with_ack("ticket:typing", json!({ "ticketId": TICKET })).await.unwrap();
    assert_eq!(ana.expect_event("collision:warning").await["severity"], "typing");
    ana.emit_with_ack("ticket:stop_typing", json!({ "ticketId": TICKET })).await.unwrap();
    assert_eq!(ben.expect_event("agent:stopped_typing").await["agentId"], "ana");

    ana.drain().await;
    drop(ben);
    let mut end = Vec::new();
    while end.len() < 3 {
        end.push(ana.next().await);
    }
    let names: Vec<&str> = end.iter().map(|frame| frame["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["agent:stopped_typing", "agent:left", "viewers:updated"]);
    assert_eq!(end[1]["data"]["reason"], "disconnected");
    assert_eq!(agents(&end[2]["data"]), [("ana", "viewing")]);

    ana.emit_with_ack("ticket:leave", json!({ "ticketId": TICKET })).await.unwrap();
    let answer =
        host.call("POST", "/v1/query/ticket-collision/viewers", json!({ "ticketId": TICKET }).to_string()).await;
    assert_eq!(answer.body, json!({ "ticketId": TICKET, "viewers": [] }));
}

#[tokio::test]
async fn second_tab_is_no_collision() {
    let host = TestHost::start();
    let (mut ben, mut tab, mut second_tab) =
        (host.client("ben").await, host.client("ana").await, host.client("ana").await);
    view(&mut ben).await;
    view(&mut tab).await;
    ben.drain().await;
    let acknowledged = view(&mut second_tab).await;
    assert_eq!(agents(&acknowledged), [("ben", "viewing"), ("ana", "viewing")]);
    assert!(!second_tab.drain_events().await.contains(&"collision:warning".to_owned()));
    assert!(!ben.drain_events().await.contains(&"agent:joined".to_owned()));
    tab.close().await;
    assert_eq!(ben.drain_events().await, [""; 0], "she is still there in the other tab");
    second_tab.emit_with_ack("ticket:leave", json!({ "ticketId": TICKET })).await.unwrap();
    assert_eq!(ben.expect_event("agent:left").await["reason"], "left");
    assert_eq!(agents(&ben.expect_event("viewers:updated").await), [("ben", "viewing")]);
}

#[tokio::test]
async fn stats_count_tickets_viewers_and_typists() {
    let host = TestHost::start();
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    view(&mut ana).await;
    view(&mut ben).await;
    ana.emit_with_ack("ticket:view", json!({ "ticketId": "t2" })).await.unwrap();
    ana.emit_with_ack("ticket:typing", json!({ "ticketId": "t2" })).await.unwrap();
    let report = host.report("ticket-collision").await;
    assert_eq!(
        report["stats"],
        json!({
            "activeTickets": 2, "totalViewers": 3, "typingCount": 1,
            "tickets": [
                { "ticketId": "t1", "viewerCount": 2, "typingCount": 0 },
                { "ticketId": "t2", "viewerCount": 1, "typingCount": 1 },
            ],
        })
    );
}

#[tokio::test]
async fn settings_are_read_and_checked() {
    let config = "auth.jwt.secret = \"s\"\n[plugins.ticket-collision.settings]\n";
    let host = TestHost::start_with(&format!("{config}typingSeconds = 1"), &[]);
    let (mut ana, mut ben) = (host.client("ana").await, host.client("ben").await);
    view(&mut ana).await;
    view(&mut ben).await;
    ben.emit_with_ack("ticket:typing", json!({ "ticketId": TICKET })).await.unwrap();
    ana.expect_event("agent:typing").await;
    ana.expect_event("agent:stopped_typing").await;

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), format!("{config}typingSecond = 1")).unwrap();
    let output = TestHost::command(dir.path()).args(["check", "--config", "c.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("typingSecond"), "{stderr}");
}
