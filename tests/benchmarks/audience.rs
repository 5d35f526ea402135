//! A server with publishers and members in its rooms, and the ways to load it.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::bench::Bench;
use crate::generator::{CrowdId, SocketId, TIMEOUT};
use crate::process::own_cpu;
use crate::servers::Server;

/// A server, its members and its publishers.
pub(crate) struct Audience {
    pub(crate) server: Server,
    pub(crate) crowd: CrowdId,
    /// One publisher for each room, or fewer that share the rooms.
    publishers: Vec<SocketId>,
    publishes: Vec<Vec<u8>>,
    /// The number of members in each room.
    members: usize,
}

/// The result of publishing without a pause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flood {
    /// Deliveries per second.
    pub(crate) rate: f64,
    /// The server's CPU time per delivery in nanoseconds, which other load on the machine disturbs less.
    pub(crate) cpu: f64,
    /// The generator's CPU time per delivery in nanoseconds: if it exceeds the server's, the generator bounds the rate.
    pub(crate) generator: f64,
}

/// The result of publishing at a fixed rate.
#[derive(Debug)]
pub(crate) struct AtRate {
    /// Microseconds from the time at which an event was due to each of its deliveries, sorted.
    pub(crate) latencies: Vec<u32>,
    /// Deliveries per second.
    pub(crate) rate: f64,
    /// The share of a core that the server used.
    pub(crate) cpu: f64,
    /// Missing deliveries.
    pub(crate) lost: usize,
}

impl Audience {
    /// Starts a server without clients.
    pub(crate) fn start(bench: &mut Bench, at: usize, members: usize) -> anyhow::Result<Self> {
        let server = bench.field.start(&bench.field.specs[at])?;
        let crowd = bench.generator.crowd(&server.spec.name, server.spec.wire.bytes_per_event(0));
        Ok(Self { server, crowd, publishers: Vec::new(), publishes: Vec::new(), members })
    }

    /// Starts a server with `members` in each of `rooms` rooms, and a publisher for each room.
    pub(crate) fn gather(bench: &mut Bench, at: usize, rooms: usize, members: usize) -> anyhow::Result<Self> {
        let mut audience = Self::start(bench, at, members)?;
        audience.fill(bench, 0..rooms)?;
        audience.add_publishers(bench, rooms)?;
        Ok(audience)
    }

    /// Connects members who join these rooms.
    pub(crate) fn fill(&mut self, bench: &mut Bench, rooms: Range<usize>) -> anyhow::Result<()> {
        let wire = self.server.spec.wire;
        let mut scripts = Vec::new();
        for room in rooms {
            self.publishes.push(wire.publish(room));
            for member in 0..self.members {
                let mut steps = wire.connect(&format!("member{room}-{member}"))?;
                steps.push(wire.join(room));
                scripts.push((room, steps));
            }
        }
        bench.generator.connect_all(self.crowd, self.server.address, scripts)?;
        Ok(())
    }

    /// Connects more members who join the first room, until it has `members`.
    pub(crate) fn grow(&mut self, bench: &mut Bench, members: usize) -> anyhow::Result<()> {
        let wire = self.server.spec.wire;
        let scripts = (self.members..members).map(|member| {
            let mut steps = wire.connect(&format!("more{member}"))?;
            steps.push(wire.join(0));
            Ok((0, steps))
        });
        let scripts: Vec<_> = scripts.collect::<anyhow::Result<_>>()?;
        bench.generator.connect_all(self.crowd, self.server.address, scripts)?;
        self.members = members;
        Ok(())
    }

    /// Connects a publisher for each of the first rooms.
    pub(crate) fn add_publishers(&mut self, bench: &mut Bench, rooms: usize) -> anyhow::Result<()> {
        let wire = self.server.spec.wire;
        for room in 0..rooms {
            let mut steps = wire.connect(&format!("publisher{room}"))?;
            steps.extend(wire.begin_to_publish(room));
            self.publishers.extend(bench.generator.connect_all(self.crowd, self.server.address, [(room, steps)])?);
        }
        Ok(())
    }

