//! The acknowledgements that a thread's scopes wait for.

use std::collections::HashMap;
use std::sync::Arc;

use roundhouse_contract::ScopeAddress;

use super::deadlines::{Deadline, Due};
use super::job::Envelope;
use super::state::ThreadState;
use crate::ledger::Charge;
use crate::model::{ConnId, NodeId, Payload};
use crate::plugin::event::senders::Reservation;
use crate::plugin::event::{AckMissing, Event, Flow};
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

impl ThreadState {
    /// Hands an acknowledgement, or the reason why there is none, to the scope that waits for it.
    pub(super) fn acknowledged(
        &mut self,
        id: u64,
        connection: ConnId,
        answer: Result<Payload, AckMissing>,
        place: Option<Reservation>,
    ) {
        let Some(ack) = self.acks.take_ack(id, connection) else { return };
        let PendingAck { plugin, address, connection, tag, deadline, .. } = ack;
        self.deadlines.cancel(deadline);
        if self.partitions.is_none() {
            self.shared.hub.take_ack(connection, id);
        }
        let answer = answer.and_then(|payload| self.shared.checked_answer(&plugin, connection, payload));
        let event = Event::Acknowledged { ask: id, tag, connection, answer, place };
        self.handle(Envelope::without_reply(plugin, address, event));
    }

    /// Whether the scope that waits for an acknowledgement can be told now that there is none.
    pub(super) fn is_ready_for_ack(&mut self, id: u64) -> bool {
        let key = self.acks.get(id).map(|ack| ack.address.key.clone());
        key.is_none_or(|key| self.is_ready(&key))
    }

    /// Waits for an acknowledgement until another time, in milliseconds of uptime.
    pub(super) fn put_off_ack(&mut self, id: u64, at: u64) {
        if let Some(ack) = self.acks.pending.get_mut(&id) {
            ack.deadline = self.deadlines.push(at, Due::Acknowledgement(id));
        }
    }

    /// Hands an acknowledgement of a client of any node to the scope that waits for it.
    pub(super) fn handle_answered(&mut self, envelope: Envelope, ask: u64, connection: ConnId) {
        let Envelope { plugin, address, event, reply } = envelope;
        let (owed, Event::Answered { answer, .. }) = (self.acks.take_ack(ask, connection), event) else { return };
        let Some(PendingAck { tag, deadline, .. }) = owed else {
            // It had been waited for too long, or came twice.
            let event = Event::Answered { ask, connection, answer };
            return self.settle(Envelope { plugin, address, event, reply }, None);
        };
        self.deadlines.cancel(deadline);
        let answer = answer.and_then(|payload| self.shared.checked_answer(&plugin, connection, payload));
        let event = Event::Acknowledged { ask, tag, connection, answer, place: None };
        self.handle_here(Envelope { plugin, address, event, reply });
    }
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
