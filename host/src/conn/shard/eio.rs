//! EioSession.IO sessions: where each lives, and what its packets mean.
//!
//! A session that begins with polling makes one HTTP request after another, over any TCP connection and so on any shard.
//! The table of sessions says which shard each lives on, and requests are handed there.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::oneshot;

use super::handoff::{Handoff, Inbound};
use super::parts::Shard;
use crate::auth::Shown;
use crate::conn::state::transport::{Io, Phase, Session, Transport, TransportId};
use crate::model::{CloseCode, Mailbox};
use crate::protocol::engineio::{self, Packet};
use crate::protocol::{socketio, websocket};

/// Commands for one shard's sessions, of which there are no more than requests and sockets that are open, and a few that
/// broke off.
const COMMANDS: usize = 65_536;

/// How often a session is told that a request of it is still arriving.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What a client asks on a WebSocket that is to take over from polling.
const PROBE: &str = "probe";

/// What an EioSession.IO session is known by. Whoever knows it can speak for the client, so it is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sid(u128);

impl Sid {
    /// # Errors
    /// Where there is no randomness.
    pub(in crate::conn) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map(|()| Self(u128::from_ne_bytes(bytes)))
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Sid {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_id = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| u128::from_str_radix(text, 16)).and_then(Result::ok).map(Self).ok_or(())
    }
}

/// What a client showed when it opened its session. A namespace may be entered with something better.
#[derive(Debug, Clone, Default)]
pub(in crate::conn) struct Credentials {
    /// Tokens from a header, the query or cookies, in the order in which they count.
    pub shown: Box<[Shown]>,
    /// Why one more does not count, where there is one.
    pub refused: Option<&'static str>,
}

/// An EioSession.IO session.
#[derive(Debug)]
pub(in crate::conn) struct EioSession {
    pub(in crate::conn) id: Sid,
    pub(in crate::conn) credentials: Credentials,
    pub(in crate::conn) decoder: RefCell<socketio::Decoder>,
    /// Whether every message goes back, for suites that test the protocol without Socket.IO on it.
    pub(in crate::conn) echoes: bool,
    /// Namespaces that the client was in: it may not know yet that it has been put out, or still answer what it was asked.
    pub(in crate::conn) left: RefCell<Vec<Box<str>>>,
    /// The WebSocket that is about to take the place of polling.
    pub(in crate::conn) probe: Cell<Option<TransportId>>,
}

impl EioSession {
    pub(in crate::conn) fn new(id: Sid, credentials: Credentials, echoes: bool) -> Self {
        let (decoder, left) = (RefCell::default(), RefCell::default());
        Self { id, credentials, decoder, echoes, left, probe: Cell::new(None) }
    }

    /// Notes that the client is in a namespace no more.
    pub(in crate::conn) fn leave(&self, namespace: &str) {
        let mut left = self.left.borrow_mut();
        if !left.iter().any(|other| **other == *namespace) {
            left.push(namespace.into());
        }
    }
}

/// Why a request of a polling session came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollError {
    /// There is no such session, or none any more.
    Unknown,
    /// The request is against the protocol, and ends the session.
    Bad,
}

/// The answer to a request of a polling session: a payload of packets.
pub(in crate::conn) type Polled = Result<Bytes, PollError>;

/// A request that waits for packets.
#[derive(Debug)]
pub(in crate::conn) struct Poll {
    pub(in crate::conn) answer: oneshot::Sender<Polled>,
    /// How many packets its client reads in one answer.
    pub(in crate::conn) max_packets: usize,
}

/// What a shard is asked to do for its sessions.
#[derive(Debug)]
pub(in crate::conn) enum EioCommand {
    /// A request waits for what there is to send.
    Poll { id: Sid, poll: Poll },
    /// A request brought packets.
    Post { id: Sid, body: String, answer: oneshot::Sender<Polled> },
    /// A request is bringing packets, and takes its time.
    Progress { id: Sid },
    /// A request broke off, or was against the protocol.
    Fail { id: Sid },
    /// A WebSocket came that is to take over from polling.
    Probe { id: Sid, handoff: Box<Handoff> },
    /// A client came to another shard than the one that its connection lives on.
    Handoff(Box<Handoff>),
}

