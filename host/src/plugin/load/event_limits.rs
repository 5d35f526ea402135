//! The check of a payload against the bounds of its event, before anything of it is queued.

use std::time::Instant;

use roundhouse_contract::PayloadBounds;

use super::catalogue::Plugin;
use crate::hub::WakeBatch;
use crate::model::{ConnId, ErrorCode, Failure, Payload};
use crate::plugin::event::ReplyTo;
use crate::plugin::runtime::Inner;

/// The event that a client's error names where its answer to an acknowledgement is too large.
const ACKNOWLEDGEMENT: &str = "acknowledgement";

impl Inner {
    /// Checks a payload before it is queued.
    ///
    /// # Errors
    /// With `too_large` where it has more than it may.
    pub(crate) fn check_limits(&self, limits: &PayloadBounds, event: &str, payload: &Payload) -> Result<(), Failure> {
        let attached = payload.attachments.iter().map(bytes::Bytes::len).sum();
        limits.check(event, payload.args(), attached).map_err(|why| {
            self.metrics.events_over_limits.inc();
            Failure::new(ErrorCode::TooLarge, why)
        })
    }

    /// Checks a client's answer to an acknowledgement. One that is too large is missing for the feature, and its client gets an
    /// error.
    pub(crate) fn checked_answer(
        &self,
        plugin: &Plugin,
        connection: ConnId,
        payload: Payload,
    ) -> Result<Payload, &'static str> {
        let limits = plugin.current().manifest.limits.of_others();
        match self.check_limits(&limits, ACKNOWLEDGEMENT, &payload) {
            Ok(()) => Ok(payload),
            Err(failure) => {
                let reply = ReplyTo::Client { connection, id: None, read_at: Instant::now() };
                self.answer(ACKNOWLEDGEMENT, reply, Err(failure), &WakeBatch::default());
                Err(ErrorCode::TooLarge.as_str())
            }
        }
    }
}
