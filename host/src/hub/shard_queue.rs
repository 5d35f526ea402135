//! The queue of a shard, and batched wake-ups.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::command::ShardCommand;
use crate::model::Mailbox;

/// The command queue of a shard. It is bounded, though a push always succeeds: a plugin thread waits for space after
/// some dozen events ([`ShardQueue::wait_for_space`]), and only the commands of these events can exceed the bound.
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

    /// Waits until the queue is under its bound. A shard's thread must not call it.
    pub fn wait_for_space(&self) {
        self.mailbox.wait_for_space();
    }

    /// Whether the queue is at its bound, for tasks, which must not block.
    pub fn is_full(&self) -> bool {
        self.mailbox.is_full()
    }

    /// Takes all queued commands. Only the shard calls it.
    pub async fn receive(&self, into: &mut VecDeque<ShardCommand>) {
        self.mailbox.receive(into).await;
    }

    /// Closes the queue after the shard has ended. Threads that wait for space continue.
    pub fn close(&self) {
        self.mailbox.close();
    }

    /// The number of sockets that the shard owns, or that are queued for it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Adds to the number of sockets.
    pub fn count(&self, by: isize) {
        self.connections.fetch_add(by as usize, Ordering::Relaxed);
    }
}

/// Shards that have queued commands and must still be woken. A shard woken by the first of many commands may preempt
/// the thread that queues them, and then writes the frames of each command separately. Dropping a batch wakes its
/// shards; a thread that keeps a batch must call [`WakeBatch::wake`] soon.
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

    /// Exchanges the shards of two batches, by which an owner lends its shards to code that may have to wake them.
    pub fn swap(&self, other: &Self) {
        self.0.swap(&other.0);
    }
}

impl Drop for WakeBatch {
    fn drop(&mut self) {
        self.wake();
    }
}
