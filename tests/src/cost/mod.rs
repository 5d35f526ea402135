//! The worst cost of each client event of each bundled feature: payloads within an event's limits, built to cost, go
//! through the real host into the real components, and are judged by the faults and the processor time that they cause.
//!
//! Events and limits are read from the components' manifests, so that a new event is covered without being listed.

mod payload;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use roundhouse::plugin::{PayloadLimits, PluginConfig, Source, bundled, inspect};
use serde_json::Value;

use crate::{InnerHost, Random, TestClient, target_dir};
pub use payload::Built;

/// The number of users who fill the states beforehand, each with an id of the greatest length.
const CROWD: usize = 60;

/// The number of messages by which each user of the crowd fills a room.
const ROUNDS: usize = 3;

/// The number of users who send the payloads: enough to stay below the limits of one user.
const SENDERS: usize = 4;

/// The time by which the clock is moved for each event, so that the rate limit lets all events through.
const EVENT_INTERVAL: Duration = Duration::from_millis(20);

/// Limits per user are off, because the features' handling of payloads is tested and not the host's limits.
const NO_BUDGET: &str = "{ scopes = 0, rooms = 0, timers = 0, timer_bytes = 0, documents = 0, document_bytes = 0, \
                         fetches = 0, saved_bytes_per_second = 0, fetched_bytes_per_second = 0 }";

/// The greatest number of findings that are kept, each with the payload that caused it.
const MAX_FINDINGS: usize = 20;

/// The payloads, and how their cost is judged.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of all payloads.
    pub seed: u64,
    /// The end of the run.
    pub until: Until,
    /// The deadline of a call. A call that exceeds it is a finding.
    pub call_deadline: &'static str,
    /// The memory of an instance, in bytes. A call that exceeds it is a finding.
    pub memory_bytes: usize,
    /// Whether the processor time of the plugin thread is measured. There must be one host in the process.
    pub is_timed: bool,
}

/// The end of a run.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this many payloads for each event.
    Each(usize),
    /// After this time.
    Elapsed(Duration),
}

/// The result of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The costs, by event.
    pub events: BTreeMap<String, Cost>,
    /// The number of faults, by feature.
    pub faults: BTreeMap<String, u64>,
    /// The event, shape and beginning of each payload that caused a fault.
    pub findings: Vec<String>,
}

/// The cost of one event.
#[derive(Debug, Default)]
pub struct Cost {
    /// The number of sent payloads.
    pub sent: u64,
    /// The number of payloads that the feature accepted.
    pub taken: u64,
    /// The number of refused payloads, by code of the error.
    pub refused: BTreeMap<String, u64>,
    /// The longest processor time of the plugin thread for one payload.
    pub worst: Duration,
    /// The shape and length of the payload that took `worst`.
    pub worst_of: String,
    total: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:24} {:>8} {:>8} {:>9} {:>9}  by", "event", "sent", "taken", "worst ms", "mean µs")?;
        for (event, cost) in &self.events {
            let worst = cost.worst.as_secs_f64() * 1e3;
            let mean = cost.total.as_secs_f64() * 1e6 / cost.sent.max(1) as f64;
            let Cost { sent, taken, worst_of, refused, .. } = cost;
            writeln!(f, "{event:24} {sent:>8} {taken:>8} {worst:>9.3} {mean:>9.1}  {worst_of}; refused: {refused:?}")?;
        }
        writeln!(f, "faults: {:?}", self.faults)?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))
    }
}

/// A client event of a bundled feature.
#[derive(Debug, Clone)]
struct Event {
    name: String,
    limits: PayloadLimits,
    placeholders: Vec<String>,
}

/// All client events of all bundled features.
fn client_events() -> anyhow::Result<Vec<Event>> {
    let config = PluginConfig { cache_dir: Some(target_dir().join("compiled-for-tests")), ..PluginConfig::default() };
    let mut events = Vec::new();
    for feature in bundled() {
        let inspection = inspect(feature.component, Source::Bundled, &config)?;
        // The manifest does not say which scope an event has, so the placeholders of all scopes are sent; unknown
        // fields are harmless.
        let parts = inspection.scopes.iter().flat_map(|scope| scope.split('{').skip(1));
        let placeholders: Vec<String> = parts.filter_map(|part| Some(part.split_once('}')?.0.to_owned())).collect();
        for name in inspection.from_clients {
            let limits = *inspection.limits.get(&name).context("each event has limits")?;
            events.push(Event { name, limits, placeholders: placeholders.clone() });
        }
    }
    ensure!(!events.is_empty(), "bundled features have client events");
    Ok(events)
}

