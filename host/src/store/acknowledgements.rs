//! The writer's state of sent outcomes and ended promises.

use std::collections::HashMap;

/// Unacknowledged outcomes at which the writer pauses, about ten milliseconds of work: after an outage of the database,
/// a backlog of outcomes must not delay all new events.
const MAX_UNACKNOWLEDGED: usize = 256;

/// The state of all outcomes that were sent.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    /// Outcomes sent since the last reset and not acknowledged yet.
    n_outstanding: usize,
    /// Expired promises that have not ended, by number. Each ends when its outcome is acknowledged and its document
    /// retracted; the value says whether one of the two has happened.
    retracting: HashMap<u64, bool>,
    /// Ended promises that are not journalled as acknowledged yet.
    ended: Vec<u64>,
    /// Whether shutdown has begun: delivered outcomes may not reach their clients, which are being disconnected.
    is_ending: bool,
}

impl Acknowledgements {
    /// Whether [`MAX_UNACKNOWLEDGED`] outcomes are outstanding.
    pub(super) fn are_many_outstanding(&self) -> bool {
        self.n_outstanding >= MAX_UNACKNOWLEDGED
    }

    /// Stops waiting for the outstanding outcomes.
    pub(super) fn reset_outstanding(&mut self) {
        self.n_outstanding = 0;
    }

    /// Counts an outcome that is about to be sent.
    pub(super) fn sent(&mut self) {
        self.n_outstanding += 1;
    }

    /// Notes that the outcome of a promise was delivered.
    pub(super) fn delivered(&mut self, number: u64) {
        self.n_outstanding = self.n_outstanding.saturating_sub(1);
        if !self.is_ending {
            self.end_half(number);
        }
    }

    /// From now on delivered outcomes do not count as acknowledged: the next process sends them again.
    pub(super) fn begin_to_end(&mut self) {
        self.is_ending = true;
    }

    /// Notes expired promises, whose documents are to be retracted.
    pub(super) fn expired(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.retracting.extend(numbers.into_iter().map(|number| (number, false)));
    }

    /// Notes that the document of an expired promise was retracted, after the failure was sent to its feature.
    pub(super) fn retracted(&mut self, number: u64) {
        self.end_half(number);
    }

    fn end_half(&mut self, number: u64) {
        if let Some(is_half_ended) = self.retracting.get_mut(&number) {
            if !std::mem::replace(is_half_ended, true) {
                return;
            }
            self.retracting.remove(&number);
        }
        self.ended.push(number);
    }

    /// The promises that have ended since the last call.
    pub(super) fn take_ended(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_promise_ends_when_retracted_and_delivered() {
        for is_delivered_first in [true, false] {
            let mut acknowledgements = Acknowledgements::default();
            acknowledgements.expired([7, 8]);
            acknowledgements.delivered(9);
            if is_delivered_first {
                acknowledgements.delivered(7);
                assert_eq!(acknowledgements.take_ended(), [9]);
                acknowledgements.retracted(7);
            } else {
                acknowledgements.retracted(7);
                assert_eq!(acknowledgements.take_ended(), [9]);
                acknowledgements.delivered(7);
            }
            assert_eq!(acknowledgements.take_ended(), [7]);
        }
    }

    #[test]
    fn delivery_during_shutdown_ends_no_promise() {
        let mut acknowledgements = Acknowledgements::default();
        acknowledgements.delivered(1);
        acknowledgements.begin_to_end();
        acknowledgements.delivered(2);
        assert_eq!(acknowledgements.take_ended(), [1]);
    }
}
