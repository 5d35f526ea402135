//! The run: clients enter, load begins, features are swapped, and what clients have seen is compared with the model.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::board::{Board, Phase, read};
use super::caller::Caller;
use super::ends::Ends;
use super::group::{FEATURES, Group, SIZE, user};
use super::member::Member;
use super::pauses::Pauses;
use super::probe;
use super::seen::FENCE;
use super::service::Service;
use super::swapper::{Swapper, Turn};
use super::tally::Tally;
use crate::bench::{SECRET, thousands, token};
use crate::{Random, TIMEOUT, TestHost};

/// All limits of clients and services are off, so that nothing is refused. Typing ends after a second, so that many
/// timers are due while features are swapped, and a client that was cut is not taken for absent while it comes back.
const CONFIG: &str = "\
limits = { events_per_second = 0, user = { scopes = 0, rooms = 0, timers = 0, timer_bytes = 0, acknowledgements = 0, \
documents = 0, document_bytes = 0, fetches = 0, saved_bytes_per_second = 0, fetched_bytes_per_second = 0 } }
shards = 2
[plugins.ticket-collision.settings]
typingSeconds = 1
awaySeconds = 60
[plugins.crm-events.settings]
typingSeconds = 1
";

/// A run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The seed of everything that is chosen.
    pub seed: u64,
    /// The number of swaps, of all features together.
    pub swaps: usize,
    /// The number of clients, which is rounded up to whole groups.
    pub clients: usize,
    /// The time without swaps, under the same load, before the first.
    pub quiet: Duration,
    /// The time within which the swaps have to be made.
    pub limit: Duration,
    /// Whether each feature is unloaded before it is loaded again, which the bench has to find out.
    pub unloads: bool,
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    options: Options,
    /// The faults.
    pub tally: Tally,
    /// The round trips.
    pub pauses: Pauses,
    took: Duration,
    figures: Vec<(&'static str, u64)>,
}

impl Report {
    /// The number of times that connections were cut and recovered.
    pub fn n_cuts(&self) -> u64 {
        self.figures.iter().find(|(name, _)| *name == CUTS).map_or(0, |(_, cuts)| *cuts)
    }
}

const CUTS: &str = "connections cut and recovered";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { seed, swaps, clients, .. } = self.options;
        let seconds = self.took.as_secs_f64();
        writeln!(f, "seed {seed}: {swaps} swaps of {} features in {seconds:.1} s, {clients} clients", FEATURES.len())?;
        let figures = self.figures.iter().map(|(name, n)| format!("{} {name}", thousands(*n as f64, 0)));
        writeln!(f, "{}", figures.collect::<Vec<String>>().join(", "))?;
        write!(f, "{}{}", self.tally, self.pauses)
    }
}

/// The parts of a run. Clients end before the host does, which would be a fault otherwise.
struct Bench {
    members: JoinSet<anyhow::Result<Member>>,
    services: JoinSet<anyhow::Result<Service>>,
    host: Arc<TestHost>,
    board: Arc<Board>,
    n_members: usize,
}

/// The end of a run of which nothing has failed.
struct Ended {
    swaps: Vec<Turn>,
    quiet: Vec<Turn>,
    took: Duration,
    figures: Vec<(&'static str, u64)>,
}

/// Runs a host, and swaps its features under load.
///
/// # Errors
/// If a connection ends, a swap is refused, or something does not happen in time. Other faults are counted.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    let groups = options.clients.div_ceil(SIZE).max(1);
    let options = Options { clients: groups * SIZE, ..options };
    let mut random = Random::new(options.seed);
    let config = format!("auth.jwt.secret = \"{SECRET}\"\n{CONFIG}");
    let host = Arc::new(TestHost::start_with(&config, &[]));
    let board = Arc::new(Board::new(groups));
    let (probed, followed) = watch::channel(0);
    let swapper = Swapper::new(probed, fork(&mut random), options.unloads)?;
    let probes = probe::start(host.clone(), board.clone(), followed)?;
    let (members, services) = (JoinSet::new(), JoinSet::new());
    let bench = Bench { members, services, host, board: board.clone(), n_members: options.clients };
    let ended = bench.run(swapper, options, &mut random).await;
    // The probes run until the load is over, and hold the host.
    board.begin(Phase::Rest);
    let trips = tokio::task::spawn_blocking(|| probes.join()).await?;
    let trips = trips.unwrap_or_else(|_| Err(anyhow::anyhow!("the probes panicked")));
    let both = match (ended, trips) {
        (Ok(ended), Ok(trips)) => Ok((ended, trips)),
        (Err(error), Err(probes)) => Err(error.context(format!("{probes:#}"))),
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    let (ended, trips) = both.with_context(|| format!("seed {}; faults so far: {}", options.seed, board.tally()))?;
    let Ended { swaps, quiet, took, mut figures } = ended;
    figures.push(("round trips of probes", trips.iter().map(|trips| trips.len() as u64).sum()));
    let pauses = Pauses::of(&trips, &swaps, &quiet, &mut random);
    let tally = std::mem::take(&mut *board.tally());
    Ok(Report { options, tally, pauses, took, figures })
}

impl Bench {
    async fn run(mut self, mut swapper: Swapper, options: Options, random: &mut Random) -> anyhow::Result<Ended> {
        self.enter(random).await?;
        self.board.begin(Phase::Load);
        for group in (0..self.board.totals.len()).map(Group) {
            let service = Service::open(&self.host, group, self.board.clone(), fork(random)).await?;
            self.services.spawn(service.run());
        }
        let began = Instant::now();
        let (quiet, swaps) = self.swap(&mut swapper, options).await?;
        let took = began.elapsed().saturating_sub(options.quiet);
        // What is lost at the end would only follow from these.
        ensure!(self.board.tally().is_clean(), "swaps were noticed");
        let (members, services) = self.rest().await?;
        let mut ends = Ends { host: &self.host, caller: Caller::open(&self.host).await?, board: &self.board };
        ends.compare_orders(&members);
        ends.compare(&swapper, &services).await?;
        Ok(Ended { swaps, quiet, took, figures: figures(&self.board, &members, &services) })
    }

