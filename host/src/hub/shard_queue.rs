//! The queue of a shard, and the wake-ups that a sender of many commands saves.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::command::ShardCommand;
use crate::model::Mailbox;

/// The commands that wait for a shard. It is bounded, though a push always succeeds: a plugin thread waits for space after
/// some dozen events ([`ShardQueue::wait_for_space`]), and only their commands can be over the bound.
#[derive(Debug, Clone)]
pub struct ShardQueue {
    mailbox: Arc<Mailbox<ShardCommand>>,
    connections: Arc<AtomicUsize>,
}

impl ShardQueue {
    /// A queue of `capacity` commands.
    pub fn new(capacity: usize) -> Self {
        Self { mailbox: Arc::new(Mailbox::new(capacity)), connections: Arc::default() }
    }

    /// Queues a command and wakes the shard. Never waits.
    pub fn push(&self, command: ShardCommand) {
        self.mailbox.push(command);
    }

    /// Queues a command. The shard is woken with the others of `wakes`. Never waits.
    pub fn push_quietly(&self, command: ShardCommand, wakes: &WakeBatch) {
        if self.mailbox.push_quietly(command) {
            wakes.add(&self.mailbox);
        }
    }

    /// Waits until the queue is under its bound. Not for a shard's thread.
    pub fn wait_for_space(&self) {
        self.mailbox.wait_for_space();
    }

    /// Whether the queue is at its bound: a task checks this, where a thread would wait.
    pub fn is_full(&self) -> bool {
        self.mailbox.is_full()
    }

    /// Takes all queued commands. Only the shard does.
    pub async fn receive(&self, into: &mut VecDeque<ShardCommand>) {
        self.mailbox.receive(into).await;
    }

    /// Ends the queue, because the shard has ended. Threads that wait for space go on.
    pub fn close(&self) {
        self.mailbox.close();
    }

    /// Sockets that the shard has, or that are queued for it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Adds to the number of sockets.
    pub fn count(&self, by: isize) {
        self.connections.fetch_add(by as usize, Ordering::Relaxed);
    }
}

/// Shards that commands were queued for and that are yet to be woken. A shard that is woken by the first of many commands
/// takes the processor from the thread that queues them, and writes the frames of each command to its socket separately.
/// Dropping a batch wakes its shards; a thread that keeps one calls [`WakeBatch::wake`], soon.
#[derive(Debug, Default)]
pub struct WakeBatch(RefCell<SmallVec<[Arc<Mailbox<ShardCommand>>; 4]>>);

impl WakeBatch {
    fn add(&self, mailbox: &Arc<Mailbox<ShardCommand>>) {
        let mut mailboxes = self.0.borrow_mut();
        if !mailboxes.iter().any(|other| Arc::ptr_eq(other, mailbox)) {
            mailboxes.push(mailbox.clone());
        }
    }

    /// Wakes the shards, and empties the batch.
    pub fn wake(&self) {
        self.0.borrow_mut().drain(..).for_each(|mailbox| mailbox.wake());
    }

    /// Exchanges the shards of two batches: an owner lends its shards so to code that may have to wake them.
    pub fn swap(&self, other: &Self) {
        self.0.swap(&other.0);
    }
}

impl Drop for WakeBatch {
    fn drop(&mut self) {
        self.wake();
    }
}
