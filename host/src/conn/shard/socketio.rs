//! Socket.IO packets: events and acknowledgements, in the namespaces that the client has entered.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Instant;

use super::limits::rate_limited;
use super::parts::Shard;
use crate::conn::state::{Connection, EioSession, Transport, Verdict};
use crate::model::{BadPlaceholders, ErrorCode, Failure, without_lone_surrogates};
use crate::protocol::plain::MAX_EVENT_BYTES;
use crate::protocol::socketio::{self, Packet};

/// The refusal of a client that uses the MessagePack parser.
const NO_MSGPACK: &str = "this host speaks Socket.IO's default parser: leave the option parser out";

impl Shard {
    pub(super) fn on_socketio_text(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &Rc<EioSession>,
        text: &str,
        read_at: Instant,
    ) {
        match self.meter(transport, text.len()) {
            Verdict::Take => {}
            Verdict::Refuse => return self.refuse_socketio(transport, eio, text),
            Verdict::Drop => {
                let skipped = eio.decoder.borrow_mut().skip(text);
                return skipped.unwrap_or_else(|malformed| self.close_for_violation(transport, malformed.reason));
            }
            Verdict::CutOff => return,
        }
        let text = &*without_lone_surrogates(text);
        let packet = eio.decoder.borrow_mut().text(text, self.config().message_bytes);
        match packet {
            Ok(Some(Packet::Connect { namespace, auth })) => {
                self.connect_namespace(transport, eio, &namespace, auth.as_deref(), text);
            }
            Ok(Some(packet)) => self.on_socketio_packet(transport, eio, packet, read_at),
            Ok(None) => {}
            Err(malformed) => self.close_for_violation(transport, malformed.reason),
        }
    }

    pub(super) fn on_socketio_binary(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &Rc<EioSession>,
        bytes: Cow<'_, [u8]>,
        read_at: Instant,
    ) {
        if transport.connections.borrow().is_empty() && socketio::is_msgpack(&bytes) {
            // The client ends the session after it has read the refusal, which a polling client could not read from an
            // ended session.
            if self.meter(transport, bytes.len()) == Verdict::Take {
                self.enqueue(transport, socketio::msgpack_error_frame(NO_MSGPACK));
                self.report_violation(transport, NO_MSGPACK);
            }
            return;
        }
        if eio.decoder.borrow().passes_over() {
            self.meter(transport, bytes.len());
        }
        let packet = eio.decoder.borrow_mut().binary(bytes);
        match packet {
            Ok(Some(packet)) => self.on_socketio_packet(transport, eio, packet, read_at),
            Ok(None) => {}
            Err(malformed) => self.close_for_violation(transport, malformed.reason),
        }
    }

    /// Refuses a packet over the rate. The packet is parsed only as far as the answer needs, and its attachments are
    /// skipped.
    fn refuse_socketio(self: &Rc<Self>, transport: &Rc<Transport>, eio: &EioSession, text: &str) {
        let text = &*without_lone_surrogates(text);
        let packet = eio.decoder.borrow_mut().refuse(text, self.config().message_bytes);
        let packet = match packet {
            Ok(packet) => packet,
            Err(malformed) => return self.close_for_violation(transport, malformed.reason),
        };
        let connection = self.connection_in(transport, packet.namespace());
        match (packet, connection) {
            (Packet::Connect { namespace, .. }, None) => self.refuse_namespace_for_rate(transport, &namespace),
            // A disconnect is always allowed.
            (Packet::Disconnect { .. }, Some(connection)) => self.leave_namespace(transport, &connection, false),
            (Packet::Event { event, id, .. }, Some(connection)) => {
                self.reply(&connection, Some(&event), id.map(i128::from), Err(&rate_limited()));
            }
            (Packet::Overfull { event, id, .. }, Some(connection)) => {
                self.reply(&connection, event.as_deref(), id.map(i128::from), Err(&rate_limited()));
            }
            (_, Some(connection)) => self.reply(&connection, None, None, Err(&rate_limited())),
            // A violation counts only within the rate.
            (_, None) => {}
        }
    }

    fn on_socketio_packet(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        eio: &EioSession,
        packet: Packet<'_>,
        read_at: Instant,
    ) {
        let Some(connection) = self.connection_in(transport, packet.namespace()) else {
            if eio.has_left(packet.namespace()) {
                return;
            }
            return self.close_for_violation(transport, "a packet for a namespace that the client is not in");
        };
        match packet {
            Packet::Connect { .. } => {}
            Packet::Disconnect { .. } => self.leave_namespace(transport, &connection, false),
            Packet::Event { event, payload, id, .. } => {
                let id = id.map(i128::from);
                if event.is_empty() || event.len() > MAX_EVENT_BYTES {
                    let message = format!("an event's name is 1 to {MAX_EVENT_BYTES} bytes long");
                    self.reply(&connection, None, id, Err(&Failure::new(ErrorCode::BadRequest, message)));
                } else {
                    self.on_event(&connection, &event, payload, id, read_at);
                }
            }
            Packet::Overfull { event, id, .. } => {
                let failure = Failure::new(ErrorCode::TooLarge, BadPlaceholders::TooMany.to_string());
                self.reply(&connection, event.as_deref(), id.map(i128::from), Err(&failure));
            }
            Packet::Ack { id, payload, .. } => self.shared().plugins.acknowledged(connection.id, id, payload),
        }
    }

    /// A client's connection in a namespace.
    pub(super) fn connection_in(&self, transport: &Transport, namespace: &str) -> Option<Rc<Connection>> {
        let is_in = |connection: &Connection| connection.namespace() == namespace;
        self.connections().find_among(&transport.connections.borrow(), is_in)
    }
}
