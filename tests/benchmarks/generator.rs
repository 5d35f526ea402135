//! The generator: one thread, all clients, edge-triggered.
//!
//! The generator must cost less than any server. It reads into one buffer, goes from frame to frame by their lengths,
//! and knows by counting which event a frame belongs to: the n-th frame that a member of a room receives is the n-th
//! event that was published there.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use roundhouse_tests::Walk;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::wire::{Step, Until, answer};

/// The time-out of every wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// The number of connections that are opened at once while nothing is measured.
const AT_ONCE: usize = 64;

/// A socket of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketId(usize);

/// The clients of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CrowdId(usize);

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    crowd: usize,
    room: usize,
    walk: Walk,
    /// The events received since the reset, or their bytes if a frame may hold several events.
    got: usize,
    script: Option<Box<Script>>,
}

/// The remaining steps until a connection is ready.
#[derive(Debug)]
struct Script {
    steps: Vec<Step>,
    next: usize,
    received: Vec<u8>,
    /// The position in `received` at which the answer to the current step begins.
    from: usize,
    is_switched: bool,
    began: Instant,
}

/// The events of one server's clients since the reset.
#[derive(Debug, Default)]
struct Crowd {
    name: String,
    bytes_per_event: Option<usize>,
    delivered: usize,
    /// The number of members that have received each event, if all are in one room and this is counted.
    got_by: Vec<u32>,
    members: u32,
    /// The number of events that all members have received.
    complete: usize,
    /// The times at which events were due, by room.
    due: Vec<Vec<Instant>>,
    /// Microseconds from the due time of an event to each of its deliveries.
    latencies: Vec<u32>,
    notes_latency: bool,
}

/// All clients.
pub(crate) struct Generator {
    poll: OwnedFd,
    sockets: Vec<Option<Socket>>,
    crowds: Vec<Crowd>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    /// The time that each connection took until it was ready, since the last call of [`Generator::connect`].
    ready: Vec<Duration>,
    connecting: usize,
}

