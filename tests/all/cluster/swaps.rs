//! What is loaded, rolled back or unloaded on one host happens on all, and no scope runs an older build after a newer one.

use std::fs::OpenOptions;
use std::io::Write as _;

use roundhouse_tests::guests::{hostile, relabelled, ticket_collision};
use roundhouse_tests::{ClusterOptions, TestClient, TestCluster, eventually, skip};
use serde_json::{Value, json};

use super::cluster;

/// Scopes enough that each host owns some.
const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Waits until all hosts run a generation of a plugin, and know it of each other.
pub(super) async fn wait_for_generation(cluster: &TestCluster, plugin: &str, generation: u64) {
    for node in 0..cluster.len() {
        eventually(&format!("host {node} runs generation {generation} of {plugin}"), async || {
            let plugins = cluster.host(node).get("/v1/plugins").await;
            let report = plugins["plugins"].as_array()?.iter().find(|report| report["name"] == plugin)?.clone();
            let is_there = report["generation"] == generation && report["state"] == "running";
            (is_there && report["behind"].is_null()).then_some(())
        })
        .await;
    }
}

/// Counts a scope up by one, through this host.
async fn count(cluster: &TestCluster, node: usize, id: &str) -> Result<Value, Value> {
    let counted = cluster.client(node, "ana").await.emit_with_ack("hostile:count", json!({ "id": id })).await;
    counted.map(|answer| answer["count"].clone())
}

/// Counts each scope up by one, each through the next host.
pub(super) async fn count_all(cluster: &TestCluster, expected: i64) {
    for (n, id) in IDS.into_iter().enumerate() {
        let node = n % cluster.len();
        assert_eq!(count(cluster, node, id).await, Ok(json!(expected)), "{id} at host {node}");
    }
}

async fn view(client: &mut TestClient) -> usize {
    let viewed = client.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.unwrap();
    viewed["viewers"].as_array().unwrap().len()
}

#[tokio::test]
async fn change_on_one_host_happens_on_all() {
    let Some(cluster) = cluster("change_on_one_host_happens_on_all", 3).await else { return };
    cluster.host(0).load("hostile", hostile("durable")).await;
    wait_for_generation(&cluster, "hostile", 1).await;
    count_all(&cluster, 1).await;
    cluster.host(1).load("hostile", hostile("durable-both-ways")).await;
    wait_for_generation(&cluster, "hostile", 2).await;
    count_all(&cluster, 2).await;
    let back = cluster.host(2).call("POST", "/v1/plugins/hostile/rollback", "").await;
    assert!(back.status == 200 && back.body["lostScopes"].is_null(), "{}", back.text);
    wait_for_generation(&cluster, "hostile", 1).await;
    count_all(&cluster, 3).await;
    let unloaded = cluster.host(0).call("DELETE", "/v1/plugins/hostile", "").await;
    assert_eq!(unloaded.status, 200, "{}", unloaded.text);
    for node in 0..3 {
        eventually("the plugin is unloaded", async || {
            (cluster.host(node).call("GET", "/v1/plugins/hostile", "").await.status == 404).then_some(())
        })
        .await;
    }
    // A number is never used twice, on whichever host.
    let loaded = cluster.host(2).load("hostile", hostile("durable-both-ways")).await;
    assert_eq!(loaded["generation"], 3, "{loaded}");
    wait_for_generation(&cluster, "hostile", 3).await;
    // States are stored for good.
    count_all(&cluster, 4).await;
}

