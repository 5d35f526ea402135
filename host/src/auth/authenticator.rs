//! The authenticator: tokens in, sessions out.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::Uri;

use super::blocks::Blocks;
use super::cookie_session::{CookieSessionConfig, CookieSessions, SessionHandle};
use super::jwks::{Jwks, JwksMetrics};
use super::jwt::{CheckBudget, JwtConfig, Verifier};
use super::session::{AuthError, Session};
use crate::model::{Clock, ConnId, Identity};
use crate::outbound::Outbound;

/// How connections are authenticated.
#[derive(Debug, Clone, Default)]
pub struct AuthConfig {
    /// Whether clients may connect without a token.
    pub anonymous: bool,
    /// The tokens that are valid.
    pub jwt: JwtConfig,
    /// Sessions in a cookie, where there are such.
    pub session: Option<CookieSessionConfig>,
}

impl AuthConfig {
    /// Whether nothing is configured by which clients could be authenticated.
    pub fn has_no_source(&self) -> bool {
        self.jwt.has_no_key() && self.session.is_none()
    }
}

/// Checks tokens.
#[derive(Debug)]
pub struct Authenticator {
    anonymous: bool,
    jwt: Verifier,
    sessions: Option<CookieSessions>,
    blocks: Blocks,
    clock: Clock,
}

impl Authenticator {
    /// An authenticator of this configuration, which refuses those whom `blocks` keeps out.
    pub fn new(config: AuthConfig, blocks: Blocks, clock: Clock) -> Self {
        Self { anonymous: config.anonymous, jwt: Verifier::new(&config.jwt, None), sessions: None, blocks, clock }
    }

    /// Fetches the key set of a URL, and checks tokens by its keys too. Waits for it for a bounded time.
    pub fn fetch_keys(&mut self, url: &Uri, config: &JwtConfig, outbound: &Outbound, metrics: JwksMetrics) {
        let jwks = Jwks::start(url.clone(), config.algorithms.clone(), outbound, self.clock.clone(), metrics);
        self.jwt = Verifier::new(config, Some(jwks));
    }

    /// Takes sessions in a cookie as credentials.
    pub fn accept_sessions(&mut self, sessions: CookieSessions) {
        self.sessions = Some(sessions);
    }

    /// The sessions in a cookie, where the configuration names an endpoint for them.
    pub fn sessions(&self) -> Option<&CookieSessions> {
        self.sessions.as_ref()
    }

    /// Whether clients may connect without credentials.
    pub(super) fn allows_anonymous(&self) -> bool {
        self.anonymous
    }

    /// The blocks in force.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Whether a check of a token may take milliseconds: where there are public keys.
    pub fn has_costly_checks(&self) -> bool {
        self.jwt.has_public_keys()
    }

    /// Whether tokens are checked: not where anonymous clients may connect and no secret or key is configured.
    pub(super) fn checks_tokens(&self) -> bool {
        !self.anonymous || self.jwt.has_keys()
    }

    /// The session of a token.
    ///
    /// # Errors
    /// Where the token has expired, is not valid for another reason, or is blocked.
    pub fn verify(&self, token: &str) -> Result<Session, AuthError> {
        self.verify_within(&mut CheckBudget::default(), token)
    }

    /// As [`Authenticator::verify`], within what the request may still cost.
    pub(super) fn verify_within(&self, budget: &mut CheckBudget, token: &str) -> Result<Session, AuthError> {
        let session = self.jwt.verify_within(budget, token, self.clock.wall_ms())?;
        self.admit(&session)?;
        Ok(session)
    }

    /// Admits a session that was signed in a while ago: a block may have come meanwhile, and the session of a cookie may have
    /// changed or ended.
    ///
    /// # Errors
    /// Where it is blocked, or has ended.
    pub fn readmit(&self, session: Session) -> Result<Session, AuthError> {
        let handle = session.credential.as_deref().and_then(|ids| ids.cookie_session.clone());
        let Some(handle) = handle else { return self.admit(&session).map(|()| session) };
        let now = self.session_of(&handle)?;
        if now.identity.user == session.identity.user { Ok(now) } else { Err(AuthError::SessionEnded) }
    }

    /// The session of a cookie that was checked.
    ///
    /// # Errors
    /// Where it has ended since, or is blocked.
    pub(super) fn session_of(&self, handle: &SessionHandle) -> Result<Session, AuthError> {
        let sessions = self.sessions.as_ref().ok_or(AuthError::SessionEnded)?;
        let session = sessions.session(handle)?;
        self.admit(&session)?;
        Ok(session)
    }

    /// Admits a session that no block keeps out.
    ///
    /// # Errors
    /// Where one does.
    pub fn admit(&self, session: &Session) -> Result<(), AuthError> {
        match self.blocks.find(session, self.clock.wall_ms()) {
            Some(block) => Err(AuthError::Blocked(block.refusal())),
            None => Ok(()),
        }
    }

    /// The anonymous user's name for a connection without a token; `None` where a token is required.
    pub fn anonymous_name(&self, connection: ConnId) -> Option<String> {
        self.anonymous.then(|| format!("anonymous-{connection}"))
    }

    /// The session of a connection without a token from this address; `None` where a token is required.
    pub fn anonymous(&self, connection: ConnId, address: IpAddr) -> Option<Session> {
        self.anonymous_name(connection).map(|name| Session {
            identity: Arc::new(Identity::anonymous(name, address)),
            expires_ms: None,
            credential: None,
            is_anonymous: true,
        })
    }
}
