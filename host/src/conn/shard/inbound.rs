//! Input from WebSockets, dispatched to the protocol of the session.

use std::rc::Rc;
use std::time::Instant;

use super::parts::Shard;
use crate::conn::state::{Phase, Session, Transport, Verdict};
use crate::model::CloseCode;
use crate::protocol::engineio;
use crate::protocol::websocket::{self, Message};

impl Shard {
    /// Decodes and handles bytes that were read from a WebSocket.
    pub(super) fn read(self: &Rc<Self>, transport: &Rc<Transport>, bytes: &mut [u8]) {
        let Some(socket) = transport.socket() else { return };
        transport.times.heard.set(self.now());
        let read_at = Instant::now();
        let came = bytes.len();
        // Whether a message was completed, so that any incomplete message began behind it.
        let mut is_begun = false;
        let mut decoder = socket.decoder.take();
        let read = decoder.feed(
            bytes,
            || self.longest_frame(transport),
            |message| {
                is_begun |= matches!(message, Message::Text(_) | Message::Binary(_));
                self.handle_message(transport, message, read_at);
                transport.phase.get() != Phase::Ended && !transport.muted.get()
            },
        );
        match read {
            Ok(()) if transport.handoff.borrow().is_some() => self.complete_handoff(transport, decoder),
            Ok(()) => {
                socket.decoder.replace(decoder);
                self.account_incomplete(transport, came, is_begun);
            }
            // After a violation the rest of the stream cannot be decoded: it is discarded, and the close is sent once.
            Err(violation) => {
                transport.handoff.take();
                if violation.code == CloseCode::TooLarge {
                    self.log_oversize(transport);
                }
                // Socket.IO's client passes the reason to its user, and expects none for a message that is too large.
                let is_silent = transport.is_eio() && violation.code == CloseCode::TooLarge;
                self.close(transport, violation.code, if is_silent { "" } else { violation.reason });
                self.flush(transport);
                // RFC 6455, section 7.1.7: the host does not wait for an answer. Further bytes are still read: closing
                // a socket with unread bytes resets it, which can discard the close frame.
                let _ = socket2::SockRef::from(&socket.tcp).shutdown(std::net::Shutdown::Write);
            }
        }
    }

    fn handle_message(self: &Rc<Self>, transport: &Rc<Transport>, message: Message<'_>, read_at: Instant) {
        if let Some(handoff) = transport.handoff.borrow_mut().as_deref_mut() {
            return handoff.keep_message(&message);
        }
        let session = transport.session.borrow().clone();
        match message {
            Message::Close(code) => self.closed_by_client(transport, code),
            _ if !transport.is_up() => {}
            Message::Pong => {
                self.meter(transport, 0);
                // Engine.IO has pings of its own; a WebSocket pong answers none of the host's.
                if matches!(session, Session::Plain) {
                    self.replay_pong_received(transport);
                }
            }
            Message::Ping(content) => {
                if self.meter(transport, content.len()) == Verdict::Take {
                    self.enqueue(transport, websocket::pong_frame(content));
                }
            }
            message => match (session, message) {
                (Session::Plain, message) => self.on_plain_message(transport, &message, read_at),
                (Session::Eio(eio), Message::Text(text)) => self.on_eio_text(transport, &eio, text, read_at),
                (Session::Eio(eio), Message::Binary(bytes))
                    if !eio.echoes && bytes.len() > self.longest_message(transport) =>
                {
                    self.close_oversize(transport);
                }
                (Session::Eio(eio), Message::Binary(bytes)) => {
                    self.on_eio_packet(transport, &eio, engineio::Packet::Binary(bytes.into()), read_at);
                }
                (Session::Probe { id, is_tried }, Message::Text(text)) => {
                    if self.meter(transport, text.len()) == Verdict::Take {
                        self.on_probe_text(transport, id, is_tried, text);
                    }
                }
                (Session::Echo, Message::Text(text)) => self.enqueue(transport, websocket::text_frame(text)),
                (Session::Echo, Message::Binary(bytes)) => self.enqueue(transport, websocket::binary_frame(bytes)),
                _ => self.close(transport, CloseCode::ProtocolError, "first comes a probe, then the upgrade"),
            },
        }
    }
}