#[derive(Debug)]
struct Route {
    shard: AtomicUsize,
    /// Whether a request that brings packets is under way.
    posting: AtomicBool,
    /// Whether a WebSocket has taken over.
    is_upgraded: AtomicBool,
}

/// The polling sessions of all shards, and the ways to them.
#[derive(Debug)]
pub struct EioSessions {
    routes: DashMap<Sid, Arc<Route>>,
    inboxes: Vec<Mailbox<EioCommand>>,
}

impl EioSessions {
    /// A table for so many shards.
    pub fn new(shards: usize) -> Self {
        Self { routes: DashMap::new(), inboxes: (0..shards).map(|_| Mailbox::new(COMMANDS)).collect() }
    }

    pub(in crate::conn) fn inbox(&self, shard: usize) -> &Mailbox<EioCommand> {
        &self.inboxes[shard]
    }

    /// Enters a session.
    pub(in crate::conn) fn enter(&self, id: Sid, shard: usize) {
        let route = Route { shard: shard.into(), posting: false.into(), is_upgraded: false.into() };
        self.routes.insert(id, Arc::new(route));
    }

    /// Says that a session lives on another shard now, unless it has ended there already.
    pub(in crate::conn) fn moved(&self, id: Sid, shard: usize) {
        if let Some(route) = self.routes.get(&id) {
            route.shard.store(shard, Ordering::Relaxed);
        }
    }

    /// Notes that a session polls no more.
    fn upgrade(&self, id: Sid) {
        if let Some(route) = self.routes.get(&id) {
            route.is_upgraded.store(true, Ordering::Relaxed);
        }
    }

    pub(in crate::conn) fn strike(&self, id: Sid) {
        self.routes.remove(&id);
    }

    /// The shard that a session lives on.
    pub(in crate::conn) fn shard_of(&self, id: Sid) -> Option<usize> {
        self.routes.get(&id).map(|route| route.shard.load(Ordering::Relaxed))
    }

    /// Hands a command to the shard of a session. Says whether there is one.
    pub(in crate::conn) fn send(&self, id: Sid, command: EioCommand) -> bool {
        let shard = self.shard_of(id);
        if let Some(shard) = shard {
            self.inboxes[shard].push(command);
        }
        shard.is_some()
    }

    /// Whether a session that began with polling goes on over a WebSocket; none where there is no such session.
    pub fn is_upgraded(&self, id: Sid) -> Option<bool> {
        self.routes.get(&id).map(|route| route.is_upgraded.load(Ordering::Relaxed))
    }

    /// Waits for what there is to send on a session, of which an answer has `max_packets` at most. Whoever stops waiting ends
    /// the session.
    ///
    /// # Errors
    /// Where there is no such session, or a request of it waits already.
    pub async fn poll(&self, id: Sid, max_packets: usize) -> Polled {
        let (answer, answered) = oneshot::channel();
        let poll = Poll { answer, max_packets };
        self.ask(id, EioCommand::Poll { id, poll }, answered).await
    }

    /// Begins to read packets that a request brings.
    ///
    /// # Errors
    /// Where there is no such session, or another request of it brings packets.
    pub fn begin_post(&self, id: Sid) -> Result<Posting<'_>, PollError> {
        let route = self.routes.get(&id).map(|route| route.clone()).ok_or(PollError::Unknown)?;
        if route.posting.swap(true, Ordering::Relaxed) {
            self.send(id, EioCommand::Fail { id });
            return Err(PollError::Bad);
        }
        Ok(Posting { eio_sessions: self, id, route, is_whole: false, noted: Instant::now() })
    }

    async fn ask(&self, id: Sid, command: EioCommand, answered: oneshot::Receiver<Polled>) -> Polled {
        let mut waiting = Waiting { eio_sessions: self, id, is_answered: false };
        let answer = if self.send(id, command) { answered.await } else { Ok(Err(PollError::Unknown)) };
        waiting.is_answered = true;
        answer.unwrap_or(Err(PollError::Unknown))
    }
}

/// A request that waits for its answer: one that breaks off ends its session, for nobody knows what was lost with it.
struct Waiting<'a> {
    eio_sessions: &'a EioSessions,
    id: Sid,
    is_answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.eio_sessions.send(self.id, EioCommand::Fail { id: self.id });
        }
    }
}

