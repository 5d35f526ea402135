//! Failures of a database, and of what the store was asked for.

use super::page::PageRequest;
use crate::model::{ErrorCode, Failure};

/// Why a database did nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackendError {
    /// It refuses this, and always will.
    #[error("{0}")]
    Refused(String),
    /// It is unavailable, and may do this later.
    #[error("{0}")]
    Unavailable(String),
}

/// Why something was not stored, or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFailure {
    /// Which of the known kinds.
    pub code: ErrorCode,
    /// Why.
    pub message: String,
    /// Whether the same may succeed later.
    pub retryable: bool,
}

impl StoreFailure {
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::FeatureUnavailable, message: message.into(), retryable: true }
    }

    /// A refusal that does not last.
    pub(super) fn retryable(Failure { code, message }: Failure) -> Self {
        Self { code, message, retryable: true }
    }

    pub(super) fn no_such(request: &PageRequest) -> Self {
        let before = request.before.as_deref().unwrap_or_default();
        let message = format!("there is no document {before:?} here");
        Self { code: ErrorCode::NotFound, message, retryable: false }
    }

    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::BadRequest, message: message.into(), retryable: false }
    }
}

impl From<StoreFailure> for Failure {
    fn from(failure: StoreFailure) -> Self {
        Self { code: failure.code, message: failure.message }
    }
}

impl From<BackendError> for StoreFailure {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Refused(why) => Self::refused(why),
            BackendError::Unavailable(why) => Self::unavailable(format!("the store cannot be read: {why}")),
        }
    }
}
