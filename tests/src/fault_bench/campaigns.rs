//! A service's campaigns: it counts messages into each, and repeats a call until it is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::page::Shared;
use super::service::{PATIENCE, call};
use crate::Random;

/// The pause before a call is repeated.
const RETRY: Duration = Duration::from_millis(200);

/// More messages than a run counts.
const TOTAL: u64 = 1_000_000_000;

/// Counts messages into a campaign until the run is over. Each call has an idempotency key and goes to one host until that has
/// acknowledged it. So a host without a cluster counts it once, whatever happens meanwhile; in a cluster, keys are those of the
/// called host.
pub(super) async fn count_messages(
    shared: Arc<Shared>,
    campaign: usize,
    mut is_paused: watch::Receiver<bool>,
    mut random: Random,
) {
    let started = json!({ "campaignId": id(campaign), "name": "Spring", "total": TOTAL, "ownerId": "agent0" });
    repeat(&shared, campaign, 0, (0, &keyed("campaign:started", &started, format!("{campaign}-started")))).await;
    for n in 0.. {
        sleep(Duration::from_millis(60 + random.below(120) as u64)).await;
        // An error says that the run is over.
        if is_paused.wait_for(|is_paused| !is_paused).await.is_err() {
            return;
        }
        let count = 1 + random.below(5) as u64;
        let status = random.pick(&["sent", "failed"]);
        let data = json!({ "campaignId": id(campaign), "status": status, "count": count });
        let body = keyed("campaign:message", &data, format!("{campaign}-{n}"));
        repeat(&shared, campaign, count, (random.below(shared.apis.len()), &body)).await;
    }
}

/// The id of a campaign.
pub(super) fn id(campaign: usize) -> String {
    format!("c{campaign}")
}

fn keyed(event: &str, data: &Value, key: String) -> Value {
    json!({ "event": event, "data": data, "idempotencyKey": key })
}

async fn repeat(shared: &Shared, campaign: usize, count: u64, (node, body): (usize, &Value)) {
    shared.record().campaigns[campaign].is_counting = true;
    loop {
        let outcome = timeout(PATIENCE, call(&shared.apis[node], "POST", "/v1/events", body.to_string())).await;
        match outcome.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(_) => break,
            // The campaign began by a call that was handled, and not answered.
            Err(why) if count == 0 && why.starts_with("409") => break,
            Err(why) => {
                let key = &body["idempotencyKey"];
                shared.record().campaigns[campaign].repeated += count;
                shared.record().note(format!("the service repeats call {key} to host {node}: {why}"));
            }
        }
        sleep(RETRY).await;
    }
    let campaign = &mut shared.record().campaigns[campaign];
    campaign.processed += count;
    campaign.is_counting = false;
}
