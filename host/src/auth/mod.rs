//! Authentication: verification of tokens, which yields a session with an identity, or a refusal.
//!
//! - `authenticator`: the interface; `session`: the outcomes
//! - `jwt`, `claims`: a token's signature, and its content
//! - `keys`: what checks signatures; `jwks`: keys by URL
//! - `cookie_session`: sessions in a cookie, which the operator's endpoint checks
//! - `blocks`: users, sessions and tokens that operators keep out
//! - `presented`: the tokens that a client presents in several places

mod authenticator;
mod blocks;
mod claims;
mod cookie_session;
mod jwks;
mod jwt;
mod keys;
mod presented;
mod session;

pub use authenticator::{AuthConfig, Authenticator};
pub use blocks::{Block, BlockSubject, Blocks, MAX_BLOCKS, TooManyBlocks};
pub use claims::{ClaimNames, Claims};
pub use cookie_session::{
    CookieSessionConfig, CookieSessions, SessionChanges, SessionFields, SessionHandle, SessionMetrics,
};
pub use jwks::JwksMetrics;
pub use jwt::{JwtConfig, sign};
pub use keys::VerificationKey;
pub use presented::{MAX_PRESENTED_TOKENS, Place, PresentedSession, PresentedToken, Refusal, RefusalKind};
pub use session::{AuthError, CredentialIds, Session};
