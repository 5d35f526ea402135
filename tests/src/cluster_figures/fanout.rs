//! A room of 1,000 plain WebSocket members: on one host, on three as one, and over Socket.IO's adapters.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use roundhouse_tests::bench::quantile;

use crate::field::{Extent, Field, Hosts, MOST_NODES, cpu_of, progress, sign_in};
use crate::generator::{CrowdId, Generator, SocketId, TIMEOUT};
use crate::peers::{self, Adapter, Peer};
use crate::table::{Table, ranged};
use crate::wire::{Step, Wire, room_name};

const MEMBERS: usize = 1_000;
/// The number of events in flight where throughput is measured.
const IN_FLIGHT: usize = 64;

/// The members of a room, on one or several servers, and who publishes to it.
struct Audience {
    name: String,
    crowd: CrowdId,
    publisher: SocketId,
    publish: Vec<u8>,
    pids: Vec<u32>,
    redis: Option<u32>,
    rounds: Rounds,
}

/// The figures by round.
#[derive(Default)]
struct Rounds {
    /// Milliseconds until the last member has an event, which is published when all have the last.
    p50: Vec<f64>,
    p99: Vec<f64>,
    single: Vec<f64>,
    /// Deliveries per second with many events in flight, and CPU time.
    pipelined: Vec<f64>,
    servers_ns: Vec<f64>,
    redis_us: Vec<f64>,
}

/// Where the members of a room are.
struct Place<'a> {
    wire: Wire,
    /// The servers of the members, who are spread over them, and the publisher's.
    members: &'a [SocketAddr],
    publisher: SocketAddr,
    room: usize,
}

impl Place<'_> {
    fn connect(&self, user: &str) -> anyhow::Result<Vec<Step>> {
        if self.wire == Wire::Plain { Ok(sign_in(user)) } else { self.wire.connect(user) }
    }

    /// Connects the members and the publisher.
    fn gather(&self, generator: &mut Generator, name: &str) -> anyhow::Result<Audience> {
        progress(&format!("fan-out: connecting {MEMBERS} members: {name}"));
        let crowd = generator.crowd(name, None);
        for (at, address) in self.members.iter().enumerate() {
            let mut scripts = Vec::new();
            for member in (at..MEMBERS).step_by(self.members.len()) {
                let mut steps = self.connect(&format!("member{member}"))?;
                steps.push(self.wire.join(self.room));
                scripts.push((self.room, steps));
            }
            generator.connect_all(crowd, *address, scripts)?;
        }
        let steps = self.connect("publisher")?;
        let publisher = generator.connect_all(crowd, self.publisher, [(self.room, steps)])?;
        Ok(Audience {
            name: name.to_owned(),
            crowd,
            publisher: *publisher.first().context("a publisher is connected")?,
            publish: self.wire.publish(self.room),
            pids: Vec::new(),
            redis: None,
            rounds: Rounds::default(),
        })
    }
}

impl Audience {
    /// Publishes one event after another.
    fn one_at_a_time(&mut self, generator: &mut Generator, time: Duration) -> anyhow::Result<()> {
        generator.reset_room(self.crowd, MEMBERS);
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed() < time {
            let published = Instant::now();
            generator.write(self.publisher, &self.publish)?;
            self.wait_for(generator, times.len() + 1)?;
            times.push(published.elapsed().as_secs_f64() * 1e3);
        }
        self.rounds.single.push((times.len() * MEMBERS) as f64 / began.elapsed().as_secs_f64());
        times.sort_by(f64::total_cmp);
        self.rounds.p50.push(quantile(&times, 0.5));
        self.rounds.p99.push(quantile(&times, 0.99));
        Ok(())
    }

    /// Keeps many events in flight.
    fn pipelined(&mut self, generator: &mut Generator, time: Duration) -> anyhow::Result<()> {
        generator.reset_room(self.crowd, MEMBERS);
        let batch = IN_FLIGHT / 2;
        let frames = self.publish.repeat(batch);
        let clocks = || -> anyhow::Result<_> { Ok((cpu_of(self.pids.iter().copied())?, cpu_of(self.redis)?)) };
        let (began, before, mut sent) = (Instant::now(), clocks()?, 0);
        while began.elapsed() < time {
            generator.write(self.publisher, &frames)?;
            sent += batch;
            self.wait_for(generator, sent.saturating_sub(batch))?;
        }
        self.wait_for(generator, sent)?;
        let (took, after) = (began.elapsed(), clocks()?);
        let deliveries = (sent * MEMBERS) as f64;
        self.rounds.pipelined.push(deliveries / took.as_secs_f64());
        self.rounds.servers_ns.push(after.0.saturating_sub(before.0).as_nanos() as f64 / deliveries);
        self.rounds.redis_us.push(after.1.saturating_sub(before.1).as_secs_f64() * 1e6 / sent as f64);
        Ok(())
    }

