//! Runs attacks one after another, on hosts that are started for them.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::LocalSet;

use super::attack::{Attack, Group, Setting};
use super::field::Field;
use super::front::TlsFront;
use super::good::{GOOD_CLIENTS, GoodClients};
use super::sampling::{Peak, cpu_seconds, resident};
use super::stage::Stage;
use super::tally::Tally;
use super::verdict::{Latency, Verdict};
use crate::{TestAuthority, TestHost};

/// The default time of an attack in a full run.
const FULL: Duration = Duration::from_secs(4);
/// The default time of an attack in a short run.
const SHORT: Duration = Duration::from_millis(400);
/// The share of connections and the like in a short run.
const SHORT_SCALE: f64 = 0.1;
/// The longest time for which the good clients are measured without an attack.
const BASELINE_TIME: Duration = Duration::from_secs(3);
/// The pause after an attack before the last measurement of memory.
const MEMORY_PAUSE: Duration = Duration::from_secs(4);
/// The time that a host is given after its start, because first calls are slower than others.
const WARM_UP: Duration = Duration::from_secs(1);
/// The time that an attack may take for its preparation.
const PREPARATION: Duration = Duration::from_secs(20);

/// The extent of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Each attack on a host of its own, for some seconds; latency is measured.
    Full,
    /// Attacks on one host, briefly; only loss of service is measured.
    Short,
}

/// A run of attacks.
#[derive(Debug)]
pub struct Campaign {
    /// The extent of a run.
    pub length: Length,
    /// The time of each attack, if not the default.
    pub time: Option<Duration>,
    /// A binary of the host other than the one beside this program.
    pub binary: Option<PathBuf>,
    /// The number of good clients, which is even.
    pub n_good: usize,
    /// The number of times that each attack is run; the run whose ratio is the median counts, or one with a loss.
    pub repetitions: usize,
    /// Whether each attack is first run against another host on this machine, to measure its cost to the machine.
    pub has_control: bool,
}

/// A host and its good clients.
#[derive(Debug)]
struct AttackedHost {
    // Dropped first: the good clients leave before the host ends.
    good_clients: GoodClients,
    /// The good clients' way to a host with TLS.
    _front: Option<TlsFront>,
    host: TestHost,
    /// The authority of the host's certificate, with its files.
    authority: TestAuthority,
}

/// The result of an attackers' thread.
struct AttackResult {
    tally: Tally,
    failed: Option<String>,
    from: Instant,
    until: Instant,
    cpu: f64,
}

impl Campaign {
    /// A short run.
    pub fn short() -> Self {
        Self {
            length: Length::Short,
            time: None,
            binary: None,
            n_good: GOOD_CLIENTS,
            repetitions: 1,
            has_control: false,
        }
    }

    /// Runs the attacks, and passes each verdict to `report`.
    ///
    /// # Errors
    /// If a host cannot be started, or good clients are refused before the attack.
    pub fn run(&self, attacks: &[(Group, &Attack)], mut report: impl FnMut(Verdict)) -> anyhow::Result<()> {
        let mut attacked_host: Option<(Setting, AttackedHost)> = None;
        for (number, (group, attack)) in attacks.iter().enumerate() {
            let mut verdicts = Vec::new();
            for _ in 0..self.repetitions {
                let kept = attacked_host.take();
                let kept = kept.filter(|(setting, _)| self.length == Length::Short && *setting == attack.setting);
                let mut here = match kept {
                    Some((_, here)) => {
                        if matches!(group, Group::Turns | Group::Plugins) {
                            Stage::refresh(&here.host)?;
                        }
                        here
                    }
                    None => self.found(attack)?,
                };
                let verdict = self.attack(&mut here, *group, attack, number as u8);
                let verdict = verdict.with_context(|| format!("{} cannot be made", attack.name))?;
                attacked_host = (!verdict.ended).then_some((attack.setting, here));
                verdicts.push(verdict);
            }
            report(Verdict::median(verdicts).context("no repetition was asked for")?);
        }
        Ok(())
    }