    fn publisher(&self, n: usize) -> (usize, SocketId) {
        let room = n % self.publishes.len();
        (room, self.publishers[room % self.publishers.len()])
    }

    /// Publishes to the rooms in turn for `time`, with `in_flight` events at once.
    pub(crate) fn flood(&self, bench: &mut Bench, in_flight: usize, time: Duration) -> anyhow::Result<Flood> {
        let generator = &mut bench.generator;
        let n_rooms = self.publishes.len();
        // With several rooms, only deliveries are counted, so a member may lag behind.
        generator.reset_room(self.crowd, if n_rooms == 1 { self.members } else { 0 });
        // Events are written in batches of half of those in flight; otherwise each wake-up would write a single event.
        let batch = (in_flight / 2).max(1);
        let repeated = self.publishes[0].repeat(batch);
        let (began, cpu, own) = (Instant::now(), self.server.process.cpu()?, own_cpu()?);
        let mut sent = 0;
        loop {
            let arrived = match n_rooms {
                1 => generator.complete(self.crowd),
                _ => generator.delivered(self.crowd) / self.members,
            };
            if began.elapsed() < time {
                while sent + batch <= arrived + in_flight {
                    if n_rooms == 1 {
                        generator.write(self.publishers[0], &repeated)?;
                    } else {
                        for n in sent..sent + batch {
                            let (room, publisher) = self.publisher(n);
                            generator.write(publisher, &self.publishes[room])?;
                        }
                    }
                    sent += batch;
                }
            } else if arrived == sent {
                let (took, n) = (began.elapsed(), (sent * self.members) as f64);
                let ran = self.server.process.cpu()?.saturating_sub(cpu);
                let own = own_cpu()?.saturating_sub(own);
                let each = |ran: Duration| ran.as_nanos() as f64 / n;
                return Ok(Flood { rate: n / took.as_secs_f64(), cpu: each(ran), generator: each(own) });
            }
            generator
                .must_poll()
                .with_context(|| format!("{}: {arrived} of {sent} events arrived", self.server.spec.name))?;
        }
    }

    /// Publishes to each room at a fixed rate for `time`.
    pub(crate) fn at_rate(&self, bench: &mut Bench, per_second: u32, time: Duration) -> anyhow::Result<AtRate> {
        let generator = &mut bench.generator;
        let n_rooms = self.publishes.len();
        generator.reset(self.crowd, n_rooms);
        // The rooms take turns, so that load is spread over time.
        let period = Duration::from_secs(1) / (per_second * n_rooms as u32);
        let n_events = (time.as_nanos() / period.as_nanos()) as usize;
        let (began, cpu) = (Instant::now(), self.server.process.cpu()?);
        for n in 0..n_events {
            let due = began + period * n as u32;
            generator.poll_until(due)?;
            let (room, publisher) = self.publisher(n);
            generator.note_due(self.crowd, room, due);
            generator.write(publisher, &self.publishes[room])?;
        }
        let expected = n_events * self.members;
        let deadline = Instant::now() + TIMEOUT;
        while generator.delivered(self.crowd) < expected && Instant::now() < deadline {
            generator.poll(Some(deadline.saturating_duration_since(Instant::now())))?;
        }
        let took = began.elapsed().as_secs_f64();
        let cpu = self.server.process.cpu()?.saturating_sub(cpu).as_secs_f64() / took;
        let delivered = generator.delivered(self.crowd);
        let mut latencies = generator.take_latencies(self.crowd);
        latencies.sort_unstable();
        Ok(AtRate { latencies, rate: delivered as f64 / took, cpu, lost: expected.saturating_sub(delivered) })
    }

    /// Ends the server after its clients have disconnected.
    pub(crate) fn end(self, bench: &mut Bench) {
        bench.generator.close(self.crowd);
    }
}
