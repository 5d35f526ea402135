//! Late replies, which come after the commit of their event: each event is answered, though its answer waits for a disk while
//! its scope gets another owner, or its owner stops or dies, or the node that it came to has only begun to start.

use std::time::{Duration, Instant};

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{TIMEOUT, TestCluster, TestHost, eventually, http, metric};
use serde_json::json;

use super::cluster;
use super::swaps::wait_for_generation;

/// So many scopes that a third node takes some of those of the first.
const N_SCOPES: usize = 60;

/// Where durable scopes are written.
const TABLE: &str = "roundhouse_scopes";

/// A cluster of this many hosts with durable scopes.
async fn durable_cluster(test: &str, nodes: usize) -> Option<TestCluster> {
    let cluster = cluster(test, nodes).await?;
    cluster.host(0).load("hostile", hostile("durable")).await;
    wait_for_generation(&cluster, "hostile", 1).await;
    Some(cluster)
}

/// Counts each scope up to 1 through this host, and returns the ids of those that the first host owns.
async fn scopes_of_first(cluster: &TestCluster, node: usize) -> Vec<String> {
    let mut client = cluster.client(node, "ana").await;
    let mut owned = Vec::new();
    for id in (0..N_SCOPES).map(|n| format!("s{n}")) {
        assert_eq!(client.emit_with_ack("hostile:count", json!({ "id": id })).await.unwrap()["count"], 1);
        if cluster.host(0).call("GET", &format!("/v1/scopes/hostile:{id}"), "").await.status == 200 {
            owned.push(id);
        }
    }
    owned
}

async fn wait_for_failed_write(host: &TestHost) {
    eventually("a write has failed", async || (metric(&host.api, "store_failures_total").await > 0).then_some(()))
        .await;
}

#[tokio::test]
async fn late_reply_of_a_fenced_owner_arrives() {
    let Some(mut cluster) = durable_cluster("late_reply_of_a_fenced_owner_arrives", 3).await else {
        return;
    };
    cluster.kill(2);
    cluster.wait_until_whole().await;
    let owned = scopes_of_first(&cluster, 1).await;
    let blocked = cluster.database().block_writes(TABLE);
    let mut ana = cluster.client(1, "ana").await;
    let mut asked = Vec::new();
    for id in &owned {
        asked.push(ana.emit_with_id("hostile:count", json!({ "id": id })).await);
    }
    wait_for_failed_write(cluster.host(0)).await;
    cluster.start_again(2);
    cluster.wait_until_whole().await;
    drop(blocked);
    for id in asked {
        assert_eq!(ana.expect_ack(id).await.unwrap()["count"], 2);
    }
    for id in &owned {
        assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": id })).await.unwrap()["count"], 3, "{id}");
    }
}

#[tokio::test]
async fn late_reply_of_a_dead_owner_is_refused() {
    let Some(mut cluster) = durable_cluster("late_reply_of_a_dead_owner_is_refused", 2).await else {
        return;
    };
    let owned = scopes_of_first(&cluster, 1).await;
    let blocked = cluster.database().block_writes(TABLE);
    let mut ana = cluster.client(1, "ana").await;
    let asked = ana.emit_with_id("hostile:count", json!({ "id": owned[0] })).await;
    wait_for_failed_write(cluster.host(0)).await;
    cluster.kill(0);
    drop(blocked);
    let failure = ana.expect_ack(asked).await.unwrap_err();
    let message = failure["message"].as_str().unwrap();
    assert_eq!(failure["code"], "feature_unavailable");
    assert!(message.contains("it was handled") && message.contains("has gone"), "{message}");
    // It was: the cluster had it.
    assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": owned[0] })).await.unwrap()["count"], 3);
}

