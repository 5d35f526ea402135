//! `[recovery]`: the window within which a client can resume a detached connection.

use std::time::Duration;

use serde::Deserialize;

use crate::config::values::check_duration;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RecoverySection {
    #[serde(with = "humantime_serde")]
    pub(in crate::config) window: Duration,
    pub(in crate::config) memory_bytes: usize,
}

impl Default for RecoverySection {
    fn default() -> Self {
        Self { window: Duration::from_secs(120), memory_bytes: 268_435_456 }
    }
}

impl RecoverySection {
    /// # Errors
    /// Where the window is too long.
    pub(in crate::config) fn check(&self) -> anyhow::Result<()> {
        check_duration("recovery.window", self.window, Duration::ZERO)
    }
}
