//! What stands in front of the host: how it leaves a load balancer when it ends, and what it holds of strangers.

use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;

use super::check_duration;
use super::file::Limits;

/// How long each step of the end of the host takes.
#[derive(Debug, Clone, Copy)]
pub struct ShutdownConfig {
    /// Time between the moment when `/readyz` says no and the one when the listener closes.
    pub delay: Duration,
    /// Time over which the connections are closed.
    pub drain: Duration,
}

/// `[shutdown]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ShutdownSection {
    #[serde(with = "humantime_serde")]
    delay: Duration,
    #[serde(with = "humantime_serde")]
    drain: Duration,
    #[serde(with = "humantime_serde")]
    pub(super) timeout: Duration,
}

impl Default for ShutdownSection {
    fn default() -> Self {
        Self { delay: Duration::ZERO, drain: Duration::ZERO, timeout: Duration::from_secs(10) }
    }
}

impl ShutdownSection {
    /// # Errors
    /// Where a time is too long.
    pub(super) fn check(&self) -> anyhow::Result<ShutdownConfig> {
        check_duration("shutdown.delay", self.delay, Duration::ZERO)?;
        check_duration("shutdown.drain", self.drain, Duration::ZERO)?;
        check_duration("shutdown.timeout", self.timeout, Duration::ZERO)?;
        Ok(ShutdownConfig { delay: self.delay, drain: self.drain })
    }
}

/// What may be held of that which is not whole, where nothing is configured, in bytes: of clients, and of the API's callers.
/// Some thousands of handshakes and some dozens of the largest messages; some of the largest components. A small machine has it.
const UNFINISHED_BYTES: usize = 64 * 1024 * 1024;
const API_BYTES: usize = 128 * 1024 * 1024;

/// The longest messages that there must be room for, each with its base64 and a buffer that has grown ahead of it: with less
/// one client could keep others from finishing theirs.
const LEAST_MESSAGES: usize = 4;

/// The longest request of a service, of which there must be room for as many.
const API_REQUEST_BYTES: usize = 1_000_000;

impl Limits {
    /// What may be held of clients' messages and requests that are not whole.
    ///
    /// # Errors
    /// Where that is too little.
    pub(super) fn unfinished_bytes(&self) -> anyhow::Result<usize> {
        let least = self.message_bytes.saturating_mul(LEAST_MESSAGES);
        let bytes = self.unfinished_bytes.unwrap_or(UNFINISHED_BYTES.max(least));
        ensure!(
            bytes >= least,
            "limits.unfinished_bytes is {bytes}, and must be {least}, for {LEAST_MESSAGES} of limits.message_bytes, or more"
        );
        Ok(bytes)
    }

    /// What may be held of the API's requests.
    ///
    /// # Errors
    /// Where that is too little.
    pub(super) fn api_bytes(&self) -> anyhow::Result<usize> {
        let least = API_REQUEST_BYTES * LEAST_MESSAGES;
        let bytes = self.api_bytes.unwrap_or(API_BYTES);
        ensure!(bytes >= least, "limits.api_bytes is {bytes}, and must be {least} or more");
        Ok(bytes)
    }
}