    /// Waits until all members have this many events.
    fn wait_for(&self, generator: &mut Generator, events: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while generator.complete(self.crowd) < events {
            let left = deadline.saturating_duration_since(Instant::now());
            let complete = generator.complete(self.crowd);
            ensure!(!left.is_zero(), "{}: all members have {complete} of {events} events", self.name);
            generator.poll(Some(left))?;
        }
        Ok(())
    }
}

/// Gathers the rooms on Roundhouse.
fn gather_hosts(field: &mut Field, generator: &mut Generator) -> anyhow::Result<Vec<Audience>> {
    let mut audiences = Vec::new();
    let mut add = |hosts: &Hosts, name: &str, members: &[usize], owner: usize| {
        let room = (audiences.len() * 100..).find(|room| hosts.owner(&format!("relay:{}", room_name(*room))) == owner);
        let members = members.iter().map(|node| hosts.address(*node)).collect::<anyhow::Result<Vec<_>>>()?;
        let (room, publisher) = (room.context("a room has this owner")?, hosts.address(0)?);
        let place = Place { wire: Wire::Plain, members: &members, publisher, room };
        let audience = place.gather(generator, name)?;
        audiences.push(Audience { pids: hosts.pids(), redis: hosts.redis_pid(), ..audience });
        anyhow::Ok(())
    };
    add(field.level(0)?, "roundhouse, alone", &[0], 0)?;
    let hosts = field.level(MOST_NODES)?;
    add(hosts, "roundhouse, 3 nodes, members on one", &[0], 0)?;
    add(hosts, "roundhouse, 3 nodes, members on all, publisher at the owner", &[0, 1, 2], 0)?;
    add(hosts, "roundhouse, 3 nodes, members on all, publisher elsewhere", &[0, 1, 2], 1)?;
    Ok(audiences)
}

/// Gathers the rooms on Socket.IO.
fn gather_peers(peers: &[Peer], generator: &mut Generator) -> anyhow::Result<Vec<Audience>> {
    let gather = |peer: &Peer| {
        let (members, room) = (peer.addresses(), 0);
        let place = Place { wire: Wire::SocketIo, members, publisher: members[0], room };
        let audience = place.gather(generator, peer.name())?;
        peer.wait_until_subscribed(room)?;
        Ok(Audience { pids: peer.pids(), redis: peer.redis_pid()?, ..audience })
    };
    peers.iter().map(gather).collect()
}

/// Measures all audiences in turn.
pub(crate) fn measure(field: &mut Field, extent: Extent) -> anyhow::Result<Table> {
    let mut generator = Generator::new()?;
    let mut audiences = gather_hosts(field, &mut generator)?;
    let mut notes = vec!["Centrifugo: not measured; no registry that the benchmarks use has it.".to_owned()];
    let mut peers = Vec::new();
    match peers::prepare() {
        Ok(versions) => {
            notes.push(format!("Peers: {versions}."));
            for adapter in [Adapter::None, Adapter::Redis, Adapter::Sharded] {
                peers.push(Peer::start(adapter)?);
            }
            audiences.extend(gather_peers(&peers, &mut generator)?);
        }
        Err(why) => notes.push(format!("LEFT OUT: socket.io (install Node 20 or newer with npm): {why:#}")),
    }
    // Warms up compilers and caches before measuring.
    for audience in &mut audiences {
        audience.pipelined(&mut generator, extent.time / 3)?;
        audience.rounds = Rounds::default();
    }
    for round in 0..extent.rounds {
        progress(&format!("fan-out: round {} of {}", round + 1, extent.rounds));
        for audience in &mut audiences {
            audience.one_at_a_time(&mut generator, extent.time)?;
        }
        for audience in &mut audiences {
            audience.pipelined(&mut generator, extent.time)?;
        }
    }
    Ok(table(&audiences, &notes))
}

fn table(audiences: &[Audience], notes: &[String]) -> Table {
    let titles = [
        "servers",
        "one at a time: ms to the last, p50",
        "p99",
        "deliveries/s",
        "64 in flight: deliveries/s",
        "servers, without Redis: ns a delivery",
        "Redis µs an event",
    ];
    let mut table = Table::new("Fan-out: a room of 1,000", &titles);
    for Audience { name, rounds, redis, .. } in audiences {
        let redis = redis.map_or_else(String::new, |_| ranged(&rounds.redis_us, 1));
        let figures = [
            ranged(&rounds.p50, 2),
            ranged(&rounds.p99, 2),
            ranged(&rounds.single, 0),
            ranged(&rounds.pipelined, 0),
            ranged(&rounds.servers_ns, 0),
        ];
        table.row(name, figures.into_iter().chain([redis]));
    }
    notes.iter().for_each(|note| table.note(note));
    table
}
