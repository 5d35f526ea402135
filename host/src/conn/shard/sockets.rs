//! Reading of sockets: each ready socket once per turn, and no user faster than its share.

use std::cell::RefCell;
use std::io::{self, Read as _};
use std::rc::Rc;
use std::sync::Arc;

use mio::Events;

use super::parts::Shard;
use crate::conn::state::{CHARGED_AT, Phase, READ_BUFFER_BYTES, Transport, TransportId};
use crate::model::Identity;
use crate::net::TlsSession;

impl Shard {
    /// Watches a transport's socket. Bytes that are readable already cause an event, too.
    pub(super) fn watch(self: &Rc<Self>, transport: &Rc<Transport>) {
        let Some(socket) = transport.socket().filter(|_| transport.phase.get() != Phase::Ended) else { return };
        if let Err(error) = self.poller().watch(transport.id, &socket.tcp) {
            tracing::warn!(%error, peer = %transport.peer, "a connection cannot be watched, and is dropped");
            self.shutdown_transport(transport, true);
        }
    }

    /// Reads and writes the sockets that are ready.
    pub(super) fn serve_ready(self: &Rc<Self>, ready: &Events) {
        for event in ready {
            let Some(transport) = self.transport(TransportId::from_token(event.token())) else { continue };
            if event.is_writable() || event.is_error() {
                self.unblock(&transport);
            }
            let is_last = event.is_read_closed() || event.is_error();
            // A transport that is listed as unread is read by [`Shard::serve_unread`].
            if (event.is_readable() || is_last) && !transport.unread.get() {
                self.read_socket(&transport, is_last);
            }
        }
        self.flush_dirty();
    }

    /// Reads sockets that had more to read than their turn allowed.
    pub(super) fn serve_unread(self: &Rc<Self>) {
        for transport in self.poller().take_unread() {
            transport.unread.set(false);
            // The edge-triggered event of the rest was consumed, and may have signalled the end of the stream as well.
            self.read_socket(&transport, true);
        }
        self.flush_dirty();
    }

    /// Reads a socket once. If more may be readable, the transport is listed as unread, because no further event
    /// signals it: after a full buffer, and where the end of the stream may follow the bytes read (`to_the_end`).
    fn read_socket(self: &Rc<Self>, transport: &Rc<Transport>, to_the_end: bool) {
        let is_read = transport.phase.get() != Phase::Ended && !transport.muted.get();
        let is_paused = transport.times.unread_until.get() > 0;
        let Some(socket) = transport.socket().filter(|_| is_read && !is_paused) else { return };
        if self.sign_ins().is_spent() && transport.phase.get() == Phase::Authenticating {
            return self.poller().note_unread(transport);
        }
        let read = {
            let mut buffer = self.poller().read_buffer();
            let read = (&socket.tcp).read(&mut buffer);
            if let Ok(n @ 1..) = read {
                self.charge_read(transport, n);
                match &socket.tls {
                    None => self.read(transport, &mut buffer[..n]),
                    Some(tls) => self.read_tls(transport, tls, &mut buffer[..n]),
                }
            }
            read
        };
        let may_have_more = match read {
            Ok(0) => return self.shutdown_transport(transport, true),
            // With more bytes the kernel would have filled the buffer. Later bytes cause an event.
            Ok(n) => to_the_end || n == READ_BUFFER_BYTES,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(_) => return self.shutdown_transport(transport, true),
        };
        if may_have_more {
            self.poller().note_unread(transport);
        }
        // The answers to many small messages must not pile up until the end of the turn.
        if self.writes().is_flush_due() {
            self.flush_dirty();
        }
    }

    /// Decrypts bytes that were read from a socket with TLS, and handles them.
    fn read_tls(self: &Rc<Self>, transport: &Rc<Transport>, tls: &RefCell<Option<TlsSession>>, bytes: &mut [u8]) {
        let mut plain = self.poller().take_plain_buffer();
        let (outcome, is_closed, has_answer) = match &mut *tls.borrow_mut() {
            Some(tls) => (tls.read(bytes, &mut plain), tls.is_closed_by_peer(), tls.has_pending()),
            None => return,
        };
        if plain.is_empty() {
            transport.times.heard.set(self.now());
            self.account_incomplete(transport, bytes.len(), false);
        } else {
            self.read(transport, &mut plain);
        }
        self.poller().put_plain_buffer(plain);
        if let Err(error) = &outcome {
            self.log_violation(transport, &format!("TLS: {error}"));
        }
        if has_answer {
            self.writes().mark_dirty(transport);
        }
        if outcome.is_err() || is_closed {
            self.shutdown_transport(transport, true);
        }
    }

    /// Charges a transport's user for bytes that were read, and pauses the transport if the user is over its share.
    fn charge_read(&self, transport: &Transport, bytes: usize) {
        let read = transport.read_bytes.get() + bytes;
        if read < CHARGED_AT {
            return transport.read_bytes.set(read);
        }
        transport.read_bytes.set(0);
        // Echo sessions are conformance suites, which do nothing else.
        if transport.is_echo() {
            return;
        }
        let now = self.now();
        if let Some(wait) = self.read_pace().charge(self.principal_of(transport), now, read) {
            self.metrics().reads_paused.inc();
            transport.times.unread_until.set(now + wait);
            self.arm(transport, now + wait);
        }
    }

    /// Charges the user of a polling session for a body. Returns the delay of the answer, in milliseconds: until the
    /// answer the session may not send another body.
    pub(super) fn charge_body(&self, transport: &Transport, bytes: usize) -> Option<u64> {
        let wait = self.read_pace().charge(self.principal_of(transport), self.now(), bytes)?;
        self.metrics().reads_paused.inc();
        Some(wait)
    }

    /// The principal that is charged for the bytes read from a transport.
    fn principal_of(&self, transport: &Transport) -> Arc<str> {
        match self.first_connection(transport) {
            Some(connection) => connection.identity.borrow().principal.clone(),
            None => Identity::anonymous(String::new(), transport.peer.ip()).principal,
        }
    }

    /// Ends a transport's pause, if it is over.
    pub(super) fn resume_reading(&self, transport: &Rc<Transport>, now: u64) {
        let until = transport.times.unread_until.get();
        if until == 0 {
            return;
        }
        if now < until {
            return self.arm(transport, until);
        }
        transport.times.unread_until.set(0);
        self.poller().note_unread(transport);
    }
}
