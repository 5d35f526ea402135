//! The acknowledgements that a thread's scopes wait for.

use std::collections::HashMap;
use std::sync::Arc;

use roundhouse_contract::ScopeAddress;

use super::deadlines::Deadline;
use crate::ledger::Charge;
use crate::model::{ConnId, NodeId};
use crate::plugin::event::Flow;
use crate::plugin::load::catalogue::Plugin;

/// An acknowledgement that a client has yet to send.
#[derive(Debug)]
pub(super) struct PendingAck {
    pub(super) plugin: Arc<Plugin>,
    pub(super) address: ScopeAddress,
    pub(super) connection: ConnId,
    pub(super) tag: Box<str>,
    pub(super) deadline: Deadline,
    /// When the wait ends, in milliseconds since 1970.
    pub(super) due_ms: u64,
    /// The flow that the answer waits in.
    pub(super) flow: Flow,
    /// The charge to the principal whose event asked for the acknowledgement.
    pub(super) _charge: Charge,
}

/// All of a thread's pending acknowledgements, by id.
#[derive(Debug)]
pub(super) struct PendingAcks {
    pending: HashMap<u64, PendingAck>,
    last: u64,
    thread: u64,
    n_threads: u64,
}

impl PendingAcks {
    pub(super) fn new(thread: usize, n_threads: usize) -> Self {
        Self { pending: HashMap::new(), last: 0, thread: thread as u64, n_threads: n_threads as u64 }
    }

    /// An id that no other acknowledgement has. The id modulo the number of threads is the thread's index, so that an
    /// answer finds its thread.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last * self.n_threads + self.thread
    }

    /// An id that no other acknowledgement of any node has.
    pub(super) fn next_of_node(&mut self, node: NodeId) -> u64 {
        self.next_id() | u64::from(node.0) << 48
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &PendingAck)> {
        self.pending.iter().map(|(id, ack)| (*id, ack))
    }

    /// Removes and returns the acknowledgements for which `is_meant`.
    pub(super) fn take_where(&mut self, is_meant: impl Fn(&PendingAck) -> bool) -> Vec<(u64, PendingAck)> {
        self.pending.extract_if(|_, ack| is_meant(ack)).collect()
    }

    pub(super) fn expect_ack(&mut self, id: u64, ack: PendingAck) {
        self.pending.insert(id, ack);
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut PendingAck> {
        self.pending.get_mut(&id)
    }

    pub(super) fn get(&self, id: u64) -> Option<&PendingAck> {
        self.pending.get(&id)
    }

    /// Removes and returns an acknowledgement. A connection cannot take another's by guessing its id.
    pub(super) fn take_ack(&mut self, id: u64, connection: ConnId) -> Option<PendingAck> {
        if self.pending.get(&id)?.connection != connection {
            return None;
        }
        self.pending.remove(&id)
    }

    /// Removes and returns all acknowledgements of a plugin.
    pub(super) fn take_all(&mut self, plugin: u32) -> Vec<(u64, PendingAck)> {
        self.pending.extract_if(|_, ack| ack.plugin.number == plugin).collect()
    }
}
