//! The outcome of authentication.

use std::sync::Arc;

use super::cookie_session::SessionHandle;
use crate::model::Identity;

/// An authenticated client.
#[derive(Debug, Clone)]
pub struct Session {
    /// The user.
    pub identity: Arc<Identity>,
    /// The token's expiry, in milliseconds since 1970; `None` is never.
    pub expires_ms: Option<u64>,
    /// What identifies the credential, where it says anything.
    pub credential: Option<Arc<CredentialIds>>,
    /// Whether the client had no token, so that the user is named after the connection.
    pub is_anonymous: bool,
}

/// What identifies a credential. Operators block by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialIds {
    /// The time of its issue (`iat`), in milliseconds since 1970.
    pub issued_ms: Option<u64>,
    /// The token's id (`jti`).
    pub token_id: Option<Box<str>>,
    /// The id of the user's session (`sid`).
    pub session_id: Option<Box<str>>,
    /// The cookie's session, where the credential is one.
    pub cookie_session: Option<SessionHandle>,
}

impl CredentialIds {
    /// These ids; `None` where there are none.
    pub fn shared(self) -> Option<Arc<Self>> {
        (self != Self::default()).then(|| Arc::new(self))
    }
}

/// The reason for which a token or session was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token has expired.
    #[error("the token has expired: get a new one and connect again")]
    Expired,
    /// The key that signed the token is not known yet. The set of keys is fetched again.
    #[error("the token's key is not known yet: connect again")]
    KeyUnknown,
    /// There is no session of the cookie, or it has ended.
    #[error("the session of the cookie has ended, or there is none: log in and connect again")]
    SessionEnded,
    /// The endpoint of sessions gave no answer.
    #[error("the session of the cookie cannot be checked now: {0}; connect again in some seconds")]
    SessionUnknown(String),
    /// An operator keeps the client out.
    #[error("{0}")]
    Blocked(String),
    /// The token is malformed, forged or for another host.
    #[error("the token is not valid: {0}")]
    Invalid(String),
}
