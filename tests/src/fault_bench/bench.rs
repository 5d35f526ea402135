//! The run: work, a fault, and rest, again and again.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::fault::Fault;
use super::model::{CAMPAIGNS, Command, Model, Place, ROOMS, TIMELINES};
use super::page::{Page, Shared};
use super::report::{Failure, Report};
use super::violation::Violation;
use super::{campaigns, figures, messages, presence, service, timelines};
use crate::{ClusterOptions, Engine, Persistence, Random, TestBalancer, TestCluster, guests};

/// The time of rest until which all invariants have to hold. Bounded by nothing but patience: see the report for the time
/// that it took.
const REST: Duration = Duration::from_secs(20);
/// The configuration of hosts: agents who stop typing are seen to soon, and no limit is met.
const CONFIG: &str = "limits = { events_per_second = 1000, event_burst = 5000 }\n\
    [plugins.ticket-collision.settings]\ntypingSeconds = 1\n";

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed of everything that is chosen.
    pub seed: u64,
    /// The time in which faults begin.
    pub time: Duration,
    /// The number of hosts; one runs without a cluster.
    pub nodes: usize,
    /// Whether several hosts run without a cluster too, which the bench has to find out.
    pub is_apart: bool,
    /// The number of agents.
    pub agents: usize,
    /// The faults, one after another.
    pub faults: Vec<Fault>,
    /// The time after a death within which the dead have to be gone.
    pub ghosts: Duration,
    /// Whether the history of rooms is checked, which hosts with a store each know in part.
    pub reads_history: bool,
    /// Whether pages connect through HAProxy.
    pub is_balanced: bool,
    /// More configuration of the hosts.
    pub config: String,
}

/// A run.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) options: Options,
    pub(super) cluster: TestCluster,
    pub(super) shared: Arc<Shared>,
    pub(super) model: Model,
    pub(super) random: Random,
    pub(super) report: Report,
    /// Another build of a feature, if one is to be loaded.
    pub(super) build: Option<Vec<u8>>,
    pages: Vec<UnboundedSender<Command>>,
    is_paused: watch::Sender<bool>,
    /// Pages and services, which end with the run.
    _tasks: JoinSet<()>,
    _balancer: Option<TestBalancer>,
}

/// Runs the bench. It belongs on a runtime of several threads, because starts of servers block the caller's.
///
/// # Errors
/// If an invariant is violated.
///
/// # Panics
/// If servers cannot be started, or the options contradict each other.
pub async fn run(options: Options) -> Result<Report, Box<Failure>> {
    let mut bench = Bench::start(options);
    let outcome = bench.rounds().await;
    if outcome.is_err() {
        bench.keep_logs();
    }
    let record = bench.shared.record();
    bench.report.take(&record);
    match outcome {
        Ok(()) => Ok(bench.report.clone()),
        Err(violation) => Err(Failure::new(violation, &record, bench.report.clone())),
    }
}

impl Bench {
    fn start(options: Options) -> Self {
        let has = |fault| options.faults.contains(&fault);
        let build = (has(Fault::Swap) || has(Fault::Rollout)).then(|| guests::ticket_collision("0.1.1"));
        let cluster = TestCluster::start_with(&cluster_options(&options)).unwrap_or_else(|why| panic!("{why}"));
        let hosts = (0..options.nodes).map(|node| cluster.host(node));
        let balancer = options.is_balanced.then(|| cluster.balancer().unwrap_or_else(|why| panic!("{why}")));
        let ws = match &balancer {
            Some(balancer) => vec![balancer.ws()],
            None => hosts.clone().map(|host| host.ws.clone()).collect(),
        };
        let shared = Arc::new(Shared::new(ws, hosts.map(|host| host.api.clone()).collect()));
        let model = Model::new(options.agents);
        let mut random = Random::new(options.seed);
        let mut part = || Random::new(random.below(usize::MAX) as u64);
        let mut tasks = JoinSet::new();
        let mut pages = Vec::new();
        for number in 0..model.n_pages() {
            let (sender, commands) = unbounded_channel();
            tasks.spawn(Page::new(number, model.agent_of(number), shared.clone(), part(), commands).run());
            pages.push(sender);
        }
        let (is_paused, paused) = watch::channel(false);
        for timeline in 0..TIMELINES {
            tasks.spawn(service::post_events(shared.clone(), timeline, paused.clone(), part()));
        }
        for campaign in 0..CAMPAIGNS {
            tasks.spawn(campaigns::count_messages(shared.clone(), campaign, paused.clone(), part()));
        }
        let report = Report { seed: options.seed, ..Report::default() };
        Self {
            options,
            cluster,
            shared,
            model,
            random,
            report,
            build,
            pages,
            is_paused,
            _tasks: tasks,
            _balancer: balancer,
        }
    }

    async fn rounds(&mut self) -> Result<(), Violation> {
        for page in 0..self.model.n_pages() {
            self.tell(page, Command::Open);
        }
        let began = Instant::now();
        self.work(Duration::from_secs(2)).await;
        self.rest().await?;
        let mut next = Vec::new();
        while began.elapsed() < self.options.time {
            if next.is_empty() {
                next.clone_from(&self.options.faults);
            }
            self.work(Duration::from_secs(1)).await;
            if !next.is_empty() {
                let fault = next.swap_remove(self.random.below(next.len()));
                self.inject(fault).await?;
                let after = self.rest_after(fault).await?;
                self.report.faults.entry(fault).or_default().push(after);
            } else {
                self.rest().await?;
            }
        }
        Ok(())
    }

