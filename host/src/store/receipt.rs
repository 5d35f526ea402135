//! The signals to the writer, which other threads send without waiting.

use std::sync::{Arc, mpsc};

use super::promise::Promise;
use crate::ledger::Charge;

/// A message to the writer. Sending never waits, so shards may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// The queue was filled or stopped, or the clock was moved.
    Wake,
    /// The outcome of the promise of this number was delivered.
    Delivered(u64),
    /// Outcomes delivered from now on do not count as acknowledged: their clients are being disconnected.
    Ending,
}

/// Acknowledges the outcome of a promise when the last clone is dropped, after every shard has written the events that
/// the outcome led to. The drop sends the promise's number to the writer, which writes the journal.
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
        // Without a writer the process is ending, and the next one sends the outcome again.
        let _ = self.writer.send(Signal::Delivered(self.number));
    }
}
