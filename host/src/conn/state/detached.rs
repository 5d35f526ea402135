//! The detached connections of a shard, and the memory of its replay buffers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::connection::Connection;
use super::replay::ReplayBuffer;
use crate::model::ConnId;

#[derive(Debug)]
pub(crate) struct Detached {
    /// The connections in the order of their expiry, with the expiry in milliseconds of uptime. Some may have been
    /// resumed or have ended since.
    queue: RefCell<VecDeque<(u64, ConnId)>>,
    /// The number of connections that are detached now.
    count: Cell<usize>,
    /// The earliest expiry with a timer, in milliseconds of uptime.
    armed: Cell<u64>,
    /// Detached connections whose replay buffers lack entries that the client missed.
    incomplete: RefCell<Vec<Rc<Connection>>>,
    /// The bytes of all replay buffers: by themselves, and with the events that they share.
    kept_bytes: Cell<(usize, usize)>,
}

impl Detached {
    pub(crate) fn new() -> Self {
        let (queue, incomplete) = Default::default();
        let (count, kept_bytes) = Default::default();
        Self { queue, count, armed: Cell::new(u64::MAX), incomplete, kept_bytes }
    }

    pub(crate) fn push(&self, until: u64, id: ConnId) {
        self.count.set(self.count.get() + 1);
        self.queue.borrow_mut().push_back((until, id));
    }

    /// Removes a connection that was resumed or has ended from the count.
    pub(crate) fn count_out(&self) {
        self.count.set(self.count.get().saturating_sub(1));
    }

    /// The number of connections that are detached now.
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// The length of the queue, including connections that are no longer detached.
    pub(crate) fn queued(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Removes connections that are no longer detached from the queue.
    pub(crate) fn retain(&self, is_detached: impl Fn(ConnId, u64) -> bool) {
        self.queue.borrow_mut().retain(|(until, id)| is_detached(*id, *until));
    }

    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.queue.borrow().iter().map(|(_, id)| *id).collect()
    }

    /// Takes the connection that expires first.
    pub(crate) fn pop(&self) -> Option<(u64, ConnId)> {
        self.queue.borrow_mut().pop_front()
    }

    /// Takes a connection that has expired.
    pub(crate) fn pop_expired(&self, now: u64) -> Option<(u64, ConnId)> {
        self.queue.borrow_mut().pop_front_if(|(until, _)| *until <= now)
    }

    /// The next expiry, in milliseconds of uptime, if no timer is set for it yet. Marks the timer as set.
    pub(crate) fn arm(&self) -> Option<u64> {
        let first = self.queue.borrow().front().map(|(until, _)| *until);
        let first = first.filter(|first| *first < self.armed.get())?;
        self.armed.set(first);
        Some(first)
    }

    /// Notes a timer that fired. Returns whether it is the one last armed; others are stale.
    pub(crate) fn disarm(&self, deadline: u64) -> bool {
        let is_armed = self.armed.get() == deadline;
        if is_armed {
            self.armed.set(u64::MAX);
        }
        is_armed
    }

    /// Lists a detached connection whose replay buffer lacks entries.
    pub(crate) fn note_incomplete(&self, connection: &Rc<Connection>) {
        self.incomplete.borrow_mut().push(connection.clone());
    }

    pub(crate) fn take_incomplete(&self) -> Vec<Rc<Connection>> {
        self.incomplete.take()
    }

    /// Gives a connection an empty replay buffer.
    pub(crate) fn start_replay(&self, connection: &Connection, buffer: ReplayBuffer) {
        self.drop_replay(connection);
        *connection.replay.borrow_mut() = Some(Box::new(buffer));
    }

    /// Changes a connection's replay buffer, if it has one, and counts its bytes.
    pub(crate) fn with_replay<T>(
        &self,
        connection: &Connection,
        change: impl FnOnce(&mut ReplayBuffer) -> T,
    ) -> Option<T> {
        let mut buffer = connection.replay.borrow_mut();
        let buffer = buffer.as_deref_mut()?;
        let before = buffer.memory();
        let changed = change(buffer);
        self.count_bytes(before, buffer.memory());
        Some(changed)
    }

    pub(crate) fn drop_replay(&self, connection: &Connection) {
        if let Some(buffer) = connection.replay.take() {
            self.count_bytes(buffer.memory(), (0, 0));
        }
    }

    fn count_bytes(&self, before: (usize, usize), after: (usize, usize)) {
        let (own, all) = self.kept_bytes.get();
        self.kept_bytes.set((own + after.0 - before.0, all + after.1 - before.1));
    }

    /// The bytes of all replay buffers: by themselves, and with the events that they share.
    pub(crate) fn kept_bytes(&self) -> (usize, usize) {
        self.kept_bytes.get()
    }
}

#[cfg(test)]
mod tests {
    use super::super::replay::Entry;
    use super::*;

    fn id(slot: usize) -> ConnId {
        ConnId::new(0, slot, 1)
    }

    #[test]
    fn connections_expire_in_order() {
        let detached = Detached::new();
        detached.push(10, id(1));
        detached.push(20, id(2));
        assert_eq!(detached.pop_expired(9), None);
        assert_eq!((detached.pop_expired(10), detached.pop_expired(10)), (Some((10, id(1))), None));
        detached.count_out();
        assert_eq!((detached.count(), detached.queued()), (1, 1));
    }

    #[test]
    fn only_the_armed_deadline_disarms() {
        let detached = Detached::new();
        detached.push(10, id(1));
        assert_eq!((detached.arm(), detached.arm()), (Some(10), None));
        assert!(!detached.disarm(5));
        assert!(detached.disarm(10));
        assert_eq!(detached.arm(), Some(10));
    }

    #[test]
    fn kept_bytes_count_the_replay_buffers() {
        let (detached, connection) = (Detached::new(), Connection::of_slot(1));
        assert!(detached.with_replay(&connection, |_| ()).is_none());
        detached.start_replay(&connection, ReplayBuffer::new(1));
        let frames = || Entry::Frames(Box::new(bytes::Bytes::from_static(b"abc")));
        detached.with_replay(&connection, |buffer| buffer.append(frames(), usize::MAX));
        assert!(detached.kept_bytes().0 >= 3);
        detached.drop_replay(&connection);
        assert_eq!(detached.kept_bytes(), (0, 0));
    }
}
