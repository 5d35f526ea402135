//! Writing of queued frames.

use std::rc::Rc;

use bytes::Bytes;

use super::parts::Shard;
use crate::conn::state::{Io, Phase, Transport};
use crate::metrics::Limit;
use crate::model::CloseCode;

impl Shard {
    /// Queues frames for a transport, to be written at the end of the turn.
    pub(super) fn enqueue(&self, transport: &Rc<Transport>, frames: Bytes) {
        self.writes().enqueue(transport, frames);
    }

    /// Closes transports whose outbox is over its bound even after a flush.
    pub(super) fn close_slow_readers(self: &Rc<Self>) {
        let limit = self.config().outbox_bytes;
        for transport in self.writes().take_over_limit() {
            self.flush(&transport);
            if transport.outbox.borrow().bytes() > limit && transport.is_up() {
                self.metrics().slow_connections.inc();
                self.metrics().limited(Limit::OutboxBytes);
                tracing::info!(peer = %transport.peer, "a client reads too slowly and is disconnected");
                transport.outbox.borrow_mut().drop_unsent();
                self.close(&transport, CloseCode::TooSlow, "the client reads slower than it is sent to");
            }
        }
    }

    /// Writes the frames that were queued since the last call.
    pub(super) fn flush_dirty(self: &Rc<Self>) {
        self.close_slow_readers();
        self.enforce_replay_budget();
        let writes = self.writes();
        self.metrics().frames_queued.inc_by(writes.take_n_frames());
        let mut dirty = writes.take_dirty();
        // A flush may end transports, whose ends may queue frames for other transports.
        while !dirty.is_empty() {
            for transport in dirty.drain(..) {
                transport.dirty.set(false);
                self.flush(&transport);
            }
            writes.swap_dirty(&mut dirty);
        }
        writes.finish(dirty);
    }

    /// Writes as much of a transport's outbox as its socket accepts.
    pub(super) fn flush(self: &Rc<Self>, transport: &Rc<Transport>) {
        let is_ended = transport.phase.get() == Phase::Ended;
        match &transport.io {
            Io::Polling(poll) if !is_ended => self.flush_polling(transport, poll),
            Io::Socket(socket) if !is_ended && !socket.blocked.get() => {
                if let Ok(is_done) = self.writes().write(transport, socket) {
                    return socket.blocked.set(!is_done);
                }
                self.shutdown_transport(transport, true);
            }
            _ => {}
        }
        self.writes().keep(transport);
    }

    /// Resumes writing to a socket that has room again.
    pub(super) fn unblock(self: &Rc<Self>, transport: &Rc<Transport>) {
        if transport.socket().is_some_and(|socket| socket.blocked.replace(false)) {
            self.flush(transport);
        }
    }
}
