//! Failures of a database, and of the store's operations.

use super::page::PageRequest;
use crate::model::{ErrorCode, Failure};

/// A failure of a database operation.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackendError {
    /// The database refuses the operation permanently.
    #[error("{0}")]
    Refused(String),
    /// The database is unavailable; a repetition may succeed.
    #[error("{0}")]
    Unavailable(String),
}

/// A failure to store or to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFailure {
    /// The kind of failure.
    pub code: ErrorCode,
    /// The reason, for the reader.
    pub message: String,
    /// Whether a repetition may succeed.
    pub retryable: bool,
}

impl StoreFailure {
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::FeatureUnavailable, message: message.into(), retryable: true }
    }

    /// A failure whose repetition may succeed.
    pub(super) fn retryable(Failure { code, message, .. }: Failure) -> Self {
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
        Self::new(failure.code, failure.message)
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