impl Generator {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sockets: Vec::new(),
            crowds: Vec::new(),
            events: Vec::with_capacity(1024),
            buffer: vec![0; 256 * 1024],
            ready: Vec::new(),
            connecting: 0,
        })
    }

    /// Adds the clients of one more server.
    pub(crate) fn crowd(&mut self, name: &str, bytes_per_event: Option<usize>) -> CrowdId {
        self.crowds.push(Crowd { name: name.to_owned(), bytes_per_event, ..Crowd::default() });
        CrowdId(self.crowds.len() - 1)
    }

    /// Connects clients by their scripts, `at_once` at a time. Also returns the time that each took until it was ready.
    pub(crate) fn connect(
        &mut self,
        crowd: CrowdId,
        address: SocketAddr,
        at_once: usize,
        scripts: impl IntoIterator<Item = (usize, Vec<Step>)>,
    ) -> anyhow::Result<(Vec<SocketId>, Vec<Duration>)> {
        self.ready.clear();
        let mut ids = Vec::new();
        for (room, steps) in scripts {
            while self.connecting >= at_once {
                self.must_poll()?;
            }
            ids.push(self.open(crowd, address, room, steps)?);
            // Does not wait for input, so that other connections proceed meanwhile.
            self.poll(Some(Duration::ZERO))?;
        }
        while self.connecting > 0 {
            self.must_poll()?;
        }
        Ok((ids, std::mem::take(&mut self.ready)))
    }

    /// Connects clients as [`Generator::connect`] does, without measuring the times.
    pub(crate) fn connect_all(
        &mut self,
        crowd: CrowdId,
        address: SocketAddr,
        scripts: impl IntoIterator<Item = (usize, Vec<Step>)>,
    ) -> anyhow::Result<Vec<SocketId>> {
        Ok(self.connect(crowd, address, AT_ONCE, scripts)?.0)
    }

    fn open(&mut self, crowd: CrowdId, address: SocketAddr, room: usize, steps: Vec<Step>) -> anyhow::Result<SocketId> {
        let began = Instant::now();
        let stream = TcpStream::connect(address).context("a server does not let clients connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let id = self.sockets.len();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.poll, &stream, epoll::EventData::new_u64(id as u64), flags)?;
        let script = (!steps.is_empty())
            .then(|| Box::new(Script { steps, next: 0, received: Vec::new(), from: 0, is_switched: false, began }));
        let socket = Socket { stream, crowd: crowd.0, room, walk: Walk::default(), got: 0, script };
        if let Some(script) = &socket.script {
            write_all(&socket.stream, &script.steps[0].send)?;
            self.connecting += 1;
        }
        self.sockets.push(Some(socket));
        Ok(SocketId(id))
    }

    /// Closes all clients of a server.
    pub(crate) fn close(&mut self, crowd: CrowdId) {
        for socket in &mut self.sockets {
            if socket.as_ref().is_some_and(|socket| socket.crowd == crowd.0) {
                *socket = None;
            }
        }
        while self.sockets.last().is_some_and(Option::is_none) {
            self.sockets.pop();
        }
    }

    /// Resets the counts. From now on the events that all `members` of the one room have received are counted.
    pub(crate) fn reset_room(&mut self, crowd: CrowdId, members: usize) {
        self.reset(crowd, 0);
        self.crowds[crowd.0].members = members as u32;
    }

    /// Resets the counts. If `n_rooms` is not 0, latencies are recorded from now on.
    pub(crate) fn reset(&mut self, crowd: CrowdId, n_rooms: usize) {
        for socket in self.sockets.iter_mut().flatten().filter(|socket| socket.crowd == crowd.0) {
            socket.got = 0;
        }
        let crowd = &mut self.crowds[crowd.0];
        (crowd.delivered, crowd.complete, crowd.members) = (0, 0, 0);
        crowd.got_by.clear();
        crowd.due = vec![Vec::new(); n_rooms];
        crowd.notes_latency = n_rooms > 0;
        crowd.latencies.clear();
    }

    /// The number of events that all members of the one room have received since the reset.
    pub(crate) fn complete(&self, crowd: CrowdId) -> usize {
        self.crowds[crowd.0].complete
    }

    /// The number of deliveries since the reset.
    pub(crate) fn delivered(&self, crowd: CrowdId) -> usize {
        self.crowds[crowd.0].delivered
    }

    /// The latency of each delivery since the reset, in microseconds.
    pub(crate) fn take_latencies(&mut self, crowd: CrowdId) -> Vec<u32> {
        std::mem::take(&mut self.crowds[crowd.0].latencies)
    }

    /// Records that the next event of a room is due at `due`.
    pub(crate) fn note_due(&mut self, crowd: CrowdId, room: usize, due: Instant) {
        self.crowds[crowd.0].due[room].push(due);
    }

    /// Sends bytes to the server.
    pub(crate) fn write(&mut self, socket: SocketId, bytes: &[u8]) -> anyhow::Result<()> {
        let socket = self.sockets[socket.0].as_ref().context("the socket was closed")?;
        write_all(&socket.stream, bytes)
    }

    /// Waits for input, and fails after the time-out.
    pub(crate) fn must_poll(&mut self) -> anyhow::Result<()> {
        ensure!(self.poll(Some(TIMEOUT))?, "nothing came for {TIMEOUT:?}");
        Ok(())
    }

    /// Answers heartbeats until `end`.
    pub(crate) fn poll_until(&mut self, end: Instant) -> anyhow::Result<()> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.poll(Some(left))?;
        }
    }

    /// Reads input, waiting for at most `timeout`. Returns whether there was any.
    pub(crate) fn poll(&mut self, timeout: Option<Duration>) -> anyhow::Result<bool> {
        self.events.clear();
        let timeout = timeout
            .map(|timeout| Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) });
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for at in 0..self.events.len() {
            let id = self.events[at].data.u64() as usize;
            self.read(id)?;
        }
        Ok(!self.events.is_empty())
    }

    fn read(&mut self, id: usize) -> anyhow::Result<()> {
        let Some(Some(socket)) = self.sockets.get_mut(id) else { return Ok(()) };
        loop {
            let n = match (&socket.stream).read(&mut self.buffer) {
                Ok(0) => bail!("{} closed a connection{}", self.crowds[socket.crowd].name, refusal_text(socket)),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("{} broke off a connection", self.crowds[socket.crowd].name));
                }
            };
            if socket.script.is_some() {
                if let Some(took) = socket.go_on(&self.buffer[..n])? {
                    self.ready.push(took);
                    self.connecting -= 1;
                }
            } else {
                socket.take(&self.buffer[..n], &mut self.crowds[socket.crowd])?;
            }
            // The socket is drained if the buffer is not full: further bytes raise another edge.
            if n < self.buffer.len() {
                return Ok(());
            }
        }
    }
}

