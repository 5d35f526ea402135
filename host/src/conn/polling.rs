//! Polling: an Engine.IO session by HTTP requests, one that waits for packets and others that bring some.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::spawn_local;

use super::engine::{Credentials, Engine, EngineCommand, EngineId, Poll, PollError};
use super::link::{Link, Phase, Role, Wire};
use super::moving::{Migrant, MigrantRole, MigrantWire};
use super::outbox::Outbox;
use super::shard::Shard;
use crate::model::CloseCode;
use crate::protocol::engineio;
use crate::protocol::websocket::Decoder;

/// Time for a WebSocket to take over from polling. After that it is closed, and polling goes on.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the last request of a client that has said that it is over.
const LEAVE_AFTER: Duration = Duration::from_secs(1);

/// How long a request waits that comes during an upgrade.
const RELEASE_AFTER: Duration = Duration::from_millis(100);

impl Shard {
    /// Opens a session that begins with polling. Gives the packet to answer with.
    ///
    /// # Errors
    /// Where no more connections are let in, with the reason.
    pub(super) fn open_polling(
        self: &Rc<Self>,
        peer: SocketAddr,
        credentials: Credentials,
        echoes: bool,
    ) -> Result<String, &'static str> {
        let id = EngineId::random().map_err(|_| "the host has no randomness")?;
        let engine = Rc::new(Engine::new(id, credentials, echoes));
        let wire = Wire::Polling(RefCell::default());
        let link = self.new_link(peer, wire, Role::Engine(engine.clone()), None).ok_or("the host has no room left")?;
        if let Err((code, reason)) = self.shared.admission.enter(peer, &self.shared.config) {
            self.shared.metrics.connections_refused.inc();
            if code == CloseCode::TooManyConnections {
                self.probe_all_from(peer.ip());
            }
            self.end_link(&link, false);
            return Err(reason);
        }
        link.counted.set(true);
        self.shared.metrics.connections_opened.inc();
        self.polling.borrow_mut().insert(id, link.clone());
        self.shared.engines.enter(id, self.index);
        self.begin_engine(&link, &engine);
        self.reckon(&link, 0, false);
        Ok(self.open_packet(&engine, &["websocket"]))
    }

    /// Hands over a WebSocket that is to take the place of polling in a session of any shard.
    pub(super) fn probe(&self, id: EngineId, tcp: TcpStream, peer: SocketAddr, received: &Bytes) {
        let wire = MigrantWire::Socket { tcp, decoder: Decoder::default(), received: received.to_vec() };
        let role = MigrantRole::Probe { id, is_tried: false };
        let (outbox, inbound) = (Outbox::default(), Vec::new());
        let migrant = Migrant { peer, is_counted: false, wire, role, rate: None, outbox, inbound };
        // Where the session is gone the socket closes with it.
        self.shared.engines.send(id, EngineCommand::Probe { id, migrant: Box::new(migrant) });
    }

    pub(super) fn begin_probe(self: &Rc<Self>, link: &Rc<Link>, id: EngineId) {
        if !self.polling.borrow().contains_key(&id) {
            return self.close(link, CloseCode::ProtocolError, "there is no such session, or it has its WebSocket");
        }
        let limit = self.shared.clock.uptime_ms() + UPGRADE_TIMEOUT.as_millis() as u64;
        link.times.limit.set(limit);
        self.arm(link, limit);
    }

    pub(super) fn apply_engine(self: &Rc<Self>, command: EngineCommand) {
        let id = match &command {
            EngineCommand::Welcome(_) => None,
            EngineCommand::Poll { id, .. }
            | EngineCommand::Post { id, .. }
            | EngineCommand::Progress { id }
            | EngineCommand::Fail { id }
            | EngineCommand::Probe { id, .. } => Some(*id),
        };
        // It may have moved while the command was on its way.
        let is_elsewhere = |id| {
            let is_here = self.polling.borrow().contains_key(&id);
            !is_here && self.shared.engines.shard_of(id).is_some_and(|shard| shard != self.index)
        };
        if let Some(id) = id
            && is_elsewhere(id)
        {
            self.shared.engines.send(id, command);
            return;
        }
        let link = id.and_then(|id| self.polling.borrow().get(&id).cloned());
        match command {
            EngineCommand::Welcome(migrant) => self.welcome(*migrant),
            EngineCommand::Probe { migrant, .. } => self.welcome(*migrant),
            EngineCommand::Progress { .. } => {
                if let Some(link) = link {
                    link.times.heard.set(self.shared.clock.uptime_ms());
                }
            }
            EngineCommand::Fail { .. } => {
                if let Some(link) = link {
                    self.fail(&link);
                }
            }
            EngineCommand::Poll { poll, .. } => match link {
                Some(link) => self.poll(&link, poll),
                None => drop(poll.answer.send(Err(PollError::Unknown))),
            },
            EngineCommand::Post { body, answer, .. } => {
                let wait = link.as_ref().and_then(|link| self.charge_body(link, body.len()));
                let outcome = link.map_or(Err(PollError::Unknown), |link| self.post(&link, &body));
                let clock = self.shared.clock.clone();
                // Whoever asked may have gone.
                let reply = move || drop(answer.send(outcome.map(|()| Bytes::from_static(b"ok"))));
                match wait {
                    None => reply(),
                    Some(wait_ms) => drop(spawn_local(async move {
                        clock.sleep_until(clock.uptime_ms() + wait_ms).await;
                        reply();
                    })),
                }
            }
        }
    }

    fn poll(self: &Rc<Self>, link: &Rc<Link>, request: Poll) {
        let Wire::Polling(poll) = &link.wire else { return };
        // A client that is late by more than the host waits is gone, though nobody has looked yet.
        self.look_after(link, self.shared.clock.uptime_ms());
        if link.phase.get() == Phase::Ended {
            return drop(request.answer.send(Err(PollError::Unknown)));
        }
        if poll.borrow().is_some() {
            self.fail(link);
            return drop(request.answer.send(Err(PollError::Bad)));
        }
        *poll.borrow_mut() = Some(request);
        if !link.outbox.borrow().is_empty() || !link.is_up() {
            self.flush(link);
        } else if link.engine().is_some_and(|engine| engine.probe.get().is_some()) {
            spawn_local(self.clone().release(link.clone()));
        }
    }

    /// Answers a request that came during an upgrade: its client may wait for that before it goes over. Not at once, for
    /// one that does not would ask again and again.
    pub(super) async fn release(self: Rc<Self>, link: Rc<Link>) {
        tokio::time::sleep(RELEASE_AFTER).await;
        self.flush(&link);
    }

    fn post(self: &Rc<Self>, link: &Rc<Link>, body: &str) -> Result<(), PollError> {
        let engine = link.engine().ok_or(PollError::Unknown)?;
        self.look_after(link, self.shared.clock.uptime_ms());
        if !link.is_up() {
            return Err(PollError::Unknown);
        }
        let longest = self.longest_message(link);
        if body.len() > longest && engineio::weight(body) > longest {
            self.log_oversize(link);
            self.fail(link);
            return Err(PollError::Bad);
        }
        link.times.heard.set(self.shared.clock.uptime_ms());
        let read_at = Instant::now();
        for packet in engineio::decode_payload(body) {
            if link.phase.get() == Phase::Ended {
                // One packet was too many, or against the protocol.
                return Err(PollError::Bad);
            }
            // However many packets there are, their answers are bounded as they come.
            self.settle_over_full();
            match packet {
                Ok(packet) => self.packet(link, &engine, packet, read_at),
                Err(malformed) => {
                    // The request's answer is what tells the client.
                    self.violations.log(link, malformed.reason);
                    self.fail(link);
                    return Err(PollError::Bad);
                }
            }
        }
        self.finish_move(link, Decoder::default());
        self.reckon(link, body.len(), true);
        Ok(())
    }

    /// The client says that it is over. The request by which it would hear of that may be on its way.
    pub(super) fn leave_polling(self: &Rc<Self>, link: &Rc<Link>) {
        link.outbox.borrow_mut().take(&self.queue.borrow());
        link.phase.set(Phase::Closing);
        link.times.limit.set(self.shared.clock.uptime_ms() + LEAVE_AFTER.as_millis() as u64);
        self.arm(link, link.times.limit.get());
        self.part_all(link, true);
        self.mark_dirty(link);
    }

    /// Ends a session against whose rules the client went, or of which something may be lost.
    fn fail(self: &Rc<Self>, link: &Rc<Link>) {
        self.hang_up(link, CloseCode::ProtocolError, "", true);
        self.end_link(link, true);
    }

    /// Answers the request that waits, if there is one, with all that there is to send.
    pub(super) fn flush_polling(self: &Rc<Self>, link: &Rc<Link>, poll: &RefCell<Option<Poll>>) {
        let Some(Poll { answer, max_packets }) = poll.take() else { return };
        let mut frames = link.outbox.borrow_mut().take(&self.queue.borrow());
        let payload = if frames.is_empty() {
            Bytes::from_static(engineio::NOOP.as_bytes())
        } else {
            engineio::take_payload(&mut frames, usize::MAX, max_packets)
        };
        let is_all = frames.is_empty();
        link.outbox.borrow_mut().put_back(frames);
        // Where the request has broken off, its session is about to end.
        let _ = answer.send(Ok(payload));
        if is_all && link.phase.get() == Phase::Closing {
            self.end_link(link, false);
        }
    }
}