/// Runs all events through the host according to the plan.
///
/// # Errors
/// If the host cannot be started, or a component cannot be inspected.
pub async fn run(plan: Plan) -> anyhow::Result<Outcome> {
    let events = tokio::task::spawn_blocking(client_events).await??;
    let host = InnerHost::start(&format!(
        "auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\nlimits.rooms_per_connection = 0\n\
         limits.user = {NO_BUDGET}\n[plugins]\nthreads = 1\n\
         call_deadline = \"{}\"\nmemory_bytes = {}\n",
        plan.call_deadline, plan.memory_bytes
    ))
    .await;
    let mut random = Random::new(plan.seed);
    fill(&host, &events, &mut random).await;
    let mut outcome = Outcome::default();
    let thread = plan.is_timed.then(PluginThread::find).transpose()?;
    let mut senders = Vec::new();
    for n in 0..SENDERS {
        senders.push(Sender::connect(&host, format!("sender{n}")).await);
    }
    let begun = Instant::now();
    for round in 0.. {
        let is_enough = match plan.until {
            Until::Each(rounds) => round >= rounds,
            Until::Elapsed(time) => begun.elapsed() >= time,
        };
        if is_enough {
            break;
        }
        for event in &events {
            let at = random.below(SENDERS);
            let built = payload::payload(&mut random, event.limits, &event.placeholders, &senders[at].user);
            try_one(&host, &mut senders[at], event, &built, thread.as_ref(), &mut outcome).await;
        }
    }
    for feature in bundled() {
        let report = host.call("GET", &format!("/v1/plugins/{}", feature.name), "").await.body;
        outcome.faults.insert(feature.name.to_owned(), report["traps"].as_u64().context("a report counts traps")?);
    }
    drop(senders);
    host.shut_down().await;
    Ok(outcome)
}

/// Makes states grow: many users with long ids send each event in one scope.
async fn fill(host: &InnerHost, events: &[Event], random: &mut Random) {
    for n in 0..CROWD {
        let user = format!("{n}{}", "\u{1f600}".repeat(120));
        let mut sender = Sender::connect(host, user).await;
        for event in events.iter().cycle().take(events.len() * ROUNDS) {
            // Events that leave a scope would make its state shrink.
            if !["leave", "unsubscribe", "stop"].iter().any(|word| event.name.contains(word)) {
                let args = payload::plain(random, &event.placeholders, &sender.user);
                // A refused event adds nothing.
                let _ = sender.ask(host, &event.name, &args).await;
            }
        }
        // The client stays connected, and reads and drops all frames.
        tokio::spawn(async move { while sender.client.next_or_closed().await.is_ok() {} });
    }
}

async fn try_one(
    host: &InnerHost,
    sender: &mut Sender,
    event: &Event,
    built: &Built,
    thread: Option<&PluginThread>,
    outcome: &mut Outcome,
) {
    let before = thread.map(PluginThread::time);
    let answer = sender.ask(host, &event.name, &built.args).await;
    let took = before.zip(thread).map_or(Duration::ZERO, |(before, thread)| thread.time().saturating_sub(before));
    let cost = outcome.events.entry(event.name.clone()).or_default();
    cost.sent += 1;
    cost.total += took;
    if took > cost.worst {
        (cost.worst, cost.worst_of) = (took, format!("{}, {} bytes", built.shape, built.args.len()));
    }
    match answer {
        Ok(_) => cost.taken += 1,
        Err(error) => {
            let code = error["code"].as_str().unwrap_or_default().to_owned();
            if code == "internal" && outcome.findings.len() < MAX_FINDINGS {
                let beginning: String = built.args.chars().take(300).collect();
                let mut finding = format!("{}: {} of {} bytes: ", event.name, built.shape, built.args.len());
                let _ = write!(finding, "{beginning}");
                outcome.findings.push(finding);
            }
            *cost.refused.entry(code).or_default() += 1;
        }
    }
}

/// A client that sends payloads.
#[derive(Debug)]
struct Sender {
    user: String,
    client: TestClient,
    last_id: i64,
}

impl Sender {
    async fn connect(host: &InnerHost, user: String) -> Self {
        let client = host.client(&user).await;
        Self { user, client, last_id: 0 }
    }

    /// Sends arguments as they are. Returns the acknowledgement or its error.
    async fn ask(&mut self, host: &InnerHost, event: &str, args: &str) -> Result<Value, Value> {
        host.advance(EVENT_INTERVAL);
        self.last_id += 1;
        self.client.send_text(format!(r#"{{"event":"{event}","id":{},"args":{args}}}"#, self.last_id)).await;
        let answer = self.client.expect_ack(self.last_id).await;
        self.client.discard_kept();
        answer
    }
}

/// The plugin thread, by its folder in `/proc`.
#[derive(Debug)]
struct PluginThread(String);

impl PluginThread {
    fn find() -> anyhow::Result<Self> {
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "plugin-0") {
                return Ok(Self(task.to_str().context("paths there are text")?.to_owned()));
            }
        }
        anyhow::bail!("there is no plugin thread")
    }

    /// The processor time that the thread has used, read while the thread sleeps.
    fn time(&self) -> Duration {
        // The recorded time of a sleeping thread is up to date, and a running one is about to sleep.
        for _ in 0..1000 {
            let stat = fs::read_to_string(format!("{}/stat", self.0)).unwrap_or_default();
            if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')) {
                break;
            }
            std::thread::yield_now();
        }
        let times = fs::read_to_string(format!("{}/schedstat", self.0)).unwrap_or_default();
        Duration::from_nanos(times.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0))
    }
}
