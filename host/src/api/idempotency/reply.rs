//! The answer of a call, in the form that is remembered.

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
    /// The answer of a successful call.
    pub(in crate::api) fn of(answer: &impl Serialize) -> Self {
        // Answers are plain structs, which always have a JSON form.
        Self { status: StatusCode::OK, body: serde_json::to_vec(answer).unwrap_or_default().into() }
    }

    /// Whether the call had an effect, and must not be repeated. A refused call had none, and its repetition may
    /// succeed, for example once the feature is loaded.
    pub(super) fn has_effect(&self) -> bool {
        self.status == StatusCode::OK
    }
}
