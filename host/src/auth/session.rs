//! The outcome of authentication.

use std::sync::Arc;

use crate::model::Identity;

/// An authenticated client.
#[derive(Debug, Clone)]
pub struct Session {
    /// The user.
    pub identity: Arc<Identity>,
    /// Until when the token is valid, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Whether there was no token, and the user is a name for one connection.
    pub is_anonymous: bool,
}

/// Why a client was not authenticated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token was valid once.
    #[error("the token has expired: get a new one and connect again")]
    Expired,
    /// The token is malformed, forged or for another host.
    #[error("the token is not valid: {0}")]
    Invalid(String),
}
