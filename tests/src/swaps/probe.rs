//! Probes: for each feature a client that sends one event after the other to a scope of its own, and measures round
//! trips.
//!
//! They run on a thread of their own, so that they do not wait for the clients that make the load.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::board::{Board, Phase};
use super::caller::Caller;
use super::group::FEATURES;
use super::line::{Arrival, Line, Protocol, within};
use super::tally::Kind;
use crate::bench::token;
use crate::{TIMEOUT, TestHost};

/// The pause after an answer, unless it is this probe's turn: all probes without pauses would be the
/// greatest part of the load.
const PAUSE: Duration = Duration::from_millis(2);

/// A round trip.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundTrip {
    /// When the event was sent.
    pub(super) began: Instant,
    /// When it was acknowledged.
    pub(super) ended: Instant,
}

/// The events of the probes; ticket-events takes events of services alone. All of them may be repeated.
fn event(feature: usize) -> (&'static str, Value) {
    match FEATURES[feature].0 {
        "ticket-collision" => ("ticket:view", json!({ "ticketId": "probe" })),
        "timeline" => ("timeline:subscribe", json!({ "entityType": "case", "entityId": "probe" })),
        "campaign-progress" => ("subscribe:campaign", json!({ "campaignId": "probe" })),
        "chat-confirmation" => ("joinRoom", json!({ "roomId": "probe" })),
        "crm-events" => ("subscribe:contact", json!({ "contactId": "probe" })),
        _ => ("ticket:updated", json!({ "ticketId": "probe", "changes": {}, "creatorId": "nobody" })),
    }
}

/// Starts the probes, which run until the load is over. Returns their round trips, by feature.
pub(super) fn start(
    host: Arc<TestHost>,
    board: Arc<Board>,
    probed: watch::Receiver<usize>,
) -> anyhow::Result<JoinHandle<anyhow::Result<Vec<Vec<RoundTrip>>>>> {
    let thread = std::thread::Builder::new().name("probes".to_owned());
    Ok(thread.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let probe = |feature| run(feature, &host, &board, probed.clone());
        runtime.block_on(async { futures_util::future::try_join_all((0..FEATURES.len()).map(probe)).await })
    })?)
}

async fn run(
    feature: usize,
    host: &TestHost,
    board: &Board,
    mut probed: watch::Receiver<usize>,
) -> anyhow::Result<Vec<RoundTrip>> {
    let name = FEATURES[feature].0;
    let mut probe = Probe::open(feature, host).await.with_context(|| format!("the probe of {name} connects"))?;
    board.reach(Phase::Enter);
    let mut trips = Vec::new();
    while !board.has_begun(Phase::Rest) {
        let began = Instant::now();
        let answer = probe.send().await.with_context(|| format!("the probe of {name}, event {}", trips.len()))?;
        if let Err(error) = answer {
            board.tally().add(Kind::Refused, 1, format!("the probe of {name} was refused: {error}"));
        }
        trips.push(RoundTrip { began, ended: Instant::now() });
        if *probed.borrow_and_update() != feature {
            // The pause ends early if the probe's turn begins.
            let is_turn = probed.wait_for(|probed| *probed == feature);
            if let Ok(Err(_)) = tokio::time::timeout(PAUSE, is_turn).await {
                break;
            }
        }
    }
    Ok(trips)
}

/// A probe's connection.
enum Probe {
    Client { line: Box<Line>, event: &'static str, data: Value, last_id: i64 },
    Service { caller: Caller, call: Value },
}

impl Probe {
    async fn open(feature: usize, host: &TestHost) -> anyhow::Result<Self> {
        let (event, data) = event(feature);
        if event == "ticket:updated" {
            return Ok(Self::Service {
                caller: Caller::open(host).await?,
                call: json!({ "event": event, "data": data }),
            });
        }
        let token = token(&format!("probe{feature}"))?;
        let line = Box::new(within(TIMEOUT, Line::open(Protocol::Plain, &host.ws, &token)).await??);
        Ok(Self::Client { line, event, data, last_id: 0 })
    }

    /// Sends an event, and waits for its answer.
    async fn send(&mut self) -> anyhow::Result<Result<Value, Value>> {
        match self {
            Self::Service { caller, call } => {
                let (status, answer) = caller.post(call).await?;
                Ok(if status == 200 { Ok(answer) } else { Err(answer) })
            }
            Self::Client { line, event, data, last_id } => {
                *last_id += 1;
                line.send(event, data, *last_id).await;
                loop {
                    match within(TIMEOUT, line.next()).await?? {
                        Arrival::Acknowledgement(id, answer) if id == *last_id => return Ok(answer),
                        Arrival::Acknowledgement(id, _) => bail!("acknowledgement {id} came, and {last_id} was next"),
                        Arrival::Event(..) => {}
                    }
                }
            }
        }
    }
}
