//! The outcome of authentication.

use std::sync::Arc;

use crate::model::Identity;

/// An authenticated client.
#[derive(Debug, Clone)]
pub struct Session {
    /// The user.
    pub identity: Arc<Identity>,
    /// The token's expiry, in milliseconds since 1970; `None` is never.
    pub expires_ms: Option<u64>,
    /// The time of the token's issue (`iat`), in milliseconds since 1970.
    pub issued_ms: Option<u64>,
    /// The token's id (`jti`), by which operators block it.
    pub token_id: Option<Box<str>>,
    /// The id of the user's session (`sid`), by which operators block it.
    pub session_id: Option<Box<str>>,
    /// Whether the client had no token, so that the user is named after the connection.
    pub is_anonymous: bool,
}

/// The reason for which a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token has expired.
    #[error("the token has expired: get a new one and connect again")]
    Expired,
    /// The token is malformed, forged or for another host.
    #[error("the token is not valid: {0}")]
    Invalid(String),
}
