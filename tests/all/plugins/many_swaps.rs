//! Runs of the bench of swaps, which makes a thousand of them: `cargo run --release --bin swaps`.

use std::time::Duration;

use roundhouse_tests::swaps::{Options, Report, run};

async fn swap(swaps: usize, clients: usize, unloads: bool) -> anyhow::Result<Report> {
    let (quiet, limit) = (Duration::ZERO, Duration::from_secs(120));
    run(Options { seed: 1, swaps, clients, quiet, limit, unloads }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_swaps_under_load_lose_nothing() {
    let report = swap(200, 36, false).await.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(report.tally.is_clean() && report.n_cuts() > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unloading_under_load_is_found_out() {
    let found = match swap(6, 12, true).await {
        Ok(report) => report.to_string(),
        Err(error) => format!("{error:#}"),
    };
    assert!(found.contains("was refused"), "{found}");
}