    /// Lets all clients and probes enter their scopes.
    async fn enter(&mut self, random: &mut Random) -> anyhow::Result<()> {
        for number in 0..self.n_members {
            let token = token(&user(number))?;
            let member = Member::new(number, &self.host.ws, token, fork(random), self.board.clone());
            self.members.spawn(member.run());
        }
        self.reached(Phase::Enter, self.n_members + FEATURES.len()).await?;
        self.fence(1).await?;
        self.reached(Phase::Load, self.n_members).await
    }

    /// Lets the load run without swaps, and then with them.
    async fn swap(&mut self, swapper: &mut Swapper, options: Options) -> anyhow::Result<(Vec<Turn>, Vec<Turn>)> {
        let swap = async {
            let quiet = swapper.rest(options.quiet).await;
            // The host closes a connection on which no request comes.
            let caller = Caller::open(&self.host).await?;
            let swaps = swapper.run(caller, options.swaps, Instant::now() + options.limit).await?;
            anyhow::Ok((quiet, swaps))
        };
        tokio::select! {
            swapped = swap => swapped,
            Some(member) = self.members.join_next() => Err(early(member)),
            Some(service) = self.services.join_next() => Err(early(service)),
        }
    }

    /// Ends the load, and waits until all has arrived and is compared.
    async fn rest(&mut self) -> anyhow::Result<(Vec<Member>, Vec<Service>)> {
        self.board.begin(Phase::Rest);
        let mut services = Vec::new();
        while let Some(service) = self.services.join_next().await {
            services.push(service??);
        }
        services.sort_by_key(|service| service.group().0);
        self.reached(Phase::Rest, self.n_members).await?;
        self.board.begin(Phase::Settle);
        self.reached(Phase::Settle, self.n_members).await?;
        self.fence(2).await?;
        let mut members = Vec::new();
        while let Some(member) = self.members.join_next().await {
            members.push(member??);
        }
        members.sort_by_key(Member::number);
        Ok((members, services))
    }

    /// Waits until `n` have done what a phase asks for.
    async fn reached(&mut self, phase: Phase, n: usize) -> anyhow::Result<()> {
        // Each client has its own time-out, whose error says more.
        let deadline = Instant::now() + 2 * TIMEOUT;
        while self.board.n_reached(phase) < n {
            if let Some(member) = self.members.try_join_next() {
                return Err(early(member));
            }
            let n_reached = self.board.n_reached(phase);
            ensure!(Instant::now() < deadline, "{n_reached} of {n} have done in time what {phase:?} asks for");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Sends an event to all clients, which follows all events that were sent before.
    async fn fence(&self, number: u64) -> anyhow::Result<()> {
        let fence = json!({ "event": "system:notification", "data": { FENCE: number } });
        match Caller::open(&self.host).await?.post(&fence).await? {
            (200, _) => Ok(()),
            (status, answer) => bail!("the fence was answered by {status}: {answer}"),
        }
    }
}

/// Why a client or a service has ended before the run.
fn early<T>(ended: Result<anyhow::Result<T>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(_)) => anyhow::anyhow!("a client or a service ended too early"),
        Ok(Err(error)) => error,
        Err(panicked) => anyhow::anyhow!("a client or a service failed: {panicked}"),
    }
}

/// A generator that depends on the seed alone, however the tasks are scheduled.
fn fork(random: &mut Random) -> Random {
    Random::new(random.below(usize::MAX) as u64)
}

fn figures(board: &Board, members: &[Member], services: &[Service]) -> Vec<(&'static str, u64)> {
    let sum = |of: fn(&Member) -> u64| members.iter().map(of).sum::<u64>();
    let all = |totals: &[AtomicU64]| totals.iter().map(read).sum::<u64>();
    vec![
        ("events acknowledged", sum(Member::n_acknowledgements)),
        ("events received", sum(|member| member.seen.n_events)),
        ("chat messages", board.totals.iter().map(|totals| all(&totals.said)).sum()),
        ("calls of services", services.iter().map(|service| service.n_calls).sum()),
        ("typings", board.totals.iter().map(|totals| all(&totals.ticket_typings) + all(&totals.contact_typings)).sum()),
        (CUTS, sum(|member| member.n_cuts)),
        ("messages sent again after a cut", sum(|member| member.n_repeated)),
    ]
}
