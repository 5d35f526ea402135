//! A listener that fails to accept.

use std::io;
use std::time::Duration;

use crate::model::LogLimit;

/// Pause after a failed accept, which happens when the process is out of file descriptors.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Logs a failed accept, within `limit`, and pauses for [`PAUSE_AFTER_ERROR`].
pub async fn accept_failed(error: &io::Error, whose: &str, limit: &mut LogLimit) {
    if let Some(left_out) = limit.ask() {
        tracing::warn!(%error, left_out, "cannot accept the connection of {whose}");
    }
    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
}
