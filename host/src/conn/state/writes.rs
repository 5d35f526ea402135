//! The frames that a shard is about to write, and their transports.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::frame_queue::{FrameQueue, FrameRef};
use super::transport::{Io, Socket, Transport};
use crate::store::DeliveryReceipt;

/// Queued frames at which they are flushed even in the middle of a read turn.
const FRAMES_PER_FLUSH: usize = 1024;

#[derive(Debug)]
pub(crate) struct Writes {
    /// The frames that were queued since the shard last wrote.
    queue: RefCell<FrameQueue>,
    /// Transports with frames to flush.
    dirty: RefCell<Vec<Rc<Transport>>>,
    /// Transports whose outbox went over its bound.
    over_limit: RefCell<Vec<Rc<Transport>>>,
    /// Dropped when the queued frames have been written.
    receipts: RefCell<Vec<DeliveryReceipt>>,
    /// Frames since the metric was last updated. Updating the metric for each frame would cost more than queueing the
    /// frame.
    n_frames: Cell<u64>,
    /// The bound of an outbox, in bytes.
    outbox_bytes: usize,
}

impl Writes {
    pub(crate) fn new(outbox_bytes: usize) -> Self {
        let (queue, dirty, over_limit, receipts) = Default::default();
        Self { queue, dirty, over_limit, receipts, n_frames: Cell::new(0), outbox_bytes }
    }

    /// Adds a frame to the queue, assigned to no transport yet.
    pub(crate) fn push(&self, frame: Bytes) -> FrameRef {
        self.queue.borrow_mut().push(frame)
    }

    /// Queues frames for one transport.
    pub(crate) fn enqueue(&self, transport: &Rc<Transport>, frames: Bytes) {
        if transport.is_up() {
            let frames = self.push(frames);
            self.enqueue_shared(transport, &[frames]);
        }
    }

    /// Queues frames that are shared with other transports.
    pub(crate) fn enqueue_shared(&self, transport: &Rc<Transport>, frames: &[FrameRef]) {
        if transport.is_up() {
            self.assign(transport, frames);
            self.mark_dirty(transport);
        }
    }

    /// Writes frames that are shared with other transports; queues them where earlier frames wait already.
    pub(crate) fn write_shared(&self, transport: &Rc<Transport>, frames: &[FrameRef]) {
        if !transport.is_up() {
            return;
        }
        self.assign(transport, frames);
        if let Io::Socket(socket) = &transport.io
            && !transport.dirty.get()
            && !socket.blocked.get()
            && let Ok(is_done) = self.write(transport, socket)
        {
            return socket.blocked.set(!is_done);
        }
        // A write error is handled by the flush: ending the transport here would change the lists that are being
        // walked.
        self.mark_dirty(transport);
    }

    fn assign(&self, transport: &Rc<Transport>, frames: &[FrameRef]) {
        let bytes = transport.outbox.borrow_mut().push(frames);
        if bytes > self.outbox_bytes && !transport.is_echo() {
            self.over_limit.borrow_mut().push(transport.clone());
        }
        self.n_frames.set(self.n_frames.get() + frames.len() as u64);
    }

    /// Marks a transport to be flushed at the end of the turn.
    pub(crate) fn mark_dirty(&self, transport: &Rc<Transport>) {
        if !transport.dirty.replace(true) {
            self.dirty.borrow_mut().push(transport.clone());
        }
    }

    /// Writes a transport's outbox to its socket. Returns whether all of it is written.
    pub(crate) fn write(&self, transport: &Transport, socket: &Socket) -> io::Result<bool> {
        let (mut outbox, mut queue) = (transport.outbox.borrow_mut(), self.queue.borrow_mut());
        match &socket.tls {
            None => outbox.write_to(&socket.tcp, &mut queue),
            Some(tls) => match &mut *tls.borrow_mut() {
                Some(tls) => outbox.write_tls(&socket.tcp, tls, &mut queue),
                // Taken by a handoff: the frames may not leave unencrypted.
                None => Err(io::ErrorKind::NotConnected.into()),
            },
        }
    }

    /// Makes a transport's outbox independent of the queue, before the queue is cleared.
    pub(crate) fn keep(&self, transport: &Transport) {
        transport.outbox.borrow_mut().keep(&self.queue.borrow());
    }

    /// Takes all frames from a transport's outbox.
    pub(crate) fn take(&self, transport: &Transport) -> VecDeque<Bytes> {
        transport.outbox.borrow_mut().take(&self.queue.borrow())
    }

    /// Whether the queue must be flushed before the end of the turn.
    pub(crate) fn is_flush_due(&self) -> bool {
        self.queue.borrow().len() >= FRAMES_PER_FLUSH || !self.over_limit.borrow().is_empty()
    }

    pub(crate) fn take_over_limit(&self) -> Vec<Rc<Transport>> {
        self.over_limit.take()
    }

    /// Takes the number of frames that were queued since the last call.
    pub(crate) fn take_n_frames(&self) -> u64 {
        self.n_frames.take()
    }

    /// Takes the transports to flush.
    pub(crate) fn take_dirty(&self) -> Vec<Rc<Transport>> {
        self.dirty.take()
    }

    /// Swaps an empty list for the transports to flush that were added meanwhile.
    pub(crate) fn swap_dirty(&self, transports: &mut Vec<Rc<Transport>>) {
        std::mem::swap(transports, &mut self.dirty.borrow_mut());
    }

    /// Holds receipts until the queued frames have been written.
    pub(crate) fn hold(&self, receipts: impl IntoIterator<Item = DeliveryReceipt>) {
        self.receipts.borrow_mut().extend(receipts);
    }

    /// Ends a flush: all queued frames were written, or are in the outboxes of slow clients, for which nothing waits.
    /// Keeps the capacity of `dirty` for the next flush.
    pub(crate) fn finish(&self, dirty: Vec<Rc<Transport>>) {
        self.dirty.replace(dirty);
        self.queue.borrow_mut().clear();
        self.receipts.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enqueue_lists_a_transport_once() {
        let (writes, transport) = (Writes::new(100), Transport::idle());
        writes.enqueue(&transport, Bytes::from_static(b"abc"));
        writes.enqueue(&transport, Bytes::from_static(b"de"));
        let dirty = writes.take_dirty();
        assert_eq!((dirty.len(), transport.outbox.borrow().bytes(), writes.take_n_frames()), (1, 5, 2));
        writes.keep(&transport);
        writes.finish(Vec::new());
        assert_eq!(writes.take(&transport), [&b"abc"[..], b"de"]);
    }

    #[test]
    fn outbox_over_its_bound_is_reported() {
        let (writes, transport) = (Writes::new(4), Transport::idle());
        writes.enqueue(&transport, Bytes::from_static(b"abcd"));
        assert!(!writes.is_flush_due());
        writes.enqueue(&transport, Bytes::from_static(b"e"));
        assert!(writes.is_flush_due());
        assert_eq!(writes.take_over_limit().len(), 1);
    }
}
