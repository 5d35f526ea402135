//! Hosts over a Redis Cluster.

use roundhouse_tests::guests::hostile;
use roundhouse_tests::{ClusterOptions, Engine, TestCluster, skip};
use serde_json::json;

use super::presence::view;
use super::swaps::{count_all, wait_for_generation};

#[tokio::test]
async fn hosts_meet_over_a_redis_cluster() {
    let test = "hosts_meet_over_a_redis_cluster";
    let options = ClusterOptions { engine: Engine::Cluster, ..ClusterOptions::of(3) };
    let mut cluster = match TestCluster::start_with(&options) {
        Ok(cluster) => cluster,
        Err(why) => return skip(test, &why),
    };
    cluster.wait_until_whole().await;
    let (mut ana, mut ben) = (cluster.client(0, "ana").await, cluster.client(1, "ben").await);
    assert_eq!(view(&mut ana).await, ["ana"]);
    assert_eq!(view(&mut ben).await, ["ana", "ben"]);
    assert_eq!(ana.expect_event("agent:joined").await["agentId"], "ben");
    cluster.host(2).load("hostile", hostile("durable")).await;
    wait_for_generation(&cluster, "hostile", 1).await;
    count_all(&cluster, 1).await;
    cluster.kill(1);
    assert_eq!(ana.expect_event("agent:left").await["agentId"], "ben");
    cluster.start_again(1);
    cluster.wait_until_whole().await;
    wait_for_generation(&cluster, "hostile", 1).await;
    count_all(&cluster, 2).await;
    assert_eq!(
        cluster.host(1).query("ticket-collision", "viewers", json!({ "ticketId": "t1" })).await.unwrap()["viewers"][0]
            ["agentId"],
        "ana"
    );
}