#[tokio::test]
async fn stopping_owner_gives_its_late_replies_first() {
    let Some(mut cluster) = durable_cluster("stopping_owner_gives_its_late_replies_first", 2).await else { return };
    let owned = scopes_of_first(&cluster, 1).await;
    let blocked = cluster.database().block_writes(TABLE);
    let mut ana = cluster.client(1, "ana").await;
    let asked = ana.emit_with_id("hostile:count", json!({ "id": owned[0] })).await;
    wait_for_failed_write(cluster.host(0)).await;
    cluster.host(0).terminate();
    eventually("the host is stopping", async || {
        let ready = http(&cluster.host(0).api, "GET", "/readyz", &[], "").await.ok()?;
        (ready.status == 503).then_some(())
    })
    .await;
    drop(blocked);
    assert_eq!(ana.expect_ack(asked).await.unwrap()["count"], 2);
    cluster.wait_for_exit(0);
    assert_eq!(ana.emit_with_ack("hostile:count", json!({ "id": owned[0] })).await.unwrap()["count"], 3);
}

/// Such a join is committed before its documents come: the next owner of the scope must not handle it again.
#[tokio::test]
async fn join_that_reads_documents_is_handled_once_while_scopes_move() {
    let test = "join_that_reads_documents_is_handled_once_while_scopes_move";
    let Some(mut cluster) = cluster(test, 3).await else { return };
    cluster.kill(2);
    cluster.wait_until_whole().await;
    let rooms: Vec<_> = (0..20).map(|n| format!("room{n:02}")).collect();
    let blocked = cluster.database().block_reads("roundhouse_documents");
    let mut ana = cluster.client(1, "ana").await;
    let mut asked = Vec::new();
    for room in &rooms {
        asked.push(ana.emit_with_id("joinRoom", json!({ "roomId": room })).await);
    }
    eventually("the joins are committed", async || {
        let user = cluster.host(0).get("/v1/users/ana").await;
        let is_in =
            |room: &String| user["rooms"].as_array().unwrap().iter().any(|name| name.as_str().unwrap().ends_with(room));
        rooms.iter().all(is_in).then_some(())
    })
    .await;
    cluster.start_again(2);
    cluster.wait_until_whole().await;
    drop(blocked);
    let mut n_moved = 0;
    for id in asked {
        if let Err(failure) = ana.expect_ack(id).await {
            assert!(failure["message"].as_str().unwrap().contains("it was handled"), "{failure}");
            n_moved += 1;
        }
    }
    assert!(n_moved > 0, "no scope has moved");
    let mut ben = cluster.client(0, "ben").await;
    for room in &rooms {
        assert_eq!(
            ben.emit_with_ack("joinRoom", json!({ "roomId": room })).await.unwrap()["connectedUsers"],
            2,
            "{room}"
        );
    }
}

#[tokio::test]
async fn event_sent_to_a_starting_node_is_answered() {
    let Some(mut cluster) = cluster("event_sent_to_a_starting_node_is_answered", 2).await else { return };
    let api = cluster.host(1).api.clone();
    cluster.kill(1);
    let starting = tokio::task::spawn_blocking(move || {
        cluster.start_again(1);
        cluster
    });
    // Before it listens, while it joins, and after that.
    let begun = Instant::now();
    let mut n_answers = 0;
    while n_answers < 100 {
        let data = json!({ "entityType": "ticket", "entityId": format!("e{n_answers}"), "item": {} });
        let body = json!({ "event": "timeline:new_item", "data": data }).to_string();
        let key = format!("Bearer {}", TestCluster::key());
        match http(&api, "POST", "/v1/events", &[("authorization", &key)], body).await {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{}", answer.text);
                n_answers += 1;
            }
            Err(error) => {
                assert!(format!("{error:#}").contains("nobody listens") && begun.elapsed() < TIMEOUT, "{error:#}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    drop(starting.await.unwrap());
}

#[tokio::test]
async fn counted_reply_awaits_the_durable_write() {
    let Some(cluster) = cluster("counted_reply_awaits_the_durable_write", 2).await else { return };
    for n in 0..8 {
        let data = json!({ "ticketId": format!("t{n}"), "createdBy": "cleo" });
        cluster.host(n % 2).post_event("ticket:created", data).await.unwrap();
        let query = format!("SELECT count(*)::text FROM {TABLE} WHERE key = 'ticket-events:t{n}'");
        assert_eq!(cluster.database().value(&query), "1", "t{n}");
    }
}
