//! Many agents over three hosts behind HAProxy, on socket.io-client and on bare WebSockets.

use roundhouse_tests::{Script, skip};

use super::cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_lists_of_300_agents_are_a_models() {
    let test = "viewer_lists_of_300_agents_are_a_models";
    let script = match Script::on_node("agents.mjs") {
        Ok(script) => script,
        Err(why) => return skip(test, why),
    };
    let Some(cluster) = cluster(test, 3).await else { return };
    let balancer = match cluster.balancer() {
        Ok(balancer) => balancer,
        Err(why) => return skip(test, &why),
    };
    let url = balancer.ws().replacen("ws", "http", 1);
    script.serve(&[&url, "cluster", "300", "100", "8", "1"]).expect_success(cluster.host(0));
    for node in 0..3 {
        // HAProxy leads each client to the host with the fewest.
        let log = cluster.host(node).log();
        assert!(!log.contains("ERROR"), "{log}");
    }
}
