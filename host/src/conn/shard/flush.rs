//! How transports come and go, and how what waits for them is written.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::parts::Shard;
use super::rate::Rate;
use crate::conn::state::outbox::Place;
use crate::conn::state::transport::{Io, Phase, Session, Transport, TransportId};
use crate::hub::ShardCommand;
use crate::model::{CloseCode, ConnId};
use crate::protocol::{engineio, websocket};

/// Time for a client to take our close and answer it. After that its socket is closed under it.
pub(in crate::conn) const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

impl Shard {
    /// A transport in its place. None where the shard has no room left.
    /// `rate` is what it may still send, where it is not new.
    pub(in crate::conn) fn new_transport(
        &self,
        peer: SocketAddr,
        io: Io,
        session: Session,
        rate: Option<Rate>,
    ) -> Option<Rc<Transport>> {
        let mut transports = self.transports.borrow_mut();
        let slot = transports.vacant_entry();
        if slot.key() >= ConnId::MAX_SLOTS {
            tracing::error!("the shard has no slot left, and drops a connection");
            return None;
        }
        let id = TransportId { slot: slot.key() as u32, stamp: self.stamp() };
        let transport =
            Rc::new(Transport::new(id, peer, io, session, &self.shared.clock, rate.or_else(|| self.new_rate())));
        slot.insert(transport.clone());
        self.port.count(1);
        self.shared.metrics.connections.inc();
        Some(transport)
    }

    /// Takes a transport out of its place. Its connections are dealt with already.
    pub(in crate::conn) fn remove_transport(&self, transport: &Transport) {
        transport.holding.take();
        if self.find_transport(transport.id).is_some() {
            self.transports.borrow_mut().try_remove(transport.id.slot as usize);
        }
        self.port.count(-1);
        self.shared.metrics.connections.dec();
        if self.is_stopping() {
            // The shard's loop sees whether this was the last one.
            self.port.push(ShardCommand::Shutdown);
        }
    }

    pub(in crate::conn) fn find_transport(&self, id: TransportId) -> Option<Rc<Transport>> {
        self.transports.borrow().get(id.slot as usize).filter(|transport| transport.id == id).cloned()
    }

    /// A number that tells one tenant of a slot from the next.
    pub(in crate::conn) fn stamp(&self) -> u32 {
        let stamp = self.next_stamp.get();
        self.next_stamp.set(stamp.wrapping_add(1));
        stamp
    }

    fn new_rate(&self) -> Option<Rate> {
        let config = &self.shared.config;
        let per_second = NonZeroU32::new(config.events_per_second)?;
        let burst = NonZeroU32::new(config.event_burst).unwrap_or(per_second);
        Some(Rate::new(per_second, burst, &self.shared.clock))
    }

    /// Queues frames; they are written when the shard has done what is at hand.
    pub(in crate::conn) fn enqueue(&self, transport: &Rc<Transport>, frames: Bytes) {
        if transport.is_up() {
            let place = self.queue.borrow_mut().push(frames);
            self.enqueue_shared(transport, &[place]);
        }
    }

    /// Queues frames that others get, too; they are written when the shard has done what is at hand.
    pub(in crate::conn) fn enqueue_shared(&self, transport: &Rc<Transport>, places: &[Place]) {
        if transport.is_up() {
            self.put(transport, places);
            self.mark_dirty(transport);
        }
    }

    /// Writes frames that others get, too, unless something waits for the transport already.
    pub(in crate::conn) fn write_shared(&self, transport: &Rc<Transport>, places: &[Place]) {
        if !transport.is_up() {
            return;
        }
        self.put(transport, places);
        if let Io::Socket(socket) = &transport.io
            && !transport.dirty.get()
            && !socket.blocked.get()
            && let Ok(is_done) = transport.outbox.borrow_mut().write_to(&socket.tcp, &mut self.queue.borrow_mut())
        {
            return socket.blocked.set(!is_done);
        }
        // It is flushed with the others: there a transport that is lost may be ended, which here would upset the list of members.
        self.mark_dirty(transport);
    }

    fn put(&self, transport: &Rc<Transport>, places: &[Place]) {
        let bytes = transport.outbox.borrow_mut().push(places);
        if bytes > self.shared.config.outbox_bytes && !matches!(*transport.session.borrow(), Session::Echo) {
            self.over_limit.borrow_mut().push(transport.clone());
        }
        self.frames_queued.set(self.frames_queued.get() + places.len() as u64);
    }

    /// Has what is queued for a transport written when the shard has done what is at hand.
    pub(in crate::conn) fn mark_dirty(&self, transport: &Rc<Transport>) {
        if !transport.dirty.replace(true) {
            self.dirty.borrow_mut().push(transport.clone());
        }
    }

    /// Ends transports whose outbox is over its bound although they were given the chance to take what is in it.
    pub(in crate::conn) fn close_slow_readers(self: &Rc<Self>) {
        let limit = self.shared.config.outbox_bytes;
        for transport in self.over_limit.take() {
            self.flush(&transport);
            if transport.outbox.borrow().bytes() > limit && transport.is_up() {
                self.shared.metrics.slow_connections.inc();
                tracing::info!(peer = %transport.peer, "a client reads too slowly and is disconnected");
                transport.outbox.borrow_mut().drop_unsent();
                self.close(&transport, CloseCode::TooSlow, "the client reads slower than it is sent to");
            }
        }
    }