/// A request that brings packets, while it is read. One that breaks off ends its session.
#[derive(Debug)]
pub struct Posting<'a> {
    eio_sessions: &'a EioSessions,
    id: Sid,
    route: Arc<Route>,
    is_whole: bool,
    /// When the session last heard of it.
    noted: Instant,
}

impl Posting<'_> {
    /// Something of the request has come: a client on a slow line can show no other sign of life meanwhile.
    pub fn progress(&mut self) {
        if self.noted.elapsed() >= PROGRESS_EVERY {
            self.noted = Instant::now();
            self.eio_sessions.send(self.id, EioCommand::Progress { id: self.id });
        }
    }

    /// Leaves the request unread. The session goes on without it.
    pub fn refuse(mut self) {
        self.is_whole = true;
    }

    /// Hands the packets over.
    ///
    /// # Errors
    /// Where the session is gone, or the packets are against the protocol.
    pub async fn finish(mut self, body: String) -> Polled {
        self.is_whole = true;
        let (answer, answered) = oneshot::channel();
        self.eio_sessions.ask(self.id, EioCommand::Post { id: self.id, body, answer }, answered).await
    }
}

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        self.route.posting.store(false, Ordering::Relaxed);
        if !self.is_whole {
            self.eio_sessions.send(self.id, EioCommand::Fail { id: self.id });
        }
    }
}

impl Shard {
    /// What a session begins with.
    pub(in crate::conn) fn open_packet(&self, eio: &EioSession, upgrades: &[&str]) -> String {
        let config = &self.shared.config;
        engineio::Handshake {
            sid: &eio.id.to_string(),
            upgrades,
            ping_interval_ms: config.heartbeat_interval.as_millis() as u64,
            ping_timeout_ms: (config.heartbeat_timeout - config.heartbeat_interval).as_millis() as u64,
            max_payload: config.message_bytes,
        }
        .packet()
    }

    /// A session may exist for so long before anybody signs in on it.
    pub(in crate::conn) fn begin_eio(self: &Rc<Self>, transport: &Rc<Transport>, eio: &EioSession) {
        let now = self.shared.clock.uptime_ms();
        if eio.echoes {
            transport.phase.set(Phase::Open);
        } else {
            transport.times.limit.set(now + self.shared.config.connect_timeout.as_millis() as u64);
        }
        self.check_transport(transport, now);
    }

    /// Does what a packet says.
    pub(in crate::conn) fn packet(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &Rc<EioSession>,
        packet: Packet<'_>,
        read_at: Instant,
    ) {
        if let Some(handoff) = transport.handoff.borrow_mut().as_deref_mut() {
            return handoff.keep(Inbound::of_packet(packet));
        }
        match packet {
            _ if !transport.is_up() => {}
            Packet::Message(text) if eio.echoes => {
                self.enqueue(transport, engineio::message_frame(text));
            }
            Packet::Binary(bytes) if eio.echoes => self.enqueue(transport, websocket::binary_frame(&bytes)),
            Packet::Message(text) => self.on_socketio_text(transport, eio, text, read_at),
            Packet::Binary(bytes) => self.on_socketio_binary(transport, eio, bytes, read_at),
            Packet::Pong(_) => {
                self.meter(transport, 0);
                self.replay_pong_received(transport);
            }
            Packet::Close if transport.socket().is_none() => self.leave_polling(transport),
            Packet::Close => self.close_with(transport, CloseCode::Normal, "", true),
            Packet::Ping(_) => self.close(transport, CloseCode::ProtocolError, "it is the host that sends pings"),
            // They mean something while a session opens or changes its transport, and nothing now.
            Packet::Open | Packet::Upgrade | Packet::Noop => drop(self.meter(transport, 0)),
        }
    }

    /// A text frame on the WebSocket of a session.
    pub(in crate::conn) fn on_eio_text(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &Rc<EioSession>,
        text: &str,
        read_at: Instant,
    ) {
        let longest = self.longest_message(transport);
        if !eio.echoes && text.len() > longest && engineio::weight(text) > longest {
            return self.refuse_length(transport);
        }
        match engineio::decode(text) {
            Ok(packet) => self.packet(transport, eio, packet, read_at),
            Err(malformed) => self.close_for_violation(transport, malformed.reason),
        }
    }

