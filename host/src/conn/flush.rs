//! How links come and go, and how what waits for them is written.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::link::{Link, LinkId, Phase, Role, Wire};
use super::outbox::Place;
use super::rate::Rate;
use super::shard::Shard;
use crate::hub::ShardCommand;
use crate::model::{CloseCode, ConnId};
use crate::protocol::{engineio, websocket};

/// Time for a client to take our close and answer it. After that its socket is closed under it.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

impl Shard {
    /// A link in its place. None where the shard has no room left.
    /// `rate` is what it may still send, where it is not new.
    pub(super) fn new_link(&self, peer: SocketAddr, wire: Wire, role: Role, rate: Option<Rate>) -> Option<Rc<Link>> {
        let mut links = self.links.borrow_mut();
        let slot = links.vacant_entry();
        if slot.key() >= ConnId::MAX_SLOTS {
            tracing::error!("the shard has no slot left, and drops a connection");
            return None;
        }
        let id = LinkId { slot: slot.key() as u32, stamp: self.stamp() };
        let link = Rc::new(Link::new(id, peer, wire, role, &self.shared.clock, rate.or_else(|| self.new_rate())));
        slot.insert(link.clone());
        self.port.count(1);
        self.shared.metrics.connections.inc();
        Some(link)
    }

    /// Takes a link out of its place. Its connections are dealt with already.
    pub(super) fn remove_link(&self, link: &Link) {
        link.holding.take();
        if self.find_link(link.id).is_some() {
            self.links.borrow_mut().try_remove(link.id.slot as usize);
        }
        self.port.count(-1);
        self.shared.metrics.connections.dec();
        if self.is_stopping() {
            // The shard's loop sees whether this was the last one.
            self.port.push(ShardCommand::Shutdown);
        }
    }

    pub(super) fn find_link(&self, id: LinkId) -> Option<Rc<Link>> {
        self.links.borrow().get(id.slot as usize).filter(|link| link.id == id).cloned()
    }