#[tokio::test]
async fn agents_stay_over_swaps_on_all_hosts() {
    let Some(cluster) = cluster("agents_stay_over_swaps_on_all_hosts", 2).await else { return };
    let (mut ana, mut ben) = (cluster.client(0, "ana").await, cluster.client(1, "ben").await);
    assert_eq!((view(&mut ana).await, view(&mut ben).await), (1, 2));
    for (n, node) in [0, 1, 0].into_iter().enumerate() {
        let component = ticket_collision(&format!("9.0.{n}"));
        let loaded = cluster.host(node).load("ticket-collision", component).await;
        wait_for_generation(&cluster, "ticket-collision", loaded["generation"].as_u64().unwrap()).await;
        ben.emit_with_ack("ticket:typing", json!({ "ticketId": "t1" })).await.unwrap();
        assert_eq!(ana.expect_event("agent:typing").await["agentId"], "ben");
        ben.emit_with_ack("ticket:stop_typing", json!({ "ticketId": "t1" })).await.unwrap();
        assert_eq!(ana.expect_event("agent:stopped_typing").await["agentId"], "ben");
        assert_eq!(view(&mut ben).await, 2);
    }
}

#[tokio::test]
async fn starting_host_runs_what_the_cluster_runs() {
    let Some(mut cluster) = cluster("starting_host_runs_what_the_cluster_runs", 2).await else { return };
    cluster.host(1).load("hostile", hostile("durable")).await;
    wait_for_generation(&cluster, "hostile", 1).await;
    count_all(&cluster, 1).await;
    cluster.kill(1);
    cluster.host(0).load("hostile", hostile("durable-forward")).await;
    for id in IDS {
        assert_eq!(count(&cluster, 0, id).await, Ok(json!(2)));
    }
    cluster.start_again(1);
    cluster.wait_until_whole().await;
    wait_for_generation(&cluster, "hostile", 2).await;
    count_all(&cluster, 3).await;
    // The component came by its digest, and a rollback finds the generation before, too.
    assert_eq!(cluster.host(1).report("hostile").await["previous"]["generation"], 1);
}

#[tokio::test]
async fn build_that_one_host_refuses_runs_nowhere() {
    let Some(mut cluster) = cluster("build_that_one_host_refuses_runs_nowhere", 2).await else { return };
    cluster.kill(1);
    let file = cluster.host(1).dir().join("roundhouse.toml");
    let mut file = OpenOptions::new().append(true).open(file).unwrap();
    file.write_all(b"[plugins.hostile]\nenabled = false\n").unwrap();
    cluster.start_again(1);
    cluster.wait_until_whole().await;
    let refused = cluster.host(0).try_load("hostile", hostile("durable")).await;
    let message = refused.body["message"].as_str().unwrap_or_default();
    assert!(
        refused.status == 422 && message.contains("cannot run on the node b") && message.contains("switched off"),
        "{message}"
    );
    assert_eq!(cluster.host(0).call("GET", "/v1/plugins/hostile", "").await.status, 404);
}

#[tokio::test]
async fn cut_off_host_changes_plugins_before_taking_scopes() {
    let test = "cut_off_host_changes_plugins_before_taking_scopes";
    let options = ClusterOptions { is_cuttable: true, ..ClusterOptions::of(2) };
    let started = TestCluster::start_with(&options).inspect_err(|why| skip(test, why));
    let Ok(cluster) = started else { return };
    cluster.wait_until_whole().await;
    cluster.host(0).load("hostile", hostile("durable")).await;
    wait_for_generation(&cluster, "hostile", 1).await;
    count_all(&cluster, 1).await;
    let number = cluster.report(1).await["number"].clone();
    cluster.proxy(1).refuse();
    cluster.proxy(1).reset();
    eventually("host a owns all partitions", async || {
        (cluster.report(0).await["partitions"]["owned"] == 256).then_some(())
    })
    .await;
    cluster.host(0).load("hostile", hostile("durable-forward")).await;
    for id in IDS {
        assert_eq!(count(&cluster, 0, id).await, Ok(json!(2)));
    }
    let lists = cluster.host(1).get("/v1/plugins").await;
    let behind =
        lists["plugins"].as_array().unwrap().iter().find(|report| report["name"] == "hostile").unwrap().clone();
    assert_eq!(behind["generation"], 1, "{behind}");
    cluster.proxy(1).accept();
    // Until it knows that it was given up, it takes events that it cannot answer.
    eventually("host b is another node", async || (cluster.report(1).await["number"] != number).then_some(())).await;
    cluster.wait_until_whole().await;
    // An older build would refuse the newer state.
    count_all(&cluster, 3).await;
    wait_for_generation(&cluster, "hostile", 2).await;
}

