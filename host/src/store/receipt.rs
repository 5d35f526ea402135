//! The signals by which other threads reach the writer without waiting.

use std::sync::{Arc, mpsc};

use super::promise::Promise;
use crate::ledger::Charge;

/// A message to the writer. Sending one never waits: it may come from a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// The queue was filled or stopped, or the clock was moved.
    Wake,
    /// The outcome of the promise of this number has been delivered.
    Delivered(u64),
    /// Outcomes that are delivered from now on are not acknowledged: their clients are being disconnected.
    Ending,
}

/// Acknowledges the outcome of a promise when the last clone is dropped, which is when every shard has written the events
/// that the outcome led to. That is a number sent to the writer, which writes the journal.
#[derive(Debug, Clone)]
pub struct DeliveryReceipt(#[expect(dead_code, reason = "it is there to be dropped")] Arc<Receipt>);

impl DeliveryReceipt {
    pub(super) fn new(promise: &Promise, writer: mpsc::Sender<Signal>) -> Self {
        Self(Arc::new(Receipt { number: promise.number, writer, _charge: promise.charge.clone() }))
    }
}

#[derive(Debug)]
struct Receipt {
    number: u64,
    writer: mpsc::Sender<Signal>,
    _charge: Option<Arc<Charge>>,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        // Without a writer the process ends, and the next one sends the outcome again.
        let _ = self.writer.send(Signal::Delivered(self.number));
    }
}