    /// Ends a transport whose client sent a message that is too long. Socket.IO's client shows its user the reason of a close, and
    /// expects none here.
    pub(in crate::conn) fn refuse_length(self: &Rc<Self>, transport: &Rc<Transport>) {
        self.close(transport, CloseCode::TooLarge, "");
    }

    /// A text frame on a WebSocket that is to take over from polling.
    pub(in crate::conn) fn on_probe_text(self: &Rc<Self>, probe: &Rc<Transport>, id: Sid, is_tried: bool, text: &str) {
        let polling = self.polling.borrow().get(&id).cloned().filter(|transport| transport.is_up());
        let Some(polling) = polling else {
            return match self.shared.eio_sessions.shard_of(id) {
                // The session has moved, and its WebSocket follows.
                Some(shard) if shard != self.index => {
                    self.begin_handoff(probe, shard, None, Inbound::Text(text.to_owned()));
                }
                _ => self.close(probe, CloseCode::ProtocolError, "the session that this was to take over is gone"),
            };
        };
        let Some(eio) = polling.eio() else { return };
        match engineio::decode(text) {
            Ok(Packet::Ping(PROBE)) if eio.probe.get().is_none_or(|other| other == probe.id) => {
                probe.session.replace(Session::Probe { id, is_tried: true });
                eio.probe.set(Some(probe.id));
                self.enqueue(probe, engineio::pong_probe_frame());
                // The client waits for the request that is open before it goes over.
                self.mark_dirty(&polling);
            }
            Ok(Packet::Upgrade) if is_tried => self.upgrade(probe, &polling, &eio),
            _ => self.close(probe, CloseCode::ProtocolError, "first comes one probe, and then the upgrade"),
        }
    }

    /// A WebSocket takes over from polling, with everything that waits.
    fn upgrade(self: &Rc<Self>, transport: &Rc<Transport>, polling: &Rc<Transport>, eio: &Rc<EioSession>) {
        eio.probe.set(None);
        self.polling.borrow_mut().remove(&eio.id);
        self.shared.eio_sessions.upgrade(eio.id);
        if let Io::Polling(poll) = &polling.io
            && let Some(poll) = poll.take()
        {
            // It came after the client had said that it goes over. Whoever asked may have gone.
            let _ = poll.answer.send(Err(PollError::Bad));
        }
        transport.session.replace(Session::Eio(eio.clone()));
        transport.rate.replace(polling.rate.take());
        transport.phase.set(polling.phase.replace(Phase::Ended));
        transport.counted.set(polling.counted.take());
        transport.times.limit.set(polling.times.limit.get());
        transport.times.pinged.set(polling.times.pinged.get());
        for connection in polling.connections.take() {
            *connection.transport.borrow_mut() = Some(transport.clone());
            transport.connections.borrow_mut().push(connection);
        }
        let waiting = polling.outbox.borrow_mut().take(&self.queue.borrow());
        for frames in waiting {
            self.enqueue(transport, frames);
        }
        self.remove_transport(polling);
        self.check_transport(transport, self.shared.clock.uptime_ms());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_read_as_it_was_written() {
        let id = Sid(5 << 100);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "+123456789012345678901234567890a", &"0".repeat(31), &"0".repeat(33), "__proto__"] {
            assert_eq!(text.parse::<Sid>(), Err(()), "{text}");
        }
    }

    #[tokio::test]
    async fn a_request_that_brings_packets_while_another_does_ends_the_session() {
        let eio_sessions = EioSessions::new(1);
        let id = Sid(1);
        assert_eq!(eio_sessions.begin_post(id).err(), Some(PollError::Unknown));
        eio_sessions.enter(id, 0);
        let posting = eio_sessions.begin_post(id).unwrap();
        assert_eq!(eio_sessions.begin_post(id).err(), Some(PollError::Bad));
        drop(posting);
        let mut commands = std::collections::VecDeque::new();
        eio_sessions.inbox(0).receive(&mut commands).await;
        let failures = commands.iter().filter(|command| matches!(command, EioCommand::Fail { .. })).count();
        assert_eq!(failures, 2, "the second request, and the first one, which broke off");
        eio_sessions.strike(id);
        assert_eq!(
            (eio_sessions.poll(id, usize::MAX).await, eio_sessions.is_upgraded(id)),
            (Err(PollError::Unknown), None)
        );
    }
}
