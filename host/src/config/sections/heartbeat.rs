//! `[heartbeat]`: the interval of pings, and the timeout of silent clients.

use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;

use crate::config::values::check_duration;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct HeartbeatSection {
    #[serde(with = "humantime_serde")]
    pub(in crate::config) interval: Duration,
    #[serde(with = "humantime_serde")]
    pub(in crate::config) timeout: Duration,
}

impl Default for HeartbeatSection {
    fn default() -> Self {
        Self { interval: Duration::from_secs(25), timeout: Duration::from_secs(60) }
    }
}

impl HeartbeatSection {
    /// # Errors
    /// Where a time is too short or too long, or every connection would time out.
    pub(in crate::config) fn check(&self) -> anyhow::Result<()> {
        check_duration("heartbeat.interval", self.interval, Duration::from_millis(10))?;
        check_duration("heartbeat.timeout", self.timeout, Duration::from_millis(10))?;
        ensure!(
            self.timeout > self.interval,
            "heartbeat.timeout must be longer than heartbeat.interval, or every connection would time out"
        );
        Ok(())
    }
}
