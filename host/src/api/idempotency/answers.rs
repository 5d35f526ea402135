//! The answers that are remembered, within bounds of time, number and bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::watch;

use super::key::Fingerprint;
use super::reply::Reply;
use crate::store::MAX_ANSWERED_CALLS;

/// The most answers that are remembered.
pub(super) const MAX_ANSWERS: usize = MAX_ANSWERED_CALLS;

/// Memory for answers, in bytes: room for [`MAX_ANSWERS`] short ones.
pub(super) const MAX_BYTES: usize = 32 * 1024 * 1024;

/// Memory of an answer besides its text, in bytes: its entries in the map and in the queue.
pub(super) const BYTES_PER_ANSWER: usize = 192;

#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) calls: HashMap<Key, Call>,
    /// The keys of answered calls, the oldest first, with the time to forget them in milliseconds of uptime.
    pub(super) answered: VecDeque<(u64, Key)>,
    pub(super) bytes: usize,
}

/// The name of an API key, and the idempotency key that its owner chose.
pub(super) type Key = (Arc<str>, Arc<str>);

#[derive(Debug)]
pub(super) struct Call {
    pub(super) fingerprint: Fingerprint,
    pub(super) progress: Progress,
}

#[derive(Debug)]
pub(super) enum Progress {
    /// The channel closes when the call ends.
    Running(watch::Receiver<()>),
    Answered(Reply),
}

fn cost(key: &Key, reply: &Reply) -> usize {
    key.1.len() + reply.body.len() + BYTES_PER_ANSWER
}

impl Answers {
    /// Remembers an answer until `expires`, in milliseconds of uptime.
    pub(super) fn keep(&mut self, key: Key, reply: &Reply, expires: u64) {
        self.bytes += cost(&key, reply);
        self.answered.push_back((expires, key));
    }

    pub(super) fn hold_to(&mut self, max_bytes: usize, forgotten: &IntCounter) {
        while self.answered.len() > MAX_ANSWERS || self.bytes > max_bytes {
            self.forget_oldest();
            forgotten.inc();
        }
    }

    pub(super) fn expire(&mut self, now: u64) {
        while self.answered.front().is_some_and(|(expires, _)| *expires <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.answered.pop_front() else { return };
        if let Some(Call { progress: Progress::Answered(reply), .. }) = self.calls.remove(&key) {
            self.bytes -= cost(&key, &reply);
        }
    }
}
