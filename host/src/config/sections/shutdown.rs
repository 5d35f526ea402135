//! `[shutdown]`: the times of a shutdown.

use std::time::Duration;

use serde::Deserialize;

use crate::config::values::check_duration;

/// The time of each step of a shutdown.
#[derive(Debug, Clone, Copy)]
pub struct ShutdownConfig {
    /// Time from when `/readyz` answers 503 until the listener closes.
    pub delay: Duration,
    /// Time over which the connections are closed.
    pub drain: Duration,
}

/// `[shutdown]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ShutdownSection {
    #[serde(with = "humantime_serde")]
    delay: Duration,
    #[serde(with = "humantime_serde")]
    drain: Duration,
    #[serde(with = "humantime_serde")]
    pub(in crate::config) timeout: Duration,
}

impl Default for ShutdownSection {
    fn default() -> Self {
        Self { delay: Duration::ZERO, drain: Duration::ZERO, timeout: Duration::from_secs(10) }
    }
}

impl ShutdownSection {
    /// # Errors
    /// Where a time is too long.
    pub(in crate::config) fn check(&self) -> anyhow::Result<ShutdownConfig> {
        check_duration("shutdown.delay", self.delay, Duration::ZERO)?;
        check_duration("shutdown.drain", self.drain, Duration::ZERO)?;
        check_duration("shutdown.timeout", self.timeout, Duration::ZERO)?;
        Ok(ShutdownConfig { delay: self.delay, drain: self.drain })
    }
}
