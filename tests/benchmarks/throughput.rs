//! One room of 1,000: how many deliveries a second, and after how long.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use roundhouse_tests::bench::say;

use crate::generator::{CrowdId, PATIENCE, SocketId};
use crate::report::{LATENCY_P50, LATENCY_P99, LATENCY_P999, PIPELINED, PIPELINED_CPU, SINGLE, SINGLE_CPU, quantile};
use crate::servers::Server;
use crate::{Bench, Workload};

const MEMBERS: usize = 1_000;
/// Events in flight.
const PIPELINE: usize = 64;
/// Events a second where latency is what counts.
const RATE: u32 = 50;

/// A server with members in its rooms, and a publisher for each room.
pub(crate) struct Audience {
    pub(crate) server: Server,
    pub(crate) crowd: CrowdId,
    pub(crate) publishers: Vec<SocketId>,
    pub(crate) publishes: Vec<Vec<u8>>,
    pub(crate) n_members: usize,
}

impl Audience {
    /// Starts a server, and lets `members` join each of `rooms`.
    pub(crate) fn gather(bench: &mut Bench, at: usize, rooms: usize, members: usize) -> anyhow::Result<Self> {
        let spec = bench.field.specs[at].clone();
        let server = bench.field.start(&spec)?;
        let wire = spec.wire;
        let crowd = bench.generator.crowd(&spec.name, wire.bytes_per_event(0));
        let mut scripts = Vec::new();
        for room in 0..rooms {
            for member in 0..members {
                let mut steps = wire.connect(&format!("member{room}-{member}"))?;
                steps.push(wire.join(room));
                scripts.push((room, steps));
            }
        }
        let generator = &mut bench.generator;
        let name = &spec.name;
        generator.connect_all(crowd, server.address, scripts).with_context(|| format!("{name}: members"))?;
        let mut publishers = Vec::new();
        for room in 0..rooms {
            let mut steps = wire.connect(&format!("publisher{room}"))?;
            steps.extend(wire.begin_to_publish(room));
            publishers.extend(generator.connect_all(crowd, server.address, [(room, steps)])?);
        }
        let publishes = (0..rooms).map(|room| wire.publish(room)).collect();
        Ok(Self { server, crowd, publishers, publishes, n_members: members })
    }

    /// Publishes to the first room, with so many events in flight, for so long; gives deliveries a second, and the
    /// nanoseconds for which the server ran for each, which others on the machine disturb less.
    pub(crate) fn flood(&self, bench: &mut Bench, in_flight: usize, time: Duration) -> anyhow::Result<(f64, f64)> {
        let cpu = self.server.process.cpu()?;
        let generator = &mut bench.generator;
        generator.reset_room(self.crowd, self.n_members);
        // In batches of half of what may be in flight, or every wake-up would send one.
        let batch = (in_flight / 2).max(1);
        let publishes = self.publishes[0].repeat(batch);
        let began = Instant::now();
        let mut sent = 0;
        loop {
            let arrived = generator.complete(self.crowd);
            if began.elapsed() < time {
                while sent + batch <= arrived + in_flight {
                    generator.write(self.publishers[0], &publishes)?;
                    sent += batch;
                }
            } else if arrived == sent {
                let (took, n) = (began.elapsed(), (sent * self.n_members) as f64);
                let ran = self.server.process.cpu()?.saturating_sub(cpu);
                return Ok((n / took.as_secs_f64(), ran.as_nanos() as f64 / n));
            }
            generator
                .must_poll()
                .with_context(|| format!("{}: {arrived} of {sent} events arrived", self.server.spec.name))?;
        }
    }

    /// Publishes to each room at a rate for so long; gives microseconds from when each event was due, in order of size.
    pub(crate) fn at_rate(&self, bench: &mut Bench, rate: u32, time: Duration) -> anyhow::Result<Vec<u32>> {
        let generator = &mut bench.generator;
        let rooms = self.publishers.len();
        generator.reset(self.crowd, rooms);
        // Rooms one after another, so that load is spread over time.
        let period = Duration::from_secs(1) / (rate * rooms as u32);
        let n_events = (time.as_nanos() / period.as_nanos()) as usize;
        let began = Instant::now();
        for n in 0..n_events {
            let due = began + period * n as u32;
            generator.poll_until(due)?;
            generator.note_due(self.crowd, n % rooms, due);
            generator.write(self.publishers[n % rooms], &self.publishes[n % rooms])?;
        }
        let deadline = Instant::now() + PATIENCE;
        while generator.delivered(self.crowd) < n_events * self.n_members {
            anyhow::ensure!(Instant::now() < deadline, "{}: deliveries were lost", self.server.spec.name);
            generator.must_poll()?;
        }
        let mut latencies = generator.take_latencies(self.crowd);
        latencies.sort_unstable();
        Ok(latencies)
    }
}

/// The workloads with one room of 1,000, in turns.
pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let wants =
        [Workload::Single, Workload::Pipelined, Workload::Latency].map(|workload| bench.options.wants(workload));
    if wants == [false; 3] {
        return Ok(());
    }
    let (flood, rate) = if bench.options.quick { (500, 1_000) } else { (1_500, 5_000) };
    let (flood, rate) = (Duration::from_millis(flood), Duration::from_millis(rate));
    let mut audiences = Vec::new();
    for at in 0..bench.field.specs.len() {
        audiences.push(Audience::gather(bench, at, 1, MEMBERS)?);
        // Compilers and caches are warm before anything counts.
        audiences[at].flood(bench, PIPELINE, flood)?;
    }
    for round in 0..bench.options.rounds {
        say(&format!("one room of {MEMBERS}: round {} of {}", round + 1, bench.options.rounds))?;
        let floods = [(wants[0], SINGLE, SINGLE_CPU, 1), (wants[1], PIPELINED, PIPELINED_CPU, PIPELINE)];
        for (wanted, metric, cpu_metric, in_flight) in floods {
            for audience in audiences.iter().filter(|_| wanted) {
                let (rate, cpu) = audience.flood(bench, in_flight, flood)?;
                bench.report.note(metric, &audience.server.spec.name, rate);
                bench.report.note(cpu_metric, &audience.server.spec.name, cpu);
            }
        }
        for audience in audiences.iter().filter(|_| wants[2]) {
            let latencies = audience.at_rate(bench, RATE, rate)?;
            for (metric, share) in [(LATENCY_P50, 0.5), (LATENCY_P99, 0.99), (LATENCY_P999, 0.999)] {
                bench.report.note(metric, &audience.server.spec.name, quantile(&latencies, share) / 1000.0);
            }
        }
    }
    for audience in &audiences {
        bench.generator.close(audience.crowd);
    }
    Ok(())
}
