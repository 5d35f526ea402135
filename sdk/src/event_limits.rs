//! What an event's payload may have, as a manifest says it.

use serde::Serialize;

/// What an event's payload may have at most. The host counts before anything of it is queued, and a sender whose payload has
/// more gets `too_large`. What is left open is the host's to bound: 16,384 values and keys, a depth of 64, and the longest
/// message that it takes.
///
/// By default, which is what the events of clients may have that say nothing else, it is 64 KiB, 1,024 values, 1,024 keys
/// and a depth of 16: as much as a form, and so little that no feature comes near its deadline by it.
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
    /// Bytes of the arguments, as JSON text, and of the attachments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    /// JSON values at any depth, each argument, array and object among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<u32>,
    /// Fields of objects, at any depth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<u32>,
    /// Arrays and objects that are within each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self { bytes: Some(64 * 1024), values: Some(1024), keys: Some(1024), depth: Some(16) }
    }
}

impl EventLimits {
    /// What the host bounds by itself, as it does for the events of services that say nothing else.
    #[must_use]
    pub fn of_host() -> Self {
        Self { bytes: None, values: None, keys: None, depth: None }
    }

    /// As many of everything as the longest message can have, for a feature that passes payloads on without a look at them.
    #[must_use]
    pub fn unbounded() -> Self {
        let most = Some(u32::MAX);
        Self { bytes: most, values: most, keys: most, depth: most }
    }

    /// So many bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: u32) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// So many values.
    #[must_use]
    pub fn values(mut self, values: u32) -> Self {
        self.values = Some(values);
        self
    }

    /// So many keys.
    #[must_use]
    pub fn keys(mut self, keys: u32) -> Self {
        self.keys = Some(keys);
        self
    }

    /// So deep.
    #[must_use]
    pub fn depth(mut self, depth: u32) -> Self {
        self.depth = Some(depth);
        self
    }
}