    /// Writes what was queued since the last time.
    pub(in crate::conn) fn flush_dirty(self: &Rc<Self>) {
        self.close_slow_readers();
        self.enforce_replay_budget();
        self.shared.metrics.frames_queued.inc_by(self.frames_queued.take());
        let mut dirty = self.dirty.take();
        // Flushing may end transports, and that may queue for others.
        while !dirty.is_empty() {
            for transport in dirty.drain(..) {
                transport.dirty.set(false);
                self.flush(&transport);
            }
            std::mem::swap(&mut dirty, &mut self.dirty.borrow_mut());
        }
        // The list keeps its memory for the next time.
        self.dirty.replace(dirty);
        self.queue.borrow_mut().clear();
        // What a slow client has not taken yet is not waited for.
        self.receipts.borrow_mut().clear();
    }

    /// Writes what waits for a transport, as far as its client takes it.
    pub(in crate::conn) fn flush(self: &Rc<Self>, transport: &Rc<Transport>) {
        let is_ended = transport.phase.get() == Phase::Ended;
        match &transport.io {
            Io::Polling(poll) if !is_ended => self.flush_polling(transport, poll),
            Io::Socket(socket) if !is_ended && !socket.blocked.get() => {
                let written = transport.outbox.borrow_mut().write_to(&socket.tcp, &mut self.queue.borrow_mut());
                if let Ok(is_done) = written {
                    return socket.blocked.set(!is_done);
                }
                self.shutdown_transport(transport, true);
            }
            _ => {}
        }
        transport.outbox.borrow_mut().keep(&self.queue.borrow());
    }

    /// A socket takes more.
    pub(in crate::conn) fn unblock(self: &Rc<Self>, transport: &Rc<Transport>) {
        if transport.socket().is_some_and(|socket| socket.blocked.replace(false)) {
            self.flush(transport);
        }
    }

    /// Tells the client that it is over, and why.
    pub(in crate::conn) fn close(self: &Rc<Self>, transport: &Rc<Transport>, code: CloseCode, reason: &str) {
        // A client that was lost, or needs a new token, may well be back.
        let may_return = matches!(code, CloseCode::GoingAway | CloseCode::TokenExpired);
        self.close_with(transport, code, reason, may_return);
    }

    /// Tells the client that it is over, and why. From here on its connections take part in nothing, unless it may come
    /// back.
    pub(in crate::conn) fn close_with(
        self: &Rc<Self>,
        transport: &Rc<Transport>,
        code: CloseCode,
        reason: &str,
        may_return: bool,
    ) {
        if !transport.is_up() {
            return;
        }
        self.shared.metrics.closed(code);
        match &transport.io {
            Io::Socket(_) => self.enqueue(transport, websocket::close_frame(code.code(), reason)),
            // Nobody listens.
            Io::Polling(poll) if poll.borrow().is_none() => return self.shutdown_transport(transport, may_return),
            Io::Polling(_) => self.enqueue(transport, engineio::close_frame()),
        }
        transport.phase.set(Phase::Closing);
        let limit = self.shared.clock.uptime_ms() + self.close_timeout().as_millis() as u64;
        transport.times.limit.set(limit);
        self.arm(transport, limit);
        self.detach_all(transport, may_return);
    }

    /// Time for a client to take our close and answer it.
    fn close_timeout(&self) -> Duration {
        if self.is_stopping() { self.shared.config.shutdown_timeout } else { CLOSE_TIMEOUT }
    }

    pub(in crate::conn) fn detach_all(self: &Rc<Self>, transport: &Transport, may_return: bool) {
        for connection in transport.connections.take() {
            self.on_transport_lost(&connection, may_return);
        }
        if transport.counted.replace(false) {
            self.shared.admission.leave(transport.peer, &self.shared.config);
        }
    }

    /// Lets go of a transport. What still waits for it is tried once more.
    pub(in crate::conn) fn shutdown_transport(self: &Rc<Self>, transport: &Rc<Transport>, may_return: bool) {
        if transport.phase.replace(Phase::Ended) == Phase::Ended {
            return;
        }
        // Whether this reaches anybody is not known, nor needed.
        match &transport.io {
            Io::Socket(socket) => {
                drop(transport.outbox.borrow_mut().write_to(&socket.tcp, &mut self.queue.borrow_mut()));
            }
            Io::Polling(poll) => self.flush_polling(transport, poll),
        }
        self.detach_all(transport, may_return);
        match &*transport.session.borrow() {
            Session::Eio(eio) => {
                self.polling.borrow_mut().remove(&eio.id);
                self.shared.eio_sessions.strike(eio.id);
            }
            Session::Probe { id, .. } => {
                let eio = self.polling.borrow().get(id).and_then(|polling| polling.eio());
                if let Some(eio) = eio.filter(|eio| eio.probe.get() == Some(transport.id)) {
                    eio.probe.set(None);
                }
            }
            _ => {}
        }
        self.remove_transport(transport);
        if let Some(socket) = transport.socket() {
            // The client sees the end at once, though somebody may still hold the transport for a moment.
            let _ = socket2::SockRef::from(&socket.tcp).shutdown(std::net::Shutdown::Both);
        }
    }
}
