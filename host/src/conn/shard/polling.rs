//! Polling: an EioSession.IO session by HTTP requests, one that waits for packets and others that bring some.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::spawn_local;

use super::eio::{Credentials, EioCommand, EioSession, Poll, PollError, Sid};
use super::handoff::{Handoff, HandoffIo, HandoffSession};
use super::parts::Shard;
use crate::conn::state::outbox::Outbox;
use crate::conn::state::transport::{Io, Phase, Session, Transport};
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
    pub(in crate::conn) fn open_polling(
        self: &Rc<Self>,
        peer: SocketAddr,
        credentials: Credentials,
        echoes: bool,
    ) -> Result<String, &'static str> {
        let id = Sid::random().map_err(|_| "the host has no randomness")?;
        let eio = Rc::new(EioSession::new(id, credentials, echoes));
        let io = Io::Polling(RefCell::default());
        let transport =
            self.new_transport(peer, io, Session::Eio(eio.clone()), None).ok_or("the host has no room left")?;
        if let Err((code, reason)) = self.shared.admission.enter(peer, &self.shared.config) {
            self.shared.metrics.connections_refused.inc();
            if code == CloseCode::TooManyConnections {
                self.probe_all_from(peer.ip());
            }
            self.shutdown_transport(&transport, false);
            return Err(reason);
        }
        transport.counted.set(true);
        self.shared.metrics.connections_opened.inc();
        self.polling.borrow_mut().insert(id, transport.clone());
        self.shared.eio_sessions.enter(id, self.index);
        self.begin_eio(&transport, &eio);
        self.account_incomplete(&transport, 0, false);
        Ok(self.open_packet(&eio, &["websocket"]))
    }

    /// Hands over a WebSocket that is to take the place of polling in a session of any shard.
    pub(in crate::conn) fn probe(&self, id: Sid, tcp: TcpStream, peer: SocketAddr, received: &Bytes) {
        let io = HandoffIo::Socket { tcp, decoder: Decoder::default(), received: received.to_vec() };
        let session = HandoffSession::Probe { id, is_tried: false };
        let (outbox, inbound) = (Outbox::default(), Vec::new());
        let handoff = Handoff { peer, is_counted: false, io, session, rate: None, outbox, inbound };
        // Where the session is gone the socket closes with it.
        self.shared.eio_sessions.send(id, EioCommand::Probe { id, handoff: Box::new(handoff) });
    }

    pub(in crate::conn) fn begin_probe(self: &Rc<Self>, transport: &Rc<Transport>, id: Sid) {
        if !self.polling.borrow().contains_key(&id) {
            return self.close(
                transport,
                CloseCode::ProtocolError,
                "there is no such session, or it has its WebSocket",
            );
        }
        let limit = self.shared.clock.uptime_ms() + UPGRADE_TIMEOUT.as_millis() as u64;
        transport.times.limit.set(limit);
        self.arm(transport, limit);
    }

    pub(in crate::conn) fn run_eio_command(self: &Rc<Self>, command: EioCommand) {
        let id = match &command {
            EioCommand::Handoff(_) => None,
            EioCommand::Poll { id, .. }
            | EioCommand::Post { id, .. }
            | EioCommand::Progress { id }
            | EioCommand::Fail { id }
            | EioCommand::Probe { id, .. } => Some(*id),
        };
        // It may have moved while the command was on its way.
        let is_elsewhere = |id| {
            let is_here = self.polling.borrow().contains_key(&id);
            !is_here && self.shared.eio_sessions.shard_of(id).is_some_and(|shard| shard != self.index)
        };
        if let Some(id) = id
            && is_elsewhere(id)
        {
            self.shared.eio_sessions.send(id, command);
            return;
        }
        let transport = id.and_then(|id| self.polling.borrow().get(&id).cloned());
        match command {
            EioCommand::Handoff(handoff) => self.accept_handoff(*handoff),
            EioCommand::Probe { handoff, .. } => self.accept_handoff(*handoff),
            EioCommand::Progress { .. } => {
                if let Some(transport) = transport {
                    transport.times.heard.set(self.shared.clock.uptime_ms());
                }
            }
            EioCommand::Fail { .. } => {
                if let Some(transport) = transport {
                    self.fail(&transport);
                }
            }
            EioCommand::Poll { poll, .. } => match transport {
                Some(transport) => self.poll(&transport, poll),
                None => drop(poll.answer.send(Err(PollError::Unknown))),
            },
            EioCommand::Post { body, answer, .. } => {
                let wait = transport.as_ref().and_then(|transport| self.charge_body(transport, body.len()));
                let outcome = transport.map_or(Err(PollError::Unknown), |transport| self.post(&transport, &body));
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

    fn poll(self: &Rc<Self>, transport: &Rc<Transport>, request: Poll) {
        let Io::Polling(poll) = &transport.io else { return };
        // A client that is late by more than the host waits is gone, though nobody has looked yet.
        self.check_transport(transport, self.shared.clock.uptime_ms());
        if transport.phase.get() == Phase::Ended {
            return drop(request.answer.send(Err(PollError::Unknown)));
        }
        if poll.borrow().is_some() {
            self.fail(transport);
            return drop(request.answer.send(Err(PollError::Bad)));
        }
        *poll.borrow_mut() = Some(request);
        if !transport.outbox.borrow().is_empty() || !transport.is_up() {
            self.flush(transport);
        } else if transport.eio().is_some_and(|eio| eio.probe.get().is_some()) {
            spawn_local(self.clone().release(transport.clone()));
        }
    }

    /// Answers a request that came during an upgrade: its client may wait for that before it goes over. Not at once, for
    /// one that does not would ask again and again.
    pub(in crate::conn) async fn release(self: Rc<Self>, transport: Rc<Transport>) {
        tokio::time::sleep(RELEASE_AFTER).await;
        self.flush(&transport);
    }

    fn post(self: &Rc<Self>, transport: &Rc<Transport>, body: &str) -> Result<(), PollError> {
        let eio = transport.eio().ok_or(PollError::Unknown)?;
        self.check_transport(transport, self.shared.clock.uptime_ms());
        if !transport.is_up() {
            return Err(PollError::Unknown);
        }
        let longest = self.longest_message(transport);
        if body.len() > longest && engineio::weight(body) > longest {
            self.log_oversize(transport);
            self.fail(transport);
            return Err(PollError::Bad);
        }
        transport.times.heard.set(self.shared.clock.uptime_ms());
        let read_at = Instant::now();
        for packet in engineio::decode_payload(body) {
            if transport.phase.get() == Phase::Ended {
                // One packet was too many, or against the protocol.
                return Err(PollError::Bad);
            }
            // However many packets there are, their answers are bounded as they come.
            self.close_slow_readers();
            match packet {
                Ok(packet) => self.packet(transport, &eio, packet, read_at),
                Err(malformed) => {
                    // The request's answer is what tells the client.
                    self.violations.log(transport, malformed.reason);
                    self.fail(transport);
                    return Err(PollError::Bad);
                }
            }
        }
        self.complete_handoff(transport, Decoder::default());
        self.account_incomplete(transport, body.len(), true);
        Ok(())
    }

    /// The client says that it is over. The request by which it would hear of that may be on its way.
    pub(in crate::conn) fn leave_polling(self: &Rc<Self>, transport: &Rc<Transport>) {
        transport.outbox.borrow_mut().take(&self.queue.borrow());
        transport.phase.set(Phase::Closing);
        transport.times.limit.set(self.shared.clock.uptime_ms() + LEAVE_AFTER.as_millis() as u64);
        self.arm(transport, transport.times.limit.get());
        self.detach_all(transport, true);
        self.mark_dirty(transport);
    }

    /// Ends a session against whose rules the client went, or of which something may be lost.
    fn fail(self: &Rc<Self>, transport: &Rc<Transport>) {
        self.close_with(transport, CloseCode::ProtocolError, "", true);
        self.shutdown_transport(transport, true);
    }

    /// Answers the request that waits, if there is one, with all that there is to send.
    pub(in crate::conn) fn flush_polling(self: &Rc<Self>, transport: &Rc<Transport>, poll: &RefCell<Option<Poll>>) {
        let Some(Poll { answer, max_packets }) = poll.take() else { return };
        let mut frames = transport.outbox.borrow_mut().take(&self.queue.borrow());
        let payload = if frames.is_empty() {
            Bytes::from_static(engineio::NOOP.as_bytes())
        } else {
            engineio::take_payload(&mut frames, usize::MAX, max_packets)
        };
        let is_all = frames.is_empty();
        transport.outbox.borrow_mut().put_back(frames);
        // Where the request has broken off, its session is about to end.
        let _ = answer.send(Ok(payload));
        if is_all && transport.phase.get() == Phase::Closing {
            self.shutdown_transport(transport, false);
        }
    }
}