    async fn rest_after(&mut self, fault: Fault) -> Result<u64, Violation> {
        self.note(format!("the fault is over: {fault:?}"));
        let healed = Instant::now();
        self.work(Duration::from_millis(500)).await;
        self.rest().await?;
        Ok(healed.elapsed().as_millis() as u64)
    }

    /// Gives pages commands for a while.
    pub(super) async fn work(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let pause = Duration::from_millis(500) / u32::try_from(self.options.agents).unwrap_or(1).max(1);
        while Instant::now() < end {
            if let Some((page, command)) = self.model.choose(&mut self.random) {
                self.tell(page, command);
            }
            sleep(pause).await;
        }
    }

    /// Gives a page a command.
    pub(super) fn tell(&mut self, page: usize, command: Command) {
        self.model.apply(page, command);
        self.report.commands += 1;
        let (agent, place) = (self.model.agent_of(page), place_of(command));
        self.shared.record().note_of(page, place, format!("page {page} of agent {agent}: {command:?}"));
        // A page that panicked is found by the next check, because it does not settle.
        let _ = self.pages[page].send(command);
    }

    /// Adds a line to the story.
    pub(super) fn note(&self, text: String) {
        self.shared.record().note(text);
    }

    /// Waits, without commands, until all invariants hold.
    async fn rest(&mut self) -> Result<(), Violation> {
        self.is_paused.send_replace(true);
        self.note("rest".to_owned());
        let deadline = Instant::now() + REST;
        self.wait_until_holds(deadline, async |bench| bench.check()).await?;
        if !self.options.is_apart {
            self.wait_until_holds(deadline, async |bench| bench.check_figures().await).await?;
        }
        let rooms = if self.options.reads_history { 0..ROOMS } else { 0..0 };
        for room in rooms {
            self.wait_until_holds(deadline, async |bench| bench.check_history(room).await).await?;
        }
        self.report.rests += 1;
        self.note("all invariants hold".to_owned());
        self.is_paused.send_replace(false);
        Ok(())
    }

    /// Checks an invariant until it holds.
    ///
    /// # Errors
    /// With its violation at the deadline.
    async fn wait_until_holds(
        &mut self,
        deadline: Instant,
        mut check: impl AsyncFnMut(&mut Self) -> Option<Violation>,
    ) -> Result<(), Violation> {
        while let Some(violation) = check(self).await {
            if Instant::now() > deadline {
                return Err(violation);
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn check(&mut self) -> Option<Violation> {
        self.report.checks += 1;
        let record = self.shared.record();
        presence::settled(&record)
            .or_else(|| presence::lists(&record, &self.model))
            .or_else(|| presence::told_as_gone(&record, &self.model))
            .or_else(|| timelines::timelines(&record))
            .or_else(|| messages::messages(&record))
    }

    async fn check_figures(&mut self) -> Option<Violation> {
        let api = &self.shared.apis[self.random.below(self.shared.apis.len())];
        figures::figures(&self.shared, api, &self.model).await
    }

    async fn check_history(&mut self, room: usize) -> Option<Violation> {
        let ws = self.shared.ws[self.random.below(self.shared.ws.len())].clone();
        match service::history(&ws, room).await {
            Ok(stored) => messages::history(&self.shared.record(), room, &stored),
            Err(why) => {
                let what = format!("the history of room {room} cannot be read at {ws}: {why}");
                Some(Violation::new("at rest, the history can be read", what).within(Place::Room(room)))
            }
        }
    }

    /// Copies the logs of the hosts to where they outlive the run.
    fn keep_logs(&self) {
        let folder = crate::target_dir().join("fault-bench").join(self.options.seed.to_string());
        fs::create_dir_all(&folder).expect("a folder can be made");
        for node in 0..self.cluster.len() {
            fs::write(folder.join(format!("{node}.log")), self.cluster.host(node).log()).expect("a log can be written");
        }
        self.note(format!("the logs of the hosts are in {}", folder.display()));
    }
}

fn cluster_options(options: &Options) -> ClusterOptions {
    let has = |needed: fn(Fault) -> bool| options.faults.iter().any(|fault| needed(*fault));
    let is_apart = options.is_apart || options.nodes == 1;
    assert!(!is_apart || !has(Fault::needs_cluster), "there is no Redis to harm without a cluster");
    let is_sentinel = options.faults.contains(&Fault::Sentinel);
    assert!(
        !is_sentinel || !has(Fault::needs_one_redis),
        "sentinel and the other faults of Redis need runs of their own"
    );
    let engine = match (is_apart, is_sentinel) {
        (true, _) => Engine::None,
        (false, true) => Engine::Sentinel,
        (false, false) => Engine::Redis(Persistence::AppendOnly),
    };
    ClusterOptions {
        nodes: options.nodes,
        engine,
        is_cuttable: options.faults.contains(&Fault::Cut),
        has_clocks: options.faults.contains(&Fault::Clock),
        config: format!("{CONFIG}{}", options.config),
    }
}

fn place_of(command: Command) -> Option<Place> {
    match command {
        Command::View(ticket) | Command::Leave(ticket) | Command::Type(ticket) => Some(Place::Ticket(ticket)),
        Command::Open | Command::Close { .. } | Command::Say { .. } => None,
    }
}
