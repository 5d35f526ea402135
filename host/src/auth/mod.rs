//! Authentication: a token becomes a session of an identity, or the reason why not.
//!
//! - `authenticator`: the face; `session`: the outcomes
//! - `jwt`, `claims`: a token's signature, and its content
//! - `shown`: the tokens that a client shows in several places

mod authenticator;
mod claims;
mod jwt;
mod session;
mod shown;

pub use authenticator::{AuthConfig, Authenticator};
pub use claims::Claims;
pub use jwt::{JwtConfig, sign};
pub use session::{AuthError, Session};
pub use shown::{MAX_SHOWN, Place, Refusal, Shown};
