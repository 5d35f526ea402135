//! Polling: an Engine.IO session over HTTP, by GET requests that wait for packets and POST requests that bring packets.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::spawn_local;

use super::parts::Shard;
use crate::conn::state::{
    EioCommand, Handoff, HandoffIo, HandoffSession, Io, Outbox, Phase, Poll, PollError, Sid, Transport,
};
use crate::model::CloseCode;
use crate::net::RawSocket;
use crate::protocol::engineio;
use crate::protocol::websocket::Decoder;

/// Time for a WebSocket to complete an upgrade from polling. After that the WebSocket is closed, and polling goes on.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the last request of a client that has closed its session.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a request waits that comes during an upgrade.
const UPGRADE_POLL: Duration = Duration::from_millis(100);

impl Shard {
    /// Hands a WebSocket that is to take over from polling to the shard of its session.
    pub(in crate::conn) fn probe_session(&self, id: Sid, socket: RawSocket, peer: SocketAddr, received: Vec<u8>) {
        let io = HandoffIo::Socket { socket, decoder: Decoder::default(), received };
        let session = HandoffSession::Probe { id, is_tried: false };
        let (outbox, inbound) = (Outbox::default(), Vec::new());
        let handoff = Handoff { peer, is_counted: false, io, session, rate: None, outbox, inbound };
        // If the session has ended, dropping the command closes the socket.
        self.shared().eio_sessions.send(id, EioCommand::Probe { id, handoff: Box::new(handoff) });
    }

    /// Begins to wait for the probe of a WebSocket that upgrades a polling session.
    pub(super) fn begin_probe(self: &Rc<Self>, transport: &Rc<Transport>, id: Sid) {
        if self.transports().polling(id).is_none() {
            let reason = "there is no such session, or it has its WebSocket";
            return self.close(transport, CloseCode::ProtocolError, reason);
        }
        self.set_limit(transport, UPGRADE_TIMEOUT);
    }

    pub(super) fn run_eio_command(self: &Rc<Self>, command: EioCommand) {
        let id = match &command {
            EioCommand::Handoff(_) => None,
            EioCommand::Poll { id, .. }
            | EioCommand::Post { id, .. }
            | EioCommand::Progress { id }
            | EioCommand::Fail { id }
            | EioCommand::Probe { id, .. } => Some(*id),
        };
        let transport = id.and_then(|id| self.transports().polling(id));
        // The session may have been handed off while the command was queued.
        let sessions = &self.shared().eio_sessions;
        if let Some(id) = id.filter(|_| transport.is_none())
            && sessions.shard_of(id).is_some_and(|shard| shard != self.index())
        {
            sessions.send(id, command);
            return;
        }
        match (command, transport) {
            (EioCommand::Handoff(handoff) | EioCommand::Probe { handoff, .. }, _) => self.accept_handoff(*handoff),
            (EioCommand::Progress { .. }, Some(transport)) => transport.times.heard.set(self.now()),
            (EioCommand::Fail { .. }, Some(transport)) => self.fail(&transport),
            (EioCommand::Progress { .. } | EioCommand::Fail { .. }, None) => {}
            (EioCommand::Poll { poll, .. }, Some(transport)) => self.poll(&transport, poll),
            (EioCommand::Poll { poll, .. }, None) => drop(poll.answer.send(Err(PollError::Unknown))),
            (EioCommand::Post { body, answer, .. }, transport) => {
                let wait = transport.as_ref().and_then(|transport| self.charge_body(transport, body.len()));
                let outcome = transport.map_or(Err(PollError::Unknown), |transport| self.post(&transport, &body));
                let clock = self.shared().clock.clone();
                // The client may have gone.
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
        // A client that polls later than the heartbeat's timeout is lost, even if the timer has not fired yet.
        self.check_transport(transport, self.now());
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
            spawn_local(self.clone().answer_during_upgrade(transport.clone()));
        }
    }

    /// Answers a request that arrived during an upgrade: some clients send the upgrade only after this answer. The
    /// answer is delayed, because other clients would poll again at once.
    pub(super) async fn answer_during_upgrade(self: Rc<Self>, transport: Rc<Transport>) {
        tokio::time::sleep(UPGRADE_POLL).await;
        self.flush(&transport);
    }

    fn post(self: &Rc<Self>, transport: &Rc<Transport>, body: &str) -> Result<(), PollError> {
        let eio = transport.eio().ok_or(PollError::Unknown)?;
        self.check_transport(transport, self.now());
        if !transport.is_up() {
            return Err(PollError::Unknown);
        }
        let longest = self.longest_message(transport);
        if body.len() > longest && engineio::weight(body) > longest {
            self.log_oversize(transport);
            self.fail(transport);
            return Err(PollError::Bad);
        }
        transport.times.heard.set(self.now());
        let read_at = Instant::now();
        for packet in engineio::decode_payload(body) {
            if transport.phase.get() == Phase::Ended {
                // A packet was over the rate, or a violation.
                return Err(PollError::Bad);
            }
            // The answers to many packets must not grow the outbox beyond its bound.
            self.close_slow_readers();
            match packet {
                Ok(packet) => self.on_eio_packet(transport, &eio, packet, read_at),
                Err(malformed) => {
                    // The client learns of the violation by the answer to its request.
                    self.log_violation(transport, malformed.reason);
                    self.fail(transport);
                    return Err(PollError::Bad);
                }
            }
        }
        self.complete_handoff(transport, Decoder::default());
        self.account_incomplete(transport, body.len(), true);
        Ok(())
    }

    /// Handles the client's close of the session. Its next request for packets may be on its way.
    pub(super) fn leave_polling(self: &Rc<Self>, transport: &Rc<Transport>) {
        self.writes().take(transport);
        transport.phase.set(Phase::Closing);
        self.set_limit(transport, LEAVE_TIMEOUT);
        self.detach_all(transport, true);
        self.writes().mark_dirty(transport);
    }

    /// Ends a session after a violation, or where data may be lost.
    fn fail(self: &Rc<Self>, transport: &Rc<Transport>) {
        self.close_with(transport, CloseCode::ProtocolError, "", true);
        self.shutdown_transport(transport, true);
    }

    /// Answers the request that waits for packets, if any, from the outbox.
    pub(super) fn flush_polling(self: &Rc<Self>, transport: &Rc<Transport>, poll: &RefCell<Option<Poll>>) {
        let Some(Poll { answer, max_packets }) = poll.take() else { return };
        let mut frames = self.writes().take(transport);
        let payload = if frames.is_empty() {
            Bytes::from_static(engineio::NOOP.as_bytes())
        } else {
            engineio::take_payload(&mut frames, usize::MAX, max_packets)
        };
        let is_all = frames.is_empty();
        transport.outbox.borrow_mut().put_back(frames);
        // If the request was aborted, its session ends next.
        let _ = answer.send(Ok(payload));
        if is_all && transport.phase.get() == Phase::Closing {
            self.shutdown_transport(transport, false);
        }
    }
}