    fn found(&self, attack: &Attack) -> anyhow::Result<AttackedHost> {
        let authority = TestAuthority::new();
        let host = Stage { binary: self.binary.clone(), is_decoy: false }.start(attack.setting, &authority)?;
        let has_tls = attack.setting == Setting::Tls;
        let front = if has_tls { Some(TlsFront::before(&host, &authority)?) } else { None };
        let ws = front.as_ref().map_or(&host.ws, |front| &front.ws);
        let good_clients = GoodClients::move_in(ws, &host.api, self.n_good)?;
        std::thread::sleep(if self.length == Length::Full { WARM_UP } else { Duration::ZERO });
        Ok(AttackedHost { good_clients, _front: front, host, authority })
    }

    fn attack(
        &self,
        attacked_host: &mut AttackedHost,
        group: Group,
        attack: &Attack,
        number: u8,
    ) -> anyhow::Result<Verdict> {
        let (pid, is_full) = (attacked_host.host.pid(), self.length == Length::Full);
        let mut verdict = Verdict::of(group, attack);
        if is_full {
            let from = Instant::now();
            std::thread::sleep(self.time.map_or(BASELINE_TIME, |time| time.min(BASELINE_TIME)));
            verdict.alone = Some(Latency::of(&attacked_host.good_clients.served(from, Instant::now()).events));
        }
        if self.has_control {
            let decoy = Stage { binary: self.binary.clone(), is_decoy: true }
                .start(attack.setting, &attacked_host.authority)?;
            let attacked = self.make(attack, &decoy, number)?;
            drop(decoy);
            let served = attacked_host.good_clients.served(attacked.from, attacked.until);
            verdict.machine = Some(Latency::of(&served.events));
        }
        verdict.memory.before = resident(pid);
        let cpu = cpu_seconds(pid);
        let peak = Peak::watch(pid)?;
        let attacked = self.make(attack, &attacked_host.host, number)?;
        verdict.host_cpu = cpu_seconds(pid) - cpu;
        verdict.memory.peak = peak.megabytes();
        verdict.memory.after = resident(pid);
        verdict.served = attacked_host.good_clients.served(attacked.from, attacked.until);
        verdict.during = Latency::of(&verdict.served.events);
        verdict.newcomers = Latency::of(&verdict.served.newcomers);
        verdict.operator = Latency::of(&verdict.served.operator);
        verdict.seconds = (attacked.until - attacked.from).as_secs_f64();
        (verdict.tally, verdict.failed, verdict.attacker_cpu) = (attacked.tally, attacked.failed, attacked.cpu);
        if is_full {
            std::thread::sleep(MEMORY_PAUSE);
        }
        verdict.memory.later = resident(pid);
        verdict.ended = attacked_host.host.exit_status().is_some();
        Ok(verdict)
    }

    /// Runs an attack on a thread of its own, with a lower priority than the host and the good clients.
    fn make(&self, attack: &Attack, host: &TestHost, number: u8) -> anyhow::Result<AttackResult> {
        let clients = host.ws.trim_start_matches("wss://").trim_start_matches("ws://").parse()?;
        let api = host.api.trim_start_matches("http://").parse()?;
        let (time, scale) = match self.length {
            Length::Full => (self.time.unwrap_or(FULL) * attack.length, 1.0),
            Length::Short => (self.time.unwrap_or(SHORT), SHORT_SCALE),
        };
        let run = attack.run;
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new().name("attack".to_owned()).spawn(move || {
            let from = Instant::now();
            let tally = prepare().map(|runtime| {
                let field = std::rc::Rc::new(Field::new(clients, api, number, time, scale));
                let tally = field.tally.clone();
                let made = LocalSet::new().block_on(&runtime, within(time + PREPARATION, run(field)));
                let tally = tally.borrow().clone();
                (tally, made.err().map(|error| format!("{error:#}")))
            });
            let until = Instant::now();
            let cpu = clock_gettime(ClockId::ThreadCPUTime);
            let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
            let attacked = tally.map(|(tally, failed)| AttackResult { tally, failed, from, until, cpu });
            // The receiver is gone if the campaign has failed.
            let _ = sender.send(attacked);
        })?;
        receiver.recv().context("the attackers' thread ended")?
    }
}

/// Lowers the priority of an attackers' thread, and makes its runtime.
fn prepare() -> anyhow::Result<tokio::runtime::Runtime> {
    rustix::process::nice(10)?;
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Runs an attack, or fails when it takes longer than `longest`.
async fn within(longest: Duration, attack: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    match tokio::time::timeout(longest, attack).await {
        Ok(made) => made,
        Err(_) => anyhow::bail!("it did not end in {} s", longest.as_secs()),
    }
}
