//! A listener that fails to accept.

use std::io;
use std::time::Duration;

use crate::model::LogLimit;

/// Pause after a failed accept, as happens when the process is out of file descriptors.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Logs that a connection could not be accepted, within `limit`, and pauses.
pub async fn accept_failed(error: &io::Error, whose: &str, limit: &mut LogLimit) {
    if let Some(left_out) = limit.ask() {
        tracing::warn!(%error, left_out, "cannot accept the connection of {whose}");
    }
    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
}
