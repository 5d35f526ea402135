//! The answer of a call, as it is remembered.

use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;

/// A status and a body of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct Reply {
    pub(in crate::api) status: StatusCode,
    pub(in crate::api) body: Bytes,
}

impl Reply {
    /// The answer of a call that went well.
    pub(in crate::api) fn of(answer: &impl Serialize) -> Self {
        // Answers are plain structs, which always have a JSON form.
        Self { status: StatusCode::OK, body: serde_json::to_vec(answer).unwrap_or_default().into() }
    }

    /// Whether the call changed something, and must not be done again. A refusal changed nothing, and a repetition may
    /// succeed: the feature may be loaded by then, or the campaign begun.
    pub(super) fn has_effect(&self) -> bool {
        self.status == StatusCode::OK
    }
}