/// The bytes that a server has sent to a client that was not ready, for an error message.
fn refusal_text(socket: &Socket) -> String {
    let script = socket.script.as_ref();
    script.map_or_else(String::new, |script| format!(": {}", String::from_utf8_lossy(&script.received)))
}

impl Crowd {
    /// Records that one more member has received the events from `before` to `after`.
    fn note_members(&mut self, before: usize, after: usize) {
        if self.got_by.len() < after {
            self.got_by.resize(after, 0);
        }
        for n_members in &mut self.got_by[before..after] {
            *n_members += 1;
        }
        while self.got_by.get(self.complete) == Some(&self.members) {
            self.complete += 1;
        }
    }
}

impl Socket {
    /// Counts the events in received bytes, and answers heartbeats.
    fn take(&mut self, bytes: &[u8], crowd: &mut Crowd) -> anyhow::Result<()> {
        let mut answers = Vec::new();
        let long = self.walk.feed(bytes, |opcode, payload| answers.extend(answer(opcode, payload).unwrap_or_default()));
        if !answers.is_empty() {
            write_all(&self.stream, &answers)?;
        }
        let (before, after) = match crowd.bytes_per_event {
            None => (self.got, self.got + long.frames),
            Some(each) => (self.got / each, (self.got + long.bytes) / each),
        };
        self.got += if crowd.bytes_per_event.is_some() { long.bytes } else { long.frames };
        crowd.delivered += after - before;
        if crowd.members > 0 && after > before {
            crowd.note_members(before, after);
        }
        if crowd.notes_latency && after > before {
            let now = Instant::now();
            let due = crowd.due[self.room].get(before..after).context("a member got what nobody published")?;
            crowd.latencies.extend(due.iter().map(|due| now.saturating_duration_since(*due).as_micros() as u32));
        }
        Ok(())
    }

    /// Advances the script by received bytes. At its end, returns the time that it took.
    fn go_on(&mut self, bytes: &[u8]) -> anyhow::Result<Option<Duration>> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(script) = &mut self.script else { return Ok(None) };
        script.received.extend_from_slice(bytes);
        while let Some(step) = script.steps.get(script.next) {
            let wanted = match step.until {
                Until::Switched => END,
                Until::Contains(wanted) => wanted,
            };
            let found = script.received[script.from..].windows(wanted.len()).position(|window| window == wanted);
            let Some(found) = found else { return Ok(None) };
            if matches!(step.until, Until::Switched) {
                let is_switched = script.received.starts_with(b"HTTP/1.1 101");
                ensure!(is_switched, "a server refused: {}", String::from_utf8_lossy(&script.received));
                script.received.drain(..found + wanted.len());
                script.is_switched = true;
            } else {
                script.from += found + wanted.len();
            }
            script.next += 1;
            if let Some(next) = script.steps.get(script.next) {
                write_all(&self.stream, &next.send)?;
            }
        }
        // The bytes after the last answer may hold a heartbeat, or the beginning of a frame, but no event.
        let mut answers = Vec::new();
        self.walk.feed(&script.received, |opcode, payload| answers.extend(answer(opcode, payload).unwrap_or_default()));
        write_all(&self.stream, &answers)?;
        let took = script.began.elapsed();
        self.script = None;
        Ok(Some(took))
    }
}

/// Writes all bytes, retrying while the socket is not writable.
fn write_all(mut stream: &TcpStream, mut bytes: &[u8]) -> anyhow::Result<()> {
    let mut patience = None;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let deadline = *patience.get_or_insert_with(|| Instant::now() + TIMEOUT);
                ensure!(Instant::now() < deadline, "a server takes nothing from a client");
                std::thread::yield_now();
            }
            Err(error) => return Err(error).context("a server broke off a connection"),
        }
    }
    Ok(())
}