#[tokio::test]
async fn plugins_are_put_back_after_redis_lost_all() {
    let Some(mut cluster) = cluster("plugins_are_put_back_after_redis_lost_all", 2).await else { return };
    let built = relabelled(&hostile("durable"), "put back");
    cluster.host(0).load("hostile", built).await;
    wait_for_generation(&cluster, "hostile", 1).await;
    count_all(&cluster, 1).await;
    cluster.redis().restart_empty();
    cluster.wait_until_whole().await;
    count_all(&cluster, 2).await;
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.host(1).dir().join(".roundhouse")).ok();
    cluster.start_again(1);
    cluster.wait_until_whole().await;
    wait_for_generation(&cluster, "hostile", 1).await;
    count_all(&cluster, 3).await;
}

#[tokio::test]
async fn load_right_after_redis_lost_all_is_taken() {
    let Some(mut cluster) = cluster("load_right_after_redis_lost_all_is_taken", 2).await else { return };
    cluster.host(0).load("hostile", hostile("durable")).await;
    wait_for_generation(&cluster, "hostile", 1).await;
    cluster.redis().restart_empty();
    eventually("the hosts are back at Redis", async || {
        let (one, other) = (cluster.report(0).await, cluster.report(1).await);
        (one["redis"] == "up" && other["redis"] == "up").then_some(())
    })
    .await;
    cluster.host(1).load("hostile", relabelled(&hostile("durable"), "2")).await;
    wait_for_generation(&cluster, "hostile", 2).await;
    count_all(&cluster, 1).await;
}

#[tokio::test]
async fn block_on_one_host_keeps_out_on_all() {
    let Some(cluster) = cluster("block_on_one_host_keeps_out_on_all", 2).await else { return };
    let (mut here, mut there) = (cluster.client(0, "ana").await, cluster.client(1, "ana").await);
    let block = cluster.host(0).post("/v1/blocks", &json!({ "user": "ana", "forSeconds": 60 })).await;
    assert_eq!((block.status, &block.body["disconnected"]), (200, &json!(2)), "{}", block.text);
    for client in [&mut here, &mut there] {
        assert_eq!(client.closed().await.code, Some(4010));
    }
    let refused: Vec<Value> = cluster.host(1).get("/v1/blocks").await["blocks"].as_array().unwrap().clone();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let id = block.body["id"].as_str().unwrap();
    let lifted = cluster.host(1).call("DELETE", &format!("/v1/blocks/{id}"), "").await;
    assert_eq!(lifted.status, 200, "{}", lifted.text);
    let mut client = cluster.client(0, "ana").await;
    assert_eq!(view(&mut client).await, 1);
}

#[tokio::test]
async fn older_file_at_start_replaces_no_newer_build() {
    let Some(mut cluster) = cluster("older_file_at_start_replaces_no_newer_build", 2).await else { return };
    let newer = cluster.host(0).load("ticket-collision", ticket_collision("9.1.0")).await;
    let newer = newer["generation"].as_u64().unwrap();
    wait_for_generation(&cluster, "ticket-collision", newer).await;
    cluster.kill(1);
    let folder = cluster.host(1).dir().join("plugins.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("ticket-collision.wasm"), ticket_collision("9.0.1")).unwrap();
    cluster.start_again(1);
    cluster.wait_until_whole().await;
    eventually("the file is passed over", async || cluster.host(1).log().contains("is passed over").then_some(()))
        .await;
    wait_for_generation(&cluster, "ticket-collision", newer).await;
    // A file that comes while the host runs is an operator's.
    std::fs::write(folder.join("ticket-collision.wasm"), ticket_collision("9.2.0")).unwrap();
    wait_for_generation(&cluster, "ticket-collision", newer + 1).await;
}
