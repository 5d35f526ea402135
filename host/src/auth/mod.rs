//! Who may connect: a token is turned into an identity, or into the reason why not.

mod claims;
mod jwt;
mod shown;

use std::net::IpAddr;
use std::sync::Arc;

pub use claims::Claims;
pub use jwt::{JwtConfig, sign};
pub use shown::{MAX_SHOWN, Place, Refusal, Shown};

use crate::model::{Clock, ConnId, Identity};

/// How connections are authenticated.
#[derive(Debug, Clone, Default)]
pub struct AuthConfig {
    /// Whether a connection may do without a token.
    pub anonymous: bool,
    /// The tokens that are believed.
    pub jwt: JwtConfig,
}

/// Somebody who has been authenticated.
#[derive(Debug, Clone)]
pub struct Session {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Until when the token is valid, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Whether there was no token, so that the user is but a name for one connection.
    pub is_anonymous: bool,
}

/// Why somebody was not authenticated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token was valid once.
    #[error("the token has expired: get a new one and connect again")]
    Expired,
    /// There is a token, but it is not to be believed.
    #[error("the token is not valid: {0}")]
    Invalid(String),
}

/// Checks tokens.
#[derive(Debug)]
pub struct Authenticator {
    anonymous: bool,
    jwt: jwt::Verifier,
    clock: Clock,
}

impl Authenticator {
    /// An authenticator of this configuration.
    pub fn new(config: AuthConfig, clock: Clock) -> Self {
        Self { anonymous: config.anonymous, jwt: jwt::Verifier::new(&config.jwt), clock }
    }

    /// Whether tokens mean anything here. They do not where everybody may connect and there is nothing to check them by.
    pub fn looks_at_tokens(&self) -> bool {
        !self.anonymous || self.jwt.has_secrets()
    }

    /// Who presents `token`.
    ///
    /// # Errors
    /// Where the token has expired, or is not valid for another reason.
    pub fn verify(&self, token: &str) -> Result<Session, AuthError> {
        self.jwt.verify(token, self.clock.wall_ms())
    }

    /// The name of a connection without a token, where that is allowed.
    pub fn anonymous_name(&self, connection: ConnId) -> Option<String> {
        self.anonymous.then(|| format!("anonymous-{connection}"))
    }

    /// The identity of a connection without a token from this address, where that is allowed.
    pub fn anonymous(&self, connection: ConnId, address: IpAddr) -> Option<Session> {
        self.anonymous_name(connection).map(|name| Session {
            identity: Arc::new(Identity::anonymous(name, address)),
            expires_ms: None,
            is_anonymous: true,
        })
    }
}
