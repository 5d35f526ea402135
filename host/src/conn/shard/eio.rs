//! Engine.IO packets, and the upgrade from polling to a WebSocket.

use std::rc::Rc;
use std::time::Instant;

use super::parts::Shard;
use crate::conn::state::{EioSession, Inbound, Io, Phase, PollError, Session, Sid, Transport};
use crate::model::CloseCode;
use crate::protocol::engineio::{self, Packet};
use crate::protocol::websocket;

/// The ping with which a client probes a WebSocket that is to take over from polling.
const PROBE: &str = "probe";

impl Shard {
    /// The packet that opens a session.
    pub(super) fn open_packet(&self, eio: &EioSession, upgrades: &[&str]) -> String {
        let config = self.config();
        engineio::Handshake {
            sid: &eio.id.to_string(),
            upgrades,
            ping_interval_ms: config.heartbeat_interval.as_millis() as u64,
            ping_timeout_ms: (config.heartbeat_timeout - config.heartbeat_interval).as_millis() as u64,
            max_payload: config.message_bytes,
        }
        .packet()
    }

    /// Begins a session: heartbeats, and the time until the first namespace must be entered.
    pub(super) fn begin_eio(self: &Rc<Self>, transport: &Rc<Transport>, eio: &EioSession) {
        let now = self.now();
        if eio.echoes {
            transport.phase.set(Phase::Open);
        } else {
            transport.times.limit.set(now + self.config().connect_timeout.as_millis() as u64);
        }
        self.check_transport(transport, now);
    }

    pub(super) fn on_eio_packet(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &Rc<EioSession>,
        packet: Packet<'_>,
        read_at: Instant,
    ) {
        if let Some(handoff) = transport.handoff.borrow_mut().as_deref_mut() {
            return handoff.keep(Inbound::from_packet(packet));
        }
        match packet {
            _ if !transport.is_up() => {}
            Packet::Message(text) if eio.echoes => self.enqueue(transport, engineio::message_frame(text)),
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
            // These packets have a meaning only while a session opens or is upgraded.
            Packet::Open | Packet::Upgrade | Packet::Noop => drop(self.meter(transport, 0)),
        }
    }

    /// Handles a text frame on the WebSocket of a session.
    pub(super) fn on_eio_text(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &Rc<EioSession>,
        text: &str,
        read_at: Instant,
    ) {
        let longest = self.longest_message(transport);
        if !eio.echoes && text.len() > longest && engineio::weight(text) > longest {
            return self.close_oversize(transport);
        }
        match engineio::decode(text) {
            Ok(packet) => self.on_eio_packet(transport, eio, packet, read_at),
            Err(malformed) => self.close_for_violation(transport, malformed.reason),
        }
    }

    /// Handles a text frame on a WebSocket that is to take over from polling.
    pub(super) fn on_probe_text(self: &Rc<Self>, probe: &Rc<Transport>, id: Sid, is_tried: bool, text: &str) {
        let Some(polling) = self.transports().polling(id).filter(|transport| transport.is_up()) else {
            return match self.shared().eio_sessions.shard_of(id) {
                // The session was handed off, and its WebSocket follows.
                Some(shard) if shard != self.index() => {
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
                // The client sends the upgrade after its waiting request was answered.
                self.writes().mark_dirty(&polling);
            }
            Ok(Packet::Upgrade) if is_tried => self.upgrade(probe, &polling, &eio),
            _ => self.close(probe, CloseCode::ProtocolError, "first comes one probe, and then the upgrade"),
        }
    }

    /// Has a WebSocket take over from polling, with the connections, the outbox and the rate.
    fn upgrade(self: &Rc<Self>, transport: &Rc<Transport>, polling: &Rc<Transport>, eio: &Rc<EioSession>) {
        eio.probe.set(None);
        self.transports().remove_polling(eio.id);
        self.shared().eio_sessions.set_upgraded(eio.id);
        if let Io::Polling(poll) = &polling.io
            && let Some(poll) = poll.take()
        {
            // This request arrived after the client had sent the upgrade, so it is refused. The client may have
            // disconnected.
            let _ = poll.answer.send(Err(PollError::Bad));
        }
        transport.session.replace(Session::Eio(eio.clone()));
        transport.rate.replace(polling.rate.take());
        transport.phase.set(polling.phase.replace(Phase::Ended));
        transport.counted.set(polling.counted.take());
        transport.times.limit.set(polling.times.limit.get());
        transport.times.pinged.set(polling.times.pinged.get());
        for connection in self.connections_of(polling) {
            connection.transport.set(Some(transport.id));
        }
        transport.connections.borrow_mut().extend(polling.connections.take());
        self.imports().replace(polling.id, transport.id);
        for id in polling.waiting.take() {
            self.admissions().replace(id, transport.id);
            transport.waiting.borrow_mut().push(id);
        }
        for frames in self.writes().take(polling) {
            self.enqueue(transport, frames);
        }
        self.remove_transport(polling);
        self.check_transport(transport, self.now());
    }
}
