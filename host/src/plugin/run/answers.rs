//! The answers of clients, on their way to the scopes that wait for them.

use super::acks::PendingAck;
use super::deadlines::Due;
use super::envelope::Envelope;
use super::state::ThreadState;
use crate::model::{ConnId, Payload};
use crate::plugin::event::senders::Reservation;
use crate::plugin::event::{AckMissing, Event};

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
        if let Some(ack) = self.acks.get_mut(id) {
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