    /// A number that tells one tenant of a slot from the next.
    pub(super) fn stamp(&self) -> u32 {
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
    pub(super) fn enqueue(&self, link: &Rc<Link>, frames: Bytes) {
        if link.is_up() {
            let place = self.queue.borrow_mut().push(frames);
            self.enqueue_shared(link, &[place]);
        }
    }

    /// Queues frames that others get, too; they are written when the shard has done what is at hand.
    pub(super) fn enqueue_shared(&self, link: &Rc<Link>, places: &[Place]) {
        if link.is_up() {
            self.put(link, places);
            self.mark_dirty(link);
        }
    }

    /// Writes frames that others get, too, unless something waits for the link already.
    pub(super) fn write_shared(&self, link: &Rc<Link>, places: &[Place]) {
        if !link.is_up() {
            return;
        }
        self.put(link, places);
        if let Wire::Socket(socket) = &link.wire
            && !link.dirty.get()
            && !socket.blocked.get()
            && let Ok(is_done) = link.outbox.borrow_mut().write_to(&socket.tcp, &mut self.queue.borrow_mut())
        {
            return socket.blocked.set(!is_done);
        }
        // It is flushed with the others: there a link that is lost may be ended, which here would upset the list of members.
        self.mark_dirty(link);
    }

    fn put(&self, link: &Rc<Link>, places: &[Place]) {
        let bytes = link.outbox.borrow_mut().push(places);
        if bytes > self.shared.config.outbox_bytes && !matches!(*link.role.borrow(), Role::Echo) {
            self.over_full.borrow_mut().push(link.clone());
        }
        self.frames_queued.set(self.frames_queued.get() + places.len() as u64);
    }

    /// Has what is queued for a link written when the shard has done what is at hand.
    pub(super) fn mark_dirty(&self, link: &Rc<Link>) {
        if !link.dirty.replace(true) {
            self.dirty.borrow_mut().push(link.clone());
        }
    }

    /// Ends links whose outbox is over its bound although they were given the chance to take what is in it.
    pub(super) fn settle_over_full(self: &Rc<Self>) {
        let limit = self.shared.config.outbox_bytes;
        for link in self.over_full.take() {
            self.flush(&link);
            if link.outbox.borrow().bytes() > limit && link.is_up() {
                self.shared.metrics.slow_connections.inc();
                tracing::info!(peer = %link.peer, "a client reads too slowly and is disconnected");
                link.outbox.borrow_mut().drop_unsent();
                self.close(&link, CloseCode::TooSlow, "the client reads slower than it is sent to");
            }
        }
    }

    /// Writes what was queued since the last time.
    pub(super) fn flush_dirty(self: &Rc<Self>) {
        self.settle_over_full();
        self.keep_within_budget();
        self.shared.metrics.frames_queued.inc_by(self.frames_queued.take());
        let mut dirty = self.dirty.take();
        // Flushing may end links, and that may queue for others.
        while !dirty.is_empty() {
            for link in dirty.drain(..) {
                link.dirty.set(false);
                self.flush(&link);
            }
            std::mem::swap(&mut dirty, &mut self.dirty.borrow_mut());
        }
        // The list keeps its memory for the next time.
        self.dirty.replace(dirty);
        self.queue.borrow_mut().clear();
        // What a slow client has not taken yet is not waited for.
        self.guards.borrow_mut().clear();
    }

    /// Writes what waits for a link, as far as its client takes it.
    pub(super) fn flush(self: &Rc<Self>, link: &Rc<Link>) {
        let is_ended = link.phase.get() == Phase::Ended;
        match &link.wire {
            Wire::Polling(poll) if !is_ended => self.flush_polling(link, poll),
            Wire::Socket(socket) if !is_ended && !socket.blocked.get() => {
                let written = link.outbox.borrow_mut().write_to(&socket.tcp, &mut self.queue.borrow_mut());
                if let Ok(is_done) = written {
                    return socket.blocked.set(!is_done);
                }
                self.end_link(link, true);
            }
            _ => {}
        }
        link.outbox.borrow_mut().keep(&self.queue.borrow());
    }

    /// A socket takes more.
    pub(super) fn unblock(self: &Rc<Self>, link: &Rc<Link>) {
        if link.socket().is_some_and(|socket| socket.blocked.replace(false)) {
            self.flush(link);
        }
    }

    /// Tells the client that it is over, and why.
    pub(super) fn close(self: &Rc<Self>, link: &Rc<Link>, code: CloseCode, reason: &str) {
        // A client that was lost, or needs a new token, may well be back.
        let may_return = matches!(code, CloseCode::GoingAway | CloseCode::TokenExpired);
        self.hang_up(link, code, reason, may_return);
    }

    /// Tells the client that it is over, and why. From here on its connections take part in nothing, unless it may come
    /// back.
    pub(super) fn hang_up(self: &Rc<Self>, link: &Rc<Link>, code: CloseCode, reason: &str, may_return: bool) {
        if !link.is_up() {
            return;
        }
        self.shared.metrics.closed(code);
        match &link.wire {
            Wire::Socket(_) => self.enqueue(link, websocket::close_frame(code.code(), reason)),
            // Nobody listens.
            Wire::Polling(poll) if poll.borrow().is_none() => return self.end_link(link, may_return),
            Wire::Polling(_) => self.enqueue(link, engineio::close_frame()),
        }
        link.phase.set(Phase::Closing);
        let limit = self.shared.clock.uptime_ms() + self.close_timeout().as_millis() as u64;
        link.times.limit.set(limit);
        self.arm(link, limit);
        self.part_all(link, may_return);
    }

    /// Time for a client to take our close and answer it.
    fn close_timeout(&self) -> Duration {
        if self.is_stopping() { self.shared.config.shutdown_timeout } else { CLOSE_TIMEOUT }
    }

    pub(super) fn part_all(self: &Rc<Self>, link: &Link, may_return: bool) {
        for connection in link.connections.take() {
            self.part(&connection, may_return);
        }
        if link.counted.replace(false) {
            self.shared.admission.leave(link.peer, &self.shared.config);
        }
    }

    /// Lets go of a link. What still waits for it is tried once more.
    pub(super) fn end_link(self: &Rc<Self>, link: &Rc<Link>, may_return: bool) {
        if link.phase.replace(Phase::Ended) == Phase::Ended {
            return;
        }
        // Whether this reaches anybody is not known, nor needed.
        match &link.wire {
            Wire::Socket(socket) => {
                drop(link.outbox.borrow_mut().write_to(&socket.tcp, &mut self.queue.borrow_mut()));
            }
            Wire::Polling(poll) => self.flush_polling(link, poll),
        }
        self.part_all(link, may_return);
        match &*link.role.borrow() {
            Role::Engine(engine) => {
                self.polling.borrow_mut().remove(&engine.id);
                self.shared.engines.strike(engine.id);
            }
            Role::Probe { id, .. } => {
                let engine = self.polling.borrow().get(id).and_then(|polling| polling.engine());
                if let Some(engine) = engine.filter(|engine| engine.probe.get() == Some(link.id)) {
                    engine.probe.set(None);
                }
            }
            _ => {}
        }
        self.remove_link(link);
        if let Some(socket) = link.socket() {
            // The client sees the end at once, though somebody may still hold the link for a moment.
            let _ = socket2::SockRef::from(&socket.tcp).shutdown(std::net::Shutdown::Both);
        }
    }
}
