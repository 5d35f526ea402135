//! Agents on different hosts see each other as if there were one.

use std::process::Command;
use std::time::{Duration, Instant};

use roundhouse_tests::{SILENCE, TIMEOUT, TestClient};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::cluster;

/// The time after a host's death within which its agents have to be gone.
const GONE: Duration = Duration::from_secs(5);

/// Views a ticket. Returns its viewers.
pub(super) async fn view(client: &mut TestClient) -> Vec<String> {
    let acknowledged = client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await;
    agents(&acknowledged.expect("a view is acknowledged"))
}

fn agents(list: &Value) -> Vec<String> {
    let viewers = list["viewers"].as_array().expect("a list of viewers");
    viewers.iter().map(|viewer| viewer["agentId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn agents_on_two_hosts_are_warned() {
    let Some(cluster) = cluster("agents_on_two_hosts_are_warned", 2).await else { return };
    let (mut ana, mut ben) = (cluster.client(0, "ana").await, cluster.client(1, "ben").await);
    assert_eq!(view(&mut ana).await, ["ana"]);
    assert_eq!(view(&mut ben).await, ["ana", "ben"]);
    assert_eq!(agents(&ben.expect_event("collision:warning").await), ["ana"]);
    assert_eq!(ana.expect_event("agent:joined").await["agentId"], "ben");
    ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(ana.expect_event("agent:typing").await["agentName"], "Ben");
    ben.close().await;
    assert_eq!(ana.expect_event("agent:left").await["reason"], "disconnected");
}

#[tokio::test]
async fn socketio_and_plain_agents_meet_over_hosts() {
    let Some(cluster) = cluster("socketio_and_plain_agents_meet_over_hosts", 2).await else { return };
    let (mut ana, mut ben) = (cluster.client(0, "ana").await, cluster.socketio_client(1, "ben").await);
    view(&mut ana).await;
    let acknowledged = ben.emit_with_ack("ticket:view", json!([{ "ticketId": "t1" }])).await;
    assert_eq!(agents(&acknowledged[0]), ["ana", "ben"]);
    assert_eq!(ana.expect_event("agent:joined").await["agentId"], "ben");
    ana.emit_with_ack("ticket:leave", json!({ "ticketId": "t1" })).await.unwrap();
    assert_eq!(ben.expect_event("agent:left").await.argument()["agentId"], "ana");
}

#[tokio::test]
async fn tabs_on_two_hosts_are_one_agent() {
    let Some(cluster) = cluster("tabs_on_two_hosts_are_one_agent", 2).await else { return };
    let (mut ben, mut tab) = (cluster.client(0, "ben").await, cluster.client(0, "ana").await);
    let mut second_tab = cluster.client(1, "ana").await;
    view(&mut ben).await;
    view(&mut tab).await;
    assert_eq!(ben.expect_event("agent:joined").await["agentId"], "ana");
    assert_eq!(view(&mut second_tab).await, ["ben", "ana"]);
    tab.close().await;
    let told = timeout(2 * SILENCE, ben.expect_event("agent:left")).await;
    assert!(told.is_err(), "she is still there in the other tab: {told:?}");
    second_tab.close().await;
    assert_eq!(ben.expect_event("agent:left").await["agentId"], "ana");
}

#[tokio::test]
async fn counts_are_the_same_on_all_hosts() {
    let Some(cluster) = cluster("counts_are_the_same_on_all_hosts", 3).await else { return };
    let timeline = json!({ "entityType": "client", "entityId": "c1" });
    let mut clients = Vec::new();
    for (node, user) in [(0, "ana"), (1, "ben"), (2, "eva"), (2, "ana")] {
        let mut client = cluster.client(node, user).await;
        client.emit_with_ack("timeline:subscribe", timeline.clone()).await.unwrap();
        view(&mut client).await;
        clients.push(client);
    }
    for node in 0..3 {
        let host = cluster.host(node);
        let count = host.query("timeline", "subscribers", timeline.clone()).await;
        assert_eq!(count, Ok(json!({ "count": 3 })), "host {node}");
        let viewers = host.query("ticket-collision", "viewers", json!({ "ticketId": "t1" })).await.unwrap();
        assert_eq!(agents(&viewers), ["ana", "ben", "eva"], "host {node}");
        assert_eq!(host.get("/v1/users/ana").await["connectionCount"], 2, "host {node}");
        let room = host.get("/v1/rooms/ticket:t1").await;
        assert_eq!((&room["connectionCount"], &room["userCount"]), (&json!(4), &json!(3)), "host {node}");
    }
    let mut event = timeline;
    event["item"] = json!({ "n": 1 });
    assert_eq!(cluster.host(1).post_event("timeline:new_item", event).await, Ok(json!({ "delivered": 4 })));
    for client in &mut clients {
        assert_eq!(client.expect_event("timeline:new_item").await["item"]["n"], 1);
    }
}

#[tokio::test]
async fn agents_of_a_killed_host_are_gone() {
    let Some(mut cluster) = cluster("agents_of_a_killed_host_are_gone", 3).await else { return };
    let (mut ana, mut ben) = (cluster.client(0, "ana").await, cluster.client(1, "ben").await);
    let mut eva = cluster.client(2, "eva").await;
    for client in [&mut ana, &mut ben, &mut eva] {
        view(client).await;
    }
    cluster.kill(1);
    let died = Instant::now();
    for client in [&mut ana, &mut eva] {
        assert_eq!(client.expect_event("agent:left").await["agentId"], "ben");
        assert!(died.elapsed() < GONE, "{:?}", died.elapsed());
        let told = timeout(SILENCE, client.expect_event("agent:left")).await;
        assert!(told.is_err(), "once: {told:?}");
    }
    cluster.start_again(1);
    cluster.wait_until_whole().await;
    let mut ben = cluster.client(1, "ben").await;
    assert_eq!(view(&mut ben).await, ["ana", "eva", "ben"]);
    assert_eq!(ana.expect_event("agent:joined").await["agentId"], "ben");
}

#[tokio::test]
async fn balancer_leads_to_hosts_that_live() {
    let Some(mut cluster) = cluster("balancer_leads_to_hosts_that_live", 2).await else { return };
    let balancer = match cluster.balancer() {
        Ok(balancer) => balancer,
        Err(why) => return roundhouse_tests::skip("balancer_leads_to_hosts_that_live", &why),
    };
    cluster.kill(0);
    let url = format!("{}/ws?token={}", balancer.ws(), roundhouse_tests::TestCluster::token("ana"));
    let mut ana = TestClient::connect_to(&url).await;
    assert_eq!(view(&mut ana).await, ["ana"]);
}

/// The host that starts knows of no other until those have put themselves back.
#[tokio::test]
async fn agents_stay_when_a_host_starts_into_an_emptied_redis() {
    let Some(mut cluster) = cluster("agents_stay_when_a_host_starts_into_an_emptied_redis", 3).await else { return };
    cluster.kill(2);
    cluster.wait_until_whole().await;
    let (mut ana, mut ben) = (cluster.client(0, "ana").await, cluster.client(1, "ben").await);
    let tickets: Vec<_> = (0..30).map(|n| json!({ "ticketId": format!("t{n}") })).collect();
    for ticket in &tickets {
        ana.emit_with_ack("ticket:view", ticket.clone()).await.unwrap();
    }
    for node in [0, 1] {
        cluster.suspend(node);
    }
    cluster.redis().restart_empty();
    let (port, pids) = (cluster.redis().port(), [0, 1].map(|node| cluster.host(node).pid()));
    let resuming = std::thread::spawn(move || resume_when_a_node_has_registered(port, &pids));
    cluster.start_again(2);
    resuming.join().unwrap();
    cluster.wait_until_whole().await;
    for ticket in &tickets {
        let list = ben.emit_with_ack("ticket:view", ticket.clone()).await.unwrap();
        assert_eq!(agents(&list), ["ana", "ben"], "{ticket}");
    }
}

fn resume_when_a_node_has_registered(redis: u16, hosts: &[u32]) {
    let port = redis.to_string();
    let keys = || Command::new("redis-cli").args(["-p", &port, "KEYS", "*"]).output().unwrap().stdout;
    let deadline = Instant::now() + TIMEOUT;
    while !String::from_utf8_lossy(&keys()).contains("nodes") {
        assert!(Instant::now() < deadline, "no node registers");
        std::thread::sleep(Duration::from_millis(10));
    }
    for host in hosts {
        assert!(Command::new("kill").args(["-CONT", &host.to_string()]).status().unwrap().success());
    }
}
