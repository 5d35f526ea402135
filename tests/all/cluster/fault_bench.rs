//! A run of the fault bench of a minute, with a fixed seed.

use std::time::Duration;

use roundhouse_tests::fault_bench::{Failure, Fault, Options, run};
use roundhouse_tests::{TestPostgres, TestRedis, skip};

fn options(nodes: usize, faults: &[Fault]) -> Options {
    Options {
        seed: 1,
        time: Duration::from_secs(5),
        nodes,
        is_apart: false,
        agents: 12,
        faults: faults.to_vec(),
        // That they go is checked here; how soon is a figure of the bench, and depends on how busy the machine is.
        ghosts: Duration::from_secs(20),
        reads_history: true,
        is_balanced: false,
        config: String::new(),
    }
}

async fn check(options: Options) -> Result<(), Box<Failure>> {
    let report = run(options).await?;
    assert!(report.rests > 1 && report.messages.1 > 0, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_keeps_its_promises() -> Result<(), Box<Failure>> {
    let faults = [Fault::Stop, Fault::Kill, Fault::Swap, Fault::Rollout];
    check(Options { time: Duration::from_secs(30), ..options(1, &faults) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_no_cluster_are_found_out() {
    let failure = run(Options { is_apart: true, ..options(2, &[]) }).await.expect_err("agents do not see all others");
    assert!(failure.invariant().contains("sees exactly"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_of_a_cluster_keep_their_promises() -> Result<(), Box<Failure>> {
    let missing = TestRedis::start().map(drop).and_then(|()| TestPostgres::start().map(drop));
    if let Err(why) = missing {
        skip("hosts_of_a_cluster_keep_their_promises", &why);
        return Ok(());
    }
    use Fault::{Clock, Cut, Kill, RedisData, RedisEmpty, Rollout, Stop, Swap};
    let faults = [Kill, Stop, Cut, RedisData, RedisEmpty, Clock, Swap, Rollout];
    check(Options { time: Duration::from_secs(60), ..options(3, &faults) }).await
}
