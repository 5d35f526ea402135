//! Limits of events' payloads in a manifest.

use serde::Serialize;

/// Limits of an event's payload. The host checks them before it queues the event, and refuses a larger payload with
/// `too_large`. A limit that is `None` is the host's: 16,384 values and keys, a depth of 64, and the longest message that it
/// accepts.
///
/// The default, which holds for events of clients without limits of their own, is 64 KiB, 1,024 values, 1,024 keys and a
/// depth of 16: enough for a form, and too little to bring a feature near its deadline.
///
/// ```
/// use roundhouse_sdk::{EventLimits, Scope};
///
/// Scope::volatile("room:{roomId}")
///     .from_clients(["join", "say"])
///     .limits(["say"], EventLimits::default().bytes(256 * 1024).values(64));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EventLimits {
    /// The size of the arguments as JSON text and of the attachments, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    /// The number of JSON values at any depth; each argument, array and object counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<u32>,
    /// The number of objects' fields, at any depth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<u32>,
    /// The number of arrays and objects within each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self { bytes: Some(64 * 1024), values: Some(1024), keys: Some(1024), depth: Some(16) }
    }
}

impl EventLimits {
    /// The host's limits, which apply to events of services without limits of their own.
    #[must_use]
    pub fn of_host() -> Self {
        Self { bytes: None, values: None, keys: None, depth: None }
    }

    /// No limits but the host's longest message, for a feature that passes payloads on unread.
    #[must_use]
    pub fn unbounded() -> Self {
        let most = Some(u32::MAX);
        Self { bytes: most, values: most, keys: most, depth: most }
    }

    /// Sets the greatest number of bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: u32) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Sets the greatest number of values.
    #[must_use]
    pub fn values(mut self, values: u32) -> Self {
        self.values = Some(values);
        self
    }

    /// Sets the greatest number of keys.
    #[must_use]
    pub fn keys(mut self, keys: u32) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Sets the greatest depth.
    #[must_use]
    pub fn depth(mut self, depth: u32) -> Self {
        self.depth = Some(depth);
        self
    }
}
